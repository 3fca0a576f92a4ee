"""What takes real time or many processes: deadlines, kills, and runs at the same time."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
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
from rotate_token.rotation import rotate
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rotate_token.rotation import Result

    Invoke = Callable[..., Result]

pytestmark = pytest.mark.xdist_group("package")

OLD = AccessToken("eyJvbGQi.k3Jd8sLq0ZxVbNm2", expires_in=3600, issued_at=int(time.time()) - 3000)
TIMEOUT_SECONDS = 82
"""The function's time-out: two seconds more than it keeps free at the end."""


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    error: str
    seconds: float
    output: str
    peak_memory_bytes: int


def run(
    package: Path,
    fault: str = "ok",
    secrets_manager_fault: Fault | None = None,
    url: str | None = None,
) -> Ending:
    """Run the built package against a fault that lasts; `url` may use the local endpoint's port."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(FakeSmartcar([fault] * 100))
        secrets_manager = stack.enter_context(FakeSecretsManager())
        if secrets_manager_fault:
            secrets_manager.faults.append(secrets_manager_fault)
        port = endpoint.address.rpartition(":")[2]
        function = stack.enter_context(
            LambdaRuntime(
                package,
                {
                    **secrets_manager.environment,
                    "TOKEN_URL": url.format(port=port) if url else endpoint.url,
                },
                TIMEOUT_SECONDS,
            )
        )
        started_at = time.monotonic()
        with pytest.raises(FunctionError) as raised:
            function.invoke({})
        seconds = time.monotonic() - started_at
        return Ending(str(raised.value), seconds, function.output, function.peak_memory_bytes)


LASTING: dict[str, tuple[Callable[[Path], Ending], str]] = {
    "refuses to serve": (functools.partial(run, fault="503"), "TokenEndpointUnavailableError"),
    "never answers": (functools.partial(run, fault="timeout"), "TokenEndpointUnreachableError"),
    "body in drips": (functools.partial(run, fault="slow"), "TokenEndpointUnreachableError"),
    "headers in drips": (
        functools.partial(run, fault="slow-headers"),
        "TokenEndpointUnreachableError",
    ),
    "never stops sending": (functools.partial(run, fault="flood"), "UnreadableTokenResponseError"),
    "does not resolve": (
        functools.partial(run, url="https://iam.smartcar.invalid/oauth2/token"),
        "TokenEndpointUnreachableError",
    ),
    "speaks no TLS": (
        functools.partial(run, url="https://127.0.0.1:{port}/oauth2/token"),
        "TokenEndpointUnreachableError",
    ),
    "reading the token hangs": (
        functools.partial(
            run, secrets_manager_fault=Fault("GetSecretValue", TOKEN_SECRET_ID, "hang")
        ),
        "SecretsManagerUnavailableError",
    ),
    "reading the credentials hangs": (
        functools.partial(
            run, secrets_manager_fault=Fault("GetSecretValue", CREDENTIALS_SECRET_ID, "hang")
        ),
        "SecretsManagerUnavailableError",
    ),
    "publishing hangs": (
        functools.partial(
            run, secrets_manager_fault=Fault("PutSecretValue", TOKEN_SECRET_ID, "hang")
        ),
        "SecretsManagerUnavailableError",
    ),
    "publishing is throttled": (
        functools.partial(
            run,
            secrets_manager_fault=Fault("PutSecretValue", TOKEN_SECRET_ID, "ThrottlingException"),
        ),
        "SecretsManagerUnavailableError",
    ),
}


@pytest.fixture(scope="module")
def endings(package: Path, running_secrets_manager: FakeSecretsManager) -> dict[str, Ending]:
    """How runs end that meet a fault which lasts; they all run at the same time."""
    running_secrets_manager.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
    running_secrets_manager.client.put_secret_value(
        SecretId=TOKEN_SECRET_ID, SecretString=OLD.to_json()
    )
    with ThreadPoolExecutor(len(LASTING)) as executor:
        futures = {name: executor.submit(start, package) for name, (start, _) in LASTING.items()}
        endings = {name: future.result() for name, future in futures.items()}
    assert AccessToken.from_json(running_secrets_manager.published()) == OLD
    return endings


@pytest.mark.parametrize("name", LASTING)
def test_deadline(endings: dict[str, Ending], name: str) -> None:
    """Whatever hangs, a run ends by an error of its own, at least 5 s before its time-out."""
    assert endings[name].error.startswith(f"{LASTING[name][1]}: ")
    assert endings[name].seconds < TIMEOUT_SECONDS - 5


@pytest.mark.parametrize(
    "name", [name for name, (_, error) in LASTING.items() if "SecretsManager" not in error]
)
def test_last_metrics(endings: dict[str, Ending], name: str) -> None:
    """Each attempt of such a run is counted, the last one too."""
    output = endings[name].output

    assert output.count('"TokenRequestFailed":[1.0]') == output.count("; attempt ") + 1


def test_memory(endings: dict[str, Ending]) -> None:
    """An endpoint that never stops sending does not cost memory."""
    usual = endings["refuses to serve"].peak_memory_bytes

    assert endings["never stops sending"].peak_memory_bytes < usual + 8 * 1024 * 1024


@pytest.mark.parametrize("milliseconds", [0, 5, 10, 20, 30, 40, 60, 90, 150])
def test_killed(
    milliseconds: int,
    package: Path,
    environment: dict[str, str],
    secrets_manager: FakeSecretsManager,
    invoke: Invoke,
) -> None:
    """A run that is killed at any moment leaves a whole document, and the next run heals."""
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
    """Of twenty runs at the same time one publishes, and the others find its token."""
    start = threading.Barrier(20)

    def run_at_once(_: int) -> Result:
        client = boto3.session.Session().client(
            "secretsmanager", endpoint_url=secrets_manager.address
        )
        store = SecretStore(
            client, credentials_secret_id=CREDENTIALS_SECRET_ID, token_secret_id=TOKEN_SECRET_ID
        )
        token_endpoint = TokenEndpoint(endpoint.url)
        start.wait()
        return rotate(
            store,
            token_endpoint,
            forced=False,
            until=time.time() + 60,
            on_failed_attempt=lambda *_: None,
        )

    with ThreadPoolExecutor(20) as executor:
        results = list(executor.map(run_at_once, range(20)))

    token = AccessToken.from_json(secrets_manager.published())
    assert [result["status"] for result in results].count("rotated") == 1
    assert {result["expires_at"] for result in results} == {token.expires_at}
    versions = secrets_manager.client.list_secret_version_ids(SecretId=TOKEN_SECRET_ID)["Versions"]
    assert len(versions) == 1
