"""AccessToken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rotate_token.access_token import AccessToken

RESPONSE: dict[str, Any] = {
    "access_token": "eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl",
    "token_type": "bearer",
    "expires_in": 3600,
}
TOKEN = AccessToken("eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl", expires_in=3600, issued_at=1_800_000_000)


def test_from_response() -> None:
    """A token response gives a token; fields that it may have besides are ignored."""
    token = AccessToken.from_response({**RESPONSE, "scope": "read"}, issued_at=1_800_000_000)

    assert token == TOKEN
    assert token.expires_at == 1_800_003_600


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER"])
def test_token_type(token_type: str) -> None:
    """The token type is read in any case."""
    assert TOKEN == AccessToken.from_response({**RESPONSE, "token_type": token_type}, 1_800_000_000)


@pytest.mark.parametrize("expires_in", [3600, "3600", 3600.0])
def test_expires_in(expires_in: object) -> None:
    """A lifetime may come as a string, or with a fraction of nought."""
    assert TOKEN == AccessToken.from_response({**RESPONSE, "expires_in": expires_in}, 1_800_000_000)


@pytest.mark.parametrize(
    "response",
    [{**RESPONSE, "expires_in": None}, {k: v for k, v in RESPONSE.items() if k != "expires_in"}],
)
def test_no_expires_in(response: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Without a lifetime the documented one is taken, with a warning."""
    assert TOKEN == AccessToken.from_response(response, 1_800_000_000)
    assert ["The token response has no expires_in: 3600 s are assumed"] == caplog.messages


UNUSABLE: dict[str, list[object]] = {
    "access_token": [
        None,
        "",
        7,
        ["abc"],
        "two words",
        "line\nbreak",
        "t\u00f6ken",
        "=abc",
        "abc\n",
    ],
    "token_type": [None, "", 7, "mac", "DPoP"],
    "expires_in": [
        *(0, -1, 0.5, float("nan"), float("inf"), 10**10, True),
        *("", "-1", "1e3", " 60", "\u0661", "1" * 5000, [60], {}),
    ],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in UNUSABLE.items() for value in values]
)
def test_unusable_response(field: str, value: Any) -> None:
    """A field that is missing or unusable is named, and its value not shown."""
    with pytest.raises(ValueError, match=f"^its {field} is ") as raised:
        AccessToken.from_response({**RESPONSE, field: value}, 1_800_000_000)

    assert len(str(raised.value)) < 100


def test_round_trip() -> None:
    """A published document read back is equal."""
    assert TOKEN == AccessToken.from_json(TOKEN.to_json())


def test_to_json() -> None:
    """The document has the field names of OAuth client libraries, and two times."""
    assert json.loads(TOKEN.to_json()) == {
        "access_token": "eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl",
        "token_type": "Bearer",
        "expires_in": 3600,
        "issued_at": 1_800_000_000,
        "expires_at": 1_800_003_600,
    }


def test_fields_to_come() -> None:
    """A document with fields that a later version adds is read all the same."""
    assert TOKEN == AccessToken.from_json(
        json.dumps({**json.loads(TOKEN.to_json()), "scope": "read"})
    )


@pytest.mark.parametrize(
    "change",
    [
        {"access_token": None},
        {"token_type": "bearer"},
        {"expires_in": "3600"},
        {"issued_at": 1_800_000_000.5},
        {"issued_at": True},
        {"expires_at": 1_800_003_601},
        {"expires_at": []},
    ],
)
def test_unreadable(change: dict[str, object]) -> None:
    """A document that this job would not have published is refused."""
    with pytest.raises(ValueError, match="^its "):
        AccessToken.from_json(json.dumps({**json.loads(TOKEN.to_json()), **change}))


@pytest.mark.parametrize("document", ["", "eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl", "[]", "null"])
def test_no_object(document: str) -> None:
    """What is not a JSON object is refused, without a word of its content."""
    with pytest.raises(ValueError, match="^it is not a JSON object$"):
        AccessToken.from_json(document)


def test_repr() -> None:
    """The token does not show."""
    assert repr(TOKEN) == "AccessToken(expires_in=3600, issued_at=1800000000)"
