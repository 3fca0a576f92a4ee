"""The package that `sam build` creates, under the real Lambda runtime client."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from local.fakes.lambda_runtime import RUNTIME_PYTHON, FunctionError, LambdaRuntime
from local.fakes.loopback import make_certificate
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken
from tests.samples import LOOPBACK_ONLY, PROJECT, build_package
from tests.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local.fakes.secrets_manager import FakeSecretsManager

pytestmark = pytest.mark.xdist_group("package")

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
    """The first run publishes, the second is skipped, and a forced run publishes again."""
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


def test_new_credentials(
    function: LambdaRuntime,
    secrets_manager: FakeSecretsManager,
    endpoint: FakeSmartcar,
) -> None:
    """The event of new client credentials publishes a token, although the old one is fresh."""
    rule = Stack({}).properties("RotateTokenFunctionNewCredentials")
    (target,) = rule["Targets"]

    function.invoke(SCHEDULED)
    first_token = AccessToken.from_json(secrets_manager.published())
    result = function.invoke(json.loads(target["Input"]))

    assert (result["status"], result["reason"]) == ("rotated", "forced")
    assert AccessToken.from_json(secrets_manager.published()) != first_token
    assert len(endpoint.requests) == 2


def test_output(function: LambdaRuntime, endpoint: FakeSmartcar) -> None:
    """Every line that the function writes is JSON: a log line, or metrics."""
    endpoint.faults.append("503")

    function.invoke(SCHEDULED)

    lines: list[dict[str, Any]] = [json.loads(line) for line in function.output.splitlines()]
    failed, rotated = (line["message"] for line in lines if "_aws" not in line)
    assert failed.startswith(
        f"Attempt failed: TokenEndpointUnavailableError: {endpoint.url} answered 503 "
    )
    assert rotated == "Token rotated"
    assert [[*line][2:] for line in lines if "_aws" in line] == [
        ["AttemptFailed"],
        ["TokenRotated"],
    ]


def test_configuration(package: Path) -> None:
    """Without its settings, the function does not start, and the error names a missing one."""
    with (
        LambdaRuntime(package, {"PYTHONPATH": str(LOOPBACK_ONLY)}) as function,
        pytest.raises(FunctionError, match="^ConfigurationError: CREDENTIALS_SECRET_ID is not set"),
    ):
        function.invoke(SCHEDULED)


def test_aws_calls(function: LambdaRuntime, secrets_manager: FakeSecretsManager) -> None:
    """A rotation makes three calls to Secrets Manager; a skipped run makes one."""
    function.invoke(SCHEDULED)
    rotation = [operation for operation, _ in secrets_manager.calls]
    secrets_manager.calls.clear()
    function.invoke(SCHEDULED)
    skip = [operation for operation, _ in secrets_manager.calls]

    assert rotation == ["GetSecretValue", "GetSecretValue", "PutSecretValue"]
    assert skip == ["GetSecretValue"]


def test_web_identity(
    package: Path, environment: dict[str, str], secrets_manager: FakeSecretsManager, tmp_path: Path
) -> None:
    """AWS credentials may come from a web identity, as boto3 documents it."""
    (tmp_path / "token").write_text("made-up-web-identity-token")
    variables = {
        name: value
        for name, value in environment.items()
        if name not in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    }
    identity = {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/rotation",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
    }

    with LambdaRuntime(package, {**variables, **identity}) as function:
        assert function.invoke(SCHEDULED)["status"] == "rotated"

    assert AccessToken.from_json(secrets_manager.published())


@pytest.mark.skipif(
    "CI" not in os.environ and not (RUNTIME_PYTHON.parents[1] / "lib" / "python3.13").exists(),
    reason="this machine has no python3.13, which Lambda runs",
)
def test_bytecode(package: Path) -> None:
    """Each module of the package has bytecode that is used without a check of its source."""
    for source in package.rglob("*.py"):
        bytecode = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
        flags = int.from_bytes(bytecode.read_bytes()[4:8], "little")
        assert flags == 0b01, bytecode  # a hash that is not checked (PEP 552)


def test_contents(package: Path) -> None:
    """The package has no machine code, no scripts, and no boto3, which the Lambda runtime has."""
    names = {path.name for path in package.iterdir()}
    records = [path.read_text() for path in package.glob("*.dist-info/RECORD")]

    assert "rotate_token" in names
    assert not {"bin", "boto3", "botocore"} & names
    assert not list(package.rglob("*.so"))
    assert any("httpx/__init__.py,sha256=" in record for record in records)
    assert not [record for record in records if "../bin/" in record]


@pytest.fixture(scope="module")
def another_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that is built in another folder, under another Python and umask."""
    folder = tmp_path_factory.mktemp("another")
    project, environment = folder / "another folder", folder / "venv"
    shutil.copytree(PROJECT / "functions", project / "functions")
    shutil.copy(PROJECT / "template.yaml", project)
    make_environment_of_another_python(environment)
    return build_package(project, project / "build", environment / "bin", umask=0o077)


def test_reproducible(package: Path, another_package: Path) -> None:
    """In another folder, under another Python and umask, the package is the same, byte for byte."""
    assert digests(another_package) == digests(package)


def make_environment_of_another_python(folder: Path) -> None:
    """Make a virtual environment of another version of Python, or of this one if it is alone."""
    this_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in ("3.13", "3.12", "3.11"):
        python = shutil.which(f"python{version}")
        if python and version != this_version:
            made = subprocess.run(
                [python, "-m", "venv", "--clear", folder],
                env={**os.environ, "PYENV_VERSION": version},
                capture_output=True,
                check=False,
            )
            if made.returncode == 0:
                return
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(
    trusted: bool,  # noqa: FBT001 (a parameter of the test)
    package: Path,
    secrets_manager: FakeSecretsManager,
    tmp_path: Path,
) -> None:
    """Over TLS, credentials are sent only to an endpoint with a trusted certificate."""
    certificate = tmp_path / "localhost.pem"
    make_certificate(certificate)
    with FakeSmartcar(certificate=certificate) as endpoint:
        environment = {
            **secrets_manager.environment,
            "TOKEN_URL": endpoint.url,
            "PYTHONPATH": str(LOOPBACK_ONLY),
        }
        if trusted:
            environment["SSL_CERT_FILE"] = str(certificate)
        # A timeout that leaves time for one attempt.
        with LambdaRuntime(package, environment, timeout_seconds=30) as function:
            if trusted:
                assert function.invoke(SCHEDULED)["status"] == "rotated"
            else:
                with pytest.raises(FunctionError, match="CERTIFICATE_VERIFY_FAILED"):
                    function.invoke(SCHEDULED)
    assert len(endpoint.requests) == trusted
