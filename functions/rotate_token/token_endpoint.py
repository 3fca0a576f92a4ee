"""The OAuth 2.0 token endpoint: one client-credentials request (RFC 6749 section 4.4)."""

import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx

from rotate_token import __version__
from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    RotationError,
    TokenEndpointUnavailableError,
    TokenRequestError,
)
from rotate_token.json_object import parse_json_object

ATTEMPT_SECONDS = 15.0
"""The longest time for an attempt; the shortest is `SHORTEST_ATTEMPT_SECONDS`."""
SHORTEST_ATTEMPT_SECONDS = 1.0
CONNECT_SECONDS = 5.0
MAX_BODY_BYTES = 1024 * 1024

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"smartcar-token-rotation/{__version__}",
}
_GZIP_MAGIC = b"\x1f\x8b"
_TRANSIENT_STATUSES = {408, 425, 429, *range(500, 600)}
_TRANSIENT_ERROR_CODES = {"server_error", "temporarily_unavailable"}
_ERROR_CODES = {
    *_TRANSIENT_ERROR_CODES,
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
}
_DELAY_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class _Response:
    status: int
    retry_after: str
    body: bytes = field(repr=False)


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
            ConfigurationError: No request can be sent to the URL.
            TokenEndpointUnavailableError: The request failed, but may succeed later.
            CredentialsError: The endpoint rejected the credentials.
            TokenRequestError: The endpoint refused to issue a token, or issued an unusable one.
        """
        seconds = min(max(seconds, SHORTEST_ATTEMPT_SECONDS), ATTEMPT_SECONDS)
        return self._parse(self._send(credentials, seconds), now)

    def _send(self, credentials: ClientCredentials, seconds: float) -> _Response:
        """
        Send a request and return the complete response, or give up after `seconds`.

        The exchange runs in its own thread, because httpx has no timeout for name resolution or for
        a response that arrives in pieces. Its client is closed in any case, which ends an exchange
        that was given up, and drops cookies.
        """
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        client = httpx.Client(transport=self._transport, headers=_HEADERS, timeout=timeout)
        executor = ThreadPoolExecutor(max_workers=1)
        try:
            return executor.submit(self._exchange, client, credentials).result(seconds)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            # A UnicodeError: the host name cannot be encoded.
            failure: RotationError = ConfigurationError(
                f"TOKEN_URL is not a usable URL: {error}", "use https://host/path"
            )
        except (TimeoutError, httpx.ReadTimeout):
            failure = self._no_response(f"within {seconds:.0f} s")
        except httpx.ConnectError as error:
            failure = self._no_response(str(error))
        except httpx.RequestError as error:
            failure = self._no_response(type(error).__name__)
        finally:
            client.close()
            executor.shutdown(wait=False)
        raise failure  # outside the handlers, so that it holds no reference to the request

    def _no_response(self, reason: str) -> TokenEndpointUnavailableError:
        return TokenEndpointUnavailableError(
            f"{self._url} sent no complete response: {reason}",
            "if this persists, check that TOKEN_URL is correct and reachable from the function",
        )

    def _exchange(self, client: httpx.Client, credentials: ClientCredentials) -> _Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
        }
        body = bytearray()
        with client.stream("POST", self._url, data=form) as response:
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    break
        return _Response(
            response.status_code, response.headers.get("Retry-After", ""), _decompress(bytes(body))
        )

    def _parse(self, response: _Response, now: float) -> AccessToken:
        """Return the token of a response, or raise what the response says."""
        try:
            fields = parse_json_object(response.body)
        except ValueError:
            fields = None
        error = fields and fields.get("error")
        # Other error codes are not shown, because the value might contain a secret.
        code = error if isinstance(error, str) and error in _ERROR_CODES else ""
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
                "of Smartcar's API v3 start with client_, a UUID belongs to an older API",
            )
        if response.status != HTTPStatus.OK or error:
            raise TokenRequestError(
                answer,
                "redirects are not followed; set TOKEN_URL to the final URL"
                if response.status in range(300, 400)
                else "check that TOKEN_URL belongs to the provider that issued the credentials",
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


def _decompress(body: bytes) -> bytes:
    """Decompress gzip, which was not asked for; return an empty body if it is too long."""
    if body.startswith(_GZIP_MAGIC):
        try:
            body = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, MAX_BODY_BYTES + 1)
        except zlib.error:
            return b""
    return body if len(body) <= MAX_BODY_BYTES else b""


def _retry_after_seconds(value: str, now: float) -> float:
    """Read a Retry-After header: seconds or an HTTP date (RFC 9110 section 10.2.3)."""
    if _DELAY_SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0
