"""What `make configure` and `make deploy` check before anything is built or asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from moto.cloudformation.models import cloudformation_backends
from samcli.cli.types import CfnParameterOverridesType, CfnTags

from operations import preflight
from operations.deployment import open_environment

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


@pytest.mark.usefixtures("stack")
def test_existing_stack() -> None:
    """A stack keeps its credentials secret, although samconfig.toml does not have it."""
    preflight.main("default", asks=False)


ELSEWHERE = (
    "samconfig.toml names a credentials secret in eu-west-1, but the stack is in us-east-1: run "
    "`make configure ENV=default` and enter the ARN of a secret in us-east-1$"
)


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
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
@pytest.mark.parametrize("asks", [False, True], ids=["deploy", "configure"])
def test_no_region(save: Save, *, asks: bool) -> None:
    """Without a region, neither command builds anything; `make configure` could not look either."""
    save(NAMED)

    with pytest.raises(
        SystemExit, match="^No AWS region found: .* `AWS_REGION=us-east-1 make configure`$"
    ):
        preflight.main("default", asks=asks)


@pytest.mark.usefixtures("aws")
def test_credentials_secret_to_correct(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    """`make configure` goes on with a secret in another region, since it asks for it."""
    save(CONFIGURED.replace("secretsmanager:us-east-1", "secretsmanager:eu-west-1"))

    preflight.main("default", asks=True)

    assert "names a credentials secret in eu-west-1, but" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"])
@pytest.mark.parametrize("asks", [False, True], ids=["deploy", "configure"])
def test_partial_stack(create_stack: CreateStack, save: Save, state: str, *, asks: bool) -> None:
    """If the stack exists only in part, both commands say how it is deleted."""
    save(CONFIGURED)
    create_stack("token", "us-east-1")
    # moto has no deployments that fail.
    (stack,) = cloudformation_backends["123456789012"]["us-east-1"].stacks.values()
    stack.status = state

    with pytest.raises(SystemExit) as ended:
        preflight.main("default", asks=asks)

    assert (
        f"Stack token is in {state}, so it exists only in part: delete it with `.venv/bin/sam "
        "delete --stack-name token --region us-east-1`, and deploy again"
    ) == ended.value.code


def test_new_checkout(
    create_stack: CreateStack,
    save: Save,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`make configure` resets no setting: it prints the lines that samconfig.toml lacks."""
    parameters = {"AlarmEmail": 'o"brien ö@example.com', "SubnetIds": "subnet-1,subnet-2"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    create_stack("token", "us-east-1", tags={"team": "a b"}, **parameters)
    save(NAMED)

    with pytest.raises(
        SystemExit,
        match=r"^samconfig.toml does not have the settings of this stack, .* add the lines above "
        r"to \[default.deploy.parameters\], and run `make configure ENV=default` again$",
    ):
        preflight.main("default", asks=True)

    _, *lines = capsys.readouterr().out.splitlines()
    Path("samconfig.toml").write_text(
        "\n".join([NAMED, "[default.deploy.parameters]", *lines]), encoding="utf-8"
    )
    _, settings = open_environment("default")
    overrides = CfnParameterOverridesType().convert((settings["parameter_overrides"],), None, None)
    assert "us-east-1" == settings["region"]
    assert {"team": "a b"} == CfnTags().convert((settings["tags"],), None, None)
    assert parameters.items() < overrides.items()
    assert {"CredentialsSecretArn", "ScheduleExpression", *parameters} == overrides.keys()
    preflight.main("default", asks=True)


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
