"""The examples under load and during failures, with real requests and reads of the secret."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from smartcar_token_auth import SmartcarTokenAuth

from local.example import COMMANDS, EXAMPLES, variables
from local.fakes.secrets_manager import TOKEN_SECRET_ID, Fault, publish
from rotate_token.access_token import AccessToken
from tests.programs import need
from tests.samples import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.fakes.secrets_manager import FakeSecretsManager
    from local.fakes.smartcar import FakeSmartcar


class Python:
    """The Python example in sync clients."""

    def __init__(self) -> None:
        self.now = time.time()
        self.auth = SmartcarTokenAuth(TOKEN_SECRET_ID, clock=lambda: self.now)
        self.url = os.environ["SMARTCAR_API_URL"] + "/connections"

    def get(self, times: int = 1) -> list[str]:
        """Send requests at the same time, and return the status of each, or its error."""
        with httpx.Client(auth=self.auth) as client, ThreadPoolExecutor(times) as executor:
            futures = [executor.submit(client.get, self.url) for _ in range(times)]
        return [describe(future.exception() or future.result()) for future in futures]

    def age(self, seconds: int) -> None:
        """Make the cached token older."""
        self.now += seconds


class AsyncPython(Python):
    """The Python example in async clients."""

    def get(self, times: int = 1) -> list[str]:
        async def get() -> list[httpx.Response | BaseException]:
            async with httpx.AsyncClient(auth=self.auth) as client:
                requests = [client.get(self.url) for _ in range(times)]
                return await asyncio.gather(*requests, return_exceptions=True)

        return [describe(result) for result in asyncio.run(get())]


def describe(result: httpx.Response | BaseException) -> str:
    """Return a status, or everything that a log would show of an error."""
    if isinstance(result, httpx.Response):
        return str(result.status_code)
    return "".join(traceback.format_exception(result))


class Node:
    """The Node.js example, in a process that `driver.js` runs."""

    def __init__(self) -> None:
        need("node", f"{EXAMPLES}/node/node_modules")
        command = ["node", str(PROJECT / "tests/examples/driver.js")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def get(self, times: int = 1) -> list[str]:
        return self._say(f"get {times}")

    def age(self, seconds: int) -> None:
        self._say(f"age {seconds}")

    def _say(self, line: str) -> list[str]:
        assert self.process.stdout
        print(line, file=self.process.stdin, flush=True)
        return list(json.loads(self.process.stdout.readline()))


class Shell:
    """The shell example, whose cache is a file: two processes represent many requests."""

    def __init__(self) -> None:
        need("aws", "jq", "curl")
        self.cache = Path(os.environ["SMARTCAR_TOKEN_CACHE"])

    def get(self, times: int = 1) -> list[str]:
        script = EXAMPLES / "shell/list_connections.sh"
        runs = [
            subprocess.run(script, capture_output=True, text=True, check=False)
            for _ in range(min(times, 2))
        ]
        return ["200" if run.returncode == 0 else run.stderr for run in runs]

    def age(self, seconds: int) -> None:
        if self.cache.exists():
            token = json.loads(self.cache.read_text())
            self.cache.write_text(json.dumps({**token, "read_at": token["read_at"] - seconds}))


Consumer = Python | AsyncPython | Node | Shell


@dataclass
class TokenSecret:
    """The secret that the examples read."""

    secrets_manager: FakeSecretsManager
    endpoint: FakeSmartcar

    def publish(self, seconds_left: int = 3600) -> str:
        """Publish a new token that is valid for the given number of seconds, and return it."""
        self.secrets_manager.faults.clear()
        token = publish(self.secrets_manager, self.endpoint)
        issued_at = int(time.time()) + seconds_left - 3600
        self.put(AccessToken(token, expires_in=3600, issued_at=issued_at).to_json())
        return token

    def put(self, value: str | Fault) -> None:
        """Store a value, or make reads fail."""
        if isinstance(value, Fault):
            self.secrets_manager.faults.append(value)
        else:
            client = self.secrets_manager.client
            client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=value)
        self.secrets_manager.calls.clear()

    @property
    def reads(self) -> int:
        """How often it was read since the last change."""
        return self.secrets_manager.calls.count(("GetSecretValue", TOKEN_SECRET_ID))


@pytest.fixture(autouse=True)
def secret(
    secrets_manager: FakeSecretsManager,
    endpoint: FakeSmartcar,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> TokenSecret:
    """The token secret, with the variables of an example set, and AWS called without retries."""
    environment = variables(secrets_manager, endpoint, str(tmp_path))
    for name, value in {**environment, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    return TokenSecret(secrets_manager, endpoint)


@pytest.fixture(params=[Python, AsyncPython, Node, Shell])
def consumer(request: pytest.FixtureRequest) -> Iterator[Consumer]:
    """Each of the examples, with an empty cache."""
    made: Consumer = request.param()
    yield made
    if isinstance(made, Node):
        made.process.communicate()


def test_cache(consumer: Consumer, secret: TokenSecret, endpoint: FakeSmartcar) -> None:
    """The secret is read once for 100 concurrent requests, and again after 5 minutes or a 401."""
    token = secret.publish()
    assert set(consumer.get(100)) == {"200"}
    assert secret.reads == 1

    consumer.age(301)
    assert set(consumer.get(100)) == {"200"}
    assert secret.reads == 2

    for seconds in (10, -86400):  # a clock may be set back
        endpoint.revoke(token)
        token = secret.publish()
        assert consumer.get() != ["200"]
        consumer.age(seconds)
        assert consumer.get() == ["200"]
        assert secret.reads == 1


@pytest.mark.parametrize(
    ("seconds_left", "answer"),
    [(3600, "401"), (50, "200"), (-1, "holds no valid token")],
    ids=["rejected", "about to expire", "expired"],
)
def test_bad_token(
    seconds_left: int, answer: str, consumer: Consumer, secret: TokenSecret, endpoint: FakeSmartcar
) -> None:
    """While the token is rejected, expired or about to expire, it is read every 10 seconds."""
    token = secret.publish(seconds_left)
    if answer == "401":
        endpoint.revoke(token)

    for times_read in (1, 2, 3):
        answers = consumer.get(100) + consumer.get(100)
        assert [text for text in answers if answer not in text] == []
        assert secret.reads == times_read
        consumer.age(10)

    secret.publish()
    assert consumer.get() == ["200"]


@pytest.mark.parametrize(
    "value",
    [
        Fault("GetSecretValue", TOKEN_SECRET_ID, "InternalServiceError"),
        "eyJhbGciOi",
        "null",
        '["eyJhbGciOi"]',
        '{"access_token": "eyJhbGciOi"}',
        '{"access_token": "", "expires_at": 9999999999}',
        '{"access_token": "eyJhbGciOi", "expires_at": "9999999999"}',
        '{"access_token": "eyJhbGciOi", "expires_at": true}',
    ],
)
def test_unreadable(value: str | Fault, consumer: Consumer, secret: TokenSecret) -> None:
    """While the secret cannot be read, a valid token stays in use; without one, requests fail."""
    secret.put(value)
    answers = consumer.get(100)
    assert [text for text in answers if "cannot be read" not in text] == []
    assert "eyJhbGciOi" not in "".join(answers)
    assert secret.reads <= 2  # one for each process of the shell

    secret.publish()
    consumer.age(10)
    assert consumer.get() == ["200"]

    secret.put(value)
    consumer.age(301)
    for times_read in (1, 2):
        assert consumer.get() == ["200"]
        assert secret.reads == times_read
        consumer.age(10)


@pytest.mark.parametrize("consumer", [Python, AsyncPython, Node], indirect=True)
def test_slow_read(consumer: Consumer, secret: TokenSecret, endpoint: FakeSmartcar) -> None:
    """While one request waits for the secret, 99 others use the cached token."""
    secret.publish()
    consumer.get()
    consumer.age(301)
    secret.put(Fault("GetSecretValue", TOKEN_SECRET_ID, "hang"))
    endpoint.api_statuses.clear()

    with ThreadPoolExecutor() as executor:
        answers = executor.submit(consumer.get, 100)
        deadline = time.monotonic() + 10
        while len(endpoint.api_statuses) < 99 and time.monotonic() < deadline:
            time.sleep(0.01)
        answered = len(endpoint.api_statuses)
        secret.secrets_manager.stopping.set()  # ends the hanging read
    secret.secrets_manager.stopping.clear()

    assert answered == 99
    assert answers.result() == ["200"] * 100


@pytest.mark.parametrize("name", ["python", "lambda"])
def test_programs(name: str, secret: TokenSecret) -> None:
    """The Python example programs list the connections."""
    secret.publish()

    listed = subprocess.check_output(COMMANDS[name], cwd=EXAMPLES / name, text=True)

    assert listed == "{'data': []}\n"
