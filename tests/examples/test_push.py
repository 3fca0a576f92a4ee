"""The state machine in docs/consumers.md that replaces tasks when there is a new token."""

from __future__ import annotations

import json
import re
from typing import Any

import boto3
import pytest
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from tests.samples import EVENT_SECRET_ARN, PROJECT
from tests.stack import Stack


@pytest.fixture
def resources() -> dict[str, Any]:
    """The resources that SAM makes of it, with their properties."""
    document = (PROJECT / "docs/consumers.md").read_text(encoding="utf-8")
    (resource,) = re.findall(r"```yaml\n(ReplaceTasks:.*?)```", document, re.DOTALL)
    resource = resource.replace("!Ref TokenSecretArn", EVENT_SECRET_ARN)
    translator = Translator(None, Parser(), boto_session=boto3.Session(region_name="us-west-2"))
    translated = translator.translate({"Resources": yaml_parse(resource)}, {})
    return {name: each["Properties"] for name, each in translated["Resources"].items()}


def test_pattern(resources: dict[str, Any]) -> None:
    """Its rule matches the same events as the template's, with the token secret's ARN."""
    template = Stack({"CredentialsSecretArn": EVENT_SECRET_ARN})
    rule = template.properties("RotateTokenFunctionNewCredentials")

    assert resources["ReplaceTasksNewToken"]["EventPattern"] == rule["EventPattern"]


def test_order(resources: dict[str, Any]) -> None:
    """It waits until the new token can be read, then deploys the service, and tries that again."""
    lines = resources["ReplaceTasks"]["DefinitionString"]["Fn::Join"][1]
    states = json.loads("".join(lines))
    wait = states["States"][states["StartAt"]]

    assert wait["Seconds"] == 60
    assert states["States"][wait["Next"]]["Retry"]
