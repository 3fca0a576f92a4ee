"""The application access token, as the token endpoint issues it and as consumers read it."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Self

from rotate_token.json_object import parse_json_object

DOCUMENTED_LIFETIME_SECONDS = 3600
"""The documented lifetime; assumed if a response has no expires_in."""

LONGEST_TOKEN_CHARACTERS = 60_000
"""Fits into a secret (65,536 bytes) together with the other fields."""

_BEARER_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_SECONDS = re.compile(r"[0-9]{1,10}")


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
            raise ValueError("access_token is missing or not a bearer token")
        if len(self.access_token) > LONGEST_TOKEN_CHARACTERS:
            raise ValueError(f"access_token is longer than {LONGEST_TOKEN_CHARACTERS} characters")
        for name in ("expires_in", "issued_at"):
            value = getattr(self, name)
            if type(value) is not int or not 0 < value < 10**10:
                raise ValueError(f"{name} is not a positive integer of at most ten digits")

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
        """
        if str(response.get("token_type")).lower() != "bearer":
            raise ValueError("token_type is missing or not Bearer")
        expires_in = response.get("expires_in")
        return cls(
            response.get("access_token", ""),
            DOCUMENTED_LIFETIME_SECONDS if expires_in is None else _whole_seconds(expires_in),
            issued_at,
            is_lifetime_assumed=expires_in is None,
        )

    @classmethod
    def from_json(cls, document: str) -> Self:
        """Read a document that `to_json` wrote; unknown fields are ignored."""
        fields = parse_json_object(document)
        token = cls(
            fields.get("access_token", ""), fields.get("expires_in", 0), fields.get("issued_at", 0)
        )
        if fields.get("token_type") != "Bearer":
            raise ValueError("token_type is not Bearer")
        if fields.get("expires_at") != token.expires_at:
            raise ValueError("expires_at is not issued_at + expires_in")
        return token

    def to_json(self) -> str:
        """Write the document that consumers read."""
        return json.dumps(
            {
                "access_token": self.access_token,
                "token_type": "Bearer",
                "expires_in": self.expires_in,
                "issued_at": self.issued_at,
                "expires_at": self.expires_at,
            }
        )


def _whole_seconds(value: Any) -> Any:  # noqa: ANN401 (JSON is of any type)
    """Read a number of seconds, also one in a string, without its fraction; leave anything else."""
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    return value
