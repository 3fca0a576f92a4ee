"""The deployed stack of an environment of samconfig.toml: where it is and what it consists of."""

from __future__ import annotations

import sys
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SETTINGS = Path("samconfig.toml")


class DeploymentError(Exception):
    """The stack cannot be looked up or deployed, or lacks a resource; the message says why."""


@dataclass(frozen=True)
class Deployment:
    """
    A stack, and a session in its account and region.

    Attributes:
        state: Such as ``UPDATE_COMPLETE``.
        refs: The values of its parameters and the physical IDs of its resources.
    """

    session: boto3.Session
    stack_name: str
    state: str
    refs: dict[str, str]

    @classmethod
    def find(cls, environment: str) -> Deployment:
        """
        Look up the stack of an environment.

        Raises:
            DeploymentError: There is no such stack, or no such environment.
        """
        session, settings = open_environment(environment)
        name = settings["stack_name"]
        stack = describe_stack(session, name)
        if stack is None:
            raise DeploymentError(
                f"There is no stack {name} in {session.region_name}; "
                f"`make configure ENV={environment}` deploys it"
            )
        found = session.client("cloudformation").list_stack_resources(StackName=name)
        refs = {
            each["ParameterKey"]: each["ParameterValue"] for each in stack.get("Parameters", [])
        }
        for each in found["StackResourceSummaries"]:
            # A resource that is about to be created has no physical ID yet.
            if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE":
                refs[each["LogicalResourceId"]] = each["PhysicalResourceId"]
        return cls(session, name, stack["StackStatus"], refs)

    @property
    def region(self) -> str:
        """The region of the stack."""
        return self.session.region_name

    def ref(self, name: str) -> str:
        """
        Return what ``Ref`` returns in the template, for a parameter or a resource.

        Raises:
            DeploymentError: The stack does not have it.
        """
        if name not in self.refs:
            raise DeploymentError(f"the stack has no {name}")
        return self.refs[name]


def open_environment(environment: str) -> tuple[boto3.Session, dict[str, Any]]:
    """
    Return a session for an environment, and what samconfig.toml has for its `sam deploy`.

    Raises:
        DeploymentError: The file cannot be read, or does not name the stack of the environment.
    """
    try:
        tables = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeploymentError(f"{SETTINGS} cannot be read: {error}") from error
    if environment not in tables:
        environments = [name for name, table in tables.items() if isinstance(table, dict)]
        raise DeploymentError(
            f"{SETTINGS} has no environment {environment}, only {', '.join(environments)}; copy "
            "[staging.global.parameters] and [staging.deploy.parameters], and in the copies "
            f"rename staging to {environment} and change the stack_name"
        )
    settings: dict[str, Any] = {"stack_name": None}
    for command in ("global", "deploy"):
        settings |= _table(_table(_table(tables, environment), command), "parameters")
    for name in settings.keys() & {"stack_name", "region", "profile"}:
        if not (settings[name] and isinstance(settings[name], str)):
            raise DeploymentError(f"{SETTINGS} has no usable {name} for {environment}")
    session = boto3.Session(
        profile_name=settings.get("profile"), region_name=settings.get("region")
    )
    return session, settings


def _table(parent: dict[str, Any], name: str) -> dict[str, Any]:
    table: object = parent.get(name, {})
    if not isinstance(table, dict):
        raise DeploymentError(f"{SETTINGS}: {name} is not a table")
    return table


def describe_stack(session: boto3.Session, stack_name: str) -> Mapping[str, Any] | None:
    """Return the description of a stack, or None if it does not exist."""
    try:
        (stack,) = session.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        return None
    # A stack whose first change set was not executed has no resources.
    return None if stack["StackStatus"] == "REVIEW_IN_PROGRESS" else stack


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with one line and status 1 if the deployment cannot be reached."""
    try:
        yield
    except NoCredentialsError:
        sys.exit(
            "No AWS credentials found: run `aws configure` or `aws sso login`, or set AWS_PROFILE"
        )
    except NoRegionError:
        sys.exit("No AWS region found: run `make configure`, or set AWS_REGION")
    except (BotoCoreError, ClientError, DeploymentError) as error:
        sys.exit(" ".join(str(error).split()))
    except KeyboardInterrupt:
        sys.exit(130)
