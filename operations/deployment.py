"""The deployed stack of an environment of samconfig.toml: where it is and what it consists of."""

from __future__ import annotations

import sys
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

SETTINGS = Path("samconfig.toml")

PARTIAL = ("ROLLBACK", "DELETE")
"""What the state of a stack begins with if it exists only in part; it can only be deleted."""


class DeploymentError(Exception):
    """The stack cannot be looked up or deployed, or does not work; the message says why."""


@dataclass(frozen=True)
class Deployment:
    """
    A stack, and a session in its account and region.

    Attributes:
        state: Such as ``UPDATE_COMPLETE``.
        refs: The values of its parameters and the physical IDs of its resources.
    """

    environment: str
    session: boto3.Session
    stack_name: str
    account: str
    state: str
    refs: dict[str, str]

    @classmethod
    def find(cls, environment: str) -> Deployment:
        """Look up the stack of an environment."""
        session, settings = open_environment(environment)
        name = settings["stack_name"]
        stack = describe_stack(session, name)
        if stack is None:
            raise DeploymentError(
                f"There is no stack {name} in {place(session)}; "
                f"`make configure ENV={environment}` deploys it"
            )
        refs = parameters(stack)
        found = session.client("cloudformation").list_stack_resources(StackName=name)
        for each in found["StackResourceSummaries"]:
            # A resource that is about to be created has no physical ID yet.
            if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE":
                refs[each["LogicalResourceId"]] = each["PhysicalResourceId"]
        account = stack["StackId"].split(":")[4]
        return cls(environment, session, name, account, stack["StackStatus"], refs)

    @property
    def options(self) -> str:
        """The options with which the AWS CLI reaches the stack."""
        return cli_options(self.session)

    def ref(self, name: str) -> str:
        """Return what ``Ref`` returns in the template, for a parameter or a resource."""
        if name not in self.refs:
            raise DeploymentError(f"the stack has no {name}")
        return self.refs[name]

    def log_events(self, since: float) -> Iterator[Any]:
        """Yield the events of the function's log, from a Unix time on."""
        pages = (
            self.session.client("logs")
            .get_paginator("filter_log_events")
            .paginate(logGroupName=self.ref("RotateTokenLogGroup"), startTime=int(1000 * since))
        )
        for page in pages:
            yield from page["events"]


def open_environment(environment: str) -> tuple[boto3.Session, dict[str, Any]]:
    """Return a session for an environment, and what samconfig.toml has for its `sam deploy`."""
    try:
        tables = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeploymentError(f"{SETTINGS} cannot be read: {error}") from error
    environments = {name: table for name, table in tables.items() if isinstance(table, dict)}
    if environment not in environments:
        raise DeploymentError(
            f"{SETTINGS} has no environment {environment}, only {', '.join(environments)}; copy "
            "[staging.global.parameters] and [staging.deploy.parameters], and in the copies "
            f"rename staging to {environment} and change the stack_name"
        )
    settings: dict[str, Any] = {}
    for command in ("global", "deploy"):
        settings |= environments[environment].get(command, {}).get("parameters", {})
    if "stack_name" not in settings:
        raise DeploymentError(f"{SETTINGS} has no stack_name for {environment}")
    session = boto3.Session(
        profile_name=settings.get("profile"), region_name=settings.get("region")
    )
    return session, settings


def place(session: boto3.Session) -> str:
    """Return the account and the region of a session."""
    account = session.client("sts").get_caller_identity()["Account"]
    return f"account {account}, region {session.region_name}"


def cli_options(session: boto3.Session) -> str:
    """Return the options with which the AWS CLI and the SAM CLI act as a session does."""
    profile = session.profile_name
    return f"--region {session.region_name}" + f" --profile {profile}" * (profile != "default")


def deletion(session: boto3.Session, stack_name: str) -> str:
    """Return what has to be done with a stack that exists only in part."""
    command = f".venv/bin/sam delete --stack-name {stack_name} {cli_options(session)}"
    return f"delete it with `{command}`, and deploy again"


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


def parameters(stack: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of the parameters of a stack."""
    return {each["ParameterKey"]: each["ParameterValue"] for each in stack.get("Parameters", [])}


def age(moment: datetime) -> str:
    """Format the time since a moment in one unit, such as ``43 min``."""
    return duration(datetime.now(UTC) - moment)


def duration(time_span: timedelta) -> str:
    """Format a duration in one unit, such as ``43 min``."""
    seconds = time_span.total_seconds()
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


@contextmanager
def one_line_errors(before: str = "", after: str = "") -> Iterator[None]:
    """Exit with one line if the deployment cannot be reached; AWS's errors may get a context."""
    try:
        yield
    except DeploymentError as error:
        sys.exit(" ".join(str(error).split()))
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"{before}{explain(error)}{after}")
    except KeyboardInterrupt:
        sys.exit(130)


def explain(error: Exception) -> str:
    """Return in one line what an error of AWS means, with the next step where that is known."""
    if isinstance(error, exceptions.NoCredentialsError):
        return (
            "No AWS credentials found: run `aws configure` or `aws sso login`, or set AWS_PROFILE"
        )
    if isinstance(error, exceptions.NoRegionError):
        return (
            "No AWS region found: set it before make, as in `AWS_REGION=us-east-1 make configure`"
        )
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    is_signed_out = isinstance(error, (exceptions.SSOError, exceptions.TokenRetrievalError))
    if is_signed_out or code.startswith("ExpiredToken"):
        return "The AWS sign-on has expired: run `aws sso login`, with the `--profile` that you use"
    return " ".join(str(error).split())
