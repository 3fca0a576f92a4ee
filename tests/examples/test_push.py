"""The resource in docs/consumers.md that is told of a new token."""

from __future__ import annotations

import re
from typing import Any

import boto3
import pytest
from moto.events.models import EventPattern
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from tests.samples import EVENT_SECRET_ARN, PROJECT, label_updated_event


@pytest.fixture
def rule() -> dict[str, Any]:
    """The rule of the state machine, as SAM creates it."""
    document = (PROJECT / "docs/consumers.md").read_text(encoding="utf-8")
    (resource,) = re.findall(r"```yaml\n(ReplaceTasks:.*?)```", document, re.DOTALL)
    resource = resource.replace("!Ref TokenSecretArn", EVENT_SECRET_ARN)
    translator = Translator(None, Parser(), boto_session=boto3.Session(region_name="us-west-2"))
    translated = translator.translate({"Resources": yaml_parse(resource)}, {})
    properties: dict[str, Any] = translated["Resources"]["ReplaceTasksNewToken"]["Properties"]
    return properties


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"detail": {"labelUpdated": "AWSPENDING"}}, False),
        ({"resources": [EVENT_SECRET_ARN.replace("mySecret", "another")]}, False),
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
    assert (
        EventPattern(None, rule["EventPattern"]).matches_event(label_updated_event() | change)
        is matches
    )
