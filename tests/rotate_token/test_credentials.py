"""ClientCredentials."""

import json
import string
from typing import Any

import pytest

from rotate_token.credentials import ClientCredentials

CLIENT = {"client_id": "client_8f3b1c6e", "client_secret": "kYz7Q2vXw9Lr4TnB"}
CREDENTIALS = ClientCredentials("client_8f3b1c6e", "kYz7Q2vXw9Lr4TnB", "v1", "AWSCURRENT")


def test_from_json() -> None:
    """Credentials of printable ASCII are read from a JSON object; other keys are ignored."""
    text = string.printable.strip()
    client = {"client_id": text, "client_secret": f"{text} {text}"}
    document = json.dumps({**client, "note": "created in May"})

    credentials = ClientCredentials.from_json(document, "v1", "AWSCURRENT")

    assert credentials == ClientCredentials(**client, version_id="v1", staging_label="AWSCURRENT")


def test_repr() -> None:
    """The client secret is hidden from the repr."""
    assert "kYz7Q2" not in repr(CREDENTIALS)


@pytest.mark.parametrize("document", ["kYz7Q2vXw9Lr4TnB", '["kYz7Q2vXw9Lr4TnB"]', "[" * 10**5, 7])
def test_no_object(document: Any) -> None:
    """A value that is not a JSON object is rejected without showing any of it."""
    with pytest.raises(ValueError, match="^the value is not a JSON object$"):
        ClientCredentials.from_json(document, "v1", "AWSCURRENT")


@pytest.mark.parametrize("key", ["client_id", "client_secret"])
@pytest.mark.parametrize(
    "value", [None, "", 12345678, ["kYz7Q2vXw9Lr4TnB"], "kYz7Q2 ", "kYz7Q2\nkYz7Q2", "kYz7Q2\u00e9"]
)
def test_unusable(key: str, value: object) -> None:
    """A missing or unusable key is named, and its value is not shown."""
    with pytest.raises(ValueError, match=f"^{key} ") as raised:
        ClientCredentials.from_json(json.dumps({**CLIENT, key: value}), "v1", "AWSCURRENT")

    assert "kYz7Q2" not in str(raised.value)
