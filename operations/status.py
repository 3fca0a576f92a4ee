"""
Show the state of the deployed stack, read only: `make status`.

The exit status is 1 if any line is marked bad, otherwise 0. With 0, a valid token was read: a
missing permission to read the token is bad, and any other missing permission is a warning.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from rich.console import Console
from rich.text import Text

from operations.deployment import Deployment, DeploymentError, one_line_errors
from rotate_token.access_token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 300
POLL_SECONDS = 5

ACCESS_DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError"}
"""The error codes for a missing permission; the last one is that of SNS."""

ALARMS = ("TokenOverdueAlarm", "AttemptsFailingAlarm", "TokenGapAlarm", "CredentialsFallbackAlarm")
METRICS = ("TokenRotated", "RotationSkipped", "AttemptFailed", "CredentialsFallback")

# A rotation that was counted this long after new credentials were stored has used them: it may have
# read them a minute before, and Secrets Manager may answer with the version before for a while.
SURELY_LATER = timedelta(minutes=3)


class Mark(Enum):
    """The severity of a line; the value is the color of its mark."""

    OK = "green"
    WARN = "yellow"
    BAD = "red"


Finding = tuple[Mark, str]


def stack(deployment: Deployment) -> Iterator[Finding]:
    """Report how the last deployment ended."""
    state, mark, note = deployment.state, Mark.OK, ""
    if state.startswith(("ROLLBACK", "DELETE")) or state.endswith("FAILED"):
        mark, note = Mark.BAD, "; see docs/operations.md"
    elif state == "UPDATE_ROLLBACK_COMPLETE":
        mark, note = Mark.WARN, ": the last update failed, and the version before it is active"
    elif state.endswith("IN_PROGRESS"):
        mark = Mark.WARN
    yield mark, f"{deployment.stack_name} in {deployment.region}: {state}{note}"


def token(deployment: Deployment) -> Iterator[Finding]:
    """Report how long the published token is valid."""
    try:
        published = read_token(deployment)
    except ValueError as error:
        yield Mark.BAD, f"no valid token: {error}"
        return
    now, end = datetime.now(UTC), datetime.fromtimestamp(published.expires_at, UTC)
    issued = f"issued {duration(now - datetime.fromtimestamp(published.issued_at, UTC))} ago"
    if now < end:
        yield Mark.OK, f"valid until {end:%H:%M} UTC, for another {duration(end - now)}; {issued}"
    else:
        yield Mark.BAD, f"expired on {end:%Y-%m-%d} at {end:%H:%M} UTC; {issued}"


def schedule(deployment: Deployment) -> Iterator[Finding]:
    """Report how often the schedule starts a run, and whether it is enabled."""
    client = deployment.session.client("scheduler")
    found = client.get_schedule(Name=deployment.ref("RotateTokenFunctionSchedule"))
    mark = Mark.OK if found["State"] == "ENABLED" else Mark.BAD
    yield mark, f"{found['ScheduleExpression']}, {found['State'].lower()}"


def alarms(deployment: Deployment) -> Iterator[Finding]:
    """Report the state of each alarm, and whether it notifies anybody."""
    names = {logical_id: deployment.ref(logical_id) for logical_id in ALARMS}
    client = deployment.session.client("cloudwatch")
    found = client.describe_alarms(AlarmNames=list(names.values()))["MetricAlarms"]
    by_name = {alarm["AlarmName"]: alarm for alarm in found}
    for logical_id, name in names.items():
        alarm = by_name.get(name)
        if not alarm:
            yield Mark.BAD, f"{logical_id} no longer exists"
            continue
        mark, text = alarm_state(deployment, logical_id, alarm)
        yield mark, f"{logical_id} {text}"
        if not alarm["ActionsEnabled"]:
            command = f"aws cloudwatch enable-alarm-actions --region {deployment.region}"
            yield Mark.WARN, f"{logical_id} notifies nobody; `{command} --alarm-names {name}`"


def alarm_state(deployment: Deployment, logical_id: str, alarm: dict[str, Any]) -> Finding:
    """Return how serious the state of an alarm is, and what it says."""
    match alarm["StateValue"]:
        case "OK":
            return Mark.OK, "is OK"
        case "INSUFFICIENT_DATA":
            age = datetime.now(UTC) - alarm["AlarmConfigurationUpdatedTimestamp"]
            if age < timedelta(hours=1):
                return Mark.OK, "has insufficient data, as expected after a deployment"
            return Mark.WARN, f"still has insufficient data, {duration(age)} after its deployment"
        case _ if logical_id == "TokenOverdueAlarm" and has_new_token(deployment):
            return Mark.WARN, "is in ALARM, although the token is new; see docs/operations.md"
        case _:
            mark = Mark.WARN if logical_id == "TokenGapAlarm" else Mark.BAD
            return mark, "is in ALARM; see docs/operations.md"


def notifications(deployment: Deployment) -> Iterator[Finding]:
    """Report who is notified of alarms, and whether they confirmed the subscription."""
    topic, email = deployment.ref("AlarmTopic"), deployment.ref("AlarmEmail")
    pages = deployment.session.client("sns").get_paginator("list_subscriptions_by_topic")
    found = [each for page in pages.paginate(TopicArn=topic) for each in page["Subscriptions"]]
    # SNS lists a subscription for a while after it was removed.
    found = [each for each in found if each["SubscriptionArn"] != "Deleted"]
    command = (
        f"aws sns subscribe --region {deployment.region} --topic-arn {topic} "
        f"--protocol email --notification-endpoint {email or 'ADDRESS'}"
    )
    if email and email not in {each["Endpoint"] for each in found}:
        yield Mark.BAD, f"{email} is no longer subscribed to AlarmTopic; `{command}`"
    elif not found:
        yield Mark.WARN, f"nobody is subscribed to AlarmTopic; `{command}`"
    for subscription in found:
        receiver = f"{subscription['Protocol']} {subscription['Endpoint']}"
        if subscription["SubscriptionArn"].startswith("arn:"):
            yield Mark.OK, f"{receiver}, confirmed"
        else:
            step = "confirm within two days, with the link in the message from AWS"
            yield Mark.WARN, f"{receiver}, not confirmed; {step}"


def replica(deployment: Deployment) -> Iterator[Finding]:
    """Report whether the token secret is replicated, as the stack's parameter asks."""
    wanted = deployment.ref("ReplicaRegion")
    client = deployment.session.client("secretsmanager")
    found = client.describe_secret(SecretId=deployment.ref("TokenSecret"))
    replicas = found.get("ReplicationStatus", [])
    if wanted and wanted not in {each["Region"] for each in replicas}:
        yield Mark.BAD, f"there is none in {wanted}, the ReplicaRegion; see docs/operations.md"
    elif not replicas:
        yield Mark.OK, "none"
    for each in replicas:
        if each["Status"] == "Failed":
            yield Mark.BAD, f"{each['Region']} failed: {each.get('StatusMessage')}"
        else:
            yield Mark.OK, f"{each['Region']} {each['Status']}"


def undelivered(deployment: Deployment) -> Iterator[Finding]:
    """Report how many events EventBridge Scheduler could not deliver."""
    counts = deployment.session.client("sqs").get_queue_attributes(
        QueueUrl=deployment.ref("UndeliveredQueue"),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    if count := sum(int(each) for each in counts.values()):
        yield Mark.WARN, f"{count} in UndeliveredQueue; see docs/operations.md"
    else:
        yield Mark.OK, "none"


def credentials(deployment: Deployment) -> Iterator[Finding]:
    """Report how old the client credentials are, and which version the last rotation used."""
    region = credentials_region(deployment)
    if region != deployment.region:
        step = f"create it in {deployment.region}, and run `make configure`"
        yield Mark.BAD, f"the secret is in {region}, where the function does not look; {step}"
        return
    client = deployment.session.client("secretsmanager")
    secret_id = deployment.ref("CredentialsSecretArn")
    versions = client.list_secret_version_ids(SecretId=secret_id)["Versions"]
    current = [each for each in versions if "AWSCURRENT" in each.get("VersionStages", [])]
    if not current:
        yield Mark.BAD, "the credentials secret has no value"
        return
    stored_at = current[0]["CreatedDate"]
    yield Mark.OK, f"the current version is {duration(datetime.now(UTC) - stored_at)} old"
    metrics = read_metrics(deployment)
    last_rotation = max(metrics["TokenRotated"], default=stored_at)
    if last_rotation < stored_at + SURELY_LATER:
        # If there is no other version, no other one can be in use.
        mark = Mark.WARN if len(versions) > 1 else Mark.OK
        step = "`make rotate` shows the version that it uses"
        yield mark, f"the current version is not used yet, as far as the metrics show; {step}"
    # A run that used the previous version counts both metrics with the same timestamp.
    elif last_rotation in metrics["CredentialsFallback"]:
        yield Mark.WARN, "the last rotation used the previous version; store valid credentials"
    else:
        yield Mark.OK, "the last rotation used the current version"


def runs(deployment: Deployment) -> Iterator[Finding]:
    """Report what the runs of the last 24 hours did."""
    totals = {name: sum(points.values()) for name, points in read_metrics(deployment).items()}
    rotated, skipped, failed, _ = (f"{totals[name]:.0f}" for name in METRICS)
    text = f"rotations: {rotated}, skipped runs: {skipped}, failed attempts: {failed}"
    yield Mark.OK, f"{text} in the last 24 hours"


SECTIONS = {
    "Stack": stack,
    "Token": token,
    "Schedule": schedule,
    "Alarm": alarms,
    "Notified": notifications,
    "Replica": replica,
    "Undelivered": undelivered,
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
        raise ValueError("the secret has no value yet; `make rotate` requests a token") from None
    return AccessToken.from_json(found.get("SecretString", ""))


def has_new_token(deployment: Deployment) -> bool:
    """Return whether the token is valid, and was issued within OverdueMinutes."""
    with suppress(ClientError, DeploymentError, ValueError):
        published = read_token(deployment)
        overdue_at = published.issued_at + 60 * int(deployment.ref("OverdueMinutes"))
        return time.time() < min(overdue_at, published.expires_at)
    return False


def read_metrics(deployment: Deployment) -> dict[str, dict[datetime, float]]:
    """Read the sum of each metric for each minute of the last 24 hours that has one."""
    now = datetime.now(UTC)
    metric = {
        "Namespace": "SmartcarTokenRotation",
        "Dimensions": [{"Name": "service", "Value": deployment.stack_name}],
    }
    queries = [
        {
            "Id": name.lower(),
            "MetricStat": {"Metric": metric | {"MetricName": name}, "Period": 60, "Stat": "Sum"},
        }
        for name in METRICS
    ]
    found = deployment.session.client("cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=now - timedelta(days=1), EndTime=now
    )["MetricDataResults"]
    points = {each["Id"]: zip(each["Timestamps"], each["Values"], strict=True) for each in found}
    return {name: dict(points.get(name.lower(), ())) for name in METRICS}


def credentials_region(deployment: Deployment) -> str:
    """Return the region in the ARN of the credentials secret."""
    return deployment.ref("CredentialsSecretArn").split(":")[3]


def duration(time_span: timedelta) -> str:
    """Format a duration in one unit, such as ``43 min``."""
    seconds = time_span.total_seconds()
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
        except DeploymentError as error:
            yield Mark.BAD, topic, str(error)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            denied = code in ACCESS_DENIED
            mark = Mark.WARN if denied and topic != "Token" else Mark.BAD
            reason = "permission denied" if denied else code
            yield mark, topic, f"cannot be read: {error.operation_name}, {reason}"


def is_expected(deployment: Deployment) -> bool:
    """Return whether the first run comes with the deployment, and can read the credentials."""
    # With a cron expression, the first run may be hours away.
    is_soon = deployment.ref("ScheduleExpression").startswith("rate")
    return is_soon and credentials_region(deployment) == deployment.region


def wait_for_token(deployment: Deployment) -> None:
    """Return as soon as there is a valid token, or after five minutes."""
    print("Waiting up to 5 minutes for a valid token ...", flush=True)
    until = time.time() + WAIT_SECONDS
    while time.time() < until:
        with suppress(ValueError):
            if time.time() < read_token(deployment).expires_at:
                return
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
        # Waiting does not help if the token cannot be read; the report says why.
        with suppress(ClientError, DeploymentError):
            if wait and is_expected(deployment):
                wait_for_token(deployment)
        return show(deployment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], wait="--wait" in sys.argv))
