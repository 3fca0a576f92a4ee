"""AccessToken."""

import json
from typing import Any

import pytest

from rotate_token.access_token import LONGEST_TOKEN_CHARACTERS, AccessToken

RESPONSE: dict[str, Any] = {
    "access_token": "eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl",
    "token_type": "bearer",
    "expires_in": 3600,
}
DOCUMENT = {
    **RESPONSE,
    "token_type": "Bearer",
    "issued_at": 1_800_000_000,
    "expires_at": 1_800_003_600,
}
TOKEN = AccessToken("eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl", expires_in=3600, issued_at=1_800_000_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"token_type": "BEARER"},
        {"expires_in": "3600"},
        {"expires_in": 3600.7},
        {"expires_in": None},
        {"scope": "read"},
    ],
)
def test_from_response(changes: dict[str, object]) -> None:
    """Variants of a token response are accepted; without expires_in, an hour is assumed."""
    assert AccessToken.from_response({**RESPONSE, **changes}, issued_at=1_800_000_000) == TOKEN


UNUSABLE: dict[str, list[object]] = {
    "access_token": [
        *(None, "", 7, ["abc"], "two words", "line\nbreak", "t\u00f6ken", "=abc", "abc\n"),
        "x" * (LONGEST_TOKEN_CHARACTERS + 1),
    ],
    "token_type": [None, "", 7, "mac", "DPoP"],
    "expires_in": [
        *(0, -1, 0.5, float("nan"), float("inf"), 10**10, True),
        *("", "-1", "1e3", " 60", "3600\n", "\u0661", "1" * 5000, [60], {}),
    ],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in UNUSABLE.items() for value in values]
)
def test_unusable_response(field: str, value: Any) -> None:
    """A missing or unusable field is named, and its value is not shown."""
    with pytest.raises(ValueError, match=f"^{field} is ") as raised:
        AccessToken.from_response({**RESPONSE, field: value}, issued_at=1_800_000_000)

    assert len(str(raised.value)) < 100


def test_to_json() -> None:
    """The document has the field names of OAuth client libraries, and two Unix times."""
    assert json.loads(TOKEN.to_json()) == DOCUMENT


def test_longest() -> None:
    """The document of the longest token fits into a secret."""
    token = AccessToken("x" * LONGEST_TOKEN_CHARACTERS, 10**10 - 1, 10**10 - 1)

    assert len(token.to_json()) <= 65_536


def test_from_json() -> None:
    """A published document can be read, even if a later version has added fields."""
    assert AccessToken.from_json(json.dumps({**DOCUMENT, "scope": "read"})) == TOKEN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("access_token", None),
        ("token_type", "bearer"),
        ("expires_in", "3600"),
        ("issued_at", 1_800_000_000.5),
        ("issued_at", True),
        ("expires_at", 1_800_003_601),
        ("expires_at", []),
    ],
)
def test_unreadable(field: str, value: object) -> None:
    """A document that this function would not have published is rejected with what is wrong."""
    with pytest.raises(ValueError, match=f"^{field} is "):
        AccessToken.from_json(json.dumps({**DOCUMENT, field: value}))


def test_repr() -> None:
    """The token is hidden from the repr."""
    assert TOKEN.access_token[:8] not in repr(TOKEN)
