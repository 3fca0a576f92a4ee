"""Tests in real time, or with many processes: deadlines, memory, kills, concurrent runs."""

from __future__ import annotations

import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

import boto3
import pytest

from local.fakes.lambda_runtime import FunctionError, LambdaRuntime
from local.fakes.secrets_manager import (
    CREDENTIALS_SECRET_ID,
    TOKEN_SECRET_ID,
    FakeSecretsManager,
    Fault,
)
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token.access_token import AccessToken
from rotate_token.retrying import RESERVED_SECONDS, Run
from rotate_token.rotation import rotate
from rotate_token.token_endpoint import TokenEndpoint
from tests.samples import LOOPBACK_ONLY, make_store, old_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rotate_token.rotation import Result
    from tests.samples import Invoke

pytestmark = pytest.mark.xdist_group("package")


class Case(NamedTuple):
    """
    What a run of the built package meets; `url` may contain the endpoint's port.

    Attributes:
        error: The error that it ends with; empty if it publishes a token.
        faults: The script of the token endpoint.
        secrets_manager_faults: The faults of Secrets Manager.
        url: The URL of the token endpoint.
        seconds: How long attempts may start.
    """

    error: str
    faults: Iterable[str | Answer] = ()
    secrets_manager_faults: tuple[Fault, ...] = ()
    url: str = "http://127.0.0.1:{port}/oauth2/token"
    seconds: float = 2


def gzip_bomb() -> Answer:
    """Make a body of 200 MB that compresses to 200 KB."""
    compressor = zlib.compressobj(1, wbits=31)
    chunks = [compressor.compress(b" " * 1_000_000) for _ in range(200)]
    return Answer(200, b"".join([*chunks, compressor.flush()]))


UNAVAILABLE = "TokenEndpointUnavailableError"
HANGS = "SecretsManagerUnavailableError"
CASES = {
    "answers 503": Case(UNAVAILABLE, ["503"] * 100),
    "never answers": Case(UNAVAILABLE, ["timeout"] * 100),
    "body arrives in pieces": Case(UNAVAILABLE, ["slow"] * 100),
    "headers arrive in pieces": Case(UNAVAILABLE, ["slow-headers"] * 100),
    "never stops sending": Case(UNAVAILABLE, ["flood"] * 100),
    "sends a gzip bomb": Case(UNAVAILABLE, [gzip_bomb()] * 100),
    "does not resolve": Case(UNAVAILABLE, url="https://iam.smartcar.invalid/oauth2/token"),
    "does not speak TLS": Case(UNAVAILABLE, url="https://127.0.0.1:{port}/oauth2/token"),
    "reading the token hangs": Case(
        HANGS, secrets_manager_faults=(Fault("GetSecretValue", TOKEN_SECRET_ID, "hang"),)
    ),
    "reading the credentials hangs": Case(
        HANGS, secrets_manager_faults=(Fault("GetSecretValue", CREDENTIALS_SECRET_ID, "hang"),)
    ),
    "publishing hangs": Case(
        HANGS, secrets_manager_faults=(Fault("PutSecretValue", TOKEN_SECRET_ID, "hang"),)
    ),
    "asks to wait for an hour": Case(
        "", [Answer(503, headers={"Retry-After": "3600"})], seconds=70
    ),
}


class Ending(NamedTuple):
    """How a run ended."""

    error: str
    seconds: float
    output: str
    peak_memory_bytes: int
    has_rotated: bool


@pytest.fixture(scope="module")
def endings(
    package: Path, running_secrets_manager: FakeSecretsManager
) -> Iterator[dict[str, Ending]]:
    """
    How a run of each case ends; all runs are concurrent.

    They share two secrets: the run that publishes a token ends after all others.
    """
    running_secrets_manager.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
    old = old_token().to_json()
    running_secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=old)
    with ExitStack() as stack:
        runs = {name: prepare(package, case, stack) for name, case in CASES.items()}
        executor = stack.enter_context(ThreadPoolExecutor(len(runs)))
        futures = {name: executor.submit(invoke_once, *run, old) for name, run in runs.items()}
        yield {name: future.result() for name, future in futures.items()}


def prepare(
    package: Path, case: Case, stack: ExitStack
) -> tuple[LambdaRuntime, FakeSecretsManager]:
    """Start the servers and the function of a case."""
    endpoint = stack.enter_context(FakeSmartcar(case.faults))
    secrets_manager = stack.enter_context(FakeSecretsManager())
    url = case.url.format(port=endpoint.address.rpartition(":")[2])
    function = LambdaRuntime(
        package,
        {
            **secrets_manager.environment,
            "TOKEN_URL": url,
            # Only the name that does not exist is looked up.
            "PYTHONPATH": "" if ".invalid/" in url else str(LOOPBACK_ONLY),
        },
        timeout_seconds=RESERVED_SECONDS + case.seconds,
    )
    secrets_manager.faults.extend(case.secrets_manager_faults)
    return stack.enter_context(function), secrets_manager


def invoke_once(function: LambdaRuntime, secrets_manager: FakeSecretsManager, old: str) -> Ending:
    """Invoke the function, and return how the run ended."""
    error = ""
    started_at = time.monotonic()
    try:
        function.invoke({})
    except FunctionError as failure:
        error = str(failure)
    seconds = time.monotonic() - started_at
    secrets_manager.faults.clear()
    has_rotated = secrets_manager.published() != old
    return Ending(error, seconds, function.output, function.peak_memory_bytes, has_rotated)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.error])
def test_deadline(endings: dict[str, Ending], name: str) -> None:
    """During any lasting fault, a run raises its error at least 5 s before its timeout."""
    ending = endings[name]

    assert ending.error.startswith(f"{CASES[name].error}: ")
    assert ending.seconds < RESERVED_SECONDS + 2 - 5
    assert not ending.has_rotated
    counted = ending.output.count('"AttemptFailed":[1.0]')
    assert counted == ending.output.count("Attempt failed: ") >= 1


def test_long_retry_after(endings: dict[str, Ending]) -> None:
    """An endpoint that asks to wait for an hour is asked again after a minute."""
    ending = endings["asks to wait for an hour"]

    assert "asked to retry after 3600 s; retrying in 60.0 s (attempt 2)" in ending.output
    assert ending.error == ""
    assert 60 <= ending.seconds < 75
    assert ending.has_rotated


@pytest.mark.parametrize("name", ["never stops sending", "sends a gzip bomb"])
def test_memory(endings: dict[str, Ending], name: str) -> None:
    """A response without end, compressed or not, uses no additional memory."""
    usual = endings["answers 503"].peak_memory_bytes

    assert endings[name].peak_memory_bytes < usual + 8 * 1024 * 1024


@pytest.mark.parametrize("milliseconds", [0, 5, 10, 20, 30, 40, 60, 90, 150])
def test_killed(
    milliseconds: int,
    package: Path,
    environment: dict[str, str],
    secrets_manager: FakeSecretsManager,
    invoke: Invoke,
    old: AccessToken,
) -> None:
    """A run that is killed at any moment leaves a complete document, and the next run recovers."""
    secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=old.to_json())
    with LambdaRuntime(package, environment) as function:
        function.wait_until_ready()
        threading.Timer(milliseconds / 1000, function.kill).start()
        with suppress(FunctionError):
            function.invoke({})

    left = AccessToken.from_json(secrets_manager.published())
    assert left == old or left.expires_at > time.time() + 3500
    assert invoke({})["status"] == ("rotated" if left == old else "skipped")
    assert AccessToken.from_json(secrets_manager.published()).expires_at > time.time() + 3500


def test_twenty_at_once(secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar) -> None:
    """Twenty concurrent runs all succeed, and every version that they publish is a valid token."""
    start = threading.Barrier(20)

    def run_at_once(_: int) -> Result:
        client = boto3.session.Session().client(
            "secretsmanager", endpoint_url=secrets_manager.address
        )
        run = Run(timeout_seconds=60, report=lambda *_: None)
        start.wait()
        return rotate(make_store(client), TokenEndpoint(endpoint.url), run, forced=False)

    with ThreadPoolExecutor(20) as executor:
        results = list(executor.map(run_at_once, range(20)))

    rotated = [result for result in results if result["status"] == "rotated"]
    versions = [
        AccessToken.from_json(
            secrets_manager.client.get_secret_value(
                SecretId=TOKEN_SECRET_ID, VersionId=result["version_id"]
            )["SecretString"]
        )
        for result in rotated
    ]
    assert len(rotated) >= 1
    assert {version.access_token for version in versions} <= endpoint.expiries.keys()
    assert AccessToken.from_json(secrets_manager.published()) in versions
