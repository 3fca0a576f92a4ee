"""The examples under load and during failures, with real requests and reads of the secret."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import boto3
import httpx
import pytest
from smartcar_token_auth import NoValidTokenError, SmartcarTokenAuth
from werkzeug import Response

from local.example import COMMANDS, EXAMPLES, variables
from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import TOKEN_SECRET_ID, FakeSecretsManager, Fault
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken
from tests.programs import OLDEST_NODE, need
from tests.samples import PROJECT

NODE = ("node", f"{EXAMPLES}/node/node_modules")
NODE_README = (EXAMPLES / "node/README.md").read_text(encoding="utf-8")
DENIED, DRIP, HANG = (
    Fault("GetSecretValue", TOKEN_SECRET_ID, code)
    for code in ("AccessDeniedException", "drip", "hang")
)
SHELL = ("dash", "jq", "curl", f"{sys.prefix}/aws/bin")
SCRIPT = EXAMPLES / "shell/list_connections.sh"


class Python:
    """The Python example in sync clients."""

    def __init__(self) -> None:
        self.now = time.time()
        self.auth = SmartcarTokenAuth(TOKEN_SECRET_ID, clock=lambda: self.now)
        self.url = os.environ["SMARTCAR_API_URL"] + "/connections"

    def get(self, times: int = 1) -> list[str]:
        """Send requests at the same time, and return the status of each, or its error."""
        with httpx.Client(auth=self.auth, timeout=60) as client, ThreadPoolExecutor(times) as pool:
            futures = [pool.submit(client.get, self.url) for _ in range(times)]
        return [describe(future.exception() or future.result()) for future in futures]

    def age(self, seconds: int) -> None:
        """Make the cached token older."""
        self.now += seconds


class AsyncPython(Python):
    """The Python example in async clients."""

    def get(self, times: int = 1) -> list[str]:
        async def get() -> list[httpx.Response | BaseException]:
            async with httpx.AsyncClient(auth=self.auth, timeout=60) as client:
                requests = [client.get(self.url) for _ in range(times)]
                return await asyncio.gather(*requests, return_exceptions=True)

        return [describe(result) for result in asyncio.run(get())]


def describe(result: httpx.Response | BaseException) -> str:
    """Return a status, or everything that a log would show of an error."""
    if isinstance(result, httpx.Response):
        return str(result.status_code)
    return "".join(traceback.format_exception(result))


class Node:
    """The Node.js example, in a process that `driver.mjs` runs."""

    def __init__(self) -> None:
        need(*NODE)
        command = ["node", str(PROJECT / "tests/examples/driver.mjs")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def get(self, times: int = 1) -> list[str]:
        return self._say(f"{times} 0")

    def age(self, seconds: int) -> None:
        self._say(f"0 {seconds}")

    def _say(self, line: str) -> list[str]:
        assert self.process.stdout
        print(line, file=self.process.stdin, flush=True)
        return list(json.loads(self.process.stdout.readline()))


def run_node(code: str, input_type: str = "module") -> subprocess.CompletedProcess[str]:
    """Run JavaScript in the folder of the Node.js example."""
    need(*NODE)
    command = ["node", f"--input-type={input_type}", "--eval", code]
    return subprocess.run(
        command, cwd=EXAMPLES / "node", capture_output=True, text=True, check=False
    )


class Shell:
    """The shell example, whose cache is a file: two processes represent many requests."""

    def get(self, times: int = 1) -> list[str]:
        runs = [run_script() for _ in range(min(times, 2))]
        return ["200" if run.returncode == 0 else run.stderr.decode() for run in runs]

    def age(self, seconds: int) -> None:
        cache = Path(os.environ["SMARTCAR_TOKEN_CACHE"])
        token = json.loads(cache.read_text(encoding="utf-8"))
        token["read_at"] -= seconds
        cache.write_text(json.dumps(token), encoding="utf-8")


def run_script(*options: str) -> subprocess.CompletedProcess[bytes]:
    """Run the shell example with Debian's shell."""
    need(*SHELL)
    return subprocess.run(["dash", *options, SCRIPT], capture_output=True, check=False)


Consumer = Python | AsyncPython | Node | Shell


@dataclass
class TokenSecret:
    """The secret that the examples read."""

    secrets_manager: FakeSecretsManager
    endpoint: FakeSmartcar

    def publish(self, seconds_left: int = 3600) -> str:
        """Publish a new token that is valid for the given number of seconds, and return it."""
        issued_at = int(time.time()) + seconds_left - 3600
        token = AccessToken(self.endpoint.issue_token(), expires_in=3600, issued_at=issued_at)
        self.put(token.to_json())
        return token.access_token

    def put(self, value: str | Fault) -> None:
        """Store a value, or make reads fail."""
        self.secrets_manager.faults.clear()
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
    """The token secret, with the variables of an example set, and the project's AWS CLI."""
    monkeypatch.setenv("PATH", f"{sys.prefix}/aws/bin{os.pathsep}{os.environ['PATH']}")
    for name, value in variables(secrets_manager, endpoint, str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    secret = TokenSecret(secrets_manager, endpoint)
    yield secret
    secret.end_slow_reads()


@pytest.fixture(params=[Python, AsyncPython, Node, Shell])
def consumer(request: pytest.FixtureRequest) -> Iterator[Consumer]:
    """Each of the examples, with an empty cache."""
    made: Consumer = request.param()
    yield made
    if isinstance(made, Node):
        made.process.communicate(timeout=60)  # an aborted read keeps no connection open


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition that other threads bring about."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_cache(consumer: Consumer, secret: TokenSecret, endpoint: FakeSmartcar) -> None:
    """The secret is read once for 100 concurrent requests, and again after 5 minutes."""
    token = secret.publish()
    assert set(consumer.get(100)) == {"200"}
    consumer.age(250)
    assert consumer.get() == ["200"]
    assert secret.reads == 1

    consumer.age(50)
    assert set(consumer.get(100)) == {"200"}
    assert secret.reads == 2

    endpoint.revoke(token)
    secret.publish()
    consumer.age(-86400)  # a clock may be set back
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

    for times_read in (1, 2):
        endpoint.api_statuses.clear()
        answers = consumer.get(10) + consumer.get(10)
        assert [text for text in answers if answer not in text] == []
        assert len(endpoint.api_statuses) == (0 if seconds_left < 0 else len(answers))
        assert secret.reads == times_read
        consumer.age(10)

    secret.publish()
    assert consumer.get() == ["200"]


@pytest.mark.parametrize(
    "value",
    [
        DENIED,
        "eyJhbGciOi",
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
    answers = consumer.get(10)
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


@pytest.mark.parametrize(
    ("consumer", "fault", "others", "calls"),
    [
        *((example, HANG, 9, 2) for example in (Python, AsyncPython, Node)),
        *((example, DRIP, 9, 1) for example in (Python, AsyncPython, Node)),
        (Shell, HANG, 0, 2),
    ],
    indirect=["consumer"],
)
def test_slow_read(
    consumer: Consumer, fault: Fault, others: int, calls: int, secret: TokenSecret
) -> None:
    """One request waits for the secret, for 10 seconds at most; others use the cached token."""
    secret.publish()
    assert consumer.get() == ["200"]

    consumer.age(301)
    secret.put(fault)
    much_later = threading.Timer(60, secret.end_slow_reads)
    much_later.start()
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        answers = pool.submit(consumer.get, 10)
        wait_until(lambda: secret.reads and len(secret.endpoint.api_statuses) > others)
        others_took = time.monotonic() - started
    assert set(answers.result()) == {"200"}
    assert others_took < (time.monotonic() - started) / 2
    assert much_later.is_alive()
    much_later.cancel()
    assert consumer.get() == ["200"]
    assert secret.reads == calls

    secret.publish()
    consumer.age(10)
    assert consumer.get() == ["200"]
    assert secret.reads == 1


def test_executor(secret: TokenSecret) -> None:
    """While an async request waits for the secret, the executor of its event loop is free."""
    secret.put(DRIP)

    async def is_free() -> bool:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        waiting = asyncio.create_task(SmartcarTokenAuth(TOKEN_SECRET_ID).get_async())
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, lambda: secret.reads)
        return not waiting.done()

    assert asyncio.run(is_free())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork(secret: TokenSecret) -> None:
    """A process that is forked while one thread reads, and one is about to, reads by itself."""

    def clock() -> float:
        if token and not child.pid:
            child.start()
            child.join(60)
            child.kill()
            secret.end_slow_reads()
        return time.time()

    def read_in_child() -> None:
        os._exit(auth.get() != token)

    token = ""
    auth = SmartcarTokenAuth(TOKEN_SECRET_ID, clock=clock)
    child = get_context("fork").Process(target=read_in_child)
    secret.put(HANG)
    with ThreadPoolExecutor() as pool:
        pool.submit(auth.get)
        wait_until(lambda: secret.reads)
        token = secret.publish()
        pool.submit(auth.get)

    assert child.exitcode == 0


def test_no_thread(secret: TokenSecret) -> None:
    """While the process can start no thread, a valid token stays in use."""
    example = Python()
    token = secret.publish()
    assert example.auth.get() == token
    newer = secret.publish()
    example.age(301)

    threading.stack_size(2**47)  # more than there are addresses
    try:
        assert example.auth.get() == token
    finally:
        threading.stack_size(0)

    example.age(10)
    assert example.auth.get() == newer


def test_late_read(secret: TokenSecret) -> None:
    """The result of a read that took too long does not replace that of the next one."""
    example = Python()
    secret.put(HANG)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(example.auth.get)
        wait_until(lambda: secret.reads)
        token = secret.publish()
        example.age(10)
        assert example.auth.get() == token
        secret.end_slow_reads()

    assert first.result() == example.auth.get() == token


def test_errors_outside_boto3() -> None:
    """An answer that boto3 does not understand counts as a failed read in Python, too."""
    with LoopbackServer(Response(b"[]")) as server:
        client = boto3.client("secretsmanager", endpoint_url=server.address)
        with pytest.raises(NoValidTokenError, match="cannot be read"):
            SmartcarTokenAuth(TOKEN_SECRET_ID, client).get()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("await token.fetch(url, { signal });", "Error: aborted"),
        ("controller.abort('early'); await token.fetch(url, { signal });", "early"),
        ("await token.fetch(new Request(url));", "TypeError: pass a URL and options"),
        (
            """AbortSignal.timeout = () => signal;
            token.client.config.credentials = () => new Promise(() => {});
            await token.get();""",
            "cannot be read",
        ),
        (
            """AbortSignal.timeout = () => signal;
            token.client.send = () => { throw new Error("from send"); };
            token.get().catch((error) => process.on("beforeExit", () => { throw error; }));""",
            "Error: from send",
        ),
    ],
    ids=["signal", "aborted signal", "Request", "credentials hang", "send throws"],
)
def test_node_errors(code: str, error: str, secret: TokenSecret) -> None:
    """A signal ends the wait for a read, a Request is refused, and a read may fail in any way."""
    secret.put(HANG)
    setup = """import { SmartcarToken } from "./smartcar-token.mjs";
        const token = new SmartcarToken(process.env.TOKEN_SECRET_ID);
        const url = process.env.SMARTCAR_API_URL;
        const controller = new AbortController();
        const { signal } = controller;
        setImmediate(() => controller.abort(new Error("aborted")));"""

    assert error in run_node(setup + code).stderr


def test_node_readme(secret: TokenSecret, endpoint: FakeSmartcar) -> None:
    """The code in the README of the Node.js example works in both kinds of programs."""
    secret.publish()
    programs = NODE_README.replace("https://vehicle.api.smartcar.com/v3", endpoint.api_url)
    module, commonjs = re.findall(r"```js\n(.*?)```", programs, re.DOTALL)

    assert run_node(module).returncode == 0
    assert run_node(commonjs, "commonjs").returncode == 0
    assert endpoint.api_statuses == [200, 200]


def test_oldest_node() -> None:
    """The oldest Node.js in the README and in package.json is the one that `make` takes."""
    package = json.loads((EXAMPLES / "node/package.json").read_bytes())

    assert package["engines"] == {"node": f">={OLDEST_NODE}"}
    assert f"needs Node.js {OLDEST_NODE} or newer" in NODE_README


def test_trace(secret: TokenSecret, endpoint: FakeSmartcar) -> None:
    """The shell's option -x shows no token, also after a 401."""
    endpoint.revoke(secret.publish())
    shown = run_script("-x").stderr
    secret.publish()
    Shell().age(10)
    shown += run_script("-x").stderr

    assert endpoint.api_statuses == [401, 401, 200]
    assert b"+ read_token" in shown
    assert b"eyJ" not in shown


def test_empty_cache(secret: TokenSecret) -> None:
    """The shell example reads the secret if an earlier run was killed before it had."""
    Path(os.environ["SMARTCAR_TOKEN_CACHE"]).touch()
    secret.publish()

    assert Shell().get() == ["200"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HOME": "/", "PATH": "/"}, "missing programs: aws jq curl\n"),
        ({}, "cannot cache a token: set HOME\n"),
    ],
)
def test_missing(environment: dict[str, str], message: str) -> None:
    """The shell example names the programs that are missing, and HOME."""
    run = subprocess.run(
        ["/bin/sh", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )

    assert (run.returncode, run.stdout, run.stderr) == (1, "", message)


@pytest.mark.parametrize(
    ("name", "needed", "listed"),
    [
        ("python", (), "{'data': []}\n"),
        ("lambda", (), "{'data': []}\n"),
        ("node", NODE, "{ data: [] }\n"),
        ("shell", SHELL, '{"data": []}'),
    ],
)
def test_programs(name: str, needed: tuple[str, ...], listed: str, secret: TokenSecret) -> None:
    """The example programs list the connections; the one in shell adds nothing to the response."""
    need(*needed)
    secret.publish()

    assert subprocess.check_output(COMMANDS[name], cwd=EXAMPLES / name, text=True) == listed


def test_redirect(secret: TokenSecret, endpoint: FakeSmartcar) -> None:
    """The Lambda example, which follows redirects, does not send the token to another host."""
    secret.publish()
    elsewhere = Response(status=302, headers={"Location": f"{endpoint.api_url}/connections"})

    with LoopbackServer(elsewhere) as server:
        environment = os.environ | {"SMARTCAR_API_URL": server.address}
        subprocess.run(COMMANDS["lambda"], cwd=EXAMPLES / "lambda", env=environment, check=False)

    assert endpoint.api_statuses == [401]
