"""The examples through a consumer's life, each with a cache that stays warm in between."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest
from botocore.config import Config
from smartcar_token_auth import NoValidTokenError, SmartcarTokenAuth

from local.example import publish, variables
from local.fakes.secrets_manager import TOKEN_SECRET_ID, Fault
from rotate_token.access_token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.fakes.secrets_manager import FakeSecretsManager
    from local.fakes.smartcar import FakeSmartcar

PROJECT = Path(__file__).parents[2]
EXPIRED = AccessToken("eyJvbGQi.k3Jd8sLq0ZxVbNm2", expires_in=3600, issued_at=1_700_000_000)

Answers = list[int | str]


def need(program: str) -> None:
    """Skip a test on a machine that lacks a program, but not in CI."""
    if not shutil.which(program):
        assert "CI" not in os.environ, f"{program} is missing"
        pytest.skip(f"{program} is missing")


class Consumer(ABC):
    """An example that lives for a while, and asks the API for connections."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.url = environment["SMARTCAR_API_URL"] + "/connections"

    @abstractmethod
    def get(self, times: int = 1) -> Answers:
        """Ask, several times at once, and return each status, or the error."""

    @abstractmethod
    def age(self, seconds: int) -> None:
        """Let its cache grow older."""

    def close(self) -> None:  # noqa: B027 (there may be nothing to end)
        """End it."""


class Python(Consumer):
    """The example in Python, in a sync client."""

    def __init__(self, environment: dict[str, str]) -> None:
        super().__init__(environment)
        self.seconds = 0
        client = boto3.client(
            "secretsmanager",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.auth = SmartcarTokenAuth(
            TOKEN_SECRET_ID, client, clock=lambda: time.time() + self.seconds
        )

    def age(self, seconds: int) -> None:
        self.seconds += seconds

    def get(self, times: int = 1) -> Answers:
        with httpx.Client(auth=self.auth, trust_env=False) as client:

            def ask(_: int) -> int | str:
                try:
                    return client.get(self.url).status_code
                except NoValidTokenError as error:
                    return str(error)

            with ThreadPoolExecutor(times) as executor:
                return list(executor.map(ask, range(times)))


class AsyncPython(Python):
    """The same in an async client."""

    def get(self, times: int = 1) -> Answers:
        async def ask_all() -> Answers:
            async with httpx.AsyncClient(auth=self.auth, trust_env=False) as client:

                async def ask() -> int | str:
                    try:
                        return (await client.get(self.url)).status_code
                    except NoValidTokenError as error:
                        return str(error)

                return list(await asyncio.gather(*(ask() for _ in range(times))))

        return asyncio.run(ask_all())


class Node(Consumer):
    """The example for Node.js."""

    def __init__(self, environment: dict[str, str]) -> None:
        super().__init__(environment)
        need("node")
        if not (PROJECT / "examples/node/node_modules").is_dir():
            subprocess.run(["npm", "ci", "--silent"], cwd=PROJECT / "examples/node", check=True)
        self.process = subprocess.Popen(
            ["node", PROJECT / "tests/examples/driver.js"],
            env={**environment, "AWS_MAX_ATTEMPTS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _say(self, line: str) -> Answers:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answers: Answers = json.loads(self.process.stdout.readline())
        return answers

    def get(self, times: int = 1) -> Answers:
        return self._say(f"get {times}")

    def age(self, seconds: int) -> None:
        self._say(f"age {seconds}")

    def close(self) -> None:
        self.process.communicate()


class Shell(Consumer):
    """The example for the shell, whose cache is a file."""

    def __init__(self, environment: dict[str, str]) -> None:
        path = f"{environment['PATH']}{os.pathsep}{PROJECT / '.venv/aws/bin'}"
        super().__init__({**environment, "PATH": path, "AWS_MAX_ATTEMPTS": "1"})
        self.cache = Path(environment["SMARTCAR_TOKEN_CACHE"])
        self.cache.unlink(missing_ok=True)
        need("jq")
        need("curl")
        assert shutil.which("aws", path=path), "make .venv/aws/installed"

    def get(self, times: int = 1) -> Answers:
        assert times == 1
        command = PROJECT / "examples/shell/list_connections.sh"
        run = subprocess.run(
            [command], env=self.environment, capture_output=True, text=True, check=False
        )
        return [200 if run.returncode == 0 else run.stderr]

    def age(self, seconds: int) -> None:
        modified = self.cache.stat().st_mtime - seconds
        os.utime(self.cache, (modified, modified))


@pytest.fixture(params=[Python, AsyncPython, Node, Shell])
def kind(request: pytest.FixtureRequest) -> type[Consumer]:
    """Each of the examples."""
    made: type[Consumer] = request.param
    return made


@pytest.fixture
def consumer(kind: type[Consumer], example_environment: dict[str, str]) -> Iterator[Consumer]:
    """A consumer that has read nothing yet."""
    made = kind(example_environment)
    yield made
    made.close()


@pytest.fixture
def example_environment(
    secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar, tmp_path: Path
) -> dict[str, str]:
    """The variables of an example."""
    return variables(secrets_manager, endpoint, str(tmp_path))


def reads(secrets_manager: FakeSecretsManager) -> int:
    """How often the token secret was read."""
    return secrets_manager.calls.count(("GetSecretValue", TOKEN_SECRET_ID))


def test_story(
    consumer: Consumer, secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar
) -> None:
    """A consumer keeps working while it can, and says clearly when it cannot."""
    # A token is published: the API answers, and the token is read once.
    first = publish(secrets_manager, endpoint)
    secrets_manager.calls.clear()
    assert consumer.get() == [200]
    assert consumer.get() == [200]
    assert reads(secrets_manager) == 1

    # Another is published and the old one revoked: the second try has it.
    publish(secrets_manager, endpoint)
    endpoint.revoke(first)
    assert consumer.get() == [200]
    assert endpoint.api_statuses[-2:] == [401, 200]

    # The cache has grown old: the token is read again.
    secrets_manager.calls.clear()
    consumer.age(301)
    assert consumer.get() == [200]
    assert reads(secrets_manager) == 1

    # Secrets Manager is down: the token at hand is used.
    secrets_manager.faults.append(Fault("GetSecretValue", TOKEN_SECRET_ID, "InternalServiceError"))
    consumer.age(301)
    assert consumer.get() == [200]
    assert reads(secrets_manager) == 2


def test_revoked(
    consumer: Consumer, secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar
) -> None:
    """A token that the API refuses, with no other in the secret, is sent once."""
    endpoint.revoke(publish(secrets_manager, endpoint))

    (answer,) = consumer.get()

    assert answer != 200
    assert endpoint.api_statuses == [401]


def test_expired(consumer: Consumer, secrets_manager: FakeSecretsManager) -> None:
    """A token that has expired, with no newer one, is a clear error, and is not sent."""
    secrets_manager.client.put_secret_value(
        SecretId=TOKEN_SECRET_ID, SecretString=EXPIRED.to_json()
    )

    (answer,) = consumer.get()

    assert f"secret {TOKEN_SECRET_ID} holds no valid token" in str(answer)


def test_unreadable(consumer: Consumer, secrets_manager: FakeSecretsManager) -> None:
    """A secret that cannot be read, with no token at hand, is a clear error."""
    secrets_manager.faults.append(Fault("GetSecretValue", TOKEN_SECRET_ID, "InternalServiceError"))

    (answer,) = consumer.get()

    assert f"secret {TOKEN_SECRET_ID} " in str(answer)
    assert "cannot be read" in str(answer)


@pytest.mark.parametrize("kind", [Python, AsyncPython, Node])
def test_fifty_at_once(
    kind: type[Consumer],
    example_environment: dict[str, str],
    secrets_manager: FakeSecretsManager,
    endpoint: FakeSmartcar,
) -> None:
    """Fifty threads or tasks with a cold cache read the token once."""
    publish(secrets_manager, endpoint)
    secrets_manager.calls.clear()
    consumer = kind(example_environment)

    assert consumer.get(50) == [200] * 50

    assert reads(secrets_manager) == 1
    consumer.close()
