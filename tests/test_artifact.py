"""The package that `sam build` creates, under the real Lambda runtime client."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from werkzeug import Response

from local.fakes.lambda_runtime import RUNTIME_PYTHON, FunctionError, LambdaRuntime
from local.fakes.loopback import LoopbackServer
from local.fakes.smartcar import FakeSmartcar
from tests.package import build_package
from tests.programs import need
from tests.samples import LOOPBACK_ONLY, PROJECT

pytestmark = pytest.mark.xdist_group("package")


def test_configuration(package: Path) -> None:
    """Without its settings, the function does not start, and the error names a missing one."""
    with (
        LambdaRuntime(package, {"PYTHONPATH": str(LOOPBACK_ONLY)}) as function,
        pytest.raises(FunctionError, match="^ConfigurationError: CREDENTIALS_SECRET_ID is not set"),
    ):
        function.invoke({})


def test_output(package: Path, environment: dict[str, str]) -> None:
    """A rotation writes two lines: its metrics, and what it did."""
    with LambdaRuntime(package, environment) as function:
        function.invoke({})
        lines = [json.loads(line) for line in function.output.splitlines() if line]

    assert [line.get("message", "metrics") for line in lines] == ["metrics", "Token rotated"]


def test_web_identity(package: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """AWS credentials may come from a web identity, as boto3 documents it."""
    (tmp_path / "token").write_text("made-up-web-identity-token", encoding="utf-8")
    temporary = {
        "AccessKeyId": environment.pop("AWS_ACCESS_KEY_ID"),
        "SecretAccessKey": environment.pop("AWS_SECRET_ACCESS_KEY"),
        "SessionToken": "made-up",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    result = "".join(f"<{name}>{value}</{name}>" for name, value in temporary.items())
    for name in ("Credentials", "AssumeRoleWithWebIdentityResult", "Response"):
        result = f"<{name}>{result}</{name}>"
    environment["AWS_ROLE_ARN"] = "arn:aws:iam::123456789012:role/rotation"
    environment["AWS_WEB_IDENTITY_TOKEN_FILE"] = str(tmp_path / "token")

    with LoopbackServer(Response(result)) as sts:
        environment["AWS_ENDPOINT_URL_STS"] = sts.address
        with LambdaRuntime(package, environment) as function:
            assert function.invoke({})["status"] == "rotated"


def test_bytecode(package: Path) -> None:
    """Each module of the package has bytecode that is used without a check of its source."""
    need(str(RUNTIME_PYTHON.parents[1] / "lib" / "python3.13"))
    for source in package.rglob("*.py"):
        bytecode = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
        flags = int.from_bytes(bytecode.read_bytes()[4:8], "little")
        assert flags == 0b01, bytecode  # a hash that is not checked (PEP 552)


def test_contents(package: Path) -> None:
    """The package has no machine code, no scripts, and no boto3, which the Lambda runtime has."""
    names = {path.name for path in package.iterdir()}

    assert not {"bin", "boto3", "botocore"} & names
    assert not list(package.rglob("*.so"))


def test_reproducible(package: Path, tmp_path: Path) -> None:
    """In another folder, under another Python and umask, the package is the same, byte for byte."""
    project, environment = tmp_path / "another folder", tmp_path / "venv"
    shutil.copytree(PROJECT / "functions", project / "functions")
    shutil.copy(PROJECT / "template.yaml", project)
    make_environment_of_another_python(environment)

    another = build_package(project, project / "build", environment / "bin", umask=0o077)

    subprocess.run(["diff", "-r", another, package], check=True)


def make_environment_of_another_python(folder: Path) -> None:
    """Make a virtual environment of another version of Python, or of this one if it is alone."""
    versions = [f"3.{minor}" for minor in (13, 12, 11) if minor != sys.version_info.minor]
    others = [["env", f"PYENV_VERSION={version}", f"python{version}"] for version in versions]
    for python in (*others, [sys.executable]):
        command = [*python, "-m", "venv", "--clear", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return


def test_tls(package: Path, environment: dict[str, str], certificate: tuple[str, str]) -> None:
    """Over TLS, credentials are sent only to an endpoint with a trusted certificate."""
    with FakeSmartcar(certificate=certificate) as endpoint:
        environment["TOKEN_URL"] = endpoint.url
        with (
            # A timeout that leaves time for one attempt.
            LambdaRuntime(package, environment, timeout_seconds=30) as function,
            pytest.raises(FunctionError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            function.invoke({})
        assert endpoint.requests == []

        environment["SSL_CERT_FILE"] = certificate[0]
        with LambdaRuntime(package, environment) as function:
            assert function.invoke({})["status"] == "rotated"
