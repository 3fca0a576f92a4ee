"""Fixtures: an AWS account in this process, and a folder with a samconfig.toml."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

Save = Callable[[str], object]
CreateStack = Callable[..., None]

RESOURCES = {
    # In moto, a function needs a role and code; the tests need only its name.
    "RotateTokenFunction": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "f"}},
    "RotateTokenLogGroup": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "log"}},
}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty account, and no region in the environment: a function that creates clients."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with mock_aws():
        yield functools.cache(boto3.Session(region_name="us-east-1").client)


@pytest.fixture
def save(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Save:
    """A function that writes samconfig.toml, in Latin-1, in the current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(Path("samconfig.toml").write_text, encoding="latin-1")


@pytest.fixture
def create_stack(aws: Any) -> CreateStack:
    """A function that creates a stack with some of the template's parameters and resources."""

    def create_stack(name: str, region: str, *tags: dict[str, str], **parameters: str) -> None:
        secret = aws("secretsmanager", region).create_secret(Name="smartcar/client-credentials")
        given = {
            "CredentialsSecretArn": secret["ARN"],
            "AlarmEmail": "",
            **parameters,
        }
        template = {
            "Parameters": {key: {"Type": "String", "Default": given[key]} for key in given},
            "Resources": RESOURCES,
        }
        aws("cloudformation", region).create_stack(
            StackName=name, TemplateBody=json.dumps(template), Tags=tags
        )

    return create_stack


@pytest.fixture
def stack(create_stack: CreateStack, save: Save, tmp_path: Path) -> Path:
    """The stack `token` of the default environment; the folder of its samconfig.toml."""
    save('[default.global.parameters]\nstack_name = "token"\nregion = "us-east-1"')
    create_stack("token", "us-east-1")
    return tmp_path
