"""The documents match the code."""

import inspect
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

import rotate_token
from local.fakes.secrets_manager import FakeSecretsManager
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token import errors
from rotate_token.access_token import AccessToken
from rotate_token.configuration import SMARTCAR_TOKEN_URL
from tests.programs import MAKEFILE, need
from tests.samples import EVENT_SECRET_ARN, LOOPBACK_ONLY, PROJECT
from tests.stack import Stack, transformed_template

README, RUNBOOK = (
    (PROJECT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/operations.md")
)
AWS_CLI = PROJECT / ".venv" / "aws" / "bin"
EACH_DOCUMENT = pytest.mark.parametrize(
    "document",
    sorted(
        {*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("examples/*/README.md")}
        - {PROJECT / "CHANGELOG.md"}
    ),
    ids=lambda path: str(path.relative_to(PROJECT)),
)


def test_errors() -> None:
    """The runbook explains each error that a run can raise, and no other."""
    classes = [error for _, error in inspect.getmembers(errors, inspect.isclass)]
    raised = {error.__name__ for error in classes if not error.__subclasses__()}

    assert raised == set(re.findall(r"^\| `(\w+Error)`.* \| .+ \|$", RUNBOOK, re.MULTILINE))


@EACH_DOCUMENT
def test_links(document: Path) -> None:
    """Every link within the repository leads to a file, and to a heading if it names one."""
    text = document.read_text(encoding="utf-8")
    for target, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", text):
        path = document.parent / target if target else document
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings
            }


@EACH_DOCUMENT
def test_commands(document: Path) -> None:
    """Every make target that a document names exists."""
    named = re.findall(r"(?:`|^)make ([a-z]+)", document.read_text(encoding="utf-8"), re.MULTILINE)

    assert set(named) <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def test_readme_example(
    secrets_manager: FakeSecretsManager,
    endpoint: FakeSmartcar,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The lines of Python in the README read the token and call the API."""
    secrets_manager.publish(endpoint.issue_token())
    for name, value in secrets_manager.environment.items():
        monkeypatch.setenv(name, value)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    exec(code.replace("https://vehicle.api.smartcar.com/v3", endpoint.api_url), {})  # noqa: S102

    assert capsys.readouterr().out == "{'data': []}\n"


@pytest.mark.parametrize(
    ("answer", "lifetime"),
    [
        (None, 3600),
        (Answer(200, b'{"access_token": "eyJ", "expires_in": 900}'), 900),
        (Answer(200, b'{"access_token": "eyJ"}'), 3600),
        (Answer(200, b'{"error": "server_error"}'), None),
    ],
)
def test_token_by_hand(
    answer: Answer | None,
    lifetime: int | None,
    endpoint: FakeSmartcar,
    secrets_manager: FakeSecretsManager,
    tmp_path: Path,
) -> None:
    """The runbook's commands for a broken function publish a token, and nothing else."""
    need(f"{AWS_CLI}/aws", "jq", "curl")
    (commands,) = re.findall(r"^```\n(\(umask 077\n.+?)```", RUNBOOK, re.DOTALL | re.MULTILINE)
    client = {"client_id": endpoint.client_id, "client_secret": endpoint.client_secret}
    (tmp_path / "credentials.json").write_text(json.dumps(client), encoding="utf-8")
    old = endpoint.issue_token()
    secrets_manager.publish(old)
    endpoint.faults.extend([answer] if answer else [])

    subprocess.run(
        ["sh", "-c", commands.replace(SMARTCAR_TOKEN_URL, endpoint.url)],
        check=True,
        cwd=tmp_path,
        env={
            **secrets_manager.environment,
            "PATH": f"{AWS_CLI}:{os.environ['PATH']}",
            "PYTHONPATH": str(LOOPBACK_ONLY),
        },
    )

    published = AccessToken.from_json(secrets_manager.published())
    if lifetime:
        assert published.access_token != old
        assert published.expires_in == lifetime
    else:
        assert published.access_token == old
    assert [path.name for path in tmp_path.iterdir()] == ["credentials.json"]


def test_parameters() -> None:
    """The runbook explains each parameter of the template with its default."""
    rows = re.findall(r"^\| (`[A-Z].+?) \| .+ \| `?(.+?)`? \|$", RUNBOOK, re.MULTILINE)
    words = {"required": "None", "none": "", "AWS managed key": ""}
    explained = {
        name: words.get(default, default)
        for names, default in rows
        for name in re.findall(r"`(\w+)`", names)
    }

    assert explained == {
        name: str(parameter.get("Default"))
        for name, parameter in transformed_template()["Parameters"].items()
    }


def test_state_machine() -> None:
    """The guide's state machine waits after the template's event, and retries its deployment."""
    guide = (PROJECT / "docs/consumers.md").read_text(encoding="utf-8")
    (resource,) = re.findall(r"```yaml\n(ReplaceTasks:.*?)```", guide, re.DOTALL)
    resource = resource.replace("!Ref TokenSecretArn", EVENT_SECRET_ARN)
    translated = Translator(None, Parser()).translate({"Resources": yaml_parse(resource)}, {})
    rule, machine = (
        translated["Resources"][name]["Properties"]
        for name in ("ReplaceTasksNewToken", "ReplaceTasks")
    )
    template = Stack({"CredentialsSecretArn": EVENT_SECRET_ARN})
    same_event = template.properties("RotateTokenFunctionNewCredentials")["EventPattern"]
    definition = json.loads("".join(machine["DefinitionString"]["Fn::Join"][1]))
    wait = definition["States"][definition["StartAt"]]

    assert rule["EventPattern"] == same_event
    assert wait["Seconds"] == 60
    assert definition["States"][wait["Next"]]["Retry"]


def test_version() -> None:
    """The newest release in the changelog has the version of the code."""
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)

    assert released[0] == rotate_token.__version__
