"""The recipes for an operator in the Makefile, with a SAM CLI that only prints its arguments."""

import functools
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.fakes.secrets_manager import FakeSecretsManager
from tests import programs
from tests.operations.conftest import CreateStack
from tests.samples import PROJECT

Make = Callable[..., tuple[int, list[str]]]

# As `sam deploy --guided` saves another stack name than the suggested one.
SETTINGS = r"""
[default.global.parameters]
stack_name = "smartcar-token"
[default.deploy.parameters]
stack_name = "other"
parameter_overrides = "CredentialsSecretArn=\"arn:aws:secretsmanager:eu-central-1:1:secret:s\""
"""
SAM = """\
#!/bin/sh
echo "called: sam $*"
"""
# With FAILING, the modules only print their arguments, and those in FAILING fail.
PYTHON = f"""\
#!/bin/sh
if [ -n "${{FAILING+set}}" ] && [ "$1" = -m ]; then
    printf '<%s>' "$@"
    echo
    case " $FAILING " in *" $2 "*) exit 1 ;; esac
    exit 0
fi
exec "{sys.executable}" "$@"
"""


@pytest.fixture
def make(
    secrets_manager: FakeSecretsManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Make:
    """A function that runs make in a folder with these programs."""
    for name in ("Makefile", "functions", "operations", "requirements-dev.txt"):
        (tmp_path / name).symlink_to(PROJECT / name)
    (tmp_path / "samconfig.toml").write_text(SETTINGS)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name, script in (("sam", SAM), ("python", PYTHON)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    (tmp_path / ".venv" / "installed").write_text(sysconfig.get_path("purelib"))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    names = ("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL")
    environment = {name: secrets_manager.environment[name] for name in names}
    return functools.partial(programs.make, "-j4", folder=tmp_path, **environment)


@pytest.fixture
def aws(secrets_manager: FakeSecretsManager) -> Any:
    """A function that creates clients of the services that `make` reaches."""
    session = boto3.Session(secrets_manager.environment["AWS_ACCESS_KEY_ID"], "testing")
    return functools.partial(session.client, endpoint_url=secrets_manager.address)


# Those of the check and of `sam deploy`.
OPTIONS = {
    "deploy": ("", "--config-env 'a $b' --no-confirm-changeset"),
    "configure": ("<--ask>", "--guided --config-env 'a $b'"),
}


@pytest.mark.parametrize("target", OPTIONS)
@pytest.mark.parametrize("failing", ["", "rotate", "status", "rotate status"])
def test_deployment(make: Make, target: str, failing: str) -> None:
    """The status follows the rotation, whatever that says; the command fails if either does."""
    failing = " ".join(f"operations.{module}" for module in failing.split())

    status, lines = make(target, "ENV=a $b", FAILING=failing)

    asks, options = OPTIONS[target]
    assert lines == [
        f"<-m><operations.preflight><a $b>{asks}",
        "sam build",
        "called: sam build",
        f"sam deploy {options}",
        "called: sam deploy " + options.replace("'", ""),
        "<-m><operations.rotate><a $b><--after-deployment>",
        "<-m><operations.status><a $b>",
    ]
    assert status == (2 if failing else 0)


@pytest.mark.parametrize("target", OPTIONS)
def test_nothing_deployed(make: Make, target: str) -> None:
    """If a check fails, nothing follows; with `-n`, nothing runs at all."""
    status, (preflight,) = make(target, "ENV=", FAILING="operations.preflight")
    _, planned = make(target, "-n", FAILING="")

    assert preflight.startswith("<-m><operations.preflight><>")
    assert status == 2
    assert not [line for line in planned if line.startswith(("called: ", "<"))]


def test_failed_rotation(create_stack: CreateStack, make: Make) -> None:
    """Without a function, a deployment fails with the next command, and the status says why."""
    create_stack("other", "eu-central-1")

    status, lines = make("deploy", AWS_REGION="eu-central-1")

    assert lines[0].startswith("Stack other in account ")
    assert lines[5].startswith("The stack is deployed, but no run was started: ")
    assert lines[6].startswith("No valid token is published, ")
    assert lines[7].startswith("ok   Stack        other in account ")
    assert status == 2
    assert make("status", AWS_REGION="eu-central-1") == (2, lines[6:])


def test_failed_check(make: Make) -> None:
    """A check says where, then why; what can still be corrected does not end `make configure`."""
    status, (place, error) = make("deploy", AWS_REGION="us-east-1")
    _, lines = make("configure", AWS_REGION="us-east-1")

    assert lines[:3] == [place, error, "sam build"]
    assert place.startswith("Stack other in account ")
    assert error.startswith("samconfig.toml names a credentials secret in eu-central-1, but ")
    assert status == 2


@pytest.mark.parametrize(
    ("target", "setting", "value", "arguments"),
    [
        ("run", "FAULTS", "503; touch x", "<local.run><503;><touch><x>"),
        ("run", "FAULTS", "* $(shell touch x)", "<local.run><*><$(shell><touch><x)>"),
        ("example", "EXAMPLE", "python ; touch x", "<local.example><python ; touch x>"),
        ("status", "ENV", "", "<operations.status><>"),
        ("status", "ENV", "a'$b`touch x`", "<operations.status><a'$b`touch x`>"),
        ("rotate", "ENV", "a'; touch x; '", "<operations.rotate><a'; touch x; '>"),
        ("logs", "ENV", "$(shell touch x)", "<operations.logs><$(shell touch x)>"),
    ],
)
def test_values(
    make: Make, tmp_path: Path, target: str, setting: str, value: str, arguments: str
) -> None:
    """A value reaches the program as it is; neither make nor the shell runs a part of it."""
    assert make(target, f"{setting}={value}", FAILING="") == (0, [f"<-m>{arguments}"])
    assert not (tmp_path / "x").exists()


def test_build(make: Make) -> None:
    """The build ends with the next command of this project."""
    status, (*_, called, following) = make("build")

    assert called == "called: sam build"
    assert following.startswith("Next: make configure ")
    assert status == 0
