"""The deployed stack of an environment of samconfig.toml: where it is and what it consists of."""

from __future__ import annotations

import sys
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = Path("samconfig.toml")


class MissingResourceError(Exception):
    """The stack has no such resource; the message names it."""


@dataclass(frozen=True)
class Deployment:
    """
    A stack, and a session in its account and region.

    Attributes:
        state: Such as ``UPDATE_COMPLETE``.
        refs: The values of its parameters and the physical IDs of its resources.
        alarms: The names of its alarms, by their logical IDs.
    """

    session: boto3.Session
    stack_name: str
    state: str
    refs: dict[str, str]
    alarms: dict[str, str]

    @classmethod
    def find(cls, environment: str) -> Deployment:
        """Look up the stack of an environment, or exit with one line if it does not exist."""
        session, stack_name = _open_session(environment)
        client = session.client("cloudformation")
        try:
            (stack,) = client.describe_stacks(StackName=stack_name)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            stack = None
        # A stack whose first change set was not executed has no resources.
        if stack is None or stack["StackStatus"] == "REVIEW_IN_PROGRESS":
            region = session.region_name
            sys.exit(
                f"There is no stack {stack_name} in {region}; "
                f"`make configure ENV={environment}` deploys it"
            )
        pages = client.get_paginator("list_stack_resources").paginate(StackName=stack_name)
        # A resource that is about to be created has no physical ID yet.
        resources = [
            each
            for page in pages
            for each in page["StackResourceSummaries"]
            if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE"
        ]
        parameters = stack.get("Parameters", [])
        return cls(
            session,
            stack_name,
            state=stack["StackStatus"],
            refs={each["ParameterKey"]: each["ParameterValue"] for each in parameters}
            | {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources},
            alarms={
                each["LogicalResourceId"]: each["PhysicalResourceId"]
                for each in resources
                if each["ResourceType"] == "AWS::CloudWatch::Alarm"
            },
        )

    def ref(self, name: str) -> str:
        """
        Return what ``Ref`` returns in the template, for a parameter or a resource.

        Raises:
            MissingResourceError: The stack does not have it.
        """
        if name not in self.refs:
            raise MissingResourceError(f"the stack has no {name}")
        return self.refs[name]


def _open_session(environment: str) -> tuple[boto3.Session, str]:
    """Return a session for the account and region of an environment, and its stack's name."""
    settings = tomllib.loads(SETTINGS.read_text())
    environments = [name for name, tables in settings.items() if isinstance(tables, dict)]
    if environment not in environments:
        sys.exit(f"{SETTINGS} has no environment {environment}, only {', '.join(environments)}")
    parameters: dict[str, str] = {}
    for command in ("global", "deploy"):
        parameters |= settings[environment].get(command, {}).get("parameters", {})
    if "stack_name" not in parameters:
        sys.exit(f"{SETTINGS} has no stack_name for the environment {environment}")
    session = boto3.Session(
        profile_name=parameters.get("profile"), region_name=parameters.get("region")
    )
    return session, parameters["stack_name"]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with one line and status 1 if AWS cannot be reached or returns an error."""
    try:
        yield
    except NoCredentialsError:
        sys.exit(
            "No AWS credentials found: run `aws configure` or `aws sso login`, or set AWS_PROFILE"
        )
    except NoRegionError:
        sys.exit("No AWS region found: run `make configure`, or set AWS_DEFAULT_REGION")
    except (BotoCoreError, ClientError, MissingResourceError) as error:
        sys.exit(" ".join(str(error).split()))
    except KeyboardInterrupt:
        sys.exit(130)
