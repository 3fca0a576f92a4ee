"""Fixtures, in small steps, up to the whole system on loopback."""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from local.fakes.lambda_runtime import LocalContext
from local.fakes.secrets_manager import FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.credentials import ClientCredentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_secretsmanager import SecretsManagerClient

    from rotate_token.rotation import Result
    from rotate_token.token_endpoint import TokenEndpoint

    Invoke = Callable[..., Result]

PROJECT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's AWS configuration reaches a test."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def credentials() -> ClientCredentials:
    """The client that the local token endpoint knows."""
    return ClientCredentials(FakeSmartcar.client_id, FakeSmartcar.client_secret, version_id="v1")


@pytest.fixture
def secrets() -> Iterator[SecretsManagerClient]:
    """Secrets Manager, in this process, with no secret in it."""
    with mock_aws():
        yield boto3.client("secretsmanager")


@pytest.fixture
def endpoint() -> Iterator[FakeSmartcar]:
    """A token endpoint on a real socket."""
    with FakeSmartcar() as local_token_endpoint:
        yield local_token_endpoint


@pytest.fixture(scope="session")
def running_secrets_manager() -> Iterator[FakeSecretsManager]:
    """Secrets Manager on a real socket, in whatever state."""
    with FakeSecretsManager() as local_secrets_manager:
        yield local_secrets_manager


@pytest.fixture
def secrets_manager(running_secrets_manager: FakeSecretsManager) -> FakeSecretsManager:
    """Secrets Manager on a real socket, with credentials and no token yet."""
    running_secrets_manager.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
    return running_secrets_manager


@pytest.fixture
def environment(secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar) -> dict[str, str]:
    """The variables of a function that uses both."""
    return {
        **secrets_manager.environment,
        "TOKEN_URL": endpoint.url,
        "POWERTOOLS_SERVICE_NAME": "tests",
    }


@pytest.fixture
def invoke(
    environment: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Invoke]:
    """An invocation, in an execution environment that starts with the first; waiting is skipped."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # A logger of its own: Powertools binds a logger to what is standard output at its first use.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", request.node.name)
    monkeypatch.setattr("time.sleep", lambda _: None)
    sys.modules.pop("rotate_token.handler", None)

    def invoke(
        event: object = None,
        context: LocalContext | None = None,
        endpoint: TokenEndpoint | None = None,
    ) -> Result:
        handler = importlib.import_module("rotate_token.handler")
        rotate = functools.partial(handler.rotate, sleep=lambda _: None)
        monkeypatch.setattr(handler, "rotate", rotate)
        monkeypatch.setattr(handler, "endpoint", endpoint or handler.endpoint)
        result: Result = handler.lambda_handler(event, context or LocalContext(900))
        return result

    yield invoke
    gc.unfreeze()
    logging.disable(logging.NOTSET)
    package_logger = logging.getLogger("rotate_token")
    package_logger.handlers.clear()
    package_logger.propagate = True


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `sam build` makes of the function."""
    if sys.platform != "linux":
        pytest.skip("the Lambda runtime client runs on Linux")
    folder = tmp_path_factory.mktemp("build")
    build = subprocess.run(
        [Path(sys.executable).with_name("sam"), "build", "--build-dir", folder],
        cwd=PROJECT,
        env={**os.environ, "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder / "RotateTokenFunction"
