"""
Show the state of the deployed stack, read only: `make status`.

The first line is the verdict. The exit status is 1 if any line is marked bad, otherwise 0. With 0,
a valid token was read: a missing permission to read the token is bad, and any other missing
permission is a warning.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from rich.console import Console
from rich.text import Text

from operations.deployment import (
    PARTIAL,
    Deployment,
    DeploymentError,
    age,
    deletion,
    duration,
    one_line_errors,
)
from rotate_token.access_token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PERMISSIONS = (
    "cloudwatch:DescribeAlarms",
    "cloudwatch:GetMetricData",
    "lambda:GetFunction",
    "logs:FilterLogEvents",
    "scheduler:GetSchedule",
    "secretsmanager:DescribeSecret",
    "secretsmanager:GetSecretValue",
    "sns:ListSubscriptionsByTopic",
    "sqs:GetQueueAttributes",
)
ACCESS_DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError"}
"""The error codes for a missing permission; the last one is that of SNS."""

ALARMS = ("TokenOverdueAlarm", "AttemptsFailingAlarm", "TokenGapAlarm", "CredentialsFallbackAlarm")

RUNBOOK = "see docs/operations.md, {}"
BY_HAND = RUNBOOK.format("If a resource was changed by hand")
"""What to do about what was changed or deleted by hand."""

LONG_AGO = datetime.fromtimestamp(0, UTC)


class Mark(Enum):
    """The severity of a line; the value is the color of its mark."""

    OK = "green"
    WARN = "yellow"
    BAD = "red"


Finding = tuple[Mark, str, str]
"""The mark, the text, and what to do; nothing if there is nothing to do, or only to wait."""


@dataclass(frozen=True)
class Observed:
    """
    A stack, and what more than one section needs; it is read once.

    Attributes:
        problem: Why no token can be read, without any part of a value.
        issued_at: The time of the last rotation.
    """

    deployment: Deployment
    problem: Exception | None
    issued_at: datetime = LONG_AGO
    expires_at: datetime = LONG_AGO

    @classmethod
    def read(cls, deployment: Deployment) -> Observed:
        """Read the token."""
        client = deployment.session.client("secretsmanager")
        try:
            found = client.get_secret_value(SecretId=deployment.ref("TokenSecret"))
            token = AccessToken.from_json(found.get("SecretString", ""))
        except (ClientError, DeploymentError, ValueError) as error:
            return cls(deployment, error)
        times = (datetime.fromtimestamp(at, UTC) for at in (token.issued_at, token.expires_at))
        return cls(deployment, None, *times)

    @cached_property
    def log(self) -> tuple[list[Any], ClientError | DeploymentError | None]:
        """The events of the log since the last rotation, or why they cannot be read."""
        since = max(self.issued_at, datetime.now(UTC) - timedelta(days=1))
        try:
            return list(self.deployment.log_events(since.timestamp())), None
        except (ClientError, DeploymentError) as error:
            return [], error

    @property
    def fallback_at(self) -> datetime:
        """When the last rotation used the previous credentials; long ago if it did not."""
        # The function logs each metric that it counts.
        fallbacks = [each for each in self.log[0] if '"CredentialsFallback"' in each["message"]]
        return logged_at(fallbacks[-1]) if fallbacks else LONG_AGO

    @property
    def logged_failure(self) -> tuple[datetime, str]:
        """When the log last reports a failure after the last rotation, if ever, and why."""
        # The function reports a failed attempt, Lambda an uncaught error. The failed attempt before
        # a rotation may be logged in the same second.
        failures = [
            each
            for each in self.log[0]
            if ("Attempt failed" in each["message"] or '"errorMessage"' in each["message"])
            and logged_at(each) >= self.issued_at + timedelta(seconds=1)
        ]
        if not failures:
            return LONG_AGO, ""
        line = json.loads(failures[-1]["message"])
        reason = line.get("message") or f"{line.get('errorType')}: {line['errorMessage']}"
        return logged_at(failures[-1]), " ".join(reason.split())

    @property
    def counted_failure_at(self) -> datetime:
        """The last minute of the last 24 hours in which a metric counted a failure."""
        ours = "SmartcarTokenRotation", "service", self.deployment.stack_name
        lambdas = "AWS/Lambda", "FunctionName", self.deployment.ref("RotateTokenFunction")
        metrics = {"AttemptFailed": ours, "Errors": lambdas, "Throttles": lambdas}
        queries = []
        for name, (namespace, dimension, value) in metrics.items():
            dimensions = [{"Name": dimension, "Value": value}]
            metric = {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions}
            stat = {"Metric": metric, "Period": 60, "Stat": "Sum"}
            queries.append({"Id": name.lower(), "MetricStat": stat})
        now = datetime.now(UTC)
        found = self.deployment.session.client("cloudwatch").get_metric_data(
            MetricDataQueries=queries, StartTime=now - timedelta(days=1), EndTime=now
        )["MetricDataResults"]
        return max(
            (minute for each in found for minute in compress(each["Timestamps"], each["Values"])),
            default=LONG_AGO,
        )


def logged_at(event: dict[str, Any]) -> datetime:
    """Return the time of an event of the log."""
    return datetime.fromtimestamp(event["timestamp"] / 1000, UTC)


def describe_secret(deployment: Deployment, name: str) -> Mapping[str, Any]:
    """Describe the secret that a parameter or a resource of the stack is."""
    client = deployment.session.client("secretsmanager")
    return client.describe_secret(SecretId=deployment.ref(name))


def stack(observed: Observed) -> Iterator[Finding]:
    """Report how the last deployment ended."""
    deployment, state = observed.deployment, observed.deployment.state
    session, name = deployment.session, deployment.stack_name
    options = f"{deployment.options} --stack-name {name}"
    cause = f"correct what `aws cloudformation describe-stack-events {options}` says, and"
    text = f"{name} in account {deployment.account}, {session.region_name}: {state}"
    if state.startswith(PARTIAL):
        yield Mark.BAD, text, deletion(session, name)
    elif state == "UPDATE_ROLLBACK_FAILED":
        step = f"{cause} run `aws cloudformation continue-update-rollback {options}`"
        yield Mark.BAD, text, step
    elif state.endswith("FAILED"):
        yield Mark.BAD, text, f"{cause} deploy again"
    elif state == "UPDATE_ROLLBACK_COMPLETE":
        text += ": the last update failed and was rolled back"
        yield Mark.WARN, text, f"{cause} deploy again"
    elif state.endswith("IN_PROGRESS"):
        yield Mark.WARN, f"{text}: wait for its end", ""
    else:
        yield Mark.OK, text, ""


def function(observed: Observed) -> Iterator[Finding]:
    """Report whether the function can run, and when it was last modified."""
    deployment, name = observed.deployment, observed.deployment.ref("RotateTokenFunction")
    found = deployment.session.client("lambda").get_function(FunctionName=name)
    if found["Configuration"]["LastUpdateStatus"] == "Failed":
        reason = found["Configuration"].get("LastUpdateStatusReason")
        yield Mark.BAD, f"its last update failed: {reason}", "correct the cause, and deploy again"
    if found.get("Concurrency", {}).get("ReservedConcurrentExecutions") == 0:
        command = f"aws lambda delete-function-concurrency {deployment.options}"
        text = "its reserved concurrency is 0, so no run can start"
        yield Mark.BAD, text, f"`{command} --function-name {name}`"
    modified = datetime.fromisoformat(found["Configuration"]["LastModified"])
    yield Mark.OK, f"last modified {age(modified)} ago", ""


def credentials(observed: Observed) -> Iterator[Finding]:
    """Report the state of the credentials secret, and whether its current version was refused."""
    deployment, secret_id = observed.deployment, observed.deployment.ref("CredentialsSecretArn")
    step, region = RUNBOOK.format("Replacing the client secret"), secret_id.split(":")[3]
    if region != deployment.session.region_name:
        command = f"`make configure ENV={deployment.environment}`"
        step = f"create it in {deployment.session.region_name}, and run {command}"
        yield Mark.BAD, f"the secret is in {region}, where the function does not look", step
        return
    secret = describe_secret(deployment, "CredentialsSecretArn")
    if problem := missing_value(deployment, secret, step):
        yield problem
        return
    yield Mark.OK, f"last changed {age(secret['LastChangedDate'])} ago", ""
    if observed.fallback_at > secret["LastChangedDate"]:
        yield Mark.WARN, "the last rotation had to use the previous version", step


def missing_value(deployment: Deployment, secret: Mapping[str, Any], step: str) -> Finding | None:
    """Return why a secret has no value, or None if it has one."""
    if "DeletedDate" in secret:
        options = f"{deployment.options} --secret-id {secret['ARN']}"
        step = f"`aws secretsmanager restore-secret {options}`"
        return Mark.BAD, "the secret is scheduled for deletion", step
    return None if secret.get("VersionIdsToStages") else (Mark.BAD, "the secret has no value", step)


def runs(observed: Observed) -> Iterator[Finding]:
    """Report the last rotation and, if something has failed since, the reason."""
    rotation, since = f"last rotation {age(observed.issued_at)} ago", "since"
    if observed.problem:
        rotation, since = "no rotation is known", "in the last 24 hours"
    counted_at = observed.counted_failure_at
    _, log_problem = observed.log
    if log_problem:
        yield unreadable("Runs", log_problem)
    # The metrics arrive a minute later than the log, and name no reason.
    failed_at, reason = observed.logged_failure
    failed_at = max(failed_at, counted_at)
    if failed_at <= observed.issued_at:
        yield Mark.OK, f"{rotation}; no failure {since}", ""
        return
    text = f"{rotation}; last failure {age(failed_at)} ago"
    yield Mark.BAD, f"{text}: {reason}" if reason else text, RUNBOOK.format("Errors")


def token(observed: Observed) -> Iterator[Finding]:
    """Report how long the published token is valid, or why there is none."""
    now, end = datetime.now(UTC), observed.expires_at
    deployment, step = observed.deployment, RUNBOOK.format("TokenOverdueAlarm")
    rotate = f"`make rotate ENV={deployment.environment}`"
    issued = f"issued {age(observed.issued_at)} ago"
    text = f"valid until {end:%H:%M} UTC, for another {duration(end - now)}; {issued}"
    if isinstance(observed.problem, ValueError):
        yield Mark.BAD, f"no valid token: {observed.problem}", f"{rotate} replaces it"
    elif observed.problem:
        # If the secret itself is missing, this fails as well.
        secret = describe_secret(deployment, "TokenSecret")
        finding = missing_value(deployment, secret, f"{rotate} requests a token")
        if not finding:
            raise observed.problem
        yield finding
    elif now >= end:
        yield Mark.BAD, f"expired on {end:%Y-%m-%d} at {end:%H:%M} UTC; {issued}", step
    elif now >= observed.issued_at + timedelta(minutes=int(deployment.ref("OverdueMinutes"))):
        yield Mark.WARN, f"{text}, not replaced in time", step
    else:
        yield Mark.OK, text, ""


def schedule(observed: Observed) -> Iterator[Finding]:
    """Report how often the schedule starts a run, and whether it is enabled."""
    client = observed.deployment.session.client("scheduler")
    found = client.get_schedule(Name=observed.deployment.ref("RotateTokenFunctionSchedule"))
    mark, step = (Mark.OK, "") if found["State"] == "ENABLED" else (Mark.BAD, BY_HAND)
    yield mark, f"{found['ScheduleExpression']}, {found['State'].lower()}", step


def alarms(observed: Observed) -> Iterator[Finding]:
    """Report the state of each alarm, and whether it notifies anybody."""
    deployment = observed.deployment
    names = {logical_id: deployment.ref(logical_id) for logical_id in ALARMS}
    client = deployment.session.client("cloudwatch")
    found = client.describe_alarms(AlarmNames=list(names.values()))["MetricAlarms"]
    by_name = {alarm["AlarmName"]: alarm for alarm in found}
    for logical_id, name in names.items():
        alarm = by_name.get(name)
        mark, text, step = alarm_state(observed, logical_id, alarm)
        yield mark, f"{logical_id} {text}", step
        if alarm and not alarm["ActionsEnabled"]:
            command = f"aws cloudwatch enable-alarm-actions {deployment.options}"
            step = f"`{command} --alarm-names {name}`"
            yield Mark.WARN, f"{logical_id} notifies nobody", step


def alarm_state(observed: Observed, logical_id: str, alarm: dict[str, Any] | None) -> Finding:
    """Return how serious the state of an alarm is, what it says, and what to do."""
    if not alarm:
        return Mark.BAD, "no longer exists", BY_HAND
    step = RUNBOOK.format(logical_id)
    if alarm["StateValue"] == "OK":
        return Mark.OK, "is OK", ""
    if alarm["StateValue"] == "INSUFFICIENT_DATA":
        configured_at = alarm["AlarmConfigurationUpdatedTimestamp"]
        if datetime.now(UTC) - configured_at < timedelta(hours=1):
            return Mark.OK, "has insufficient data, as expected after a deployment", ""
        text = f"still has insufficient data, {age(configured_at)} after its deployment"
        return Mark.WARN, text, step
    # The log knows what these two are about; they may fire only after the rotation that ended it.
    last_logged = {
        "AttemptsFailingAlarm": observed.logged_failure[0],
        "CredentialsFallbackAlarm": observed.fallback_at,
    }
    if logical_id in last_logged:
        is_over = last_logged[logical_id] == LONG_AGO and observed.log[1] is None
    else:
        is_over = observed.issued_at > alarm["StateTransitionedTimestamp"]
    if is_over:
        return Mark.WARN, "is in ALARM, but clears by itself: its cause is over", ""
    mark = Mark.WARN if logical_id == "TokenGapAlarm" else Mark.BAD
    return mark, "is in ALARM", step


def notifications(observed: Observed) -> Iterator[Finding]:
    """Report who is notified of alarms, and whether they confirmed the subscription."""
    deployment = observed.deployment
    topic, email = deployment.ref("AlarmTopic"), deployment.ref("AlarmEmail")
    pages = deployment.session.client("sns").get_paginator("list_subscriptions_by_topic")
    found = [each for page in pages.paginate(TopicArn=topic) for each in page["Subscriptions"]]
    # SNS lists a subscription for a while after it was removed.
    found = [each for each in found if each["SubscriptionArn"] != "Deleted"]
    step = (
        f"`aws sns subscribe {deployment.options} --topic-arn {topic} "
        f"--protocol email --notification-endpoint {email or 'ADDRESS'}`"
    )
    if email and email not in {each["Endpoint"] for each in found}:
        yield Mark.BAD, f"{email} is no longer subscribed to AlarmTopic", step
    elif not found:
        yield Mark.WARN, "nobody is subscribed to AlarmTopic", step
    for subscription in found:
        receiver = f"{subscription['Protocol']} {subscription['Endpoint']}"
        if subscription["SubscriptionArn"].startswith("arn:"):
            yield Mark.OK, f"{receiver}, confirmed", ""
        else:
            step = "confirm it within two days, with the link in the message from AWS"
            yield Mark.WARN, f"{receiver}, not confirmed", step


def replica(observed: Observed) -> Iterator[Finding]:
    """Report whether the token secret is replicated, as the stack's parameter asks."""
    deployment, step = observed.deployment, RUNBOOK.format("Replication")
    wanted = deployment.ref("ReplicaRegion")
    replicas = describe_secret(deployment, "TokenSecret").get("ReplicationStatus", [])
    if wanted and wanted not in {each["Region"] for each in replicas}:
        yield Mark.BAD, f"no replica in {wanted} (ReplicaRegion)", step
    elif not replicas:
        yield Mark.OK, "none", ""
    for each in replicas:
        if each["Status"] == "Failed":
            yield Mark.BAD, f"{each['Region']} failed: {each.get('StatusMessage')}", step
        else:
            yield Mark.OK, f"{each['Region']} {each['Status']}", ""


def undelivered(observed: Observed) -> Iterator[Finding]:
    """Report how many events EventBridge Scheduler could not deliver."""
    counts = observed.deployment.session.client("sqs").get_queue_attributes(
        QueueUrl=observed.deployment.ref("UndeliveredQueue"),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    if count := sum(int(each) for each in counts.values()):
        text = f"{count} event{'s' if count > 1 else ''} in UndeliveredQueue"
        yield Mark.WARN, text, RUNBOOK.format("TokenOverdueAlarm")
    else:
        yield Mark.OK, "none", ""


# A cause stands before its effects: the first bad line is what to do first.
SECTIONS = {
    "Stack": stack,
    "Function": function,
    "Credentials": credentials,
    "Runs": runs,
    "Token": token,
    "Schedule": schedule,
    "Alarm": alarms,
    "Notified": notifications,
    "Replica": replica,
    "Undelivered": undelivered,
}


def report(observed: Observed) -> Iterator[tuple[str, Finding]]:
    """Yield the topic and the finding of each line."""
    for topic, section in SECTIONS.items():
        try:
            for finding in section(observed):
                yield topic, finding
        except (ClientError, DeploymentError) as error:
            yield topic, unreadable(topic, error)
        if observed.deployment.state.startswith(PARTIAL):
            return


def unreadable(topic: str, error: ClientError | DeploymentError) -> Finding:
    """Return why a section cannot be read."""
    if isinstance(error, DeploymentError):
        return Mark.BAD, str(error), BY_HAND
    operation = error.operation_name
    if not is_denied(error):
        code = error.response["Error"]["Code"]
        return Mark.BAD, f"cannot be read: {operation} failed ({code})", BY_HAND
    (permission,) = (each for each in PERMISSIONS if each.endswith(f":{operation}"))
    if operation == "GetSecretValue":
        permission += " and, with KmsKeyArn, kms:Decrypt"
    mark = Mark.BAD if topic == "Token" else Mark.WARN
    text = f"cannot be read without the permission {permission}"
    return mark, text, RUNBOOK.format("Restricted accounts")


def is_denied(error: Exception | None) -> bool:
    """Tell whether an error is a missing permission."""
    return isinstance(error, ClientError) and error.response["Error"]["Code"] in ACCESS_DENIED


def verdict(observed: Observed, lines: list[tuple[str, Finding]]) -> str:
    """Say whether a valid token is published, whether the last run succeeded, and what to do."""
    # Bad before warn; each mark in the order of the sections.
    steps = [step for mark in (Mark.BAD, Mark.WARN) for _, (each, _, step) in lines if each is mark]
    first = next((f"to do first: {step}" for step in steps if step), "nothing to do")
    if observed.deployment.state.startswith(PARTIAL):
        return f"The stack exists only in part; {first}"
    marks = {mark for topic, (mark, _, _) in lines if topic == "Runs"}
    run = "no run has failed" if observed.problem else "the last run succeeded"
    if Mark.BAD in marks:
        run = "the last run failed"
    elif Mark.WARN in marks:
        run = "whether the last run succeeded cannot be read"
    left = observed.expires_at - datetime.now(UTC)
    published = f"A valid token is published, for another {duration(left)}"
    if is_denied(observed.problem):
        published = "Whether a valid token is published cannot be read"
    elif left <= timedelta():
        published = "No valid token is published"
    return f"{published}, and {run}; {first}"


def show(deployment: Deployment) -> int:
    """Print the verdict and the report, and return the exit status."""
    observed = Observed.read(deployment)
    lines = list(report(observed))
    console = Console()
    console.print(Text(verdict(observed, lines), style="bold"), soft_wrap=True)
    for topic, (mark, text, step) in lines:
        label = f"{mark.name.lower():4}", mark.value
        line = f" {topic:12} {text}; {step}" if step else f" {topic:12} {text}"
        console.print(Text.assemble(label, line), soft_wrap=True)
    return int(any(mark is Mark.BAD for _, (mark, _, _) in lines))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(show(Deployment.find(sys.argv[1])))
