"""The template fits the code."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from local.fakes.lambda_runtime import HANDLER
from rotate_token.configuration import SMARTCAR_TOKEN_URL, Configuration

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """The template, with its functions in their long form."""
    parsed: dict[str, Any] = cfn_yaml.load(str(PROJECT / "template.yaml"))
    return parsed


@pytest.fixture(scope="module")
def function(template: dict[str, Any]) -> dict[str, Any]:
    """The properties of the function."""
    properties: dict[str, Any] = template["Resources"]["RotateTokenFunction"]["Properties"]
    return properties


def test_handler(function: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler's path imports, and is the one that is run on this machine."""
    monkeypatch.setenv("CREDENTIALS_SECRET_ID", "smartcar")
    monkeypatch.setenv("TOKEN_SECRET_ID", "token")
    module, _, name = function["Handler"].rpartition(".")

    assert callable(getattr(importlib.import_module(module), name))
    assert function["Handler"] == HANDLER
    assert (PROJECT / function["CodeUri"] / module.replace(".", "/")).with_suffix(".py").is_file()


def test_environment(function: dict[str, Any]) -> None:
    """The variables are those that the configuration reads, and Powertools'."""
    variables = function["Environment"]["Variables"]
    settings = {field.name.upper() for field in dataclasses.fields(Configuration)}

    assert {name for name in variables if not name.startswith("POWERTOOLS_")} == settings


def test_token_url(template: dict[str, Any]) -> None:
    """The stack and the code have the same token endpoint by default."""
    assert template["Parameters"]["TokenUrl"]["Default"] == SMARTCAR_TOKEN_URL


def test_policy(template: dict[str, Any]) -> None:
    """The code may read the credentials, read and write the token, and nothing else."""
    code, platform = template["Resources"]["RotateTokenRole"]["Properties"]["Policies"]
    plain = [s for s in code["PolicyDocument"]["Statement"] if "Fn::If" not in s]
    allowed = [
        (action, statement["Resource"]["Ref"])
        for statement in plain
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    ]

    assert "*" not in json.dumps(code)
    assert json.dumps(platform).count("*") == 1  # for X-Ray, which knows no resources
    assert sorted(allowed) == [
        ("secretsmanager:GetSecretValue", "CredentialsSecretArn"),
        ("secretsmanager:GetSecretValue", "TokenSecret"),
        ("secretsmanager:PutSecretValue", "TokenSecret"),
    ]


def test_parameters(template: dict[str, Any]) -> None:
    """Each parameter has a description, a pattern or range with a message, a label and a group."""
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]

    assert sorted(grouped) == sorted(template["Parameters"])
    assert interface["ParameterLabels"].keys() == template["Parameters"].keys()
    for name, parameter in template["Parameters"].items():
        assert parameter["Description"].endswith((".", "}.")), name
        assert parameter["ConstraintDescription"].startswith("must be ") or parameter[
            "ConstraintDescription"
        ].startswith("must look like "), name
        assert parameter.keys() & {"AllowedPattern", "AllowedValues", "MinValue"}, name
        assert name == "CredentialsSecretArn" or "Default" in parameter


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        (
            "CredentialsSecretArn",
            ["arn:aws:secretsmanager:us-east-1:123456789012:secret:smartcar/credentials-Ab12Cd"],
            ["smartcar/credentials", "arn:aws:secretsmanager:us-east-1:123456789012:secret:a"],
        ),
        (
            "TokenUrl",
            ["https://iam.smartcar.com/oauth2/token", "https://login.example.com:8443/t?x=1"],
            ["http://iam.smartcar.com/oauth2/token", "https://user@host/", "https://"],
        ),
        ("ScheduleExpression", ["rate(1 hour)", "cron(0/30 * * * ? *)"], ["50 minutes", "rate()"]),
        ("AlarmEmail", ["", "on-call@example.com"], ["on-call", "two words@example.com"]),
        ("ReplicaRegion", ["", "eu-west-1", "us-gov-west-1"], ["Ireland", "eu-west"]),
        ("KmsKeyArn", ["", "arn:aws:kms:eu-west-1:123456789012:key/0a1b-2c"], ["alias/token"]),
        (
            "ConsumerPrincipalArns",
            ["", "arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:role/a/b"],
            ["123456789012", "*"],
        ),
    ],
)
def test_patterns(template: dict[str, Any], name: str, right: list[str], wrong: list[str]) -> None:
    """The patterns let through what is right, and stop what is wrong."""
    pattern = template["Parameters"][name]["AllowedPattern"]

    assert [value for value in right if not re.fullmatch(pattern, value)] == []
    assert [value for value in wrong if re.fullmatch(pattern, value)] == []


def test_schedule(template: dict[str, Any], function: dict[str, Any]) -> None:
    """The schedule is a parameter, and has no fixed name that would keep out a second stack."""
    (event,) = function["Events"].values()

    assert event["Type"] == "ScheduleV2"
    assert event["Properties"]["ScheduleExpression"] == {"Ref": "ScheduleExpression"}
    assert event["Properties"]["OmitName"] is True
    assert template["Parameters"]["ScheduleExpression"]["Default"] == "rate(50 minutes)"


def test_events() -> None:
    """The sample of a scheduled event has the fields that EventBridge Scheduler sends."""
    scheduled = json.loads((PROJECT / "events" / "scheduled.json").read_text())

    assert [*scheduled] == [
        *("version", "id", "detail-type", "source", "account"),
        *("time", "region", "resources", "detail"),
    ]
    assert scheduled["source"] == "aws.scheduler"
    assert scheduled["detail-type"] == "Scheduled Event"
    assert scheduled["detail"] == "{}"
