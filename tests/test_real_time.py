"""Tests in real time, or with many processes: deadlines, memory, kills, concurrent runs."""

from __future__ import annotations

import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pytest

from local.fakes.lambda_runtime import FunctionError, LambdaRuntime
from local.fakes.secrets_manager import TOKEN_SECRET_ID, FakeSecretsManager, Fault
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token.access_token import AccessToken
from rotate_token.retrying import RESERVED_SECONDS, Run
from rotate_token.rotation import rotate
from rotate_token.token_endpoint import TokenEndpoint
from tests.samples import LOOPBACK_ONLY, make_store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rotate_token.rotation import Result
    from tests.samples import Invoke

pytestmark = pytest.mark.xdist_group("package")


@dataclass
class Case:
    """
    What a run of the built package meets in each attempt.

    Attributes:
        error: The error that it ends with.
        faults: What the token endpoint does; it issues a token if there are none.
        variables: Environment variables of the function.
    """

    error: str
    faults: Sequence[str | Answer] = ()
    variables: dict[str, str] = field(default_factory=dict)


def gzip_bomb() -> Answer:
    """Make a body of 200 MB that compresses to 200 KB."""
    compressor = zlib.compressobj(1, wbits=31)
    chunks = [compressor.compress(b" " * 1_000_000) for _ in range(200)]
    return Answer(200, b"".join([*chunks, compressor.flush()]))


UNAVAILABLE = "TokenEndpointUnavailableError"
HANGS = "SecretsManagerUnavailableError"
CASES = {
    "answers 503": Case(UNAVAILABLE, ["503"]),
    "never answers": Case(UNAVAILABLE, ["timeout"]),
    "body arrives in pieces": Case(UNAVAILABLE, ["slow"]),
    "headers arrive in pieces": Case(UNAVAILABLE, ["slow-headers"]),
    "never stops sending": Case(UNAVAILABLE, ["flood"]),
    "sends a gzip bomb": Case(UNAVAILABLE, [gzip_bomb()]),
    "does not resolve": Case(
        UNAVAILABLE,
        # Without the guard of the tests, so that the name is looked up.
        variables={"TOKEN_URL": "https://iam.smartcar.invalid/oauth2/token", "PYTHONPATH": ""},
    ),
    "reading the token hangs": Case(HANGS, variables={"TOKEN_SECRET_ID": "hangs when read"}),
    "reading the credentials hangs": Case(
        HANGS, variables={"CREDENTIALS_SECRET_ID": "hangs when read"}
    ),
    "publishing hangs": Case(HANGS, variables={"TOKEN_SECRET_ID": "hangs when written"}),
}


class Ending(NamedTuple):
    """How a run ended."""

    error: str
    seconds: float
    output: str
    peak_memory_bytes: int


@pytest.fixture(scope="module")
def endings(package: Path) -> dict[str, Ending]:
    """How a run of each case ends, in which attempts may start for 2 s; all are concurrent."""
    with FakeSecretsManager() as secrets_manager, ThreadPoolExecutor(len(CASES)) as executor:
        secrets_manager.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
        secrets_manager.faults.extend(
            [
                Fault("GetSecretValue", "hangs when read", "hang"),
                Fault("PutSecretValue", "hangs when written", "hang"),
            ]
        )

        def run(case: Case) -> Ending:
            with FakeSmartcar([*case.faults] * 100) as endpoint:
                variables = {
                    **secrets_manager.environment,
                    "TOKEN_URL": endpoint.url,
                    "PYTHONPATH": str(LOOPBACK_ONLY),
                    **case.variables,
                }
                with LambdaRuntime(package, variables, RESERVED_SECONDS + 2) as function:
                    started_at = time.monotonic()
                    with pytest.raises(FunctionError) as raised:
                        function.invoke({})
                    seconds = time.monotonic() - started_at
                    error = str(raised.value)
                    return Ending(error, seconds, function.output, function.peak_memory_bytes)

        return dict(zip(CASES, executor.map(run, CASES.values()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_deadline(endings: dict[str, Ending], name: str) -> None:
    """During any lasting fault, a run raises its error at least 5 s before its timeout."""
    ending = endings[name]

    assert ending.error.startswith(f"{CASES[name].error}: ")
    assert ending.seconds < RESERVED_SECONDS + 2 - 5
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
        store = make_store(secrets_manager.client)
        run = Run(timeout_seconds=60, report=lambda *_: None)
        start.wait()
        return rotate(store, TokenEndpoint(endpoint.url), run)

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
    assert {version.access_token for version in versions} <= endpoint.tokens
    assert AccessToken.from_json(secrets_manager.published()) in versions
