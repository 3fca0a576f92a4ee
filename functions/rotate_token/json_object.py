"""The JSON parser for untrusted text."""

import json
from typing import Any


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """
    Parse a JSON object.

    Raises:
        ValueError: It is not a JSON object; the message contains none of the text.
    """
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("the value is not a JSON object")  # noqa: TRY004 (the text is at fault)
    return value
