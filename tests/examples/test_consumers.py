"""The examples under load and during failures, with real requests and reads of the secret."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest
from smartcar_token_auth import NoValidTokenError, SmartcarTokenAuth
from werkzeug import Response

from local.example import COMMANDS, EXAMPLES, variables
from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import TOKEN_SECRET_ID, Fault
from rotate_token.access_token import AccessToken
from tests.programs import OLDEST_NODE, need
from tests.samples import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.fakes.secrets_manager import FakeSecretsManager
    from local.fakes.smartcar import FakeSmartcar


AWS_CLI = Path(sys.prefix, "aws", "bin")
NODE_MODULES = EXAMPLES / "node/node_modules"
SCRIPT = EXAMPLES / "shell/list_connections.sh"


class Python:
    """The Python example in sync clients."""

    def __init__(self, _folder: Path) -> None:
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
    """The Node.js example, copied into an empty folder, in a process that `driver.mjs` runs."""

    sdk = "@aws-sdk/client-secrets-manager"

    def __init__(self, folder: Path) -> None:
        install_node_example(folder, self.sdk)
        command = ["node", shutil.copy(PROJECT / "tests/examples/driver.mjs", folder)]
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


class OldestNode(Node):
    """The same with the oldest SDK that its README names."""

    sdk = "oldest-sdk"


def install_node_example(folder: Path, sdk: str = Node.sdk) -> None:
    """Copy the Node.js example into an empty folder, in which a version of the SDK is installed."""
    need("node", str(NODE_MODULES))
    shutil.copy(EXAMPLES / "node/smartcar-token.mjs", folder)
    package = folder / "node_modules" / Node.sdk
    package.parent.mkdir(parents=True)
    package.symlink_to(NODE_MODULES / sdk)


class Shell:
    """The shell example, whose cache is a file: two processes represent many requests."""

    def __init__(self, _folder: Path) -> None:
        self.cache = Path(os.environ["SMARTCAR_TOKEN_CACHE"])

    def get(self, times: int = 1) -> list[str]:
        runs = [run_script() for _ in range(min(times, 2))]
        return ["200" if run.returncode == 0 else run.stderr.decode() for run in runs]

    def age(self, seconds: int) -> None:
        if self.cache.exists():
            token = json.loads(self.cache.read_text(encoding="utf-8"))
            aged = {**token, "read_at": token["read_at"] - seconds}
            self.cache.write_text(json.dumps(aged), encoding="utf-8")


def run_script() -> subprocess.CompletedProcess[bytes]:
    """Run the shell example with Debian's shell, and with the project's AWS CLI."""
    need(f"{AWS_CLI}/aws", "jq", "curl", "dash")
    path = f"{AWS_CLI}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["dash", SCRIPT], env={**os.environ, "PATH": path}, capture_output=True, check=False
    )


Consumer = Python | AsyncPython | Node | Shell


@dataclass
class TokenSecret:
    """The secret that the examples read."""

    secrets_manager: FakeSecretsManager
    endpoint: FakeSmartcar

    def publish(self, seconds_left: int = 3600) -> str:
        """Publish a new token that is valid for the given number of seconds, and return it."""
        self.secrets_manager.faults.clear()
        token = self.endpoint.issue_token()
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

    def end_slow_reads(self) -> None:
        """End the responses that hang or drip."""
        self.secrets_manager.stopping.set()
        self.secrets_manager.stopping.clear()

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
) -> Iterator[TokenSecret]:
    """The token secret, with the variables of an example set."""
    for name, value in variables(secrets_manager, endpoint, str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    secret = TokenSecret(secrets_manager, endpoint)
    yield secret
    secret.end_slow_reads()


@pytest.fixture(params=[Python, AsyncPython, Node, Shell])
def consumer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Consumer]:
    """Each of the examples, with an empty cache."""
    made: Consumer = request.param(tmp_path)
    yield made
    if isinstance(made, Node):
        made.process.communicate(timeout=10)  # an aborted read keeps no connection open


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
        Fault("GetSecretValue", TOKEN_SECRET_ID, "AccessDeniedException"),
        "eyJhbGciOi",
        "null",
        '["eyJhbGciOi"]',
        '{"access_token": "eyJhbGciOi"}',
        '{"access_token": "", "expires_at": 9999999999}',
        '{"access_token": "eyJhbGciOi", "expires_at": "9999999999"}',
        '{"access_token": "eyJhbGciOi", "expires_at": true}',
        '{"access_token": "eyJhbGciOi", "expires_at": NaN}',
        '{"access_token": "eyJhbGciOi", "expires_at": 1e999}',
        '{"access_token": "eyJhbGciOi\\n", "expires_at": 9999999999}',
    ],
)
def test_unreadable(value: str | Fault, consumer: Consumer, secret: TokenSecret) -> None:
    """While the secret cannot be read, a valid token stays in use; without one, requests fail."""
    secret.put(value)
    answers = consumer.get(100)
    assert [text for text in answers if "cannot be read" not in text] == []
    assert "eyJhbGciOi" not in "".join(answers)
    assert secret.reads == 1

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
        secret.end_slow_reads()

    assert answered == 99
    assert answers.result() == ["200"] * 100


@pytest.mark.parametrize(
    ("consumer", "fault", "calls"),
    [
        *((example, "hang", 2) for example in (Python, AsyncPython, Node, OldestNode, Shell)),
        *((example, "drip", 1) for example in (Python, AsyncPython, Node, OldestNode)),
    ],
    indirect=["consumer"],
)
def test_time_limit(
    consumer: Consumer, fault: str, calls: int, secret: TokenSecret, endpoint: FakeSmartcar
) -> None:
    """A read that hangs or drips has failed after 10 seconds, and the next one can succeed."""
    token = secret.publish()
    assert consumer.get() == ["200"]

    consumer.age(301)
    secret.put(Fault("GetSecretValue", TOKEN_SECRET_ID, fault))
    started = time.monotonic()
    assert consumer.get() == ["200"]
    assert time.monotonic() - started < 15  # on a busy machine
    assert consumer.get() == ["200"]
    endpoint.revoke(token)
    assert consumer.get() != ["200"]
    assert secret.reads == calls

    secret.publish()
    consumer.age(10)
    assert consumer.get() == ["200"]


def test_executor(tmp_path: Path, secret: TokenSecret) -> None:
    """While 100 async requests wait for the secret, the executor of the event loop is free."""
    example = AsyncPython(tmp_path)
    secret.put(Fault("GetSecretValue", TOKEN_SECRET_ID, "hang"))

    def wait_for_read() -> None:
        while not secret.reads:
            time.sleep(0.01)

    async def get() -> list[httpx.Response | BaseException]:
        async with httpx.AsyncClient(auth=example.auth) as client:
            requests = [asyncio.create_task(client.get(example.url)) for _ in range(100)]
            await asyncio.wait_for(asyncio.to_thread(wait_for_read), timeout=5)
            secret.end_slow_reads()
            return await asyncio.gather(*requests, return_exceptions=True)

    assert all("cannot be read" in str(result) for result in asyncio.run(get()))


def test_errors_outside_boto3() -> None:
    """An answer that boto3 does not understand counts as a failed read in Python, too."""
    with LoopbackServer(Response(b"[]")) as server:
        client = boto3.client("secretsmanager", endpoint_url=server.address)
        with pytest.raises(NoValidTokenError, match="cannot be read"):
            SmartcarTokenAuth(TOKEN_SECRET_ID, client).get()


@pytest.mark.parametrize("package_type", ["module", "commonjs"])
def test_node_readme(
    package_type: str, tmp_path: Path, secret: TokenSecret, endpoint: FakeSmartcar
) -> None:
    """The code in the README of the Node.js example works in both kinds of programs."""
    secret.publish()
    readme = (EXAMPLES / "node/README.md").read_text(encoding="utf-8")
    module, commonjs = re.findall(r"```js\n(.*?)```", readme, re.DOTALL)
    code = {"module": module, "commonjs": commonjs}[package_type]
    install_node_example(tmp_path)
    (tmp_path / "package.json").write_text(json.dumps({"type": package_type}), encoding="utf-8")
    program = code.replace("https://vehicle.api.smartcar.com/v3", endpoint.api_url)
    (tmp_path / "program.js").write_text(program, encoding="utf-8")

    subprocess.run(["node", "program.js"], cwd=tmp_path, check=True)

    assert endpoint.api_statuses == [200]


def test_oldest_node() -> None:
    """The oldest Node.js in the README and in package.json is the one that `make` takes."""
    package = json.loads((EXAMPLES / "node/package.json").read_bytes())
    readme = (EXAMPLES / "node/README.md").read_text(encoding="utf-8")

    assert package["engines"] == {"node": f">={OLDEST_NODE}"}
    assert f"needs Node.js {OLDEST_NODE} or newer" in readme


def test_oldest_sdk() -> None:
    """The oldest SDK in the README is the one that the tests use, with the handler of its time."""
    need("node", str(NODE_MODULES))
    sdk, handler = (
        json.loads((NODE_MODULES / "oldest-sdk" / folder / "package.json").read_bytes())["version"]
        for folder in ("", "node_modules/@smithy/node-http-handler")
    )

    assert (sdk, handler) == ("3.910.0", "4.4.1")
    assert "3.910.0" in (EXAMPLES / "node/README.md").read_text(encoding="utf-8")


def test_body(secret: TokenSecret, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell example prints the body of the API's response, byte for byte."""
    secret.publish()
    body = b'{"name": "a\\n\\tb\\\\c"}\r\n\x00\n\n'

    with LoopbackServer(Response(body)) as server:
        monkeypatch.setenv("SMARTCAR_API_URL", server.address)
        assert run_script().stdout == body


def test_missing_programs(tmp_path: Path) -> None:
    """The shell example names the programs that are missing."""
    need("dash", "jq")
    (tmp_path / "jq").symlink_to(str(shutil.which("jq")))
    run = subprocess.run(
        [str(shutil.which("dash")), SCRIPT],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stdout, run.stderr) == (1, "", "missing programs: aws curl\n")


@pytest.mark.parametrize("name", ["python", "lambda"])
def test_programs(name: str, secret: TokenSecret) -> None:
    """The Python example programs list the connections."""
    secret.publish()

    listed = subprocess.check_output(COMMANDS[name], cwd=EXAMPLES / name, text=True)

    assert listed == "{'data': []}\n"
