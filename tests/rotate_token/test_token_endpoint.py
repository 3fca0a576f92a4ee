"""TokenEndpoint, with a scripted transport; test_faults.py uses sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import pytest

import rotate_token
from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    ConfigurationError,
    RotationError,
    TokenEndpointUnavailableError,
)
from rotate_token.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[httpx.Request], httpx.Response]

URL = "https://iam.smartcar.com/oauth2/token"
NOW = 1_800_000_000.9
CREDENTIALS = ClientCredentials("client_8f3b1c6e", "kYz7Q2vXw9Lr4TnB/5+ %&=", "v1")
RESPONSE: dict[str, Any] = {
    "access_token": "eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl",
    "token_type": "bearer",
    "expires_in": 3600,
}


def respond(status: int = 200, headers: dict[str, str] | None = None, **changes: str) -> Answer:
    """Answer with a token response, with changes."""
    body = httpx.ByteStream(json.dumps({**RESPONSE, **changes}).encode())
    return lambda _: httpx.Response(status, headers=headers, stream=body)


def request_token(answer: Answer, seconds: float = 100) -> AccessToken:
    """Request a token from an endpoint that answers as given."""
    endpoint = TokenEndpoint(URL, transport=httpx.MockTransport(answer))
    return endpoint.request_token(CREDENTIALS, now=NOW, seconds=seconds)


def test_request() -> None:
    """The request is the form of RFC 6749 section 4.4.2, with a User-Agent and timeouts."""
    requests = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return respond()(request)

    request_token(answer)

    (request,) = requests
    assert str(request.url) == URL
    assert request.method == "POST"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["User-Agent"] == f"smartcar-token-rotation/{rotate_token.__version__}"
    assert request.extensions["timeout"] == {"connect": 5, "read": 15, "write": 15, "pool": 15}
    assert parse_qs(request.content.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["client_8f3b1c6e"],
        "client_secret": ["kYz7Q2vXw9Lr4TnB/5+ %&="],
    }


@pytest.mark.parametrize(("seconds_left", "seconds"), [(100, 15), (7, 7), (-1, 1)])
def test_seconds(seconds_left: float, seconds: float) -> None:
    """A request gets 15 s, or what is left of the run if that is less, but at least 1 s."""
    timeouts: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        timeouts.append(request.extensions["timeout"]["read"])
        return respond()(request)

    request_token(answer, seconds_left)

    assert timeouts == [seconds]


def test_token() -> None:
    """The lifetime of the token is counted from just before the request."""
    token = request_token(respond())

    assert token == AccessToken(RESPONSE["access_token"], expires_in=3600, issued_at=1_800_000_000)


@pytest.mark.parametrize(
    ("status", "changes", "message"),
    [
        (400, {"error": "invalid_grant"}, "400 invalid_grant; check that TOKEN_URL belongs to the"),
        (400, {"error": "kyzqvxwlrtnbsecret"}, "400; check that TOKEN_URL belongs to the provider"),
        (401, {"error": "invalid_client"}, "401 invalid_client; store .* a UUID belongs to an old"),
        (307, {}, "307; redirects are not followed; set TOKEN_URL to the final URL"),
        (200, {"token_type": "mac"}, "200 without a usable token: its token_type is missing or"),
    ],
)
def test_no_token(status: int, changes: dict[str, Any], message: str) -> None:
    """The error for a response without a token says what to do; it shows only OAuth error codes."""
    with pytest.raises(RotationError, match=f"^{URL} answered {message}"):
        request_token(respond(status, **changes))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (httpx.ConnectTimeout("x"), "ConnectTimeout"),
        (httpx.ReadTimeout("x"), "within 15 s"),
        (httpx.ConnectError("Name or service not known"), "Name or service not known"),
    ],
)
def test_no_answer(failure: Exception, reason: str) -> None:
    """The error for an incomplete response is transient, and does not contain the request."""

    def answer(_: httpx.Request) -> httpx.Response:
        raise failure

    with pytest.raises(
        TokenEndpointUnavailableError, match=f"^{URL} sent no complete response: {reason}; "
    ) as raised:
        request_token(answer)

    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "https://iam..smartcar.com/token",
        "https://iam.smartcar.com/token\n",
        " https://iam.smartcar.com/token",
    ],
)
def test_unusable_url(url: str) -> None:
    """A URL that httpx cannot use is a configuration error, which is not retried."""
    with pytest.raises(ConfigurationError, match="^TOKEN_URL is not a usable URL: "):
        TokenEndpoint(url).request_token(CREDENTIALS, now=NOW, seconds=1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 59.1),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("soon", 0),
        ("-7", 0),
        ("9" * 400, 0),
        ("Fri, 99 Jan 2027 08:01:00 GMT", 0),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    """Retry-After is read as seconds or as a date, and ignored if it is malformed."""
    with pytest.raises(TokenEndpointUnavailableError) as raised:
        request_token(respond(429, headers={"Retry-After": header}))

    assert raised.value.retry_after_seconds == pytest.approx(seconds)
    assert ("and asked to retry after" in raised.value.problem) == (seconds > 0)
    assert raised.value.next_step == "if this persists, check the provider's status page"


def test_endless_answer() -> None:
    """An exchange is given up on time, and its connection closed, while the server still sends."""
    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send_for_10_seconds() -> None:
            connection, _ = server.accept()
            until = time.monotonic() + 10
            try:
                while time.monotonic() < until:
                    connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
            except OSError:
                closed.set()
            connection.close()

        threading.Thread(target=send_for_10_seconds, daemon=True).start()
        endpoint = TokenEndpoint(f"http://127.0.0.1:{server.getsockname()[1]}/oauth2/token")
        with pytest.raises(TokenEndpointUnavailableError, match="within 1 s; "):
            endpoint.request_token(CREDENTIALS, now=NOW, seconds=1)

        assert closed.wait(10)


def test_long_answer() -> None:
    """A response is read no further than the chunk that exceeds 1 MiB."""
    chunks = iter([b" " * 1024 * 1024] * 3)

    with pytest.raises(TokenEndpointUnavailableError, match="something other than a JSON object"):
        request_token(lambda _: httpx.Response(200, content=chunks))

    assert len(list(chunks)) == 1


def test_cookies() -> None:
    """A cookie is not sent with the next request, so that a retry can reach another server."""
    cookies = []

    def answer(request: httpx.Request) -> httpx.Response:
        cookies.append(request.headers.get("Cookie"))
        return respond(headers={"Set-Cookie": "server=1"})(request)

    endpoint = TokenEndpoint(URL, transport=httpx.MockTransport(answer))
    endpoint.request_token(CREDENTIALS, now=NOW, seconds=100)
    endpoint.request_token(CREDENTIALS, now=NOW, seconds=100)

    assert cookies == [None, None]
