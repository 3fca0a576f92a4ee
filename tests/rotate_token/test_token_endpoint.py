"""TokenEndpoint, over a transport that answers as a test says."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import pytest

import rotate_token
from rotate_token import token_endpoint
from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    InvalidTokenResponseError,
    TemporaryTokenRequestError,
    TokenEndpointUnavailableError,
    TokenEndpointUnreachableError,
    TokenRequestRefusedError,
    UnreadableTokenResponseError,
)
from rotate_token.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URL = "https://iam.smartcar.com/oauth2/token"
NOW = 1_800_000_000.9
RESPONSE: dict[str, Any] = {
    "access_token": "eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl",
    "token_type": "bearer",
    "expires_in": 3600,
}


def request_token(
    answer: httpx.Response | Exception | Callable[[httpx.Request], httpx.Response],
    credentials: ClientCredentials,
) -> AccessToken:
    """Ask an endpoint that answers, or fails, as given."""

    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    endpoint = TokenEndpoint(URL, transport=httpx.MockTransport(handle), clock=lambda: NOW)
    return endpoint.request_token(credentials, until=NOW + 860)


def test_request(credentials: ClientCredentials) -> None:
    """The request is the form that RFC 6749 asks for, and says who sends it."""
    requests = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=RESPONSE)

    request_token(answer, credentials)

    (request,) = requests
    assert str(request.url) == URL
    assert request.method == "POST"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["User-Agent"] == f"smartcar-token-rotation/{rotate_token.__version__}"
    assert parse_qs(request.content.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": [credentials.client_id],
        "client_secret": [credentials.client_secret],
    }


def test_time_outs() -> None:
    """A connection may take 5 s, and each later step no longer than a whole attempt."""
    requests = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=RESPONSE)

    request_token(answer, ClientCredentials("client_8f3b1c6e", "kYz7Q2vXw9Lr4TnB", "v1"))

    assert requests[0].extensions["timeout"] == {"connect": 5, "read": 15, "write": 15, "pool": 15}


def test_token(credentials: ClientCredentials) -> None:
    """The token's life is counted from just before the request."""
    token = request_token(httpx.Response(200, json=RESPONSE), credentials)

    assert token == AccessToken(RESPONSE["access_token"], expires_in=3600, issued_at=1_800_000_000)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 530, 599])
def test_temporary_status(status: int, credentials: ClientCredentials) -> None:
    """A status that may pass is an error that may, and named with its OAuth error code."""
    answer = httpx.Response(status, json={"error": "temporarily_unavailable"})

    with pytest.raises(
        TokenEndpointUnavailableError, match=f"^{URL} answered {status} temporarily_unavailable; "
    ):
        request_token(answer, credentials)


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 403, 404, 405, 415, 430, 451])
def test_refused(status: int, credentials: ClientCredentials) -> None:
    """Any other status but 200 is final, whatever its body."""
    with pytest.raises(TokenRequestRefusedError, match=f"^{URL} answered {status}; "):
        request_token(httpx.Response(status, html="<h1>No</h1>"), credentials)


def test_error_in_200(credentials: ClientCredentials) -> None:
    """A 200 that holds an error is an error."""
    answer = httpx.Response(200, json={**RESPONSE, "error": "invalid_scope"})

    with pytest.raises(TokenRequestRefusedError, match="answered 200 invalid_scope; "):
        request_token(answer, credentials)


def test_error_description(credentials: ClientCredentials) -> None:
    """An error answer that repeats the request does not get into the message."""
    error = {"error": credentials.client_secret, "error_description": credentials.client_secret}

    with pytest.raises(TokenRequestRefusedError, match=f"^{URL} answered 400; ") as raised:
        request_token(httpx.Response(400, json=error), credentials)

    assert credentials.client_secret not in str(raised.value)


def test_invalid_client(credentials: ClientCredentials) -> None:
    """Credentials that are refused are what the operator is told to mend."""
    answer = httpx.Response(401, json={"error": "invalid_client"})

    with pytest.raises(
        TokenRequestRefusedError,
        match="answered 401 invalid_client; put .*client_secret into the credentials secret$",
    ):
        request_token(answer, credentials)


def test_client_id_of_api_v2() -> None:
    """A client id of the wrong API version is pointed out."""
    credentials = ClientCredentials(
        "9d1c6f8e-3b2a-4c5d-8e7f-0a1b2c3d4e5f", "kYz7Q2vXw9Lr4TnB", "v1"
    )

    with pytest.raises(
        TokenRequestRefusedError,
        match="client_id is a UUID, and those of API v3 begin with client_$",
    ):
        request_token(httpx.Response(401), credentials)


def test_redirect(credentials: ClientCredentials) -> None:
    """Credentials are not sent to where the endpoint redirects."""
    requests = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(307, headers={"Location": "https://elsewhere.example.com/"})

    with pytest.raises(
        TokenRequestRefusedError, match="answered 307; .* set TOKEN_URL to where it redirects$"
    ):
        request_token(answer, credentials)

    assert [str(request.url) for request in requests] == [URL]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"access_token": "eyJ',
        b"\xff\xfe\xfd",
        b"[" * 10**5,
        b" " * (2 * 1024 * 1024),
    ],
)
def test_not_json(body: bytes, credentials: ClientCredentials) -> None:
    """A 200 whose body is cut off, no JSON at all or too long may pass."""
    with pytest.raises(
        UnreadableTokenResponseError, match="answered 200 with something else than JSON; "
    ):
        request_token(httpx.Response(200, content=body), credentials)


@pytest.mark.parametrize(
    "document",
    [None, [], "token", 7, {}, {**RESPONSE, "token_type": "mac"}, {**RESPONSE, "expires_in": -1}],
)
def test_no_token(document: object, credentials: ClientCredentials) -> None:
    """A 200 with JSON but no usable token is final."""
    with pytest.raises(
        InvalidTokenResponseError, match=f"^{URL} answered 200 without a usable token: its "
    ):
        request_token(httpx.Response(200, content=json.dumps(document)), credentials)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (httpx.ConnectTimeout, ": ConnectTimeout"),
        (httpx.ReadTimeout, " within 15 s"),
        (httpx.ReadError, ": ReadError"),
        (httpx.RemoteProtocolError, ": RemoteProtocolError"),
    ],
)
def test_no_answer(
    failure: type[httpx.RequestError], reason: str, credentials: ClientCredentials
) -> None:
    """A request without a whole answer may pass; the error does not keep the request."""
    with pytest.raises(
        TokenEndpointUnreachableError, match=f"^{URL} gave no whole answer{reason}; "
    ) as raised:
        request_token(failure("GET secret?"), credentials)

    assert raised.value.__context__ is None


def test_no_connection(credentials: ClientCredentials) -> None:
    """Where no connection comes about, the error says why."""
    with pytest.raises(
        TokenEndpointUnreachableError, match="no whole answer: Name or service not known"
    ):
        request_token(httpx.ConnectError("Name or service not known"), credentials)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 59.1),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-7", None),
        ("9" * 400, None),
        ("Fri, 99 Jan 2027 08:01:00 GMT", None),
        ("86400", 86400),
        ("86401", None),
        ("Fri, 15 Jan 2038 08:01:00 GMT", None),
    ],
)
def test_retry_after(header: str, seconds: float | None, credentials: ClientCredentials) -> None:
    """Retry-After is read in both its forms, and ignored where it is neither."""
    with pytest.raises(TemporaryTokenRequestError) as raised:
        request_token(httpx.Response(429, headers={"Retry-After": header}), credentials)

    assert raised.value.retry_after_seconds == pytest.approx(seconds)


def test_stuck(credentials: ClientCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt ends in its time, even where it is stuck in what no time-out of httpx covers."""
    monkeypatch.setattr(token_endpoint, "ATTEMPT_SECONDS", 0.05)
    released = threading.Event()

    def answer(_: httpx.Request) -> httpx.Response:
        released.wait(10)
        return httpx.Response(200, json=RESPONSE)

    with pytest.raises(TokenEndpointUnreachableError, match="no whole answer within 0 s; "):
        request_token(answer, credentials)

    assert not released.is_set()
    released.set()


class Drips(httpx.SyncByteStream):
    """A body that sends a byte now and then, for ever."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        while not self.closed.wait(0.01):
            yield b" "

    def close(self) -> None:
        """Stop."""
        self.closed.set()


def test_drips(credentials: ClientCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes in drips is given up, and no longer listened to."""
    monkeypatch.setattr(token_endpoint, "ATTEMPT_SECONDS", 0.05)
    drips = Drips()

    with pytest.raises(TokenEndpointUnreachableError, match="no whole answer within 0 s; "):
        request_token(httpx.Response(200, stream=drips), credentials)

    assert drips.closed.wait(10)
