"""Requests to Smartcar's API with the published token: an authentication for httpx."""

from __future__ import annotations

import asyncio
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
    """The secret has no token that is still valid, or cannot be read and none is at hand."""


class SmartcarTokenAuth(httpx.Auth):
    """
    Reads the token when it is needed, for sync and async clients, any number of threads and tasks.

    A token is kept for 5 minutes, and not beyond a minute before it expires. It is read once more
    when the API answers 401, and the request repeated if there is another. While the secret cannot
    be read, a token that is still valid stays in use.

    Args:
        secret_id: Name or ARN of the token secret.
        client: A boto3 client of Secrets Manager; without one, the usual one.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self, secret_id: str, client: Any = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret_id = secret_id
        self._client = client or boto3.client("secretsmanager")
        self._clock = clock
        self._lock = threading.Lock()
        self._token: dict[str, Any] = {"access_token": "", "expires_at": 0}
        self._read_again_at = 0.0

    def get(self, refused: str = "") -> str:
        """
        Return a valid access token: the one at hand, unless it is old or the API has `refused` it.

        Raises:
            NoValidTokenError: There is none.
        """
        with self._lock:
            now = self._clock()
            if now >= self._read_again_at or self._token["access_token"] == refused:
                self._read(now)
            if now >= self._token["expires_at"]:
                raise NoValidTokenError(f"secret {self._secret_id} holds no valid token")
            return str(self._token["access_token"])

    def _read(self, now: float) -> None:
        try:
            secret = self._client.get_secret_value(SecretId=self._secret_id)
            self._token = json.loads(secret["SecretString"])
        except (BotoCoreError, ClientError, ValueError) as error:
            if now >= self._token["expires_at"]:
                raise NoValidTokenError(f"secret {self._secret_id} cannot be read") from error
            self._read_again_at = now + RETRY_SECONDS
        else:
            self._read_again_at = min(
                now + CACHE_SECONDS, self._token["expires_at"] - MARGIN_SECONDS
            )

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request with the token, and once more if that was refused and there is another."""
        token = self.get()
        response = yield _with(token, request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            newer = self.get(refused=token)
            if newer != token:
                yield _with(newer, request)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same without holding up the event loop."""
        token = await asyncio.to_thread(self.get)
        response = yield _with(token, request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            newer = await asyncio.to_thread(self.get, token)
            if newer != token:
                yield _with(newer, request)


def _with(token: str, request: httpx.Request) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request
