"""The template as CloudFormation sees it: transformed by SAM, its intrinsic functions resolved."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import boto3
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from tests.samples import PROJECT

TOKEN_SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:smartcar/token-Ab12Cd"
CREDENTIALS_SECRET_ARN = (
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:smartcar/client-credentials-Ef34Gh"
)
NO_VALUE = object()
REFERENCES: dict[str, Any] = {
    "AWS::AccountId": "123456789012",
    "AWS::NoValue": NO_VALUE,
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "smartcar-token",
    "AWS::URLSuffix": "amazonaws.com",
    "CredentialsSecretArn": CREDENTIALS_SECRET_ARN,
    "TokenSecret": TOKEN_SECRET_ARN,
}


@functools.cache
def transformed_template() -> dict[str, Any]:
    """Transform the template as CloudFormation does, with an uploaded package."""
    template = yaml_parse((PROJECT / "template.yaml").read_text(encoding="utf-8"))
    template["Resources"]["RotateTokenFunction"]["Properties"]["CodeUri"] = "s3://code/package.zip"
    session = boto3.Session(region_name=REFERENCES["AWS::Region"])
    translator = Translator(None, Parser(), boto_session=session)
    transformed: dict[str, Any] = translator.translate(template, {})
    return transformed


class Stack:
    """
    A stack: the resources and outputs whose conditions are true, by their logical IDs.

    ``Ref`` returns what is given or, for a resource, its logical ID, and ``GetAtt`` returns
    ``ID.attribute``.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        template = transformed_template()
        self._conditions = template["Conditions"]
        self._rules = template["Rules"]
        self._references = {name: name for name in template["Resources"]} | REFERENCES | {**given}
        for name, definition in template["Parameters"].items():
            value = self._references.get(name, definition.get("Default"))
            is_list = definition["Type"] == "CommaDelimitedList"
            self._references[name] = value.split(",") if is_list else value
        self.resources = self._existing(template["Resources"])
        self.outputs = self._existing(template["Outputs"])

    def refusals(self) -> list[str]:
        """Return why CloudFormation refuses the parameters: the assertions that do not hold."""
        return [
            assertion["AssertDescription"]
            for rule in self._rules.values()
            if self._resolve(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self._resolve(assertion["Assert"])
        ]

    def properties(self, logical_name: str) -> dict[str, Any]:
        """Return the properties of a resource."""
        properties: dict[str, Any] = self.resources[logical_name]["Properties"]
        return properties

    def of_type(self, resource_type: str) -> dict[str, dict[str, Any]]:
        """Return the properties of all resources of a type."""
        return {
            name: resource["Properties"]
            for name, resource in self.resources.items()
            if resource["Type"] == resource_type
        }

    def _existing(self, section: dict[str, Any]) -> dict[str, Any]:
        return {
            name: self._resolve(item)
            for name, item in section.items()
            if "Condition" not in item or self._resolve(self._conditions[item["Condition"]])
        }

    def _resolve(self, value: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 (a case per function)
        match value:
            case {"Ref": name}:
                return self._references[name]
            case {"Fn::GetAtt": [name, attribute]}:
                return f"{self._references[name]}.{attribute}"
            case {"Fn::Sub": [text, variables]}:
                return self._substitute(text, self._resolve(variables))
            case {"Fn::Sub": text}:
                return self._substitute(text, {})
            case {"Fn::If": [condition, then, otherwise]}:
                holds = self._resolve(self._conditions[condition])
                return self._resolve(then if holds else otherwise)
            case {"Fn::Equals": [left, right]}:
                return self._resolve(left) == self._resolve(right)
            case {"Fn::EachMemberEquals": [members, text]}:
                return all(member == text for member in self._resolve(members))
            case {"Fn::And": conditions}:
                return all(map(self._resolve, conditions))
            case {"Fn::Not": [condition]}:
                return not self._resolve(condition)
            case {"Fn::Join": [separator, parts]}:
                return separator.join(self._resolve(parts))
            case {"Fn::Split": [separator, text]}:
                return self._resolve(text).split(separator)
            case {"Fn::Select": [index, parts]}:
                return self._resolve(parts)[index]
            case dict():
                items = {name: self._resolve(item) for name, item in value.items()}
                return {name: item for name, item in items.items() if item is not NO_VALUE}
            case list():
                return [item for item in map(self._resolve, value) if item is not NO_VALUE]
        return value

    def _substitute(self, text: str, variables: dict[str, str]) -> str:
        known = {**self._references, **variables}
        return re.sub(r"\$\{([\w:.]+)\}", lambda match: str(known.get(match[1], match[1])), text)
