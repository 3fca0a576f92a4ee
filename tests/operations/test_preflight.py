"""What `make configure` and `make deploy` check before anything is built or asked."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from moto.cloudformation.models import cloudformation_backends

from operations import preflight
from tests.samples import LOOPBACK_ONLY, PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.operations.conftest import CreateStack, Save

NAMED = '[default.global.parameters]\nstack_name = "token"\n'
LOCATED = NAMED + 'region = "us-east-1"\n'
# As `sam deploy --guided` saves the answers.
CONFIGURED = (
    LOCATED
    + r"""
[default.deploy.parameters]
parameter_overrides = "CredentialsSecretArn=\"arn:aws:secretsmanager:us-east-1:1:secret:s\""
"""
)

SHOWN = "Stack token in account 123456789012, region us-east-1\n"


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("settings", "asks", "shown"),
    [
        (CONFIGURED, False, SHOWN),
        (CONFIGURED, True, SHOWN),
        (LOCATED, True, SHOWN),
        (NAMED, True, "Stack token in account 123456789012, region not set\n"),
    ],
    ids=["deploy", "configure", "credentials to ask for", "region to ask for"],
)
def test_clear(
    save: Save, capsys: pytest.CaptureFixture[str], settings: str, *, asks: bool, shown: str
) -> None:
    """If nothing is in the way, the account and the region are shown."""
    save(settings)

    preflight.main("default", asks=asks)

    assert shown == capsys.readouterr().out


def test_existing_stack(create_stack: CreateStack, save: Save) -> None:
    """A stack keeps its credentials secret, although samconfig.toml does not have it."""
    save(LOCATED)
    create_stack("token", "us-east-1")

    preflight.main("default", asks=False)


ELSEWHERE = (
    "The credentials secret in samconfig.toml is in eu-west-1, but the stack is in us-east-1; "
    "enter one in us-east-1 in `make configure ENV=default`$"
)


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", "samconfig.toml has no environment default, only "),
        (NAMED, "No AWS region found: "),
        (LOCATED, "samconfig.toml has no CredentialsSecretArn; run `make configure ENV=default`$"),
        *(
            (f"{LOCATED}parameter_overrides = {overrides}", ELSEWHERE)
            for overrides in (
                r'"CredentialsSecretArn=\"arn:aws:secretsmanager:eu-west-1:1:secret:s\""',
                '"CredentialsSecretArn=arn:aws:secretsmanager:eu-west-1:1:secret:s"',
                '["CredentialsSecretArn=arn:aws:secretsmanager:eu-west-1:1:secret:s"]',
                '{CredentialsSecretArn = "arn:aws:secretsmanager:eu-west-1:1:secret:s"}',
            )
        ),
    ],
)
def test_deploy(save: Save, settings: str, expected: str) -> None:
    """`make deploy` ends with one line if the settings cannot work, in each way SAM reads them."""
    save(settings)

    with pytest.raises(SystemExit, match=f"^{expected}"):
        preflight.main("default", asks=False)


@pytest.mark.usefixtures("aws")
def test_credentials_secret_to_correct(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    """`make configure` goes on with a secret in another region, since it asks for it."""
    save(CONFIGURED.replace("secretsmanager:us-east-1", "secretsmanager:eu-west-1"))

    preflight.main("default", asks=True)

    assert "in samconfig.toml is in eu-west-1, but the stack is in us-east-1" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("state", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED"])
@pytest.mark.parametrize("asks", [False, True], ids=["deploy", "configure"])
def test_failed_first_deployment(
    create_stack: CreateStack, save: Save, state: str, *, asks: bool
) -> None:
    """After a first deployment that failed, both commands say how one goes on."""
    save(CONFIGURED)
    create_stack("token", "us-east-1")
    # moto has no deployments that fail.
    (stack,) = cloudformation_backends["123456789012"]["us-east-1"].stacks.values()
    stack.status = state

    with pytest.raises(SystemExit) as ended:
        preflight.main("default", asks=asks)

    assert (
        "The first deployment of this stack failed, and CloudFormation can only delete it: find "
        "the cause with `aws cloudformation describe-stack-events --stack-name token --region "
        "us-east-1` (often a missing permission, a principal that does not exist, or a secret of "
        "the same name that is scheduled for deletion), run `.venv/bin/sam delete --stack-name "
        "token --region us-east-1`, and deploy again"
    ) == ended.value.code


@pytest.mark.parametrize("program", ["preflight", "status"])
def test_no_aws_credentials(tmp_path: Path, program: str) -> None:
    """Without AWS credentials, a command ends with one line and status 1."""
    (tmp_path / "samconfig.toml").write_text(CONFIGURED)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    }
    ended = subprocess.run(
        [sys.executable, "-m", f"operations.{program}", "default"],
        cwd=tmp_path,
        env={
            **environment,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": f"{LOOPBACK_ONLY}:{PROJECT}:{PROJECT / 'functions'}",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert (
        1,
        "",
        "No AWS credentials found: run `aws configure` or `aws sso login`, or set AWS_PROFILE\n",
    ) == (ended.returncode, ended.stdout, ended.stderr)
