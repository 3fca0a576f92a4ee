"""`make status`, against the services of a stack in this process; the time is frozen."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

from operations import status
from operations.deployment import Deployment
from rotate_token.access_token import AccessToken
from tests.samples import PROJECT
from tests.stack import transformed_template

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SECRET = "smartcar-token/access-token"
ALARMS = ("TokenOverdueAlarm", "AttemptsFailingAlarm", "TokenGapAlarm", "CredentialsFallbackAlarm")
SCHEDULE: Any = {
    "Name": "schedule",
    "ScheduleExpression": "rate(50 minutes)",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "arn:aws:lambda:us-east-1:1:function:f", "RoleArn": "arn:aws:iam::1:role/r"},
}
RUNBOOK = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")

Show = Callable[..., tuple[int, str, list[str]]]


def publish(aws: Any, minutes_ago: int) -> None:
    """Publish a token that was issued some time ago."""
    issued_at = int((datetime.now(UTC) - timedelta(minutes=minutes_ago)).timestamp())
    store(aws, SECRET, AccessToken("eyJ0b2tlbg", 3600, issued_at).to_json())


def store(aws: Any, secret: str, value: str) -> None:
    """Store a new version of a secret."""
    aws("secretsmanager").put_secret_value(SecretId=secret, SecretString=value)


def count(aws: Any, minutes_ago: int, name: str, value: int = 1) -> None:
    """Count a metric of the function, or of Lambda."""
    namespace, dimension = "SmartcarTokenRotation", ("service", "smartcar-token")
    if name in {"Errors", "Throttles"}:
        namespace, dimension = "AWS/Lambda", ("FunctionName", "f")
    metric = {
        "MetricName": name,
        "Dimensions": [dict(zip(("Name", "Value"), dimension, strict=True))],
        "Timestamp": datetime.now(UTC) - timedelta(minutes=minutes_ago),
        "Value": value,
    }
    aws("cloudwatch").put_metric_data(Namespace=namespace, MetricData=[metric])


def log(aws: Any, minutes_ago: int, **line: str) -> None:
    """Log a line."""
    timestamp = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    event = {"timestamp": int(1000 * timestamp.timestamp()), "message": json.dumps(line)}
    aws("logs").put_log_events(logGroupName="runs", logStreamName="stream", logEvents=[event])


def problems(lines: list[str]) -> list[str]:
    """Return the lines that are not marked ok."""
    return [line for line in lines if not line.startswith("ok ")]


def set_alarm(aws: Any, name: str, state: str) -> None:
    """Put an alarm into a state."""
    aws("cloudwatch").set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")


def change(deployment: Deployment, operation: str, edit: Callable[[Any], object]) -> None:
    """Edit the responses to an operation, for what moto does not have."""

    def handle(parsed: Any, **_: Any) -> None:
        edit(parsed)

    deployment.session.events.register(f"after-call.*.{operation}", handle)


def change_subscription(deployment: Deployment, **changes: str) -> None:
    """List the subscription with changes; moto confirms it at once."""
    change(
        deployment,
        "ListSubscriptionsByTopic",
        lambda response: response["Subscriptions"][0].update(changes),
    )


def break_function(response: Any) -> None:
    """Change what Lambda says of the function: its last update failed, and it may not run."""
    response["Configuration"] |= {
        "LastUpdateStatus": "Failed",
        "LastUpdateStatusReason": "no access to the key",
    }
    response["Concurrency"] = {"ReservedConcurrentExecutions": 0}


def deny(deployment: Deployment, operation: str, code: str = "AccessDeniedException") -> None:
    """Deny an operation, with the error code of its service."""
    refusal: Any = SimpleNamespace(status_code=400), {"Error": {"Code": code}}
    deployment.session.events.register(f"before-call.*.{operation}", lambda **_: refusal)


@pytest.fixture
def clock(aws: Any) -> Iterator[FrozenDateTimeFactory]:
    """The time, which stands still a day before `NOW`; AWS was started before."""
    assert aws
    with freeze_time(NOW - timedelta(days=1)) as clock:
        assert isinstance(clock, FrozenDateTimeFactory)
        yield clock


@pytest.fixture
def deployment(aws: Any, clock: FrozenDateTimeFactory) -> Deployment:
    """A healthy stack, created by calls to its services a day ago; something failed since."""
    secrets = aws("secretsmanager")
    topic = aws("sns").create_topic(Name="alarms")["TopicArn"]
    aws("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="on-call@example.com")
    for alarm in ALARMS:
        aws("cloudwatch").put_metric_alarm(
            AlarmName=alarm, EvaluationPeriods=1, ComparisonOperator="LessThanThreshold"
        )
    aws("scheduler").create_schedule(**SCHEDULE)
    credentials = secrets.create_secret(Name="credentials", SecretString="{}")["ARN"]
    token = secrets.create_secret(Name=SECRET, AddReplicaRegions=[{"Region": "eu-west-1"}])["ARN"]
    queue = aws("sqs").create_queue(QueueName="q")["QueueUrl"]
    aws("logs").create_log_group(logGroupName="runs")
    aws("logs").create_log_stream(logGroupName="runs", logStreamName="stream")
    role = aws("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    aws("lambda").create_function(
        FunctionName="f", Role=role, Runtime="python3.13", Handler="h", Code={"ZipFile": b"z"}
    )
    clock.move_to(NOW)
    publish(aws, minutes_ago=17)
    count(aws, 60, "AttemptFailed")
    count(aws, 60, "Errors")
    count(aws, 60, "Throttles")
    count(aws, 3, "Errors", value=0)
    log(aws, 70, CredentialsFallback="1")
    log(aws, 60, message="Attempt failed: CredentialsError: no; giving up")
    log(aws, 17, message="Token rotated")
    deployment = Deployment(
        "default",
        boto3.Session(region_name="us-east-1"),
        "smartcar-token",
        "123456789012",
        "CREATE_COMPLETE",
        refs={
            "AlarmEmail": "on-call@example.com",
            "AlarmTopic": topic,
            "CredentialsSecretArn": credentials,
            "OverdueMinutes": "55",
            "ReplicaRegion": "eu-west-1",
            "RotateTokenFunction": "f",
            "RotateTokenFunctionSchedule": "schedule",
            "RotateTokenLogGroup": "runs",
            "TokenSecret": token,
            "UndeliveredQueue": queue,
            **{alarm: alarm for alarm in ALARMS},
        },
    )

    def date_states(response: Any) -> None:
        for alarm in response.get("MetricAlarms", []):
            alarm["StateTransitionedTimestamp"] = alarm["StateUpdatedTimestamp"]

    change(deployment, "DescribeAlarms", date_states)
    return deployment


@pytest.fixture
def show(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> Show:
    """A function that shows the stack; it returns the status, the verdict and the other lines."""

    def show(**changes: Any) -> tuple[int, str, list[str]]:
        exit_status = status.show(replace(deployment, **changes))
        verdict, *lines = capsys.readouterr().out.splitlines()
        return exit_status, verdict, lines

    return show


def test_healthy_stack(show: Show) -> None:
    """Each part of a healthy stack is a line with the mark ok, and the exit status is 0."""
    exit_status, verdict, lines = show()

    assert 0 == exit_status
    assert (
        "A valid token is published, for another 43 min, and the last run succeeded; nothing to do"
    ) == verdict
    assert [
        "ok   Stack        smartcar-token in account 123456789012, us-east-1: CREATE_COMPLETE",
        "ok   Function     last modified 24 h ago",
        "ok   Credentials  last changed 24 h ago",
        "ok   Runs         last rotation 17 min ago; no failure since",
        "ok   Token        valid until 12:43 UTC, for another 43 min; issued 17 min ago",
        "ok   Schedule     rate(50 minutes), enabled",
        "ok   Alarm        TokenOverdueAlarm is OK",
        "ok   Alarm        AttemptsFailingAlarm is OK",
        "ok   Alarm        TokenGapAlarm is OK",
        "ok   Alarm        CredentialsFallbackAlarm is OK",
        "ok   Notified     email on-call@example.com, confirmed",
        "ok   Replica      eu-west-1 InSync",
        "ok   Undelivered  none",
    ] == lines
    assert "\n".join([verdict, *lines]) in RUNBOOK


def test_broken_stack(aws: Any, show: Show) -> None:
    """The first line says what is wrong and what to do first, each other line what else."""
    publish(aws, 56)
    count(aws, 2, "AttemptFailed")
    reason = (
        "TokenEndpointUnavailableError: https://iam.smartcar.com/oauth2/token answered 503; if "
        "this persists, check the provider's status page; retrying in 21.4 s (attempt 9)"
    )
    log(aws, 1, message=f"Attempt failed: {reason}")
    for alarm in ("TokenOverdueAlarm", "AttemptsFailingAlarm"):
        set_alarm(aws, alarm, "ALARM")

    exit_status, verdict, lines = show()

    assert 1 == exit_status
    expected = f"""\
A valid token is published, for another 4 min, and the last run failed; to do first: see docs/operations.md, Errors
bad  Runs         last rotation 56 min ago; last failure 60 s ago: Attempt failed: {reason}; see docs/operations.md, Errors
warn Token        valid until 12:04 UTC, for another 4 min; issued 56 min ago, not replaced in time; see docs/operations.md, TokenOverdueAlarm
bad  Alarm        TokenOverdueAlarm is in ALARM; see docs/operations.md, TokenOverdueAlarm
bad  Alarm        AttemptsFailingAlarm is in ALARM; see docs/operations.md, AttemptsFailingAlarm"""  # noqa: E501 (as it is printed)
    assert expected == "\n".join([verdict, *problems(lines)])
    assert expected in RUNBOOK


def test_states(show: Show) -> None:
    """A stack is bad unless a version is active or a deployment is under way."""
    marks = {
        "UPDATE_COMPLETE": "ok  ",
        "UPDATE_IN_PROGRESS": "warn",
        "UPDATE_ROLLBACK_IN_PROGRESS": "warn",
        "UPDATE_ROLLBACK_COMPLETE": "warn",
        "UPDATE_ROLLBACK_FAILED": "bad ",
        "CREATE_FAILED": "bad ",
    }

    assert marks == {state: show(state=state)[2][0][:4] for state in marks}
    assert show(state="UPDATE_IN_PROGRESS")[2][0].endswith(": UPDATE_IN_PROGRESS: wait for its end")


@pytest.mark.parametrize(
    "state", ["ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"]
)
def test_partial_stack(show: Show, state: str) -> None:
    """About a stack that exists only in part, nothing is said but how it is deleted."""
    step = (
        "delete it with `.venv/bin/sam delete --stack-name smartcar-token --region us-east-1`, and "
        "deploy again"
    )

    assert (
        1,
        f"The stack exists only in part; to do first: {step}",
        [f"bad  Stack        smartcar-token in account 123456789012, us-east-1: {state}; {step}"],
    ) == show(state=state)


EVENTS = (
    "correct what `aws cloudformation describe-stack-events --region us-east-1 --stack-name "
    "smartcar-token` says, and"
)
SUBSCRIBE = (
    "`aws sns subscribe --region us-east-1 --topic-arn arn:aws:sns:us-east-1:123456789012:alarms "
    "--protocol email --notification-endpoint"
)
BY_HAND = "see docs/operations.md, If a resource was changed by hand"


def test_warnings(aws: Any, deployment: Deployment, show: Show) -> None:
    """What can wait until working hours is marked warn, and the exit status is 0."""
    publish(aws, 55)
    log(aws, 55, CredentialsFallback="1")
    set_alarm(aws, "AttemptsFailingAlarm", "INSUFFICIENT_DATA")
    set_alarm(aws, "TokenGapAlarm", "ALARM")
    aws("cloudwatch").disable_alarm_actions(AlarmNames=["CredentialsFallbackAlarm"])
    change_subscription(deployment, SubscriptionArn="PendingConfirmation")
    aws("sqs").send_message(QueueUrl="q", MessageBody="{}")

    exit_status, verdict, lines = show(state="UPDATE_ROLLBACK_COMPLETE")

    assert 0 == exit_status
    assert verdict.endswith(f", and the last run succeeded; to do first: {EVENTS} deploy again")
    expected = f"""\
warn Stack        smartcar-token in account 123456789012, us-east-1: UPDATE_ROLLBACK_COMPLETE: the last update failed and was rolled back; {EVENTS} deploy again
warn Credentials  the last rotation had to use the previous version; see docs/operations.md, Replacing the client secret
warn Token        valid until 12:05 UTC, for another 5 min; issued 55 min ago, not replaced in time; see docs/operations.md, TokenOverdueAlarm
warn Alarm        AttemptsFailingAlarm still has insufficient data, 24 h after its deployment; see docs/operations.md, AttemptsFailingAlarm
warn Alarm        TokenGapAlarm is in ALARM; see docs/operations.md, TokenGapAlarm
warn Alarm        CredentialsFallbackAlarm notifies nobody; `aws cloudwatch enable-alarm-actions --region us-east-1 --alarm-names CredentialsFallbackAlarm`
warn Notified     email on-call@example.com, not confirmed; confirm it within two days, with the link in the message from AWS
warn Undelivered  1 event in UndeliveredQueue; see docs/operations.md, TokenOverdueAlarm
"""  # noqa: E501 (as it is printed)
    assert expected.splitlines() == problems(lines)


def test_bad(aws: Any, deployment: Deployment, show: Show) -> None:
    """What needs action now is marked bad, and the exit status is 1."""
    publish(aws, 120)
    change(deployment, "GetFunction", break_function)
    aws("scheduler").update_schedule(**SCHEDULE, State="DISABLED")
    aws("cloudwatch").delete_alarms(AlarmNames=["TokenGapAlarm"])
    change_subscription(deployment, SubscriptionArn="Deleted")
    aws("secretsmanager", "ap-south-1").create_secret(Name=SECRET)
    aws("secretsmanager").replicate_secret_to_regions(
        SecretId=SECRET, AddReplicaRegions=[{"Region": "ap-south-1"}]
    )
    elsewhere = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:credentials-Ef34Gh"
    deployment.refs.update(CredentialsSecretArn=elsewhere, ReplicaRegion="eu-north-1")
    command = "`aws cloudformation continue-update-rollback"

    exit_status, verdict, lines = show(state="UPDATE_ROLLBACK_FAILED")

    assert 1 == exit_status
    assert verdict.startswith("No valid token is published, and the last run failed; to do first: ")
    expected = f"""\
bad  Stack        smartcar-token in account 123456789012, us-east-1: UPDATE_ROLLBACK_FAILED; {EVENTS} run {command} --region us-east-1 --stack-name smartcar-token`
bad  Function     its last update failed: no access to the key; correct the cause, and deploy again
bad  Function     its reserved concurrency is 0, so no run can start; `aws lambda delete-function-concurrency --region us-east-1 --function-name f`
bad  Credentials  the secret is in eu-west-1, where the function does not look; create it in us-east-1, and run `make configure ENV=default`
bad  Runs         last rotation 2 h ago; last failure 60 min ago: Attempt failed: CredentialsError: no; giving up; see docs/operations.md, Errors
bad  Token        expired on 2026-11-25 at 11:00 UTC; issued 2 h ago; see docs/operations.md, TokenOverdueAlarm
bad  Schedule     rate(50 minutes), disabled; {BY_HAND}
bad  Alarm        TokenGapAlarm no longer exists; {BY_HAND}
bad  Notified     on-call@example.com is no longer subscribed to AlarmTopic; {SUBSCRIBE} on-call@example.com`
bad  Replica      no replica in eu-north-1 (ReplicaRegion); see docs/operations.md, Replication
bad  Replica      ap-south-1 failed: Replication failed: Secret name simple already exists in region ap-south-1.; see docs/operations.md, Replication
"""  # noqa: E501 (as it is printed)
    assert expected.splitlines() == problems(lines)


def test_missing(aws: Any, deployment: Deployment, show: Show) -> None:
    """What the stack should have and does not is marked bad."""
    aws("lambda").delete_function(FunctionName="f")
    aws("scheduler").delete_schedule(Name="schedule")
    empty = aws("secretsmanager").create_secret(Name="empty")["ARN"]
    deployment.refs.update(TokenSecret="gone", CredentialsSecretArn=empty)
    del deployment.refs["TokenGapAlarm"]

    _, _, lines = show()

    expected = f"""\
bad  Function     cannot be read: GetFunction failed (ResourceNotFoundException); {BY_HAND}
bad  Credentials  the secret has no value; see docs/operations.md, Replacing the client secret
bad  Runs         no rotation is known; last failure 60 min ago: Attempt failed: CredentialsError: no; giving up; see docs/operations.md, Errors
bad  Token        cannot be read: DescribeSecret failed (ResourceNotFoundException); {BY_HAND}
bad  Schedule     cannot be read: GetSchedule failed (ResourceNotFoundException); {BY_HAND}
bad  Alarm        the stack has no TokenGapAlarm; {BY_HAND}
bad  Replica      cannot be read: DescribeSecret failed (ResourceNotFoundException); {BY_HAND}
"""  # noqa: E501 (as it is printed)
    assert expected.splitlines() == problems(lines)


def test_no_log_group(aws: Any, deployment: Deployment, show: Show) -> None:
    """A stack without its log group is bad, and no alarm is hidden by that."""
    del deployment.refs["RotateTokenLogGroup"]
    set_alarm(aws, "AttemptsFailingAlarm", "ALARM")

    _, _, lines = show()

    assert f"bad  Runs         the stack has no RotateTokenLogGroup; {BY_HAND}" in lines
    assert 4 == sum(line[5:].startswith("Alarm ") for line in lines)


def test_new_stack(
    aws: Any, deployment: Deployment, show: Show, clock: FrozenDateTimeFactory
) -> None:
    """A new stack lacks a token, but nothing that was not asked for; old failures do not count."""
    new = aws("secretsmanager").create_secret(Name="new")["ARN"]
    deployment.refs.update(TokenSecret=new, AlarmEmail="", ReplicaRegion="")
    clock.tick(timedelta(hours=23, minutes=1))

    exit_status, verdict, lines = show()

    assert [
        "bad  Token        the secret has no value; `make rotate ENV=default` requests a token"
    ] == (problems(lines))
    assert verdict.startswith("No valid token is published, and no run has failed; to do first: `m")
    assert 1 == exit_status


def test_deleted_secrets(aws: Any, deployment: Deployment, show: Show) -> None:
    """A secret that is scheduled for deletion is bad; the line says how it is restored."""
    aws("secretsmanager").remove_regions_from_replication(
        SecretId=SECRET, RemoveReplicaRegions=["eu-west-1"]
    )
    for secret in ("credentials", SECRET):
        aws("secretsmanager").delete_secret(SecretId=secret)

    _, _, lines = show()

    for topic, ref in (("Credentials ", "CredentialsSecretArn"), ("Token       ", "TokenSecret")):
        assert (
            f"bad  {topic} the secret is scheduled for deletion; `aws secretsmanager "
            f"restore-secret --region us-east-1 --secret-id {deployment.refs[ref]}`"
        ) in lines


def test_foreign_value(aws: Any, show: Show) -> None:
    """A value of the token secret that is no token is bad; no part of it is shown."""
    store(aws, SECRET, "eyJ")

    _, _, lines = show()

    problem = "no valid token: the value is not a JSON object"
    assert f"bad  Token        {problem}; `make rotate ENV=default` replaces it" in lines


@pytest.mark.parametrize("metric", ["AttemptFailed", "Errors", "Throttles"])
def test_failed_run(aws: Any, show: Show, metric: str) -> None:
    """A failure that is counted after the last rotation is bad, even if nothing was logged."""
    count(aws, 16, metric)

    text = "last rotation 17 min ago; last failure 16 min ago"
    assert [f"bad  Runs         {text}; see docs/operations.md, Errors"] == problems(show()[2])


def test_failed_import(aws: Any, show: Show) -> None:
    """A run that failed is bad as soon as it is logged, although no metric counts it yet."""
    log(aws, 1, errorType="Runtime.ImportModuleError", errorMessage="No module named 'httpx'")

    (line,) = problems(show()[2])

    assert line.startswith("bad  Runs         last rotation 17 min ago; ")
    assert "; last failure 60 s ago: Runtime.ImportModuleError: No module named 'httpx'" in line


def test_failed_attempt_before_the_rotation(
    aws: Any, show: Show, clock: FrozenDateTimeFactory
) -> None:
    """A run that succeeded is ok, although its first attempt failed in the same second."""
    clock.move_to(NOW + timedelta(seconds=30.2))
    count(aws, 0, "AttemptFailed")
    log(aws, 0, message="Attempt failed: CredentialsError: no; trying the previous credentials")
    publish(aws, 0)
    clock.tick(60)

    assert [] == problems(show()[2])


def test_recovery(aws: Any, show: Show, clock: FrozenDateTimeFactory) -> None:
    """After a rotation, alarms that fired before it clear by themselves."""
    for alarm in ALARMS:
        set_alarm(aws, alarm, "ALARM")
    clock.tick(60)
    publish(aws, 0)

    exit_status, _, lines = show()

    assert [
        f"warn Alarm        {alarm} is in ALARM, but clears by itself: its cause is over"
        for alarm in ALARMS
    ] == problems(lines)
    assert 0 == exit_status


@pytest.mark.parametrize("alarm", ["AttemptsFailingAlarm", "CredentialsFallbackAlarm"])
def test_late_alarm(aws: Any, show: Show, alarm: str) -> None:
    """An alarm that fires only after the rotation that ended its cause clears by itself."""
    set_alarm(aws, alarm, "ALARM")

    assert [f"warn Alarm        {alarm} is in ALARM, but clears by itself: its cause is over"] == (
        problems(show()[2])
    )


def test_fallback(aws: Any, show: Show) -> None:
    """If the last rotation was a fallback, its alarm does not clear by itself."""
    log(aws, 16, CredentialsFallback="1")
    set_alarm(aws, "CredentialsFallbackAlarm", "ALARM")

    _, _, lines = show()

    assert (
        "bad  Alarm        CredentialsFallbackAlarm is in ALARM; see docs/operations.md, "
        "CredentialsFallbackAlarm"
    ) in lines


def test_failures_go_on(aws: Any, show: Show, clock: FrozenDateTimeFactory) -> None:
    """While attempts fail again, no alarm is said to clear by itself."""
    set_alarm(aws, "AttemptsFailingAlarm", "ALARM")
    clock.tick(60)
    publish(aws, 0)
    clock.tick(60)
    log(aws, 0, message="Attempt failed: CredentialsError: no; retrying in 30.0 s (attempt 2)")

    assert ["bad  Runs         last rot", "bad  Alarm        Attempts"] == [
        line[:26] for line in problems(show()[2])
    ]


def test_new_alarm(aws: Any, show: Show, clock: FrozenDateTimeFactory) -> None:
    """A new alarm needs no data for an hour."""
    set_alarm(aws, "TokenOverdueAlarm", "INSUFFICIENT_DATA")
    clock.move_to(NOW - timedelta(hours=23, seconds=1))

    assert (
        "ok   Alarm        TokenOverdueAlarm has insufficient data, as expected after a deployment"
    ) in show()[2]


@pytest.mark.parametrize(
    ("stored", "used", "is_unused"),
    [(20, 17, True), (20, 21, False), (90, 67, False), (5, 17, False)],
    ids=["used", "stored after that", "not the last rotation", "not used yet"],
)
def test_new_credentials(aws: Any, show: Show, stored: int, used: int, *, is_unused: bool) -> None:
    """The current version is unused only if the last rotation, after it, used the previous one."""
    with freeze_time(NOW - timedelta(minutes=stored)):
        store(aws, "credentials", "{}")
    log(aws, used, CredentialsFallback="1")

    assert is_unused == bool(problems(show()[2]))


def test_nobody_subscribed(deployment: Deployment, show: Show) -> None:
    """Without AlarmEmail and a subscription, a warning says how to subscribe."""
    deployment.refs["AlarmEmail"] = ""
    change_subscription(deployment, SubscriptionArn="Deleted")

    assert [f"warn Notified     nobody is subscribed to AlarmTopic; {SUBSCRIBE} ADDRESS`"] == (
        problems(show()[2])
    )


def test_other_subscription(deployment: Deployment, show: Show) -> None:
    """Another subscription is listed, and does not replace the one of AlarmEmail."""
    change_subscription(deployment, Protocol="sms", Endpoint="+15555550100")

    _, _, lines = show()

    assert "ok   Notified     sms +15555550100, confirmed" in lines
    assert ["bad  Notified     on-call@example.com is no"] == [
        each[:43] for each in problems(lines)
    ]


def test_missing_permissions(deployment: Deployment, show: Show) -> None:
    """What may not be read is a warning that names the permission, and bad if it is the token."""
    for permission in status.PERMISSIONS:
        deny(deployment, permission.partition(":")[2])
    deny(deployment, "ListSubscriptionsByTopic", "AuthorizationError")

    exit_status, verdict, lines = show()

    step = "see docs/operations.md, Restricted accounts"
    assert verdict.startswith(
        "Whether a valid token is published cannot be read, and whether the last run succeeded "
    )
    assert [
        ("warn Function   ", "lambda:GetFunction"),
        ("warn Credentials", "secretsmanager:DescribeSecret"),
        ("warn Runs       ", "cloudwatch:GetMetricData"),
        ("bad  Token      ", "secretsmanager:DescribeSecret"),
        ("warn Schedule   ", "scheduler:GetSchedule"),
        ("warn Alarm      ", "cloudwatch:DescribeAlarms"),
        ("warn Notified   ", "sns:ListSubscriptionsByTopic"),
        ("warn Replica    ", "secretsmanager:DescribeSecret"),
        ("warn Undelivered", "sqs:GetQueueAttributes"),
    ] == [
        (line[:16], line.partition(" cannot be read without the permission ")[2].partition(";")[0])
        for line in problems(lines)
    ]
    assert all(line.endswith(f"; {step}") for line in problems(lines))
    assert 1 == exit_status


def test_denied_value(deployment: Deployment, show: Show) -> None:
    """A token that may not be read is bad; its key may be the reason."""
    deny(deployment, "GetSecretValue")

    assert (
        "bad  Token        cannot be read without the permission secretsmanager:GetSecretValue "
        "and, with KmsKeyArn, kms:Decrypt; see docs/operations.md, Restricted accounts"
    ) in show()[2]


def test_denied_log(aws: Any, deployment: Deployment, show: Show) -> None:
    """A log that may not be read hides no failure, and no fallback."""
    deny(deployment, "FilterLogEvents")
    count(aws, 16, "Errors")
    set_alarm(aws, "CredentialsFallbackAlarm", "ALARM")

    assert ["warn Runs ", "bad  Runs ", "bad  Alarm"] == [line[:10] for line in problems(show()[2])]


@pytest.mark.usefixtures("stack")
def test_permissions(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command needs these permissions, which the runbook lists, and no other."""
    needed = set()
    deployment.session.events.register(
        "before-call",
        lambda model, **_: needed.add(f"{model.service_model.service_name}:{model.name}"),
    )
    monkeypatch.setattr("boto3.Session", lambda **_: deployment.session)

    Deployment.find("default")
    status.show(deployment)

    assert {"cloudformation:DescribeStacks", "cloudformation:ListStackResources"} == (
        needed - set(status.PERMISSIONS)
    )
    assert set(status.PERMISSIONS) <= needed
    assert set() == {each for each in needed if each.partition(":")[2] not in RUNBOOK}


def test_names(deployment: Deployment) -> None:
    """The names that are looked up are those in the template."""
    template = transformed_template()
    types = {name: resource["Type"] for name, resource in template["Resources"].items()}

    assert deployment.refs.keys() <= types.keys() | template["Parameters"].keys()
    assert set(ALARMS) == {name for name in types if types[name] == "AWS::CloudWatch::Alarm"}


def test_headings() -> None:
    """Each heading of the runbook to which a line refers exists."""
    source = (PROJECT / "operations" / "status.py").read_text(encoding="utf-8")
    headings = {*ALARMS, *re.findall(r'RUNBOOK.format\("(.+?)"\)', source)}

    assert headings <= set(re.findall("^##+ (.+)$", RUNBOOK, re.MULTILINE))
