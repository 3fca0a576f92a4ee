"""What `make configure` and `make deploy` check before anything is built or asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from moto.cloudformation.models import cloudformation_backends

from operations import preflight

if TYPE_CHECKING:
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


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("settings", "asks"),
    [(CONFIGURED, False), (CONFIGURED, True), (LOCATED, True)],
    ids=["deploy", "configure", "credentials to ask for"],
)
def test_clear(
    save: Save, capsys: pytest.CaptureFixture[str], settings: str, *, asks: bool
) -> None:
    """If nothing is in the way, only the account and the region are shown."""
    save(settings)

    preflight.main("default", asks=asks)

    assert "Stack token in account 123456789012, region us-east-1\n" == capsys.readouterr().out


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


def test_no_aws_credentials(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AWS credentials, a command ends with one line."""
    save(LOCATED)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(SystemExit) as ended:
        preflight.main("default", asks=False)

    assert (
        "No AWS credentials found: run `aws configure` or `aws sso login`, or set AWS_PROFILE"
    ) == ended.value.code
