"""What `make configure` and `make deploy` check before anything is built or asked."""

from pathlib import Path

import pytest
from moto.cloudformation.models import cloudformation_backends
from samcli.cli.types import CfnParameterOverridesType, CfnTags

from operations import preflight
from operations.deployment import open_environment
from tests.operations.conftest import CreateStack, Save

NAMED = '[default.global.parameters]\nstack_name = "token"\n'
LOCATED = NAMED + 'region = "us-east-1"\n'
PLACE = "Stack token in account 123456789012, region us-east-1\n"

EACH_COMMAND = pytest.mark.parametrize("asks", [False, True], ids=["deploy", "configure"])


@pytest.mark.usefixtures("aws")
def test_no_credentials_secret(save: Save) -> None:
    """`make deploy` creates no stack without a credentials secret; `make configure` asks for it."""
    save(LOCATED)

    with pytest.raises(SystemExit, match="no CredentialsSecretArn; run `make configure ENV=def"):
        preflight.main("default", asks=False)
    preflight.main("default", asks=True)


@pytest.mark.usefixtures("stack")
def test_existing_stack(capsys: pytest.CaptureFixture[str]) -> None:
    """A stack keeps what samconfig.toml does not have; `make configure` prints only that."""
    preflight.main("default", asks=False)
    assert capsys.readouterr().out == PLACE

    with pytest.raises(SystemExit):
        preflight.main("default", asks=True)

    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("parameter_overrides = ")


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    "overrides",
    [
        # The first is what `sam deploy --guided` saves; SAM reads the others too.
        r'"CredentialsSecretArn=\"arn:aws:secretsmanager:eu-west-1:1:secret:s\""',
        '"CredentialsSecretArn=arn:aws:secretsmanager:eu-west-1:1:secret:s"',
        '["CredentialsSecretArn=arn:aws:secretsmanager:eu-west-1:1:secret:s"]',
        '{CredentialsSecretArn = "arn:aws:secretsmanager:eu-west-1:1:secret:s"}',
    ],
)
def test_credentials_secret_elsewhere(
    save: Save, capsys: pytest.CaptureFixture[str], overrides: str
) -> None:
    """A secret in another region ends `make deploy`; `make configure` goes on, since it asks."""
    save(f"{LOCATED}parameter_overrides = {overrides}")
    problem = (
        "samconfig.toml names a credentials secret in eu-west-1, but the stack is in us-east-1: "
        "run `make configure ENV=default` and enter the ARN of a secret in us-east-1"
    )

    with pytest.raises(SystemExit, match=f"^{problem}$"):
        preflight.main("default", asks=False)
    preflight.main("default", asks=True)

    assert capsys.readouterr().out.endswith(f"\n{problem}\n")


@pytest.mark.usefixtures("aws")
@EACH_COMMAND
def test_no_region_or_credentials(
    save: Save, monkeypatch: pytest.MonkeyPatch, *, asks: bool
) -> None:
    """Without a region, or without AWS credentials, either command ends with one line."""
    save(NAMED)
    with pytest.raises(SystemExit, match="^No AWS region found: .*`AWS_REGION=us-east-1 make conf"):
        preflight.main("default", asks=asks)

    save(LOCATED)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SystemExit, match="^No AWS credentials found: .*, or set AWS_PROFILE$"):
        preflight.main("default", asks=asks)


@EACH_COMMAND
@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize("state", ["ROLLBACK_COMPLETE", "DELETE_FAILED"])
def test_partial_stack(state: str, *, asks: bool) -> None:
    """If the stack exists only in part, both commands say how it is deleted."""
    # moto has no deployments that fail.
    cloudformation_backends["123456789012"]["us-east-1"].get_stack("token").status = state

    with pytest.raises(SystemExit, match=f"^Stack token is in {state}, .*: delete it with `.*sam "):
        preflight.main("default", asks=asks)


def test_new_checkout(
    create_stack: CreateStack,
    save: Save,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`make configure` resets no setting: it prints the lines that samconfig.toml lacks."""
    parameters = {"AlarmEmail": 'o"brien ö@example.com', "SubnetIds": "subnet-1,subnet-2"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    create_stack("token", "us-east-1", {"Key": "team", "Value": "a b"}, **parameters)
    save(NAMED)
    stop = (
        r"^samconfig.toml does not have the settings of this stack, .* add the lines above to "
        r"\[default.deploy.parameters\], and run `make configure ENV=default` again$"
    )

    with pytest.raises(SystemExit, match=stop):
        preflight.main("default", asks=True)

    _, *lines = capsys.readouterr().out.splitlines()
    Path("samconfig.toml").write_text(
        "\n".join([NAMED, "[default.deploy.parameters]", *lines]), encoding="utf-8"
    )
    _, settings = open_environment("default")
    overrides = CfnParameterOverridesType().convert((settings["parameter_overrides"],), None, None)
    assert settings["region"] == "us-east-1"
    assert CfnTags().convert((settings["tags"],), None, None) == {"team": "a b"}
    assert parameters.items() < overrides.items()
    assert overrides.keys() == {"CredentialsSecretArn", *parameters}
    preflight.main("default", asks=True)
    assert capsys.readouterr().out == PLACE
