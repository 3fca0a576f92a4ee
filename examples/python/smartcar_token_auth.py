"""Authentication for httpx: sends requests to Smartcar's API with the published token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import boto3
import httpx
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

CACHE_SECONDS = 300
MARGIN_SECONDS = 60
RETRY_SECONDS = 10


class NoValidTokenError(Exception):
    """No valid token is cached, and the secret holds none or cannot be read."""


class SmartcarTokenAuth(httpx.Auth):
    """
    Reads the token when it is needed; for sync and async clients, and for concurrent requests.

    A token is cached for 5 minutes, but only until one minute before it expires. After a 401, the
    secret is read again, and the request is retried if the token has changed. Two reads are at
    least 10 seconds apart. While the secret cannot be read, a valid token stays in use. The
    body of a request must not be a stream, which cannot be sent twice.

    Args:
        secret_id: Name or ARN of the token secret.
        client: A boto3 client for Secrets Manager; by default a new one.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self, secret_id: str, client: Any = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret_id = secret_id
        self._client = client or boto3.client("secretsmanager")
        self._clock = clock
        self._lock = threading.Lock()
        self._token = "", 0.0
        self._read_at = 0.0
        self._error: Exception | None = None

    def get(self, rejected: str = "") -> str:
        """Return a valid token; if possible, not the one that the API `rejected`."""
        token, expires_at = self._token
        usable = token != rejected and self._clock() < expires_at
        # While one thread reads, the others wait only if they have no usable token.
        if self._is_due(rejected) and self._lock.acquire(blocking=not usable):
            try:
                if self._is_due(rejected):
                    self._read()
            finally:
                self._lock.release()
        token, expires_at = self._token
        if self._clock() < expires_at:
            return token
        problem = "cannot be read" if self._error else "holds no valid token"
        raise NoValidTokenError(f"secret {self._secret_id} {problem}") from self._error

    def _is_due(self, rejected: str) -> bool:
        token, expires_at = self._token
        now = self._clock()
        age = abs(now - self._read_at)  # the clock may have been set back
        is_old = age >= CACHE_SECONDS or now >= expires_at - MARGIN_SECONDS
        return age >= RETRY_SECONDS and (is_old or token == rejected or self._error is not None)

    def _read(self) -> None:
        try:
            secret = self._client.get_secret_value(SecretId=self._secret_id)
            self._token, self._error = _parse(secret.get("SecretString", "")), None
        except (BotoCoreError, ClientError, ValueError) as error:
            self._error = error
        self._read_at = self._clock()

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request with the token; after a 401, retry it if the token has changed."""
        token = self.get()
        response = yield _with(token, request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            newer = self.get(rejected=token)
            if newer != token:
                yield _with(newer, request)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same without blocking the event loop."""
        token = await asyncio.to_thread(self.get)
        response = yield _with(token, request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            newer = await asyncio.to_thread(self.get, token)
            if newer != token:
                yield _with(newer, request)


def _parse(value: str) -> tuple[str, float]:
    """Return a published token and its expires_at; an error shows no part of the value."""
    with contextlib.suppress(ValueError, RecursionError):
        match json.loads(value):
            case {"access_token": str(token), "expires_at": int() | float() as expires_at}:
                if token and not isinstance(expires_at, bool):
                    return token, expires_at
    raise ValueError("its value is not a published token")


def _with(token: str, request: httpx.Request) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request
