"""
Show the state of the deployed stack, read only: `make status`.

The first line is the verdict. The exit status is 1 if any line is marked bad, otherwise 0. With 0,
a valid token was read: a missing permission to read the token is bad, and any other missing
permission is a warning.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

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

Line = tuple[str, Mark, str, str]
"""A topic, with one of its findings."""


@dataclass
class Observed:
    """
    A stack, and what more than one topic needs.

    Attributes:
        token_problem: Why no token can be read, without any part of a value.
        issued_at: When the published token was issued: the time of the last rotation.
        log_problem: Why the log cannot be read.
        fallback_at: When the last rotation used the previous credentials, if it did.
        failed_at: When the last failure after the last rotation was logged, if there was one.
        failure: The line that was logged then.
    """

    deployment: Deployment
    token_problem: Exception | None = None
    issued_at: datetime = LONG_AGO
    expires_at: datetime = LONG_AGO
    log_problem: ClientError | DeploymentError | None = None
    fallback_at: datetime = LONG_AGO
    failed_at: datetime = LONG_AGO
    failure: str = ""

    def read_token(self) -> None:
        """Read the published token."""
        client = self.deployment.session.client("secretsmanager")
        try:
            found = client.get_secret_value(SecretId=self.deployment.ref("TokenSecret"))
            token = AccessToken.from_json(found.get("SecretString", ""))
        except (ClientError, DeploymentError, ValueError) as error:
            self.token_problem = error
        else:
            self.issued_at = datetime.fromtimestamp(token.issued_at, UTC)
            self.expires_at = datetime.fromtimestamp(token.expires_at, UTC)

    def read_log(self) -> None:
        """Read the log since the last rotation, but at most of the last 24 hours."""
        since = max(self.issued_at, datetime.now(UTC) - timedelta(days=1))
        # The failed attempt before a rotation may be logged in the same second.
        after_rotation = self.issued_at + timedelta(seconds=1)
        try:
            for event in self.deployment.log_events(since.timestamp()):
                at, line = datetime.fromtimestamp(event["timestamp"] / 1000, UTC), event["message"]
                # The function logs each metric that it counts, and each attempt that failed; Lambda
                # logs each uncaught error.
                if '"CredentialsFallback"' in line:
                    self.fallback_at = at
                if at >= after_rotation and ("Attempt failed" in line or '"errorMessage"' in line):
                    self.failed_at, self.failure = at, line
        except (ClientError, DeploymentError) as error:
            self.log_problem = error


def describe_secret(deployment: Deployment, name: str) -> Mapping[str, Any]:
    """Describe the secret that a parameter or a resource of the stack is."""
    client = deployment.session.client("secretsmanager")
    return client.describe_secret(SecretId=deployment.ref(name))


def stack(observed: Observed) -> Iterator[Finding]:
    """Find how the last deployment ended."""
    deployment, state = observed.deployment, observed.deployment.state
    session, name = deployment.session, deployment.stack_name
    events = deployment.aws(
        f"cloudformation describe-stack-events --stack-name {name} --output text --query "
        "\"StackEvents[?ends_with(ResourceStatus, 'FAILED')].[LogicalResourceId, "
        'ResourceStatusReason]"'
    )
    resume = deployment.aws(f"cloudformation continue-update-rollback --stack-name {name}")
    text = f"{name} in account {deployment.account}, {session.region_name}: {state}"
    if state.startswith(PARTIAL):
        yield Mark.BAD, text, deletion(session, name)
    elif state == "UPDATE_ROLLBACK_FAILED":
        yield Mark.BAD, text, f"correct what {events} says, and run {resume}"
    elif state.endswith("FAILED"):
        yield Mark.BAD, text, f"correct what {events} says, and deploy again"
    elif state == "UPDATE_ROLLBACK_COMPLETE":
        text += ": the last update failed and was rolled back"
        yield Mark.WARN, text, f"correct what {events} says, and deploy again"
    elif state.endswith("IN_PROGRESS"):
        yield Mark.WARN, f"{text}: wait for its end", ""
    else:
        yield Mark.OK, text, ""


def function(observed: Observed) -> Iterator[Finding]:
    """Find whether the function can run, and when it was last modified."""
    deployment, name = observed.deployment, observed.deployment.ref("RotateTokenFunction")
    found = deployment.session.client("lambda").get_function(FunctionName=name)
    if found["Configuration"]["LastUpdateStatus"] == "Failed":
        reason = found["Configuration"].get("LastUpdateStatusReason")
        yield Mark.BAD, f"its last update failed: {reason}", "correct the cause, and deploy again"
    if found.get("Concurrency", {}).get("ReservedConcurrentExecutions") == 0:
        step = deployment.aws(f"lambda delete-function-concurrency --function-name {name}")
        yield Mark.BAD, "its reserved concurrency is 0, so no run can start", step
    modified = datetime.fromisoformat(found["Configuration"]["LastModified"])
    yield Mark.OK, f"last modified {age(modified)} ago", ""


def credentials(observed: Observed) -> Iterator[Finding]:
    """Find the state of the credentials secret, and whether its current version was refused."""
    deployment, secret_id = observed.deployment, observed.deployment.ref("CredentialsSecretArn")
    step, region = RUNBOOK.format("Replacing the client secret"), secret_id.split(":")[3]
    if region != deployment.session.region_name:
        here, configure = deployment.session.region_name, deployment.make("configure")
        step = f"create it in {here}, and run {configure}"
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
        step = deployment.aws(f"secretsmanager restore-secret --secret-id {secret['ARN']}")
        return Mark.BAD, "the secret is scheduled for deletion", step
    return None if secret.get("VersionIdsToStages") else (Mark.BAD, "the secret has no value", step)


def runs(observed: Observed) -> Iterator[Finding]:
    """Find the last rotation and, if something has failed since, the reason."""
    rotation, since = f"last rotation {age(observed.issued_at)} ago", "since"
    if observed.token_problem:
        rotation, since = "no rotation is known", "in the last 24 hours"
    if observed.log_problem:
        yield unreadable("Runs", observed.log_problem)
    failed_at, reason = observed.failed_at, ""
    if observed.failure:
        logged = json.loads(observed.failure)
        text = logged.get("message") or f"{logged.get('errorType')}: {logged['errorMessage']}"
        reason = ": " + " ".join(text.split())
    else:
        # The metrics arrive a minute later than the log, and name no reason, but count throttles.
        failed_at = counted_failure_at(observed.deployment)
    if failed_at <= observed.issued_at:
        yield Mark.OK, f"{rotation}; no failure {since}", ""
        return
    text = f"{rotation}; last failure {age(failed_at)} ago{reason}"
    yield Mark.BAD, text, RUNBOOK.format("Errors")


def counted_failure_at(deployment: Deployment) -> datetime:
    """Return the last minute of 24 hours in which a metric counted a failure."""
    ours = "SmartcarTokenRotation", "service", deployment.stack_name
    lambdas = "AWS/Lambda", "FunctionName", deployment.ref("RotateTokenFunction")
    metrics = {"AttemptFailed": ours, "Errors": lambdas, "Throttles": lambdas}
    queries = []
    for name, (namespace, dimension, value) in metrics.items():
        dimensions = [{"Name": dimension, "Value": value}]
        metric = {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions}
        stat = {"Metric": metric, "Period": 60, "Stat": "Sum"}
        queries.append({"Id": name.lower(), "MetricStat": stat})
    now = datetime.now(UTC)
    found = deployment.session.client("cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=now - timedelta(days=1), EndTime=now
    )["MetricDataResults"]
    counts = [each for one in found for each in zip(one["Timestamps"], one["Values"], strict=True)]
    return max((minute for minute, count in counts if count), default=LONG_AGO)


def token(observed: Observed) -> Iterator[Finding]:
    """Find how long the published token is valid, or why there is none."""
    now, end = datetime.now(UTC), observed.expires_at
    deployment, step = observed.deployment, RUNBOOK.format("TokenOverdueAlarm")
    rotate = deployment.make("rotate")
    issued = f"issued {age(observed.issued_at)} ago"
    text = f"valid until {end:%H:%M} UTC, for another {duration(end - now)}; {issued}"
    if isinstance(observed.token_problem, ValueError):
        yield Mark.BAD, f"no valid token: {observed.token_problem}", f"{rotate} replaces it"
    elif observed.token_problem:
        # If the secret itself is missing, this fails as well.
        secret = describe_secret(deployment, "TokenSecret")
        finding = missing_value(deployment, secret, f"{rotate} requests a token")
        if not finding:
            raise observed.token_problem
        yield finding
    elif now >= end:
        yield Mark.BAD, f"expired on {end:%Y-%m-%d} at {end:%H:%M} UTC; {issued}", step
    elif now >= observed.issued_at + timedelta(minutes=int(deployment.ref("OverdueMinutes"))):
        yield Mark.WARN, f"{text}, not replaced in time", step
    else:
        yield Mark.OK, text, ""


def schedule(observed: Observed) -> Iterator[Finding]:
    """Find how often the schedule starts a run, and whether it is enabled."""
    client = observed.deployment.session.client("scheduler")
    found = client.get_schedule(Name=observed.deployment.ref("RotateTokenFunctionSchedule"))
    mark, step = (Mark.OK, "") if found["State"] == "ENABLED" else (Mark.BAD, BY_HAND)
    yield mark, f"{found['ScheduleExpression']}, {found['State'].lower()}", step


def alarms(observed: Observed) -> Iterator[Finding]:
    """Find the state of each alarm, and whether it notifies anybody."""
    deployment = observed.deployment
    names = {logical_id: deployment.ref(logical_id) for logical_id in ALARMS}
    client = deployment.session.client("cloudwatch")
    found = client.describe_alarms(AlarmNames=list(names.values()))["MetricAlarms"]
    by_name = {alarm["AlarmName"]: alarm for alarm in found}
    for logical_id, name in names.items():
        if name not in by_name:
            yield Mark.BAD, f"{logical_id} no longer exists", BY_HAND
            continue
        mark, text, step = alarm_state(observed, logical_id, by_name[name])
        yield mark, f"{logical_id} {text}", step
        if not by_name[name]["ActionsEnabled"]:
            step = deployment.aws(f"cloudwatch enable-alarm-actions --alarm-names {name}")
            yield Mark.WARN, f"{logical_id} notifies nobody", step


def alarm_state(observed: Observed, logical_id: str, alarm: dict[str, Any]) -> Finding:
    """Return how serious the state of an alarm is, what it says, and what to do."""
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
    logged = {
        "AttemptsFailingAlarm": observed.failed_at,
        "CredentialsFallbackAlarm": observed.fallback_at,
    }
    if logical_id in logged:
        is_over = logged[logical_id] == LONG_AGO and not observed.log_problem
    else:
        is_over = observed.issued_at > alarm["StateTransitionedTimestamp"]
    if is_over:
        return Mark.WARN, "is in ALARM, but clears by itself: its cause is over", ""
    return Mark.WARN if logical_id == "TokenGapAlarm" else Mark.BAD, "is in ALARM", step


def notifications(observed: Observed) -> Iterator[Finding]:
    """Find who is notified of alarms, and whether they confirmed the subscription."""
    deployment = observed.deployment
    topic, email = deployment.ref("AlarmTopic"), deployment.ref("AlarmEmail")
    paginator = deployment.session.client("sns").get_paginator("list_subscriptions_by_topic")
    # SNS lists a subscription for a while after it was removed.
    existing = "Subscriptions[?SubscriptionArn != 'Deleted']"
    found = list(paginator.paginate(TopicArn=topic).search(existing))
    step = deployment.aws(
        f"sns subscribe --topic-arn {topic} --protocol email --notification-endpoint "
        + (email or "ADDRESS")
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
    """Find whether the token secret is replicated, as the stack's parameter asks."""
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
    """Find how many events EventBridge Scheduler could not deliver."""
    counts = observed.deployment.session.client("sqs").get_queue_attributes(
        QueueUrl=observed.deployment.ref("UndeliveredQueue"),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    if count := sum(int(each) for each in counts.values()):
        text = f"{count} event{'s' if count > 1 else ''} in UndeliveredQueue"
        yield Mark.WARN, text, BY_HAND
    else:
        yield Mark.OK, "none", ""


# A cause stands before its effects: the first bad line is what to do first.
TOPICS = {
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


def findings(observed: Observed) -> Iterator[Line]:
    """Yield each line."""
    for topic, find in TOPICS.items():
        try:
            for finding in find(observed):
                yield topic, *finding
        except (ClientError, DeploymentError) as error:
            yield topic, *unreadable(topic, error)
        if observed.deployment.state.startswith(PARTIAL):
            return


def unreadable(topic: str, error: ClientError | DeploymentError) -> Finding:
    """Return why what a topic needs cannot be read."""
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


def verdict(observed: Observed, lines: list[Line]) -> str:
    """Say whether a valid token is published, whether the last run succeeded, and what to do."""
    # Bad before warn; each mark in the order of the topics.
    marks = Mark.BAD, Mark.WARN
    steps = [step for wanted in marks for _, mark, _, step in lines if step and mark is wanted]
    first = f"to do first: {steps[0]}" if steps else "nothing to do"
    if observed.deployment.state.startswith(PARTIAL):
        return f"The stack exists only in part; {first}"
    left = observed.expires_at - datetime.now(UTC)
    published = f"A valid token is published, for another {duration(left)}"
    if is_denied(observed.token_problem):
        published = "Whether a valid token is published cannot be read"
    elif left <= timedelta():
        published = "No valid token is published"
    of_runs = {mark for topic, mark, *_ in lines if topic == "Runs"}
    last_run = "no run has failed" if observed.token_problem else "the last run succeeded"
    if Mark.BAD in of_runs:
        last_run = "the last attempt failed"
    elif Mark.WARN in of_runs:
        last_run = "whether the last run succeeded cannot be read"
    return f"{published}, and {last_run}; {first}"


def show(deployment: Deployment) -> int:
    """Print the verdict and the lines, and return the exit status."""
    observed = Observed(deployment)
    observed.read_token()
    observed.read_log()
    lines = list(findings(observed))
    console = Console()
    console.print(Text(verdict(observed, lines), style="bold"), soft_wrap=True)
    for topic, mark, text, step in lines:
        label = f"{mark.name.lower():4}", mark.value
        line = f" {topic:12} {text}; {step}" if step else f" {topic:12} {text}"
        console.print(Text.assemble(label, line), soft_wrap=True)
    return int(any(mark is Mark.BAD for _, mark, _, _ in lines))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(show(Deployment.find(sys.argv[1])))
