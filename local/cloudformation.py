"""
An embedded AWS CloudFormation: moto's, with the resource types that it lacks.

Such a resource is made by the call of its own service that makes it, and lives in moto's backend of
that service like any other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Make = Callable[[dict[str, Any], str], str]

CODE_BUCKET = "code"


def _make_secret(properties: dict[str, Any], name: str) -> str:
    if "ReplicaRegions" in properties:
        properties["AddReplicaRegions"] = properties.pop("ReplicaRegions")
    arn: str = boto3.client("secretsmanager").create_secret(**{"Name": name, **properties})["ARN"]
    return arn


def _make_secret_policy(properties: dict[str, Any], _: str) -> str:
    properties["ResourcePolicy"] = json.dumps(properties["ResourcePolicy"])
    arn: str = boto3.client("secretsmanager").put_resource_policy(**properties)["ARN"]
    return arn


def _make_subscription(properties: dict[str, Any], _: str) -> str:
    arn: str = boto3.client("sns").subscribe(**properties)["SubscriptionArn"]
    return arn


def _make_topic_policy(properties: dict[str, Any], name: str) -> str:
    for arn in properties["Topics"]:
        boto3.client("sns").set_topic_attributes(
            TopicArn=arn,
            AttributeName="Policy",
            AttributeValue=json.dumps(properties["PolicyDocument"]),
        )
    return name


def _make_alarm(properties: dict[str, Any], name: str) -> str:
    properties["EvaluationPeriods"] = int(properties["EvaluationPeriods"])
    boto3.client("cloudwatch").put_metric_alarm(AlarmName=name, **properties)
    return name


def _make_event_invoke_config(properties: dict[str, Any], name: str) -> str:
    del properties["Qualifier"]  # moto knows the function without it only
    boto3.client("lambda").put_function_event_invoke_config(**properties)
    return name


def _make_schedule(properties: dict[str, Any], name: str) -> str:
    boto3.client("scheduler").create_schedule(**{"Name": name, **properties})
    return name


MAKERS: dict[str, Make] = {
    "AWS::SecretsManager::Secret": _make_secret,
    "AWS::SecretsManager::ResourcePolicy": _make_secret_policy,
    "AWS::SNS::Subscription": _make_subscription,
    "AWS::SNS::TopicPolicy": _make_topic_policy,
    "AWS::CloudWatch::Alarm": _make_alarm,
    "AWS::Lambda::EventInvokeConfig": _make_event_invoke_config,
    "AWS::Scheduler::Schedule": _make_schedule,
}


class _Resource:
    """A resource that was made by a call of its service, with the methods that moto asks for."""

    make: Make

    def __init__(self, physical_resource_id: str, region_name: str) -> None:
        self.physical_resource_id = physical_resource_id
        self._region_name = region_name

    @staticmethod
    def cloudformation_name_type() -> str:
        return "Name"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Arn"

    def get_cfn_attribute(self, _: str) -> str:
        """Return the ARN of an alarm, which alone is asked for it."""
        account = "123456789012"
        return f"arn:aws:cloudwatch:{self._region_name}:{account}:alarm:{self.physical_resource_id}"

    def is_created(self) -> bool:
        return True

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,  # noqa: ARG003 (there is one)
        region_name: str,
        **_: Any,  # noqa: ANN401 (moto's signature)
    ) -> _Resource:
        properties = dict(cloudformation_json["Properties"])
        return cls(cls.make(properties, resource_name), region_name)


# moto looks its models up among the subclasses of its own class.
MODELS = [
    type(
        kind.replace("::", ""),
        (_Resource, CloudFormationModel),
        {"cloudformation_type": staticmethod(lambda kind=kind: kind), "make": staticmethod(make)},
    )
    for kind, make in MAKERS.items()
]


_clean_json = parsing.clean_json


def _clean_json_without_no_value(value: Any, resources: Any) -> Any:  # noqa: ANN401 (JSON)
    """Leave out of lists what ``AWS::NoValue`` stands for, as AWS does and moto does not."""
    cleaned = _clean_json(value, resources)
    if isinstance(cleaned, list):
        return [item for item in cleaned if item is not None]
    return cleaned


parsing.clean_json = _clean_json_without_no_value  # type: ignore[assignment]


class _NoManagedPolicies:
    def load(self) -> dict[str, str]:
        return {}


def to_cloudformation(template: Path) -> dict[str, Any]:
    """Turn a SAM template that was built into what CloudFormation takes."""
    parsed = yaml_parse(template.read_text())
    for resource in parsed["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = f"s3://{CODE_BUCKET}/package.zip"
    transformed: dict[str, Any] = transform(parsed, {}, _NoManagedPolicies())
    return transformed


def deploy(
    stack_name: str, template: dict[str, Any], parameters: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """
    Create a stack.

    Returns:
        Its outputs by their key, and the physical ids of its resources by their logical ones.
    """
    storage = boto3.client("s3")
    storage.create_bucket(Bucket=CODE_BUCKET)
    storage.put_object(Bucket=CODE_BUCKET, Key="package.zip", Body=b"never run in there")
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName=stack_name,
        TemplateBody=json.dumps(template),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
    )
    (stack,) = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
    resources = cloudformation.describe_stack_resources(StackName=stack_name)["StackResources"]
    return (
        {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]},
        {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for resource in resources
            if "LogicalResourceId" in resource  # one whose condition is false has none
        },
    )
