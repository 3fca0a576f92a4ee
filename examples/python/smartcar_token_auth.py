"""Authentication for httpx: sends requests to Smartcar's API with the published token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
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
    Reads the token when it is needed; for sync and asyncio clients, and for concurrent requests.

    A token is cached for 5 minutes, but only until one minute before it expires. After a 401, the
    secret is read again, and the request is retried if the token has changed. Reads begin at least
    10 seconds apart, and each takes at most 10 seconds. While the secret cannot be read, a valid
    token stays in use. The body of a request must not be a stream, which cannot be sent twice.

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
        self._locks: dict[int, threading.Lock] = {}
        self._token = "", 0.0
        self._error: Exception | None = None
        self._reading: Future[None] = Future()
        self._read_at = 0.0
        self._reader = 0

    def get(self, rejected: str = "") -> str:
        """Return a valid token; if possible, not the one that the API `rejected`."""
        if reading := self._read_if_due(rejected):
            wait([reading], READ_SECONDS)
        return self._valid_token()

    async def get_async(self, rejected: str = "") -> str:
        """Do the same without blocking the event loop or its executor."""
        if reading := self._read_if_due(rejected):
            await asyncio.wait([asyncio.wrap_future(reading)], timeout=READ_SECONDS)
        return self._valid_token()

    def _valid_token(self) -> str:
        token, expires_at = self._token
        if self._clock() < expires_at:
            return token
        problem = "cannot be read" if self._error else "holds no valid token"
        raise NoValidTokenError(f"secret {self._secret_id} {problem}") from self._error

    def _read_if_due(self, rejected: str) -> Future[None] | None:
        """Return the read to wait for, if there is one."""
        process = os.getpid()
        # One lock for each process: at a fork, another thread may have held that of the parent.
        with self._locks.setdefault(process, threading.Lock()):
            token, expires_at = self._token
            now = self._clock()
            age = abs(now - self._read_at)  # the clock may have been set back
            if self._reading.done():
                is_old = age >= CACHE_SECONDS or now >= expires_at - MARGIN_SECONDS
                if age < RETRY_SECONDS or not (is_old or token == rejected or self._error):
                    return None
            elif age < READ_SECONDS and self._reader == process:
                # While one request reads, the others wait only if they have no usable token.
                return None if token != rejected and now < expires_at else self._reading
            # A read that takes longer, or that was under way at a fork, is given up.
            self._reading, self._read_at, self._reader = Future(), now, process
            self._error = TimeoutError(f"no answer for {READ_SECONDS} seconds")
            try:
                threading.Thread(target=self._read, args=(self._reading,), daemon=True).start()
            except RuntimeError as error:  # there are too many threads
                self._error = error
                self._reading.set_result(None)
            return self._reading

    def _read(self, reading: Future[None]) -> None:
        token, error = self._token, None
        try:
            secret = self._client.get_secret_value(SecretId=self._secret_id)
            token = _parse(secret.get("SecretString", ""))
        except Exception as exception:  # noqa: BLE001 (whatever it is, a valid token stays in use)
            error = exception
        if reading is self._reading:  # it is not, if another read has begun meanwhile
            self._token, self._error = token, error
        reading.set_result(None)

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
