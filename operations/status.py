"""
Show the state of the deployed stack, read only: `make status`.

The exit status is 1 if any line is marked bad, otherwise 0. With 0, a valid token was read: a
missing permission to read the token is bad, and any other missing permission is a warning. A failed
replica is bad, because its readers get no new token.
"""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from rich.console import Console
from rich.text import Text

from operations.deployment import Deployment, MissingResourceError, one_line_errors
from rotate_token.access_token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 300
POLL_SECONDS = 5

ACCESS_DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError"}
"""The error codes for a missing permission; the last one is that of SNS."""

METRICS = ("TokenRotated", "RotationSkipped", "AttemptFailed", "CredentialsFallback")


class Mark(Enum):
    """The severity of a line; the value is the color of its mark."""

    OK = "green"
    WARN = "yellow"
    BAD = "red"


Finding = tuple[Mark, str]


def stack(deployment: Deployment) -> Iterator[Finding]:
    """Report how the last deployment ended."""
    state, mark = deployment.state, Mark.OK
    if "ROLLBACK" in state or "FAILED" in state or state.startswith("DELETE"):
        mark = Mark.BAD
    elif state.endswith("IN_PROGRESS"):
        mark = Mark.WARN
    yield mark, f"{deployment.stack_name} in {deployment.session.region_name}: {state}"


def token(deployment: Deployment) -> Iterator[Finding]:
    """Report how long the published token is valid."""
    try:
        published = read_token(deployment)
    except ValueError as error:
        yield Mark.BAD, f"no valid token: {error}"
        return
    now = time.time()
    end = datetime.fromtimestamp(published.expires_at, UTC)
    issued = f"issued {duration(now - published.issued_at)} ago"
    if now < published.expires_at:
        left = duration(published.expires_at - now)
        yield Mark.OK, f"valid until {end:%H:%M} UTC, for another {left}; {issued}"
    else:
        yield Mark.BAD, f"expired on {end:%Y-%m-%d} at {end:%H:%M} UTC; {issued}"


def schedule(deployment: Deployment) -> Iterator[Finding]:
    """Report how often the schedule starts a run, and whether it is enabled."""
    client = deployment.session.client("scheduler")
    found = client.get_schedule(Name=deployment.ref("RotateTokenFunctionSchedule"))
    mark = Mark.OK if found["State"] == "ENABLED" else Mark.BAD
    yield mark, f"{found['ScheduleExpression']}, {found['State'].lower()}"


def alarms(deployment: Deployment) -> Iterator[Finding]:
    """Report the state of each alarm."""
    if not deployment.alarms:
        raise MissingResourceError("the stack has no alarms")
    client = deployment.session.client("cloudwatch")
    found = client.describe_alarms(AlarmNames=list(deployment.alarms.values()))["MetricAlarms"]
    states = {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}
    for logical_id, name in deployment.alarms.items():
        match states.get(name):
            case "OK":
                yield Mark.OK, f"{logical_id} is OK"
            case "INSUFFICIENT_DATA":
                yield Mark.OK, f"{logical_id} has insufficient data, as expected after a deployment"
            case None:
                yield Mark.BAD, f"{logical_id} no longer exists"
            case _ if logical_id == "TokenOverdueAlarm" and has_fresh_token(deployment):
                yield Mark.WARN, f"{logical_id} is in ALARM, although the token is fresh"
            case _:
                yield Mark.BAD, f"{logical_id} is in ALARM; see docs/operations.md"


def notifications(deployment: Deployment) -> Iterator[Finding]:
    """Report who is notified of alarms, and whether they confirmed the subscription."""
    pages = deployment.session.client("sns").get_paginator("list_subscriptions_by_topic")
    topic = deployment.ref("AlarmTopic")
    found = [each for page in pages.paginate(TopicArn=topic) for each in page["Subscriptions"]]
    if not found:
        yield Mark.WARN, "nobody is subscribed to AlarmTopic"
    for subscription in found:
        receiver = f"{subscription['Protocol']} {subscription['Endpoint']}"
        if subscription["SubscriptionArn"].startswith("arn:"):
            yield Mark.OK, f"{receiver}, confirmed"
        else:
            yield Mark.WARN, f"{receiver}, not confirmed; follow the link in the message from AWS"


def replica(deployment: Deployment) -> Iterator[Finding]:
    """Report whether the token secret is replicated."""
    client = deployment.session.client("secretsmanager")
    found = client.describe_secret(SecretId=deployment.ref("TokenSecret"))
    replicas = found.get("ReplicationStatus", [])
    if not replicas:
        yield Mark.OK, "none"
    for each in replicas:
        if each["Status"] == "Failed":
            yield Mark.BAD, f"{each['Region']} failed: {each.get('StatusMessage')}"
        else:
            yield Mark.OK, f"{each['Region']} {each['Status']}"


def dead_letters(deployment: Deployment) -> Iterator[Finding]:
    """Report how many events EventBridge Scheduler could not deliver."""
    counts = deployment.session.client("sqs").get_queue_attributes(
        QueueUrl=deployment.ref("UndeliveredQueue"),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    count = sum(int(each) for each in counts.values())
    if count:
        yield Mark.WARN, f"{count} in UndeliveredQueue; see docs/operations.md"
    else:
        yield Mark.OK, "none"


def credentials(deployment: Deployment) -> Iterator[Finding]:
    """Report how old the client credentials are, and which version the last rotation used."""
    client = deployment.session.client("secretsmanager")
    secret_id = deployment.ref("CredentialsSecretArn")
    versions = client.list_secret_version_ids(SecretId=secret_id)["Versions"]
    current = [each for each in versions if "AWSCURRENT" in each.get("VersionStages", [])]
    if not current:
        yield Mark.BAD, "the credentials secret has no value"
    for version in current:
        age = duration(time.time() - version["CreatedDate"].timestamp())
        yield Mark.OK, f"the current version is {age} old"
    metrics = read_metrics(deployment)
    rotations, fallbacks = metrics["TokenRotated"], metrics["CredentialsFallback"]
    # A run that used the previous version counts both metrics with the same timestamp.
    if rotations and max(rotations) in fallbacks:
        yield Mark.WARN, "the last rotation used the previous version; store valid credentials"
    elif rotations:
        yield Mark.OK, "the last rotation used the current version"


def runs(deployment: Deployment) -> Iterator[Finding]:
    """Report what the runs of the last 24 hours did."""
    totals = {name: sum(points.values()) for name, points in read_metrics(deployment).items()}
    rotated, skipped, failed, _ = (f"{totals[name]:.0f}" for name in METRICS)
    yield (
        Mark.OK,
        f"{rotated} rotated, {skipped} skipped, {failed} failed attempts in the last 24 hours",
    )


SECTIONS = {
    "Stack": stack,
    "Token": token,
    "Schedule": schedule,
    "Alarm": alarms,
    "Notified": notifications,
    "Replica": replica,
    "Dead letters": dead_letters,
    "Credentials": credentials,
    "Runs": runs,
}


def read_token(deployment: Deployment) -> AccessToken:
    """
    Read the published token.

    Raises:
        ValueError: There is none; the message says why, without any part of the secret's value.
    """
    client = deployment.session.client("secretsmanager")
    try:
        found = client.get_secret_value(SecretId=deployment.ref("TokenSecret"))
    except client.exceptions.ResourceNotFoundException:
        raise ValueError("the secret has no value yet") from None
    return AccessToken.from_json(found.get("SecretString", ""))


def has_fresh_token(deployment: Deployment) -> bool:
    """Return whether the token is valid, and was issued within the period of the schedule."""
    with suppress(ClientError, MissingResourceError, ValueError):
        published = read_token(deployment)
        rate = re.fullmatch(r"rate\((\d+) minutes?\)", deployment.ref("ScheduleExpression"))
        period = int(rate[1]) * 60 if rate else published.expires_in
        return time.time() < published.issued_at + min(period, published.expires_in)
    return False


def read_metrics(deployment: Deployment) -> dict[str, dict[datetime, float]]:
    """Read the sum of each metric for each minute of the last 24 hours that has one."""
    now = datetime.now(UTC)
    metric = {
        "Namespace": "SmartcarTokenRotation",
        "Dimensions": [{"Name": "service", "Value": deployment.stack_name}],
    }
    found = deployment.session.client("cloudwatch").get_metric_data(
        MetricDataQueries=[
            {
                "Id": name.lower(),
                "MetricStat": {
                    "Metric": metric | {"MetricName": name},
                    "Period": 60,
                    "Stat": "Sum",
                },
            }
            for name in METRICS
        ],
        StartTime=now - timedelta(days=1),
        EndTime=now,
    )["MetricDataResults"]
    points = {each["Id"]: zip(each["Timestamps"], each["Values"], strict=True) for each in found}
    return {name: dict(points.get(name.lower(), ())) for name in METRICS}


def duration(seconds: float) -> str:
    """Format a duration in one unit, such as ``43 min``."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def report(deployment: Deployment) -> Iterator[tuple[Mark, str, str]]:
    """Yield the mark, topic and text of each line."""
    for topic, section in SECTIONS.items():
        try:
            for mark, text in section(deployment):
                yield mark, topic, text
        except MissingResourceError as error:
            yield Mark.BAD, topic, str(error)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            denied = code in ACCESS_DENIED
            mark = Mark.WARN if denied and topic != "Token" else Mark.BAD
            reason = "permission denied" if denied else code
            yield mark, topic, f"cannot be read: {error.operation_name}, {reason}"


def wait_for_token(deployment: Deployment) -> None:
    """Return as soon as there is a valid token, or after five minutes."""
    until = time.time() + WAIT_SECONDS
    while next(token(deployment))[0] is Mark.BAD and time.time() < until:
        time.sleep(POLL_SECONDS)


def show(deployment: Deployment) -> int:
    """Print the report, and return the exit status."""
    console = Console()
    marks = set()
    for mark, topic, text in report(deployment):
        marks.add(mark)
        label = Text(f"{mark.name.lower():4}", style=mark.value)
        console.print(label + Text(f" {topic:12} {text}"), soft_wrap=True)
    return int(Mark.BAD in marks)


def main(environment: str, *, wait: bool = False) -> int:
    """Show the stack of an environment; with `wait`, first wait for its token."""
    with one_line_errors():
        deployment = Deployment.find(environment)
        if wait:
            print("Waiting up to 5 minutes for a valid token ...", flush=True)
            # Waiting does not help if the token cannot be read; the report says why.
            with suppress(ClientError, MissingResourceError):
                wait_for_token(deployment)
        return show(deployment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], wait="--wait" in sys.argv))
