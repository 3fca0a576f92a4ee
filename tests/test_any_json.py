"""Property tests: whatever is valid survives a round trip, and any other JSON is a typed error."""

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
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)
CREDENTIALS = ClientCredentials("client_8f3b1c6e", "kYz7Q2vXw9Lr4TnB", "v1", "AWSCURRENT")


def request_token(document: Any, status: int = 200) -> AccessToken:
    """Request a token from an endpoint that answers with this document."""
    body = httpx.ByteStream(json.dumps(document).encode())
    transport = httpx.MockTransport(lambda _: httpx.Response(status, stream=body))
    endpoint = TokenEndpoint("https://iam.smartcar.com/oauth2/token", transport=transport)
    return endpoint.request_token(CREDENTIALS, now=1_800_000_000.9, seconds=15)


@given(st.builds(AccessToken, BEARER_TOKENS, SECONDS, SECONDS))
def test_token(token: AccessToken) -> None:
    """Each token that can be made can be published and read."""
    assert AccessToken.from_json(token.to_json()) == token


@given(st.builds(ClientCredentials, PRINTABLE, PRINTABLE, st.just("v1"), st.just("AWSCURRENT")))
def test_credentials(credentials: ClientCredentials) -> None:
    """Each pair of client credentials can be stored and read."""
    client = {"client_id": credentials.client_id, "client_secret": credentials.client_secret}

    assert ClientCredentials.from_json(json.dumps(client), "v1", "AWSCURRENT") == credentials


@given(BEARER_TOKENS, st.sampled_from(["bearer", "Bearer"]), SECONDS | SECONDS.map(str))
@settings(deadline=None)
def test_response(access_token: str, token_type: str, expires_in: int | str) -> None:
    """Each token response is a token, whose lifetime is counted from just before the request."""
    document = {"access_token": access_token, "token_type": token_type, "expires_in": expires_in}

    assert request_token(document) == AccessToken(access_token, int(expires_in), 1_800_000_000)


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
