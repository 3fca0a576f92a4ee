"""Fixtures: from single parts to the complete system on loopback sockets."""

import functools
import importlib
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from werkzeug.serving import make_ssl_devcert

import tests.loopback_only.sitecustomize  # noqa: F401 (guards this process)
from local.fakes import ignore_proxies, isolate_environment
from local.fakes.lambda_runtime import LocalContext
from local.fakes.secrets_manager import ACCESS_KEY_ID, FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken
from rotate_token.retrying import Run
from rotate_token.rotation import Result
from tests.package import build_package
from tests.samples import LOOPBACK_ONLY, PROJECT, Invoke, Timeline


def pytest_configure() -> None:
    """Remove settings of this machine that would affect tests, and guard processes they start."""
    isolate_environment()
    for name in list(os.environ):
        if re.match(r"SMARTCAR_|PYTHON|.+_COLOR$", name):
            del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,  # boto3 keeps it from its first use on
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONPATH": str(LOOPBACK_ONLY),
        "NODE_OPTIONS": f'--require "{LOOPBACK_ONLY}/loopback_only.cjs"',
        "CURL_HOME": str(LOOPBACK_ONLY),
    }


def pytest_xdist_auto_num_workers() -> int:
    """Run two tests for each CPU: they wait for half of their time."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def no_proxies() -> Iterator[None]:
    """Tests ignore this machine's proxies; the build of the package needs them."""
    with mock.patch.dict(os.environ):
        ignore_proxies()
        yield


@pytest.fixture
def old() -> AccessToken:
    """A token that is due, and still valid for ten minutes."""
    issued_at = int(time.time()) - 3000
    return AccessToken("eyJvbGQi.k3Jd8sLq0ZxVbNm2", expires_in=3600, issued_at=issued_at)


@pytest.fixture
def endpoint() -> Iterator[FakeSmartcar]:
    """A token endpoint on a real socket."""
    with FakeSmartcar() as smartcar:
        yield smartcar


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The files of a trusted certificate for ``localhost`` and of its key."""
    certificate, key = make_ssl_devcert(str(tmp_path / "localhost"), host="localhost")
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    return certificate, key


@pytest.fixture(scope="session")
def running_secrets_manager() -> Iterator[FakeSecretsManager]:
    """Secrets Manager on a real socket, in any state."""
    with FakeSecretsManager() as secrets_manager:
        yield secrets_manager


@pytest.fixture
def secrets_manager(running_secrets_manager: FakeSecretsManager) -> FakeSecretsManager:
    """Secrets Manager on a real socket, with credentials and no token yet."""
    running_secrets_manager.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
    return running_secrets_manager


@pytest.fixture
def environment(secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar) -> dict[str, str]:
    """The environment variables of a function that uses both fakes."""
    return {
        **secrets_manager.environment,
        "TOKEN_URL": endpoint.url,
        "POWERTOOLS_SERVICE_NAME": "tests",
        "PYTHONPATH": str(LOOPBACK_ONLY),
    }


@pytest.fixture
def invoke(
    environment: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Invoke]:
    """A function that invokes the handler in simulated time, so that every run ends."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # A separate logger: Powertools binds a logger to the standard output of its first use.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", request.node.name)
    sys.modules.pop("rotate_token.handler", None)

    def invoke(
        event: object = None,
        context: LocalContext | None = None,
        timeline: Timeline | None = None,
    ) -> Result:
        handler = importlib.import_module("rotate_token.handler")
        timeline = timeline or Timeline(time.time())
        run = functools.partial(Run, clock=lambda: timeline.now, sleep=timeline.sleep)
        monkeypatch.setattr(handler, "Run", run)
        result: Result = handler.lambda_handler(event, context or LocalContext(900))
        return result

    yield invoke
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `sam build` creates for the function."""
    if sys.platform != "linux":
        pytest.skip("the Lambda runtime client runs on Linux")
    return build_package(PROJECT, tmp_path_factory.mktemp("build"))
