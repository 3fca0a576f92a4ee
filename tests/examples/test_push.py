"""The resources in docs/consumers.md that tell a program of a new token."""

from __future__ import annotations

import re
from typing import Any

import boto3
import pytest
from moto.events.models import EventPattern
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from tests.samples import PROJECT

SECRET_ARN = "arn:aws:secretsmanager:us-west-2:012345678901:secret:mySecret-a1b2c3"
SAMPLE: Any = {  # from AWS's documentation
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": "Secret Label Updated",
    "source": "aws.secretsmanager",
    "account": "012345678901",
    "time": "2024-02-06T16:43:48Z",
    "region": "us-west-2",
    "resources": [SECRET_ARN],
    "detail": {
        "name": "mySecret",
        "labelUpdated": "AWSCURRENT",
        "versionId": "a1b2c3d4-5678-90ab-cdef-EXAMPLE11111",
    },
}


@pytest.fixture(params=["ReplaceTasks", "HandOnToken"])
def rule(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The rule of each of the resources, as SAM creates it."""
    document = (PROJECT / "docs/consumers.md").read_text()
    (resource,) = re.findall(rf"```yaml\n({request.param}:.*?)```", document, re.DOTALL)
    for text, value in (
        ("!Ref TokenSecretArn", SECRET_ARN),
        ("CodeUri: .", "CodeUri: s3://code/package.zip"),
    ):
        resource = resource.replace(text, value)
    translator = Translator(None, Parser(), boto_session=boto3.Session(region_name="us-west-2"))
    translated = translator.translate({"Resources": yaml_parse(resource)}, {})
    properties: dict[str, Any] = translated["Resources"][f"{request.param}NewToken"]["Properties"]
    return properties


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"detail": {"labelUpdated": "AWSPENDING"}}, False),
        ({"resources": [SECRET_ARN.replace("mySecret", "another")]}, False),
        ({"detail-type": "AWS API Call via CloudTrail"}, False),
        ({"source": "my.application"}, False),
    ],
    ids=["new value", "another label", "another secret", "CloudTrail", "another source"],
)
def test_pattern(
    rule: dict[str, Any],
    change: dict[str, Any],
    matches: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    """AWS's sample event of a new current value of the secret matches; other events do not."""
    assert EventPattern(None, rule["EventPattern"]).matches_event(SAMPLE | change) is matches
