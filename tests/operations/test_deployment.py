"""The look-up of the stack of an environment of samconfig.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import (
    ClientError,
    ProfileNotFound,
    SSOTokenLoadError,
    TokenRetrievalError,
)

from operations.deployment import (
    Deployment,
    DeploymentError,
    cli_options,
    one_line_errors,
    open_environment,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.operations.conftest import CreateStack, Save

# As `sam deploy --guided` saves another stack name and a region: for `deploy`, and the region for
# all commands as well.
GUIDED = """
version = 0.1
[default.global.parameters]
stack_name = "smartcar-token"
region = "us-east-1"
[default.deploy.parameters]
stack_name = "another-name"
region = "eu-central-1"
[staging.global.parameters]
stack_name = "staging"
region = "eu-west-1"
"""


def test_saved_stack(create_stack: CreateStack, save: Save) -> None:
    """The stack is the one that was last deployed; what is saved for `deploy` has precedence."""
    save(GUIDED)
    create_stack("another-name", "eu-central-1")

    deployment = Deployment.find("default")

    assert "another-name" == deployment.stack_name
    assert "123456789012" == deployment.account
    assert "--region eu-central-1" == deployment.options
    assert "" == deployment.ref("AlarmEmail")
    assert "log" == deployment.ref("RotateTokenLogGroup")


def test_change_set_without_a_stack(aws: Any, save: Save) -> None:
    """A stack whose first change set was not executed is yet to be deployed: the error says how."""
    save(GUIDED)
    aws("cloudformation", "eu-west-1").create_change_set(
        StackName="staging",
        ChangeSetName="first",
        ChangeSetType="CREATE",
        TemplateBody='{"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}',
    )

    with pytest.raises(
        DeploymentError,
        match="^There is no stack staging in account 123456789012, region eu-west-1; "
        "`make configure ENV=staging` deploys it$",
    ):
        Deployment.find("staging")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("[prod]", "samconfig.toml has no stack_name for prod"),
        ("[prod", "samconfig.toml cannot be read: Expected ']' .*"),
        ("\xff", "samconfig.toml cannot be read: 'utf-8' codec can't decode byte 0xff .*"),
    ],
)
def test_odd_settings(save: Save, settings: str, expected: str) -> None:
    """A samconfig.toml that cannot be used is an error that says what is wrong with it."""
    save(settings)

    with pytest.raises(DeploymentError, match=f"^{expected}$"):
        Deployment.find("prod")


@pytest.mark.parametrize("environment", ["prod", "version"])
def test_missing_environment(save: Save, environment: str) -> None:
    """An environment that samconfig.toml does not have is an error that says how to add it."""
    save(GUIDED)

    with pytest.raises(
        DeploymentError,
        match=f"^samconfig.toml has no environment {environment}, only default, staging; copy "
        r"\[staging.global.parameters\] and \[staging.deploy.parameters\], and in the copies "
        f"rename staging to {environment} and change the stack_name$",
    ):
        Deployment.find(environment)


@pytest.mark.usefixtures("save")
def test_missing_settings() -> None:
    """A samconfig.toml that does not exist is an error that names it."""
    with pytest.raises(DeploymentError, match="^samconfig.toml cannot be read: .* No such file"):
        Deployment.find("default")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            SSOTokenLoadError(error_msg="it is\ngone"),
            "The AWS sign-on has expired: .*`aws sso login`",
        ),
        (
            TokenRetrievalError(provider="sso", error_msg="Token has expired"),
            "The AWS sign-on has expired: .*`aws sso login`",
        ),
        (
            ClientError({"Error": {"Code": "ExpiredTokenException"}}, "DescribeStacks"),
            "The AWS sign-on has expired: .*`aws sso login`",
        ),
        (ProfileNotFound(profile="gone"), r"The config profile \(gone\) could not be found$"),
        (DeploymentError("in two\nlines"), "in two lines$"),
        (KeyboardInterrupt(), "130"),
    ],
)
def test_one_line_errors(error: BaseException, expected: str) -> None:
    """An error that an operator can correct ends a command with one line that says how."""
    with pytest.raises(SystemExit, match=f"^{expected}"), one_line_errors():
        raise error


@pytest.mark.parametrize("source", ["samconfig.toml", "AWS_PROFILE"])
def test_profile(save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
    """The commands that are printed have the profile, wherever it is set."""
    (tmp_path / "config").write_text("[profile prod]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    settings = '[default.global.parameters]\nstack_name = "token"\n'
    if source == "AWS_PROFILE":
        monkeypatch.setenv("AWS_PROFILE", "prod")
        save(settings)
    else:
        save(settings + 'profile = "prod"')

    session, _ = open_environment("default")

    assert "--region eu-west-1 --profile prod" == cli_options(session)
