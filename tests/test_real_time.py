"""Tests in real time, or with many processes: deadlines, kills, concurrent runs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from local.fakes.lambda_runtime import FunctionError, LambdaRuntime
from local.fakes.secrets_manager import (
    CREDENTIALS_SECRET_ID,
    TOKEN_SECRET_ID,
    FakeSecretsManager,
    Fault,
)
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken
from rotate_token.retrying import RESERVED_SECONDS, Run
from rotate_token.rotation import Result, rotate
from rotate_token.token_endpoint import TokenEndpoint
from tests.samples import Invoke, make_store

pytestmark = pytest.mark.xdist_group("package")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GetSecretValue", TOKEN_SECRET_ID, "hang"),
        Fault("GetSecretValue", CREDENTIALS_SECRET_ID, "hang"),
        Fault("PutSecretValue", TOKEN_SECRET_ID, "hang"),
    ],
)
def test_deadline(
    fault: Fault, package: Path, environment: dict[str, str], secrets_manager: FakeSecretsManager
) -> None:
    """While Secrets Manager does not answer, a run raises its error well before its timeout."""
    secrets_manager.faults.append(fault)
    # Attempts may start for 2 s.
    with LambdaRuntime(package, environment, RESERVED_SECONDS + 2) as function:
        started_at = time.monotonic()
        with pytest.raises(FunctionError, match="^SecretsManagerUnavailableError: "):
            function.invoke({})
        seconds = time.monotonic() - started_at
        counted = function.output.count('"AttemptFailed":[1.0]')
        assert counted == function.output.count("Attempt failed: ") >= 1

    assert seconds < RESERVED_SECONDS - 5


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

    def rotate_at_once(_: int) -> Result:
        store = make_store(secrets_manager.client)
        run = Run(timeout_seconds=60, report=lambda *_: None, forced=False)
        start.wait()
        return rotate(store, TokenEndpoint(endpoint.url), run)

    with ThreadPoolExecutor(20) as executor:
        results = list(executor.map(rotate_at_once, range(20)))

    versions = [
        AccessToken.from_json(
            secrets_manager.client.get_secret_value(
                SecretId=TOKEN_SECRET_ID, VersionId=result["version_id"]
            )["SecretString"]
        )
        for result in results
        if result["status"] == "rotated"
    ]
    assert {version.access_token for version in versions} <= endpoint.tokens
    assert AccessToken.from_json(secrets_manager.published()) in versions
