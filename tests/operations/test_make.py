"""The recipes for an operator in the Makefile, with a SAM CLI that only prints its arguments."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.samples import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local.fakes.secrets_manager import FakeSecretsManager
    from tests.operations.conftest import CreateStack

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
PYTHON = f"""\
#!/bin/sh
exec "{sys.executable}" "$@"
"""


@pytest.fixture
def make(secrets_manager: FakeSecretsManager, tmp_path: Path) -> Make:
    """A function that runs make without standard input; it returns the status and the output."""
    for name in ("Makefile", "functions", "operations", "requirements-dev.txt"):
        (tmp_path / name).symlink_to(PROJECT / name)
    (tmp_path / "samconfig.toml").write_text(SETTINGS, encoding="utf-8")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, script in (("sam", SAM), ("python", PYTHON)):
        (programs / name).write_text(script, encoding="utf-8")
        (programs / name).chmod(0o755)
    (tmp_path / ".venv" / "installed").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    environment = {
        name: value
        for name, value in {**os.environ, **secrets_manager.environment}.items()
        # The last three are those of the make that runs the tests.
        if name not in {"AWS_DEFAULT_REGION", "AWS_REGION", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }

    def make(*arguments: str, **variables: str) -> tuple[int, list[str]]:
        ended = subprocess.run(
            ["sh", "-c", 'exec make "$@" <&-', "sh", "-j4", *arguments],
            cwd=tmp_path,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        lines = ended.stdout.splitlines()
        return ended.returncode, [line for line in lines if not line.startswith("make")]

    return make


@pytest.fixture
def aws(secrets_manager: FakeSecretsManager) -> Any:
    """A function that creates clients of the services that `make` reaches."""
    return functools.partial(boto3.client, endpoint_url=secrets_manager.address)


def test_deploy(create_stack: CreateStack, make: Make) -> None:
    """Without a terminal, in this order: the checks, the build, the deployment, the state."""
    create_stack("other", "eu-central-1")

    status, lines = make("deploy", AWS_REGION="eu-central-1")

    assert [
        "Stack other in account 123456789012, region eu-central-1",
        "sam build",
        "called: sam build",
        "sam deploy --config-env default --no-confirm-changeset",
        "called: sam deploy --config-env default --no-confirm-changeset",
        "Waiting up to 5 minutes for a valid token ...",
        "ok   Stack        other in eu-central-1: CREATE_COMPLETE",
        "bad  Token        the stack has no TokenSecret",
    ] == lines[:8]
    assert 2 == status


def test_configure(make: Make) -> None:
    """The first time, without a region: the checks, the build, the questions, the state."""
    status, lines = make("configure")

    assert [
        "Stack other in account 123456789012, region not set",
        "sam build",
        "called: sam build",
        "sam deploy --guided --config-env default",
        "called: sam deploy --guided --config-env default",
        "No AWS region found: run `make configure`, or set AWS_REGION",
    ] == lines
    assert 2 == status


def test_logs(create_stack: CreateStack, make: Make) -> None:
    """The log of a stack with another name than the suggested one is followed."""
    create_stack("other", "eu-central-1")

    assert (
        0,
        ["called: sam logs --tail --region eu-central-1 --cw-log-group log"],
    ) == make("logs", AWS_REGION="eu-central-1")


def test_build(make: Make) -> None:
    """The build ends with the next command of this project."""
    assert (
        0,
        [
            "sam build",
            "called: sam build",
            "Next: make configure, or, with the settings of the last make configure, make deploy",
        ],
    ) == make("build")


@pytest.mark.parametrize("target", ["deploy", "configure", "status", "rotate", "logs"])
def test_no_environment(make: Make, target: str) -> None:
    """An empty environment is answered in one line, before anything is built."""
    status, (line,) = make(target, "ENV=")

    assert line.startswith("samconfig.toml has no environment , only default; copy ")
    assert 2 == status
