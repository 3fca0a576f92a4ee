"""The application access token, as the token endpoint issues it and as consumers read it."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Self

from rotate_token.json_object import parse_json_object

DOCUMENTED_LIFETIME_SECONDS = 3600
"""The documented lifetime; assumed if a response has no expires_in."""

LONGEST_TOKEN = 60_000
"""In characters; fits into a secret (65,536 bytes) together with the other fields."""

_BEARER_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_TEN_DIGITS = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True)
class AccessToken:
    """
    A bearer token with its lifetime; every instance satisfies the contract with consumers.

    The token is hidden from the repr.

    Attributes:
        access_token: The token, in the characters that RFC 6750 section 2.1 allows.
        expires_in: Its lifetime in seconds, as issued.
        issued_at: Unix time in seconds, taken just before the token was requested.
        is_lifetime_assumed: Whether the response had no ``expires_in``.

    Raises:
        ValueError: An attribute is unusable; the message names it and does not show its value.
    """

    access_token: str = field(repr=False)
    expires_in: int
    issued_at: int
    is_lifetime_assumed: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.access_token, str) or not _BEARER_TOKEN.fullmatch(self.access_token):
            raise ValueError("its access_token is missing or not a bearer token")
        if len(self.access_token) > LONGEST_TOKEN:
            raise ValueError(f"its access_token is longer than {LONGEST_TOKEN} characters")
        for name in ("expires_in", "issued_at"):
            value = getattr(self, name)
            if type(value) is not int or not 0 < value < 10**10:
                raise ValueError(f"its {name} is not a positive integer of at most ten digits")

    @property
    def expires_at(self) -> int:
        """Unix time in seconds from which the token is no longer valid."""
        return self.issued_at + self.expires_in

    @classmethod
    def from_response(cls, response: dict[str, Any], issued_at: int) -> Self:
        """
        Read a token response (RFC 6749 section 5.1); unknown fields are ignored.

        ``expires_in`` is optional: without it, the documented lifetime is assumed. A fraction of a
        second is dropped.

        Raises:
            ValueError: The response contains no usable token; the message says why.
        """
        if str(response.get("token_type")).lower() != "bearer":
            raise ValueError("its token_type is missing or not Bearer")
        expires_in: Any = response.get("expires_in")
        is_assumed = expires_in is None
        if is_assumed:
            expires_in = DOCUMENTED_LIFETIME_SECONDS
        elif (isinstance(expires_in, str) and _TEN_DIGITS.fullmatch(expires_in)) or (
            isinstance(expires_in, float) and math.isfinite(expires_in)
        ):
            expires_in = int(expires_in)
        return cls(response.get("access_token", ""), expires_in, issued_at, is_assumed)

    @classmethod
    def from_json(cls, document: str) -> Self:
        """
        Read a document that `to_json` wrote; unknown fields are ignored.

        Raises:
            ValueError: The document is not valid; the message says why, and shows none of it.
        """
        fields = parse_json_object(document)
        token = cls(
            fields.get("access_token", ""), fields.get("expires_in", 0), fields.get("issued_at", 0)
        )
        if not token._document().items() <= fields.items():
            raise ValueError(
                "its token_type is not Bearer, or its expires_at is not issued_at + expires_in"
            )
        return token

    def to_json(self) -> str:
        """Write the document that consumers read."""
        return json.dumps(self._document())

    def _document(self) -> dict[str, str | int]:
        return {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
        }
