"""Property tests: any JSON gives a valid object or a typed error."""

from __future__ import annotations

import json
from typing import Any

import httpx
from hypothesis import given, settings, strategies as st

from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import RotationError
from rotate_token.token_endpoint import TokenEndpoint

URL = "https://iam.smartcar.com/oauth2/token"

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
TOKENS = st.from_regex(r"[A-Za-z0-9\-._~+/]+=*", fullmatch=True)
LIFETIMES = st.integers(min_value=1, max_value=10**10 - 1)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make objects with some of these fields, each with a valid value or any JSON."""
    return (
        st.fixed_dictionaries({}, optional={k: v | ANY_JSON for k, v in fields.items()}) | ANY_JSON
    )


@given(
    document=objects(
        access_token=TOKENS,
        token_type=st.sampled_from(["bearer", "Bearer"]),
        expires_in=LIFETIMES | LIFETIMES.map(str),
        error=st.sampled_from(["invalid_client", "server_error"]),
    ),
    status=st.sampled_from([200, 400, 401, 503]),
)
@settings(deadline=None)
def test_response(document: Any, status: int) -> None:
    """Any JSON in a response gives a token that can be published, or a typed error."""
    body = httpx.ByteStream(json.dumps(document).encode())
    transport = httpx.MockTransport(lambda _: httpx.Response(status, stream=body))
    credentials = ClientCredentials("client_8f3b1c6e", "kYz7Q2vXw9Lr4TnB", "v1")

    try:
        token = TokenEndpoint(URL, transport=transport).request_token(
            credentials, now=1_800_000_000, seconds=15
        )
    except RotationError as error:
        assert error.problem.startswith(f"{URL} answered ")
    else:
        assert status == 200
        assert token.access_token == document["access_token"]
        assert AccessToken.from_json(token.to_json()) == token


@given(
    objects(
        access_token=TOKENS,
        token_type=st.just("Bearer"),
        expires_in=LIFETIMES,
        issued_at=LIFETIMES,
        expires_at=LIFETIMES,
    )
)
@settings(deadline=None)
def test_token(document: Any) -> None:
    """Any JSON in the token secret gives a published token, or an error that says what is wrong."""
    try:
        token = AccessToken.from_json(json.dumps(document))
    except ValueError as error:
        assert str(error).startswith(("it is not a JSON object", "its "))
    else:
        assert json.loads(token.to_json()).items() <= document.items()


@given(objects(client_id=st.text(), client_secret=st.text()))
@settings(deadline=None)
def test_credentials(document: Any) -> None:
    """Any JSON in the credentials secret gives them, or an error that says what is wrong."""
    try:
        credentials = ClientCredentials.from_json(json.dumps(document), "v1")
    except ValueError as error:
        assert str(error).startswith(("it is not a JSON object", "its "))
    else:
        assert credentials.client_id == document["client_id"]
        assert credentials.client_secret == document["client_secret"]
