"""Tests that need real time or many processes: deadlines, memory, kills, concurrent runs."""

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
from rotate_token.retrying import Retrier
from rotate_token.rotation import RESERVED_SECONDS, rotate
from rotate_token.token_endpoint import TokenEndpoint
from tests.samples import OLD, make_store

if TYPE_CHECKING:
    from pathlib import Path

    from rotate_token.rotation import Result
    from tests.samples import Invoke

pytestmark = pytest.mark.xdist_group("package")

TIMEOUT_SECONDS = RESERVED_SECONDS + 2
"""A timeout of the function that leaves two seconds in which attempts start."""


class Lasting(NamedTuple):
    """A lasting fault, and the error of a run; `url` may contain the endpoint's port."""

    error: str
    fault: str | Answer = "ok"
    secrets_manager_fault: Fault | None = None
    url: str = "http://127.0.0.1:{port}/oauth2/token"


def gzip_bomb() -> Answer:
    """Make a body of 200 MB that compresses to 200 KB."""
    compressor = zlib.compressobj(1, wbits=31)
    chunks = [compressor.compress(b" " * 1_000_000) for _ in range(200)]
    return Answer(200, b"".join([*chunks, compressor.flush()]), {"Content-Encoding": "gzip"})


HANGS = "SecretsManagerUnavailableError"
LASTING = {
    "answers 503": Lasting("TokenEndpointUnavailableError", "503"),
    "never answers": Lasting("TokenEndpointUnreachableError", "timeout"),
    "body trickles in": Lasting("TokenEndpointUnreachableError", "slow"),
    "headers trickle in": Lasting("TokenEndpointUnreachableError", "slow-headers"),
    "never stops sending": Lasting("UnreadableTokenResponseError", "flood"),
    "sends a gzip bomb": Lasting("UnreadableTokenResponseError", gzip_bomb()),
    "does not resolve": Lasting(
        "TokenEndpointUnreachableError", url="https://iam.smartcar.invalid/oauth2/token"
    ),
    "does not speak TLS": Lasting(
        "TokenEndpointUnreachableError", url="https://127.0.0.1:{port}/oauth2/token"
    ),
    "reading the token hangs": Lasting(
        HANGS, secrets_manager_fault=Fault("GetSecretValue", TOKEN_SECRET_ID, "hang")
    ),
    "reading the credentials hangs": Lasting(
        HANGS, secrets_manager_fault=Fault("GetSecretValue", CREDENTIALS_SECRET_ID, "hang")
    ),
    "publishing hangs": Lasting(
        HANGS, secrets_manager_fault=Fault("PutSecretValue", TOKEN_SECRET_ID, "hang")
    ),
}


class Ending(NamedTuple):
    """How a run ended."""

    error: str
    seconds: float
    output: str
    peak_memory_bytes: int
    published: str


def run(package: Path, lasting: Lasting) -> Ending:
    """Run the built package against a fault that lasts."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(FakeSmartcar([lasting.fault] * 100))
        secrets_manager = stack.enter_context(FakeSecretsManager())
        if lasting.secrets_manager_fault:
            secrets_manager.faults.append(lasting.secrets_manager_fault)
        url = lasting.url.format(port=endpoint.address.rpartition(":")[2])
        function = stack.enter_context(
            LambdaRuntime(
                package, {**secrets_manager.environment, "TOKEN_URL": url}, TIMEOUT_SECONDS
            )
        )
        started_at = time.monotonic()
        with pytest.raises(FunctionError) as raised:
            function.invoke({})
        seconds = time.monotonic() - started_at
        secrets_manager.faults.clear()
        return Ending(
            str(raised.value),
            seconds,
            function.output,
            function.peak_memory_bytes,
            secrets_manager.published(),
        )


@pytest.fixture(scope="module")
def endings(package: Path, running_secrets_manager: FakeSecretsManager) -> dict[str, Ending]:
    """How a run ends during each lasting fault; all runs are concurrent."""
    running_secrets_manager.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
    running_secrets_manager.client.put_secret_value(
        SecretId=TOKEN_SECRET_ID, SecretString=OLD.to_json()
    )
    with ThreadPoolExecutor(len(LASTING)) as executor:
        futures = {name: executor.submit(run, package, of) for name, of in LASTING.items()}
        return {name: future.result() for name, future in futures.items()}


@pytest.mark.parametrize("name", LASTING)
def test_deadline(endings: dict[str, Ending], name: str) -> None:
    """During any lasting fault, a run raises its error at least 5 s before its timeout."""
    ending = endings[name]

    assert ending.error.startswith(f"{LASTING[name].error}: ")
    assert ending.seconds < TIMEOUT_SECONDS - 5
    assert ending.published == OLD.to_json()
    counted = ending.output.count('"AttemptFailed":[1.0]')
    assert counted == ending.output.count("Attempt failed: ") >= 1


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
) -> None:
    """A run that is killed at any moment leaves a complete document, and the next run recovers."""
    secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=OLD.to_json())
    with LambdaRuntime(package, environment) as function:
        function.wait_until_ready()
        threading.Timer(milliseconds / 1000, function.kill).start()
        with suppress(FunctionError):
            function.invoke({})

    left = AccessToken.from_json(secrets_manager.published())
    assert left == OLD or left.expires_at > time.time() + 3500
    assert invoke({})["status"] == ("rotated" if left == OLD else "skipped")
    assert AccessToken.from_json(secrets_manager.published()).expires_at > time.time() + 3500


def test_twenty_at_once(secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar) -> None:
    """Twenty concurrent runs all succeed, and every version that they publish is a valid token."""
    start = threading.Barrier(20)

    def run_at_once(_: int) -> Result:
        client = boto3.session.Session().client(
            "secretsmanager", endpoint_url=secrets_manager.address
        )
        retrier = Retrier(time.time() + 60, on_failed_attempt=lambda *_: None)
        start.wait()
        return rotate(make_store(client), TokenEndpoint(endpoint.url), retrier, forced=False)

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
