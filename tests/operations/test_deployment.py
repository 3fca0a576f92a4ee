"""The look-up of the stack of an environment of samconfig.toml."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from moto.cloudformation.models import cloudformation_backends
from moto.core import set_initial_no_auth_action_count

from operations.deployment import (
    Deployment,
    DeploymentError,
    cli_options,
    duration,
    one_line_errors,
    open_environment,
)
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
ADD_PROD = (
    "samconfig.toml has no environment prod, only default, staging; copy "
    r"\[staging.global.parameters\] and \[staging.deploy.parameters\], and in the copies "
    "rename staging to prod and change the stack_name"
)


def test_saved_stack(create_stack: CreateStack, save: Save) -> None:
    """The stack is the one that was last deployed; what is saved for `deploy` has precedence."""
    save(GUIDED)
    create_stack("another-name", "eu-central-1")

    deployment = Deployment.find("default")

    assert deployment.stack_name == "another-name"
    assert deployment.account == "123456789012"
    assert deployment.state == "CREATE_COMPLETE"
    assert deployment.aws("s3 ls") == "`aws s3 ls --region eu-central-1`"
    assert deployment.ref("AlarmEmail") == ""
    assert deployment.ref("RotateTokenLogGroup") == "log"


@pytest.mark.usefixtures("stack")
def test_new_resource() -> None:
    """A resource that is about to be created is one that the stack does not have yet."""
    stack: Any = cloudformation_backends["123456789012"]["us-east-1"].get_stack("token")
    stack.resource_map["RotateTokenLogGroup"].name = None

    with pytest.raises(DeploymentError, match="^the stack has no RotateTokenLogGroup$"):
        Deployment.find("default").ref("RotateTokenLogGroup")


@pytest.mark.usefixtures("stack")
@set_initial_no_auth_action_count(0)
def test_denied() -> None:
    """A stack that may not be looked up is not taken for one that does not exist."""
    with pytest.raises(exceptions.ClientError, match="DescribeStacks"):
        Deployment.find("default")


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
        "if that is the right place, `make configure ENV=staging` deploys it$",
    ):
        Deployment.find("staging")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("[prod]", "samconfig.toml has no stack_name for prod"),
        ("[prod", "samconfig.toml cannot be read: Expected ']' .*"),
        ("\xff", "samconfig.toml cannot be read: 'utf-8' codec can't decode byte 0xff .*"),
        (None, "samconfig.toml cannot be read: .* No such file .*"),
        (GUIDED, ADD_PROD),
        (f"prod = 1{GUIDED}", ADD_PROD),
    ],
)
def test_odd_settings(save: Save, settings: str | None, expected: str) -> None:
    """A samconfig.toml that cannot be used is an error that says what to do about it."""
    if settings:
        save(settings)

    with pytest.raises(DeploymentError, match=f"^{expected}$"):
        Deployment.find("prod")


SIGNED_OUT = "The AWS sign-on has expired: run `aws sso login`, .*"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.SSOTokenLoadError(error_msg="gone"), SIGNED_OUT),
        (exceptions.TokenRetrievalError(provider="sso", error_msg="gone"), SIGNED_OUT),
        (exceptions.ClientError({"Error": {"Code": "ExpiredTokenException"}}, "Get"), SIGNED_OUT),
        (exceptions.ProfileNotFound(profile="in two\nlines"), r"The .* \(in two lines\) could .*"),
        (DeploymentError("in two\nlines"), "in two lines"),
        (KeyboardInterrupt(), "130"),
    ],
)
def test_one_line_errors(error: BaseException, expected: str) -> None:
    """An error that an operator can correct ends a command with one line that says how."""
    with pytest.raises(SystemExit, match=f"^{expected}$"), one_line_errors():
        raise error


@pytest.mark.parametrize(
    ("line", "variable"),
    [('profile = "prod"', "other"), ("", "prod")],
    ids=["samconfig.toml", "AWS_PROFILE"],
)
def test_profile(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, variable: str
) -> None:
    """The commands that are printed have the profile, wherever it is set."""
    (tmp_path / "config").write_text("[profile prod]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_PROFILE", variable)
    save('[default.global.parameters]\nstack_name = "token"\n' + line)

    session, _ = open_environment("default")

    assert cli_options(session) == "--region eu-west-1 --profile prod"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-3, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 days")],
)
def test_duration(seconds: int, expected: str) -> None:
    """A duration has one unit, and is not negative, although this machine's clock may be late."""
    assert duration(timedelta(seconds=seconds)) == expected
