"""The deployed stack of an environment of samconfig.toml: where it is and what it consists of."""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import boto3
from botocore import exceptions

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
    def find(cls, environment: str) -> Self:
        """Look up the stack of an environment."""
        session, settings = open_environment(environment)
        name = settings["stack_name"]
        stack = describe_stack(session, name)
        if stack is None:
            raise DeploymentError(
                f"There is no stack {name} in {place(session)}; if that is the right place, "
                f"`make configure ENV={environment}` deploys it"
            )
        refs = parameters(stack)
        paginator = session.client("cloudformation").get_paginator("list_stack_resources")
        # A resource that is about to be created has no physical ID yet.
        existing = "StackResourceSummaries[?PhysicalResourceId]"
        for each in paginator.paginate(StackName=name).search(existing):
            refs[each["LogicalResourceId"]] = each["PhysicalResourceId"]
        account = stack["StackId"].split(":")[4]
        return cls(environment, session, name, account, stack["StackStatus"], refs)

    def ref(self, name: str) -> str:
        """Return what ``Ref`` returns in the template, for a parameter or a resource."""
        if name not in self.refs:
            raise DeploymentError(f"the stack has no {name}")
        return self.refs[name]

    def aws(self, command: str) -> str:
        """Return a command of the AWS CLI with the options with which it reaches the stack."""
        return f"`aws {command} {cli_options(self.session)}`"

    def make(self, target: str) -> str:
        """Return a command of the Makefile for the stack."""
        return f"`make {target} ENV={self.environment}`"

    def log_events(self, since: float) -> Iterator[Any]:
        """Yield the events of the function's log, from a Unix time on."""
        paginator = self.session.client("logs").get_paginator("filter_log_events")
        name, start = self.ref("RotateTokenLogGroup"), int(1000 * since)
        yield from paginator.paginate(logGroupName=name, startTime=start).search("events[]")


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
    options = f"--region {session.region_name}"
    profile = session.profile_name
    return options if profile == "default" else f"{options} --profile {profile}"


def deletion(session: boto3.Session, stack_name: str) -> str:
    """Return what has to be done with a stack that exists only in part."""
    command = f".venv/bin/sam delete --stack-name {stack_name} {cli_options(session)}"
    return f"delete it with `{command}`, and deploy again"


def describe_stack(session: boto3.Session, stack_name: str) -> Mapping[str, Any] | None:
    """Return the description of a stack, or None if it does not exist."""
    try:
        (stack,) = session.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    except exceptions.ClientError as error:
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
    """Format a duration in one unit, such as ``43 min``; the clock of this machine may be late."""
    seconds = max(time_span.total_seconds(), 0)
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


@contextmanager
def one_line_errors(before: str = "", after: str = "") -> Iterator[None]:
    """Exit with one line if the deployment cannot be reached; AWS's errors may get a context."""
    try:
        yield
    except DeploymentError as error:
        sys.exit(" ".join(str(error).split()))
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        sys.exit(f"{before}{explain(error)}{after}")
    except KeyboardInterrupt:
        sys.exit(130)


def explain(error: exceptions.BotoCoreError | exceptions.ClientError) -> str:
    """Return in one line what an error of AWS means, with the next step where that is known."""
    if isinstance(error, exceptions.NoCredentialsError):
        step = "run `aws configure` or `aws sso login`, or set AWS_PROFILE"
        return f"No AWS credentials found: {step}"
    if isinstance(error, exceptions.NoRegionError):
        step = "set it before make, as in `AWS_REGION=us-east-1 make configure`"
        return f"No AWS region found: {step}"
    code = error.response["Error"]["Code"] if isinstance(error, exceptions.ClientError) else ""
    is_signed_out = isinstance(error, (exceptions.SSOError, exceptions.TokenRetrievalError))
    if is_signed_out or code.startswith("ExpiredToken"):
        return "The AWS sign-on has expired: run `aws sso login`, with the `--profile` that you use"
    return " ".join(str(error).split())
