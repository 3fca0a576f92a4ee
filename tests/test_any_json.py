"""Property tests: a valid token survives a round trip, and any other JSON is a typed error."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings, strategies as st

from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import RotationError
from rotate_token.token_endpoint import TokenEndpoint

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
BEARER_TOKENS = st.from_regex(r"[A-Za-z0-9\-._~+/]+=*", fullmatch=True)
SECONDS = st.integers(min_value=1, max_value=10**10 - 1)
CREDENTIALS = ClientCredentials("client_8f3b1c6e", "kYz7Q2vXw9Lr4TnB", "v1", "AWSCURRENT")


def request_token(document: Any, status: int = 200) -> AccessToken:
    """Request a token from an endpoint that answers with this document."""
    body = httpx.ByteStream(json.dumps(document).encode())
    transport = httpx.MockTransport(lambda _: httpx.Response(status, stream=body))
    endpoint = TokenEndpoint("https://iam.smartcar.com/oauth2/token", transport=transport)
    return endpoint.request_token(CREDENTIALS, now=1_800_000_000.9, seconds=15)


@given(BEARER_TOKENS, st.sampled_from(["bearer", "Bearer"]), SECONDS | SECONDS.map(str))
@settings(deadline=None)
def test_response(access_token: str, token_type: str, expires_in: int | str) -> None:
    """Each token response is a token, from just before the request, that can be published."""
    document = {"access_token": access_token, "token_type": token_type, "expires_in": expires_in}

    token = request_token(document)

    assert token == AccessToken(access_token, int(expires_in), 1_800_000_000)
    assert AccessToken.from_json(token.to_json()) == token


@given(
    ANY_JSON | st.fixed_dictionaries({}, optional={"error": ANY_JSON, "access_token": ANY_JSON}),
    st.sampled_from([200, 400, 401, 503]),
)
@settings(deadline=None)
def test_anything_else(document: Any, status: int) -> None:
    """Any other JSON is a typed error."""
    with pytest.raises(RotationError):
        request_token(document, status)
    with pytest.raises(ValueError, match="^(the value|access_token|expires_in) is "):
        AccessToken.from_json(json.dumps(document))
    with pytest.raises(ValueError, match="^(the value|client_id) is "):
        ClientCredentials.from_json(json.dumps(document), "v1", "AWSCURRENT")
