"""What `sam build` makes, run as Lambda runs it: under the real runtime client."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.fakes.lambda_runtime import RUNTIME_PYTHON, FunctionError, LambdaRuntime
from local.fakes.loopback import make_certificate
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken
from studies.benchmark import imported_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.fakes.secrets_manager import FakeSecretsManager

pytestmark = pytest.mark.xdist_group("package")

on_python_of_lambda = pytest.mark.skipif(
    "CI" not in os.environ and not (RUNTIME_PYTHON.parents[1] / "lib" / "python3.13").exists(),
    reason="the Python that Lambda runs, 3.13, is not on this machine",
)

PROJECT = Path(__file__).parents[1]
SCHEDULED, ROTATE_NOW = (
    json.loads((PROJECT / "events" / name).read_text())
    for name in ("scheduled.json", "rotate_now.json")
)


@pytest.fixture
def function(package: Path, environment: dict[str, str]) -> Iterator[LambdaRuntime]:
    """An execution environment of the built function."""
    with LambdaRuntime(package, environment) as runtime:
        yield runtime


def test_runs(
    function: LambdaRuntime,
    secrets_manager: FakeSecretsManager,
    endpoint: FakeSmartcar,
) -> None:
    """The first run publishes, the second is skipped, a forced one publishes again."""
    first = function.invoke(SCHEDULED)
    first_token = AccessToken.from_json(secrets_manager.published())
    second = function.invoke(SCHEDULED)
    second_token = AccessToken.from_json(secrets_manager.published())
    third = function.invoke(ROTATE_NOW)
    third_token = AccessToken.from_json(secrets_manager.published())

    assert [run["status"] for run in (first, second, third)] == ["rotated", "skipped", "rotated"]
    assert [run["reason"] for run in (first, second, third)] == ["missing", "fresh", "forced"]
    assert second_token == first_token
    assert third_token.access_token != first_token.access_token
    assert len(endpoint.requests) == 2


def test_output(function: LambdaRuntime, endpoint: FakeSmartcar) -> None:
    """Every line that the function writes is JSON: a log line, or metrics."""
    endpoint.faults.append("503")

    function.invoke(SCHEDULED)

    lines: list[dict[str, Any]] = [json.loads(line) for line in function.output.splitlines()]
    assert [
        line.get("message", "").partition(" is in ")[0] for line in lines if "_aws" not in line
    ] == [
        f"Token request failed: {endpoint.url} answered 503 temporarily_unavailable; attempt 2",
        "Token rotated",
    ]
    assert [[*line][2:] for line in lines if "_aws" in line] == [
        ["TokenRequestFailed"],
        ["TokenRotated", "TokenLifetimeSeconds"],
    ]


def test_failed_run(function: LambdaRuntime, endpoint: FakeSmartcar) -> None:
    """A run that fails is a failed invocation, with the reason in it."""
    endpoint.faults.append("401")

    with pytest.raises(FunctionError, match="^InvalidClientError: .* answered 401 "):
        function.invoke(SCHEDULED)


def test_configuration(package: Path) -> None:
    """A function without its settings does not start, and says which is missing."""
    with (
        LambdaRuntime(package, {"AWS_DEFAULT_REGION": "us-east-1"}) as function,
        pytest.raises(FunctionError, match="^ConfigurationError: CREDENTIALS_SECRET_ID is not set"),
    ):
        function.invoke(SCHEDULED)


def test_aws_calls(function: LambdaRuntime, secrets_manager: FakeSecretsManager) -> None:
    """A rotation makes three calls of Secrets Manager, a skip makes one."""
    function.invoke(SCHEDULED)
    rotation = [operation for operation, _ in secrets_manager.calls]
    secrets_manager.calls.clear()
    function.invoke(SCHEDULED)
    skip = [operation for operation, _ in secrets_manager.calls]

    assert rotation == ["GetSecretValue", "GetSecretValue", "PutSecretValue"]
    assert skip == ["GetSecretValue"]


@on_python_of_lambda
def test_imports(package: Path, environment: dict[str, str]) -> None:
    """
    A cold rotation imports what stands in imported_modules.txt, so that more is a decision.

    The list has the standard library's modules by their first name, without the private ones.
    """
    with LambdaRuntime(package, {**environment, "PYTHONPROFILEIMPORTTIME": "1"}) as function:
        function.invoke(SCHEDULED)
        modules = imported_modules(function.output)

    names = set()
    for module in modules:
        first = module.partition(".")[0]
        names.add(first if first in sys.stdlib_module_names else module)
    listed = Path(__file__).with_name("imported_modules.txt").read_text().split()
    assert sorted(name for name in names if not name.startswith("_")) == listed


@on_python_of_lambda
def test_bytecode(package: Path) -> None:
    """Each module of the package has bytecode, which is taken as it is."""
    for source in package.rglob("*.py"):
        bytecode = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
        flags = int.from_bytes(bytecode.read_bytes()[4:8], "little")
        assert flags == 0b01, bytecode  # of a hash, and not to be checked (PEP 552)


def test_size(package: Path, tmp_path: Path) -> None:
    """The package is no larger than 2.5 MB, zipped."""
    archive = shutil.make_archive(str(tmp_path / "package"), "zip", package)

    assert Path(archive).stat().st_size < 2_500_000


def test_contents(package: Path) -> None:
    """The package brings no boto3, and nothing that runs on one kind of machine only."""
    names = {path.name for path in package.iterdir()}

    assert "rotate_token" in names
    assert not {"boto3", "botocore", "bin"} & names
    assert not list(package.rglob("*.so"))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of localhost and its key, in one file."""
    path = tmp_path / "localhost.pem"
    make_certificate(path)
    return path


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(
    trusted: bool,  # noqa: FBT001 (a parameter of the test)
    certificate: Path,
    package: Path,
    secrets_manager: FakeSecretsManager,
) -> None:
    """Over TLS credentials go to an endpoint with a trusted certificate, and to no other."""
    with FakeSmartcar(certificate=certificate) as endpoint:
        environment = {**secrets_manager.environment, "TOKEN_URL": endpoint.url}
        if trusted:
            environment["SSL_CERT_FILE"] = str(certificate)
        # A time-out in which there is time for one attempt.
        with LambdaRuntime(package, environment, timeout_seconds=30) as function:
            if trusted:
                assert function.invoke(SCHEDULED)["status"] == "rotated"
            else:
                with pytest.raises(FunctionError, match="CERTIFICATE_VERIFY_FAILED"):
                    function.invoke(SCHEDULED)
    assert len(endpoint.requests) == trusted
