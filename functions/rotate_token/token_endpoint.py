"""The OAuth 2.0 token endpoint: one client-credentials request (RFC 6749 section 4.4)."""

import re
import socket
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from rotate_token import __version__
from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    TokenEndpointUnavailableError,
    TokenRequestError,
)
from rotate_token.json_object import parse_json_object

SHORTEST_ATTEMPT_SECONDS = 1.0
LONGEST_ATTEMPT_SECONDS = 15.0
LONGEST_CONNECT_SECONDS = 5.0
LONGEST_BODY_BYTES = 1024 * 1024

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"smartcar-token-rotation/{__version__}",
}
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 16 + zlib.MAX_WBITS  # zlib's number for gzip with any window
_TRANSIENT_STATUSES = {408, 425, 429, *range(500, 600)}
_TRANSIENT_ERROR_CODES = {"server_error", "temporarily_unavailable"}
# The request is always the same, so whatever is refused with one of these codes is the client (RFC
# 6749 sections 4.1.2.1 and 5.2, RFC 8693 section 2.2.2, RFC 9449 section 8).
_CLIENT_ERROR_CODES = {
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
    "use_dpop_nonce",
}
_DELAY_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class _Response:
    status: int
    retry_after: str
    body: bytes = field(repr=False)


class _Connection:
    """
    The connection of one exchange, which another thread can end.

    httpx calls it with each step of the exchange (its ``trace`` extension).
    """

    def __init__(self) -> None:
        self._stream: Any = None
        self._is_given_up = False

    def __call__(self, step: str, info: Mapping[str, Any]) -> None:
        if step.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]
            if self._is_given_up:
                self._stream.close()

    def give_up(self) -> None:
        """
        End the exchange, which sends nothing afterwards.

        The connection is shut down, and closed only by the thread that reads from it: otherwise,
        that thread might read from the next connection, which gets the same descriptor. The method
        of `SSLSocket` is avoided: it ends the encryption before it shuts the connection down.
        """
        self._is_given_up = True
        if self._stream:
            with suppress(OSError):  # it is closed, or TLS is about to replace it
                socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)


class TokenEndpoint:
    """
    A token endpoint.

    Args:
        url: Its URL. Credentials are sent only there: redirects are not followed.
        transport: An httpx transport to use instead of the network.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._transport = transport

    def request_token(
        self, credentials: ClientCredentials, *, now: float, seconds: float
    ) -> AccessToken:
        """
        Request a token once, and give up after `seconds`, within the limits of an attempt.

        The lifetime of the token is counted from `now`, a Unix time in seconds.

        Raises:
            ConfigurationError: No request can be made.
            TokenEndpointUnavailableError: The request failed, but may succeed later.
            CredentialsError: The endpoint refuses the client.
            TokenRequestError: The response has neither a usable token nor a known error.
        """
        seconds = min(max(seconds, SHORTEST_ATTEMPT_SECONDS), LONGEST_ATTEMPT_SECONDS)
        return self._parse(self._send(credentials, seconds), now)

    def _send(self, credentials: ClientCredentials, seconds: float) -> _Response:
        """
        Send a request and return the complete response, or give up after `seconds`.

        The exchange runs in its own thread, because httpx has no timeout for name resolution or for
        a response that arrives in pieces.
        """
        connection = _Connection()
        executor = ThreadPoolExecutor(max_workers=1)
        exchange = executor.submit(self._exchange, credentials, seconds, connection)
        try:
            return exchange.result(seconds)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigurationError(
                f"TOKEN_URL is not a usable URL: {error}", "use https://host/path"
            ) from error
        except UnicodeError as error:
            raise ConfigurationError(
                f"A host name cannot be encoded: {error}",
                "correct it in TOKEN_URL or, if it is that of a proxy, in HTTPS_PROXY or ALL_PROXY",
            ) from error
        except (TimeoutError, httpx.RequestError) as error:
            raise TokenEndpointUnavailableError(
                f"{self._url} sent no complete response{_explain(error, seconds)}",
                "if this persists, check TOKEN_URL and the function's route to it: VPC, NAT, proxy",
            ) from error
        finally:
            connection.give_up()
            executor.shutdown(wait=False)

    def _exchange(
        self, credentials: ClientCredentials, seconds: float, connection: _Connection
    ) -> _Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
        }
        body = bytearray()
        with (
            self._make_client(seconds) as client,
            client.stream(
                "POST", self._url, data=form, extensions={"trace": connection}
            ) as response,
        ):
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > LONGEST_BODY_BYTES:
                    break
        return _Response(
            response.status_code, response.headers.get("Retry-After", ""), _decompress(bytes(body))
        )

    def _make_client(self, seconds: float) -> httpx.Client:
        """Make a client for one exchange, which has no cookies from the one before."""
        try:
            return httpx.Client(
                transport=self._transport,
                headers=_HEADERS,
                timeout=httpx.Timeout(seconds, connect=min(seconds, LONGEST_CONNECT_SECONDS)),
                event_hooks={"response": [_forget_location]},
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            # An InvalidURL shows a part of a proxy's URL, which may be one of its password.
            reason = "InvalidURL" if isinstance(error, httpx.InvalidURL) else error
            raise ConfigurationError(
                f"The HTTP client cannot be created: {reason}",
                "correct SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY, ALL_PROXY or NO_PROXY in the "
                "function's environment",
            ) from error

    def _parse(self, response: _Response, now: float) -> AccessToken:
        """Return the token of a response, or raise what the response says."""
        try:
            fields = parse_json_object(response.body)
        except ValueError:
            fields = None
        error = fields.get("error") if fields else None
        # Other error codes are not shown, because the value might contain a secret.
        is_known = isinstance(error, str) and error in _TRANSIENT_ERROR_CODES | _CLIENT_ERROR_CODES
        code = error if is_known else ""
        answer = f"{self._url} answered {response.status} {code}".rstrip()
        if response.status in _TRANSIENT_STATUSES or code in _TRANSIENT_ERROR_CODES:
            retry_after_seconds = _retry_after_seconds(response.retry_after, now)
            if retry_after_seconds:
                answer += f" and asked to retry after {retry_after_seconds:.0f} s"
            raise TokenEndpointUnavailableError(
                answer, "if this persists, check the provider's status page", retry_after_seconds
            )
        if response.status == HTTPStatus.UNAUTHORIZED or code == "invalid_client":
            raise CredentialsError(
                answer,
                "store a valid client_id and client_secret in the credentials secret; client IDs "
                "for Smartcar's API v3 start with client_; a UUID is one for an older API",
            )
        if code:
            raise CredentialsError(answer, "check that the application may request tokens")
        if response.status in range(300, 400):
            raise TokenRequestError(
                answer, "redirects are not followed; set TOKEN_URL to the final URL"
            )
        if response.status != HTTPStatus.OK or (fields and "error" in fields):
            raise TokenRequestError(
                answer, "check that TOKEN_URL belongs to the provider that issued the credentials"
            )
        if fields is None:
            raise TokenEndpointUnavailableError(
                f"{answer} with something other than a JSON object",
                "if this persists, check what TOKEN_URL points to",
            )
        try:
            return AccessToken.from_response(fields, issued_at=int(now))
        except ValueError as unusable:
            raise TokenRequestError(
                f"{answer} without a usable token: {unusable}", "check what TOKEN_URL points to"
            ) from unusable


def _forget_location(response: httpx.Response) -> None:
    """Keep httpx from parsing the address of a redirect, which may be malformed."""
    response.headers.pop("Location", None)


def _explain(error: Exception, seconds: float) -> str:
    """Say why there is no complete response."""
    if isinstance(error, (TimeoutError, httpx.ReadTimeout)):
        return f" within {seconds:.0f} s"
    return f": {error if isinstance(error, httpx.ConnectError) else type(error).__name__}"


def _decompress(body: bytes) -> bytes:
    """Decompress gzip, which was not asked for; return an empty body if it is too long."""
    if body.startswith(_GZIP_MAGIC):
        try:
            body = zlib.decompressobj(_GZIP_WBITS).decompress(body, LONGEST_BODY_BYTES + 1)
        except zlib.error:
            return b""
    return body if len(body) <= LONGEST_BODY_BYTES else b""


def _retry_after_seconds(value: str, now: float) -> float:
    """Read a Retry-After header: seconds or an HTTP date (RFC 9110 section 10.2.3)."""
    if _DELAY_SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0
