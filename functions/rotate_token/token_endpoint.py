"""The OAuth 2.0 token endpoint: one client-credentials request (RFC 6749 section 4.4)."""

from __future__ import annotations

import logging
import re
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

from rotate_token import __version__
from rotate_token.access_token import AccessToken
from rotate_token.errors import (
    ConfigurationError,
    InvalidClientError,
    InvalidTokenResponseError,
    TokenEndpointUnavailableError,
    TokenEndpointUnreachableError,
    TokenRequestRefusedError,
    UnreadableTokenResponseError,
)
from rotate_token.json_object import parse_json_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotate_token.credentials import ClientCredentials
    from rotate_token.errors import RotationError, TokenRequestError

ATTEMPT_SECONDS = 15.0
SHORTEST_ATTEMPT_SECONDS = 1.0
CONNECT_SECONDS = 5.0
MAX_BODY_BYTES = 1024 * 1024
MAX_RETRY_AFTER_SECONDS = 86400.0
"""Longer values are ignored as implausible."""

_TEMPORARY_STATUSES = {408, 425, 429, *range(500, 600)}
_TEMPORARY_ERROR_CODES = {"server_error", "temporarily_unavailable"}
_ERROR_CODES = {
    *_TEMPORARY_ERROR_CODES,
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
}
_DELAY_SECONDS = re.compile(r"[0-9]{1,9}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Response:
    """A response; its body is empty if it is too long or has an unsupported content coding."""

    status: int
    retry_after: str
    body: bytes = field(repr=False)


class TokenEndpoint:
    """
    A token endpoint.

    Args:
        url: Its URL. Credentials are sent only there: redirects are not followed.
        transport: An httpx transport to use instead of the network.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._clock = clock
        self._client = httpx.Client(
            transport=transport,
            follow_redirects=False,
            # httpx parses the address of a redirect even if it does not follow it.
            event_hooks={"response": [lambda response: response.headers.pop("Location", None)]},
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"smartcar-token-rotation/{__version__}",
            },
        )

    def request_token(self, credentials: ClientCredentials, *, until: float) -> AccessToken:
        """
        Request a token once, giving up after `ATTEMPT_SECONDS`, or at `until` if that is sooner.

        Raises:
            ConfigurationError: No request can be sent to the URL.
            TemporaryTokenRequestError: The request failed, but may succeed later.
            InvalidClientError: The endpoint rejected the credentials.
            TokenRequestRefusedError: The endpoint rejected the request for another reason.
            InvalidTokenResponseError: The endpoint answered 200 without a usable token.
        """
        issued_at = int(self._clock())
        seconds = min(ATTEMPT_SECONDS, max(SHORTEST_ATTEMPT_SECONDS, until - self._clock()))
        response = self._send(credentials, seconds)
        return self._parse(response, issued_at, credentials.client_id)

    def _send(self, credentials: ClientCredentials, seconds: float) -> _Response:
        """
        Send a request and return the complete response, or give up after `seconds`.

        The exchange runs in its own thread, because httpx has no timeout for name resolution or for
        a response that trickles in.
        """
        executor = ThreadPoolExecutor(max_workers=1)
        try:
            return executor.submit(self._exchange, credentials, seconds).result(seconds)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            # A UnicodeError: the host name cannot be encoded.
            failure: RotationError = ConfigurationError(
                f"TOKEN_URL is not a usable URL: {error}", "use https://host/path"
            )
        except (TimeoutError, httpx.ReadTimeout):
            failure = self._unreachable(f" within {seconds:.0f} s")
        except httpx.ConnectError as error:
            failure = self._unreachable(f": {error}")
        except httpx.RequestError as error:
            failure = self._unreachable(f": {type(error).__name__}")
        finally:
            executor.shutdown(wait=False)
        raise failure  # outside the handlers, so that it holds no reference to the request

    def _unreachable(self, reason: str) -> TokenEndpointUnreachableError:
        return TokenEndpointUnreachableError(
            f"{self._url} did not answer completely{reason}",
            "if this persists, check that TOKEN_URL is correct and reachable from the function",
        )

    def _exchange(self, credentials: ClientCredentials, seconds: float) -> _Response:
        give_up_at = time.monotonic() + seconds
        form = {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
        }
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        body = bytearray()
        with self._client.stream("POST", self._url, data=form, timeout=timeout) as response:
            for chunk in response.iter_raw():
                if time.monotonic() > give_up_at:
                    raise TimeoutError
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    break
        return _Response(
            response.status_code,
            response.headers.get("Retry-After", ""),
            _decode(bytes(body), response.headers.get("Content-Encoding", "identity").lower()),
        )

    def _parse(self, response: _Response, issued_at: int, client_id: str) -> AccessToken:
        try:
            fields = parse_json_object(response.body)
        except ValueError:
            fields = None
        error = fields and fields.get("error")
        if response.status != HTTPStatus.OK or error:
            raise self._refusal(response, error, client_id)
        if fields is None:
            raise UnreadableTokenResponseError(
                f"{self._url} answered 200 with something other than a JSON object",
                "if this persists, check what TOKEN_URL points to",
            )
        try:
            token = AccessToken.from_response(fields, issued_at)
        except ValueError as unusable:
            raise InvalidTokenResponseError(
                f"{self._url} answered 200 without a usable token: {unusable}",
                "check what TOKEN_URL points to",
            ) from unusable
        if fields.get("expires_in") is None:
            logger.warning("The token response has no expires_in; assuming %d s", token.expires_in)
        return token

    def _refusal(self, response: _Response, error: object, client_id: str) -> TokenRequestError:
        # Other error codes are not shown, because the value might contain a secret.
        code = error if isinstance(error, str) and error in _ERROR_CODES else ""
        answer = f"{self._url} answered {response.status} {code}".rstrip()
        if response.status in _TEMPORARY_STATUSES or code in _TEMPORARY_ERROR_CODES:
            retry_after_seconds = _retry_after_seconds(response.retry_after, self._clock())
            if retry_after_seconds:
                answer += f" and asked to retry after {retry_after_seconds:.0f} s"
            return TokenEndpointUnavailableError(
                answer, "if this persists, check the provider's status page", retry_after_seconds
            )
        if response.status == HTTPStatus.UNAUTHORIZED or code == "invalid_client":
            next_step = "store a valid client_id and client_secret in the credentials secret"
            if _UUID.fullmatch(client_id):
                next_step += "; this client_id is a UUID, but API v3 client IDs start with client_"
            return InvalidClientError(answer, next_step)
        return TokenRequestRefusedError(
            answer,
            "redirects are not followed; set TOKEN_URL to the final URL"
            if response.status in range(300, 400)
            else "check that TOKEN_URL belongs to the provider that issued the credentials",
        )


def _decode(body: bytes, coding: str) -> bytes:
    """Decode gzip; return an empty body if it is too long or has another content coding."""
    if coding == "gzip":
        try:
            body = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, MAX_BODY_BYTES + 1)
        except zlib.error:
            return b""
    elif coding != "identity":
        return b""
    return body if len(body) <= MAX_BODY_BYTES else b""


def _retry_after_seconds(value: str, now: float) -> float:
    """Read a Retry-After header: seconds or an HTTP date (RFC 9110 section 10.2.3)."""
    try:
        if _DELAY_SECONDS.fullmatch(value):
            seconds = float(value)
        else:
            seconds = max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0
    return seconds if seconds <= MAX_RETRY_AFTER_SECONDS else 0
