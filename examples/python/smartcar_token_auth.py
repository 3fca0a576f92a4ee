"""Authentication for httpx: sends requests to Smartcar's API with the published token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import boto3
import httpx
from botocore.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

CACHE_SECONDS = 300
MARGIN_SECONDS = 60
RETRY_SECONDS = 10
READ_SECONDS = 10

# By default, boto3 waits for minutes. A read that takes longer than READ_SECONDS is abandoned.
CLIENT_CONFIG = Config(
    connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2}
)


class NoValidTokenError(Exception):
    """No valid token is cached, and the secret holds none or cannot be read."""


class SmartcarTokenAuth(httpx.Auth):
    """
    Reads the token when it is needed; for sync and async clients, and for concurrent requests.

    A token is cached for 5 minutes, but only until one minute before it expires. After a 401, the
    secret is read again, and the request is retried if the token has changed. Two reads are at
    least 10 seconds apart, and each takes at most 10 seconds. While the secret cannot be read, a
    valid token stays in use. The body of a request must not be a stream, which cannot be sent
    twice.

    Args:
        secret_id: Name or ARN of the token secret.
        client: A boto3 client for Secrets Manager; by default a new one.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self, secret_id: str, client: Any = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret_id = secret_id
        self._client = client or boto3.client("secretsmanager", config=CLIENT_CONFIG)
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: Future[None] | None = None
        self._token = "", 0.0
        self._read_at = 0.0
        self._error: Exception | None = None

    def get(self, rejected: str = "") -> str:
        """Return a valid token; if possible, not the one that the API `rejected`."""
        if reading := self._read_if_due(rejected):
            wait([reading])
        return self._valid_token()

    async def get_async(self, rejected: str = "") -> str:
        """Do the same without blocking the event loop or its executor."""
        if reading := self._read_if_due(rejected):
            await asyncio.wait([asyncio.wrap_future(reading)])
        return self._valid_token()

    def _valid_token(self) -> str:
        token, expires_at = self._token
        if self._clock() < expires_at:
            return token
        problem = "cannot be read" if self._error else "holds no valid token"
        raise NoValidTokenError(f"secret {self._secret_id} {problem}") from self._error

    def _read_if_due(self, rejected: str) -> Future[None] | None:
        """Return the read to wait for, if there is one."""
        with self._lock:
            if self._reading and not self._reading.done():
                # While one request reads, the others wait only if they have no usable token.
                token, expires_at = self._token
                usable = token != rejected and self._clock() < expires_at
                return None if usable else self._reading
            if not self._is_due(rejected):
                return None
            reading: Future[None] = Future()
            threading.Thread(target=self._read, args=(reading,), daemon=True).start()
            self._reading = reading
            return reading

    def _is_due(self, rejected: str) -> bool:
        token, expires_at = self._token
        now = self._clock()
        age = abs(now - self._read_at)  # the clock may have been set back
        is_old = age >= CACHE_SECONDS or now >= expires_at - MARGIN_SECONDS
        return age >= RETRY_SECONDS and (is_old or token == rejected or self._error is not None)

    def _read(self, reading: Future[None]) -> None:
        answer: Future[tuple[str, float]] = Future()
        try:
            threading.Thread(target=self._ask, args=(answer,), daemon=True).start()
            self._token, self._error = answer.result(READ_SECONDS), None
        except Exception as error:  # noqa: BLE001 (whatever it is, a valid token stays in use)
            self._error = error
        self._read_at = self._clock()
        reading.set_result(None)

    def _ask(self, answer: Future[tuple[str, float]]) -> None:
        try:
            secret = self._client.get_secret_value(SecretId=self._secret_id)
            answer.set_result(_parse(secret.get("SecretString", "")))
        except Exception as error:  # noqa: BLE001 (raised where the answer is awaited)
            answer.set_exception(error)

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
        """Do the same in an async client."""
        token = await self.get_async()
        response = yield _with(token, request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            newer = await self.get_async(rejected=token)
            if newer != token:
                yield _with(newer, request)


def _parse(value: str) -> tuple[str, float]:
    """Return a published token and its expires_at; an error shows no part of the value."""
    with contextlib.suppress(ValueError, RecursionError):
        match json.loads(value):
            case {"access_token": str(token), "expires_at": int() | float() as expires_at}:
                is_number = not isinstance(expires_at, bool) and expires_at < math.inf  # nor NaN
                if is_number and re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
                    return token, expires_at
    raise ValueError("its value is not a published token")


def _with(token: str, request: httpx.Request) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request
