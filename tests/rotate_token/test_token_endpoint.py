"""TokenEndpoint, mostly with a scripted transport; test_faults.py uses sockets."""

import gzip
import json
import re
import socket
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

import rotate_token
from local.fakes.smartcar import FakeSmartcar
from rotate_token import token_endpoint
from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    ConfigurationError,
    RotationError,
    TokenEndpointUnavailableError,
)
from rotate_token.token_endpoint import TokenEndpoint

Answer = Callable[[httpx.Request], httpx.Response]

URL = "https://iam.smartcar.com/oauth2/token"
NOW = 1_800_000_000.9
CREDENTIALS = ClientCredentials("client_8f3b1c6e", "kYz7Q2vXw9Lr4TnB/5+ %&=", "v1", "AWSCURRENT")


def respond(status: int = 200, headers: dict[str, str] | None = None, **changes: str) -> Answer:
    """Answer with a token response, with changes."""
    token = {"access_token": "eyJhbGciOi", "token_type": "bearer", "expires_in": 3600, **changes}
    body = httpx.ByteStream(json.dumps(token).encode())
    return lambda _: httpx.Response(status, headers=headers, stream=body)


def fail(failure: httpx.RequestError) -> Answer:
    """Fail instead of answering."""

    def answer(_: httpx.Request) -> httpx.Response:
        raise failure

    return answer


def request_token(answer: Answer) -> AccessToken:
    """Request a token from an endpoint that answers as given."""
    endpoint = TokenEndpoint(URL, transport=httpx.MockTransport(answer))
    return endpoint.request_token(CREDENTIALS, now=NOW, seconds=100)


def send_requests(*seconds_left: float) -> list[httpx.Request]:
    """Request a token with each of these times left, of a server that sets a cookie."""
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return respond(headers={"Set-Cookie": "server=1"})(request)

    endpoint = TokenEndpoint(URL, transport=httpx.MockTransport(answer))
    for seconds in seconds_left:
        endpoint.request_token(CREDENTIALS, now=NOW, seconds=seconds)
    return sent


def test_request() -> None:
    """The request is the form of RFC 6749 section 4.4.2, with a User-Agent."""
    (request,) = send_requests(100)

    assert str(request.url) == URL
    assert request.method == "POST"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"] == f"smartcar-token-rotation/{rotate_token.__version__}"
    assert parse_qs(request.content.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["client_8f3b1c6e"],
        "client_secret": ["kYz7Q2vXw9Lr4TnB/5+ %&="],
    }


def test_timeouts() -> None:
    """A request gets 15 s, or what is left of the run if that is less, but at least 1 s."""
    timeouts = [request.extensions["timeout"] for request in send_requests(100, 7, -1)]

    assert timeouts == [
        {"connect": 5, "read": 15, "write": 15, "pool": 15},
        {"connect": 5, "read": 7, "write": 7, "pool": 7},
        {"connect": 1, "read": 1, "write": 1, "pool": 1},
    ]


def test_cookies() -> None:
    """A cookie is not sent with the next request, so that a retry can reach another server."""
    sent = send_requests(100, 100)

    assert [request.headers.get("Cookie") for request in sent] == [None, None]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (respond(400, error="invalid_grant"), "answered 400 invalid_grant; check that the applic"),
        (respond(400, error="kyzqvxwlrtnbsecret"), "answered 400; check that TOKEN_URL belongs to"),
        (respond(400, error="invalid_client"), "answered 400 invalid_client; store .* a UUID is"),
        (respond(401, error="access_denied"), "answered 401 access_denied; store a valid client_"),
        (respond(307), "answered 307; redirects are not followed; set TOKEN_URL to the final URL"),
        (respond(307, error="Moved"), "answered 307; redirects are not followed; set TOKEN_URL"),
        (respond(token_type="mac"), "answered 200 without a usable token: token_type is missing"),
        (fail(httpx.ConnectTimeout("x")), "sent no complete response: ConnectTimeout; if this per"),
        (fail(httpx.ReadTimeout("x")), "sent no complete response within 15 s; if this persists,"),
        (fail(httpx.ConnectError("No route")), "sent no complete response: No route; if this pers"),
    ],
)
def test_no_token(answer: Answer, message: str) -> None:
    """The error says why there is no token, and what to do; it shows only OAuth error codes."""
    with pytest.raises(RotationError, match=f"^{URL} {message}"):
        request_token(answer)


NO_CLIENT = "The HTTP client cannot be created: "


@pytest.mark.parametrize(
    ("url", "environment", "problem"),
    [
        ("https://iam.smartcar.com/token\n", {}, "TOKEN_URL is not a usable URL: "),
        (" https://iam.smartcar.com/token", {}, "TOKEN_URL is not a usable URL: "),
        ("https://iam..smartcar.com/token", {}, "A host name cannot be encoded: "),
        ("https://xn--/token", {}, "A host name cannot be encoded: "),
        (URL, {"SSL_CERT_FILE": "/nonexistent"}, NO_CLIENT + "[Errno 2] No such file or directory"),
        (URL, {"ALL_PROXY": "socks5://127.0.0.1:1"}, NO_CLIENT + "Using SOCKS proxy, but the 'soc"),
        (URL, {"HTTPS_PROXY": "ftp://127.0.0.1:1"}, NO_CLIENT + "Unknown scheme for proxy URL"),
        (URL, {"HTTPS_PROXY": "http://user:pa/ss@127.0.0.1:1"}, NO_CLIENT + "InvalidURL"),
    ],
)
def test_no_request(
    url: str, environment: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If httpx can send no request, the configuration error says why, but shows no password."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=f"^{re.escape(problem)}.*(; use|; correct) "):
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


def wait_for_exchanges() -> None:
    """Wait until the threads of all exchanges have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(10)
            assert not thread.is_alive()


def test_endless_answer(certificate: tuple[str, str]) -> None:
    """An exchange over TLS that is given up ends, although the response does not."""
    with FakeSmartcar(["slow-headers"], certificate) as endpoint:
        with pytest.raises(TokenEndpointUnavailableError, match="within 1 s; "):
            TokenEndpoint(endpoint.url).request_token(CREDENTIALS, now=NOW, seconds=1)

        wait_for_exchanges()


def test_late_name(endpoint: FakeSmartcar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is given up; if it resolves later, no request follows."""
    is_given_up = threading.Event()
    waits = []
    resolve = socket.getaddrinfo

    def resolve_late(*arguments: Any, **options: Any) -> Any:
        waits.append(is_given_up.wait(10))
        return resolve(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_late)
    with pytest.raises(TokenEndpointUnavailableError, match="within 1 s; "):
        TokenEndpoint(endpoint.url).request_token(CREDENTIALS, now=NOW, seconds=1)
    is_given_up.set()

    wait_for_exchanges()
    assert waits == [True]
    assert endpoint.requests == []


def test_next_exchange(certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange that was given up during a dripping response over TLS does not harm the next."""
    monkeypatch.setattr(token_endpoint, "SHORTEST_ATTEMPT_SECONDS", 0)
    with FakeSmartcar(certificate=certificate) as fake:
        endpoint = TokenEndpoint(fake.url)
        for _ in range(40):
            fake.faults.append("slow")
            with pytest.raises(TokenEndpointUnavailableError):
                endpoint.request_token(CREDENTIALS, now=NOW, seconds=0.2)
            fake.faults.clear()

            assert endpoint.request_token(CREDENTIALS, now=NOW, seconds=15)
        # On a loaded machine, some exchanges are given up before they send a request.
        assert len(fake.requests) > 60


def test_long_answer() -> None:
    """A response is read no further than the chunk that exceeds 1 MiB."""
    chunks = iter([b" " * 1024 * 1024] * 3)

    with pytest.raises(TokenEndpointUnavailableError, match="something other than a JSON object"):
        request_token(lambda _: httpx.Response(200, content=chunks))

    assert len(list(chunks)) == 1


def test_gzip_bomb() -> None:
    """A body that decompresses to 100 MB is decompressed no further than 1 MiB."""
    bomb = gzip.compress(b" " * 100_000_000)
    tracemalloc.start()

    with pytest.raises(TokenEndpointUnavailableError, match="something other than a JSON object"):
        request_token(lambda _: httpx.Response(200, stream=httpx.ByteStream(bomb)))

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10_000_000
