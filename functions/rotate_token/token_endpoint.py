"""The OAuth 2.0 token endpoint: one client-credentials request (RFC 6749 section 4.4)."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

from rotate_token import __version__
from rotate_token.access_token import AccessToken
from rotate_token.errors import (
    InvalidClientError,
    InvalidTokenResponseError,
    TokenEndpointUnavailableError,
    TokenEndpointUnreachableError,
    TokenRequestRefusedError,
    UnreadableTokenResponseError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotate_token.credentials import ClientCredentials

ATTEMPT_SECONDS = 15.0
SHORTEST_ATTEMPT_SECONDS = 1.0
CONNECT_SECONDS = 5.0
MAX_BODY_BYTES = 1024 * 1024
MAX_RETRY_AFTER_SECONDS = 86400.0
"""An endpoint that asks to be left alone for longer does not mean it."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_OAUTH_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
_NOT_JSON = object()
_TEMPORARY_STATUSES = {408, 425, 429, *range(500, 600)}
_DELAY_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class _Response:
    status: int
    retry_after: str
    body: bytes = field(repr=False)


class TokenEndpoint:
    """
    A token endpoint, asked for one token at a time.

    Args:
        url: Its address. Credentials go there and nowhere else: redirects are not followed.
        transport: What carries the requests, where that is not the network.
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
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"smartcar-token-rotation/{__version__}",
            },
        )

    def request_token(self, credentials: ClientCredentials, *, until: float) -> AccessToken:
        """
        Ask for a token once, for `ATTEMPT_SECONDS` or, where that is sooner, until a Unix time.

        Raises:
            TemporaryTokenRequestError: It failed in a way that may pass.
            InvalidClientError: The endpoint refused the credentials.
            TokenRequestRefusedError: The endpoint said no for another reason.
            InvalidTokenResponseError: The endpoint said yes, but issued no usable token.
        """
        issued_at = int(self._clock())
        seconds = min(ATTEMPT_SECONDS, max(SHORTEST_ATTEMPT_SECONDS, until - self._clock()))
        response = self._send(self._build(credentials, seconds), seconds)
        return self._parse(response, issued_at, credentials.client_id)

    def _build(self, credentials: ClientCredentials, seconds: float) -> httpx.Request:
        return self._client.build_request(
            "POST",
            self._url,
            data={
                "grant_type": "client_credentials",
                "client_id": credentials.client_id,
                "client_secret": credentials.client_secret,
            },
            timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
        )

    def _send(self, request: httpx.Request, seconds: float) -> _Response:
        """
        Exchange a request for a whole response, or give up after so many seconds.

        The exchange gets a thread of its own, since httpx has no time-out for name resolution, nor
        for an answer that comes in drips.
        """
        executor = ThreadPoolExecutor(max_workers=1)
        try:
            return executor.submit(self._exchange, request, seconds).result(seconds)
        except (TimeoutError, httpx.ReadTimeout):
            reason = f" within {seconds:.0f} s"
        except httpx.ConnectError as error:
            reason = f": {error}"
        except httpx.RequestError as error:
            reason = f": {type(error).__name__}"
        finally:
            executor.shutdown(wait=False)
        raise TokenEndpointUnreachableError(
            f"{self._url} gave no whole answer{reason}",
            "if it goes on, see that TOKEN_URL is right and that the function can reach it",
        )

    def _exchange(self, request: httpx.Request, seconds: float) -> _Response:
        give_up_at = time.monotonic() + seconds
        body = bytearray()
        with closing(self._client.send(request, stream=True)) as response:
            for chunk in response.iter_bytes():
                if time.monotonic() > give_up_at:
                    raise TimeoutError
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    body.clear()
                    break
        return _Response(response.status_code, response.headers.get("Retry-After", ""), bytes(body))

    def _parse(self, response: _Response, issued_at: int, client_id: str) -> AccessToken:
        document = _parse_json(response.body)
        fields = document if isinstance(document, dict) else {}
        error = fields.get("error")
        answer = f"{self._url} answered {response.status}"
        if isinstance(error, str) and _OAUTH_ERROR_CODE.fullmatch(error):
            answer += f" {error}"
        if response.status in _TEMPORARY_STATUSES:
            retry_after_seconds = _retry_after_seconds(response.retry_after, self._clock())
            if retry_after_seconds is not None:
                answer += f" and asked to come back in {retry_after_seconds:.0f} s"
            raise TokenEndpointUnavailableError(
                answer, "if it goes on, see the status page of the provider", retry_after_seconds
            )
        if response.status == HTTPStatus.UNAUTHORIZED or error == "invalid_client":
            next_step = "put a valid client_id and client_secret into the credentials secret"
            if _UUID.fullmatch(client_id):
                next_step += "; this client_id is a UUID, and those of API v3 begin with client_"
            raise InvalidClientError(answer, next_step)
        if response.status != HTTPStatus.OK or error:
            raise TokenRequestRefusedError(
                answer,
                "credentials are not sent on, so set TOKEN_URL to where it redirects"
                if response.status in range(300, 400)
                else "see that TOKEN_URL is the token endpoint of the provider of the credentials",
            )
        if document is _NOT_JSON:
            raise UnreadableTokenResponseError(
                f"{answer} with something else than JSON", "if it goes on, see what TOKEN_URL names"
            )
        try:
            return AccessToken.from_response(fields, issued_at)
        except ValueError as unusable:
            problem = str(unusable)
        raise InvalidTokenResponseError(
            f"{answer} without a usable token: {problem}", "see what TOKEN_URL names"
        )


def _parse_json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _retry_after_seconds(value: str, now: float) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date (RFC 9110 section 10.2.3)."""
    try:
        if _DELAY_SECONDS.fullmatch(value):
            seconds = float(value)
        else:
            seconds = max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds <= MAX_RETRY_AFTER_SECONDS else None
