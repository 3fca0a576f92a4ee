"""The look-up of the stack of an environment of samconfig.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from operations.deployment import Deployment, DeploymentError, one_line_errors

if TYPE_CHECKING:
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

    assert ("another-name", "eu-central-1") == (deployment.stack_name, deployment.region)
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
        match="^There is no stack staging in eu-west-1; `make configure ENV=staging` deploys it$",
    ):
        Deployment.find("staging")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("prod = 1", "samconfig.toml: prod is not a table"),
        ("[prod]\ndeploy = 1", "samconfig.toml: deploy is not a table"),
        ("[prod.deploy]\nparameters = []", "samconfig.toml: parameters is not a table"),
        ("[prod]", "samconfig.toml has no usable stack_name for prod"),
        (
            '[prod.deploy.parameters]\nstack_name = "a"\nregion = ""',
            "samconfig.toml has no usable region for prod",
        ),
        (
            '[prod.deploy.parameters]\nstack_name = "a"\nprofile = ["a"]',
            "samconfig.toml has no usable profile for prod",
        ),
        ("[prod", "samconfig.toml cannot be read: Expected ']' .*"),
        ("\xff", "samconfig.toml cannot be read: 'utf-8' codec can't decode byte 0xff .*"),
    ],
)
def test_odd_settings(save: Save, settings: str, expected: str) -> None:
    """A samconfig.toml that cannot be used is an error that says what is wrong with it."""
    save(settings)

    with pytest.raises(DeploymentError, match=f"^{expected}$"):
        Deployment.find("prod")


def test_missing_environment(save: Save) -> None:
    """An environment that samconfig.toml does not have is an error that says how to add it."""
    save(GUIDED)

    with pytest.raises(
        DeploymentError,
        match="^samconfig.toml has no environment prod, only default, staging; copy "
        r"\[staging.global.parameters\] and \[staging.deploy.parameters\], and in the copies "
        "rename staging to prod and change the stack_name$",
    ):
        Deployment.find("prod")


@pytest.mark.usefixtures("save")
def test_missing_settings() -> None:
    """A samconfig.toml that does not exist is an error that names it."""
    with pytest.raises(DeploymentError, match="^samconfig.toml cannot be read: .* No such file"):
        Deployment.find("default")


def test_unknown_profile(save: Save) -> None:
    """A profile that does not exist ends a command with one line."""
    save('[default.global.parameters]\nstack_name = "a"\nprofile = "gone"')

    with (
        pytest.raises(SystemExit, match=r"^The config profile \(gone\) could not be found$"),
        one_line_errors(),
    ):
        Deployment.find("default")
