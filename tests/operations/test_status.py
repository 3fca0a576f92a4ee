"""`make status`, against the services of a stack in this process; the time is frozen."""

from __future__ import annotations

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
from tests.stack import transformed_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.operations.conftest import CreateStack, Save

Show = Callable[[Deployment], tuple[int, list[str]]]

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SETTINGS = '[default.global.parameters]\nstack_name = "token"\nregion = "us-east-1"'
SECRET = "smartcar-token/access-token"
ALARMS = ("TokenOverdueAlarm", "AttemptsFailingAlarm", "TokenGapAlarm", "CredentialsFallbackAlarm")
SCHEDULE: Any = {
    "Name": "schedule",
    "ScheduleExpression": "rate(50 minutes)",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "arn:aws:lambda:us-east-1:1:function:f", "RoleArn": "arn:aws:iam::1:role/r"},
}


def publish(aws: Any, minutes_ago: int, secret: str = SECRET) -> None:
    """Publish a token that was issued some time ago."""
    issued_at = int((datetime.now(UTC) - timedelta(minutes=minutes_ago)).timestamp())
    store(aws, secret, AccessToken("eyJ0b2tlbg", 3600, issued_at).to_json())


def store(aws: Any, secret: str, value: str) -> None:
    """Store a new version of a secret."""
    aws("secretsmanager").put_secret_value(SecretId=secret, SecretString=value)


def count(aws: Any, minutes_ago: int, *metrics: str) -> None:
    """Count metrics, as one run does."""
    common = {
        "Dimensions": [{"Name": "service", "Value": "smartcar-token"}],
        "Timestamp": datetime.now(UTC) - timedelta(minutes=minutes_ago),
        "Value": 1,
    }
    aws("cloudwatch").put_metric_data(
        Namespace="SmartcarTokenRotation",
        MetricData=[{"MetricName": name, **common} for name in metrics],
    )


def problems(lines: list[str]) -> str:
    """Return the lines that are not marked ok."""
    return "".join(f"{line}\n" for line in lines if not line.startswith("ok "))


def set_alarm(aws: Any, name: str, state: str) -> None:
    """Put an alarm into a state."""
    aws("cloudwatch").set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")


def unsubscribe(aws: Any) -> None:
    """Leave the topic without a subscription."""
    (subscription,) = aws("sns").list_subscriptions()["Subscriptions"]
    aws("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])


def answer_subscription(deployment: Deployment, arn: str) -> None:
    """List the subscription with an ARN or a state; moto confirms it at once."""

    def change(parsed: Any, **_: Any) -> None:
        parsed["Subscriptions"][0]["SubscriptionArn"] = arn

    deployment.session.events.register("after-call.*.ListSubscriptionsByTopic", change)


def date_credentials(deployment: Deployment, minutes_ago: int) -> None:
    """Date the current version of the credentials; in moto, it is always new."""
    stored_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)

    def change(parsed: Any, **_: Any) -> None:
        for version in parsed["Versions"]:
            version["CreatedDate"] = stored_at

    deployment.session.events.register("after-call.*.ListSecretVersionIds", change)


@pytest.fixture
def clock(aws: Any) -> Iterator[FrozenDateTimeFactory]:
    """The time, which stands still a day before `NOW`; AWS was started before."""
    assert aws
    with freeze_time(NOW - timedelta(days=1)) as clock:
        assert isinstance(clock, FrozenDateTimeFactory)
        yield clock


@pytest.fixture
def deployment(aws: Any, clock: FrozenDateTimeFactory) -> Deployment:
    """A healthy stack, created by calls to its services a day ago."""
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
    clock.move_to(NOW)
    publish(aws, minutes_ago=17)
    count(aws, 70, "TokenRotated", "CredentialsFallback")
    count(aws, 18, "AttemptFailed")
    count(aws, 17, "TokenRotated")
    count(aws, 16, "RotationSkipped")
    deployment = Deployment(
        boto3.Session(region_name="us-east-1"),
        "smartcar-token",
        "CREATE_COMPLETE",
        refs={
            "AlarmEmail": "on-call@example.com",
            "AlarmTopic": topic,
            "CredentialsSecretArn": credentials,
            "OverdueMinutes": "55",
            "ReplicaRegion": "eu-west-1",
            "RotateTokenFunctionSchedule": "schedule",
            "ScheduleExpression": "rate(50 minutes)",
            "TokenSecret": token,
            "UndeliveredQueue": queue,
            **{alarm: alarm for alarm in ALARMS},
        },
    )
    date_credentials(deployment, minutes_ago=1440)
    return deployment


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Return the exit status and the lines that are printed, none of which contains the token."""

    def show(deployment: Deployment) -> tuple[int, list[str]]:
        exit_status = status.show(deployment)
        output = capsys.readouterr().out
        assert "eyJ" not in output
        return exit_status, output.splitlines()

    return show


def test_healthy_stack(deployment: Deployment, show: Show) -> None:
    """Each part of a healthy stack is a line with the mark ok, and the exit status is 0."""
    exit_status, lines = show(deployment)

    assert 0 == exit_status
    assert [
        "ok   Stack        smartcar-token in us-east-1: CREATE_COMPLETE",
        "ok   Token        valid until 12:43 UTC, for another 43 min; issued 17 min ago",
        "ok   Schedule     rate(50 minutes), enabled",
        "ok   Alarm        TokenOverdueAlarm is OK",
        "ok   Alarm        AttemptsFailingAlarm is OK",
        "ok   Alarm        TokenGapAlarm is OK",
        "ok   Alarm        CredentialsFallbackAlarm is OK",
        "ok   Notified     email on-call@example.com, confirmed",
        "ok   Replica      eu-west-1 InSync",
        "ok   Undelivered  none",
        "ok   Credentials  the current version is 24 h old",
        "ok   Credentials  the last rotation used the current version",
        "ok   Runs         rotations: 2, skipped runs: 1, failed attempts: 1 in the last 24 hours",
    ] == lines


def test_states(deployment: Deployment, show: Show) -> None:
    """A stack is bad unless a version is active or a deployment is under way."""
    marks = {
        "UPDATE_COMPLETE": "ok  ",
        "UPDATE_IN_PROGRESS": "warn",
        "UPDATE_ROLLBACK_IN_PROGRESS": "warn",
        "ROLLBACK_IN_PROGRESS": "bad ",
        "ROLLBACK_COMPLETE": "bad ",
        "CREATE_FAILED": "bad ",
        "DELETE_IN_PROGRESS": "bad ",
    }

    assert marks == {
        state: show(replace(deployment, state=state))[1][0].partition(" Stack ")[0]
        for state in marks
    }


SUBSCRIBE = (
    "`aws sns subscribe --region us-east-1 --topic-arn arn:aws:sns:us-east-1:123456789012:alarms "
    "--protocol email --notification-endpoint"
)


def test_warnings(aws: Any, deployment: Deployment, show: Show) -> None:
    """What can wait until working hours is marked warn, and the exit status is 0."""
    set_alarm(aws, "TokenOverdueAlarm", "ALARM")
    publish(aws, 54)
    set_alarm(aws, "AttemptsFailingAlarm", "INSUFFICIENT_DATA")
    set_alarm(aws, "TokenGapAlarm", "ALARM")
    aws("cloudwatch").disable_alarm_actions(AlarmNames=["CredentialsFallbackAlarm"])
    answer_subscription(deployment, "PendingConfirmation")
    aws("sqs").send_message(QueueUrl="q", MessageBody="{}")
    count(aws, 5, "TokenRotated", "CredentialsFallback")

    exit_status, lines = show(replace(deployment, state="UPDATE_ROLLBACK_COMPLETE"))

    expected = """\
warn Stack        smartcar-token in us-east-1: UPDATE_ROLLBACK_COMPLETE: the last update failed, and the version before it is active
warn Alarm        TokenOverdueAlarm is in ALARM, although the token is new; see docs/operations.md
warn Alarm        AttemptsFailingAlarm still has insufficient data, 24 h after its deployment
warn Alarm        TokenGapAlarm is in ALARM; see docs/operations.md
warn Alarm        CredentialsFallbackAlarm notifies nobody; `aws cloudwatch enable-alarm-actions --region us-east-1 --alarm-names CredentialsFallbackAlarm`
warn Notified     email on-call@example.com, not confirmed; confirm within two days, with the link in the message from AWS
warn Undelivered  1 in UndeliveredQueue; see docs/operations.md
warn Credentials  the last rotation used the previous version; store valid credentials
"""  # noqa: E501 (as it is printed)
    assert expected == problems(lines)
    assert 0 == exit_status


def test_bad(aws: Any, deployment: Deployment, show: Show) -> None:
    """What needs action now is marked bad, and the exit status is 1."""
    publish(aws, 120)
    aws("scheduler").update_schedule(**SCHEDULE, State="DISABLED")
    set_alarm(aws, "TokenOverdueAlarm", "ALARM")
    set_alarm(aws, "AttemptsFailingAlarm", "ALARM")
    aws("cloudwatch").delete_alarms(AlarmNames=["TokenGapAlarm"])
    answer_subscription(deployment, "Deleted")
    aws("secretsmanager", "ap-south-1").create_secret(Name=SECRET)
    aws("secretsmanager").replicate_secret_to_regions(
        SecretId=SECRET, AddReplicaRegions=[{"Region": "ap-south-1"}]
    )
    elsewhere = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:credentials-Ef34Gh"
    deployment.refs["CredentialsSecretArn"] = elsewhere

    exit_status, lines = show(replace(deployment, state="UPDATE_ROLLBACK_FAILED"))

    expected = f"""\
bad  Stack        smartcar-token in us-east-1: UPDATE_ROLLBACK_FAILED; see docs/operations.md
bad  Token        expired on 2026-11-25 at 11:00 UTC; issued 2 h ago
bad  Schedule     rate(50 minutes), disabled
bad  Alarm        TokenOverdueAlarm is in ALARM; see docs/operations.md
bad  Alarm        AttemptsFailingAlarm is in ALARM; see docs/operations.md
bad  Alarm        TokenGapAlarm no longer exists
bad  Notified     on-call@example.com is no longer subscribed to AlarmTopic; {SUBSCRIBE} on-call@example.com`
bad  Replica      ap-south-1 failed: Replication failed: Secret name simple already exists in region ap-south-1.
bad  Credentials  the secret is in eu-west-1, where the function does not look; create it in us-east-1, and run `make configure`
"""  # noqa: E501 (as it is printed)
    assert expected == problems(lines)
    assert 1 == exit_status


def test_missing(aws: Any, deployment: Deployment, show: Show) -> None:
    """What the stack should have and does not is marked bad, and the exit status is 1."""
    empty = aws("secretsmanager").create_secret(Name="empty")["ARN"]
    deployment.refs.update(TokenSecret=empty, CredentialsSecretArn=empty)
    aws("scheduler").delete_schedule(Name="schedule")
    del deployment.refs["TokenGapAlarm"]
    unsubscribe(aws)
    del deployment.refs["UndeliveredQueue"]

    exit_status, lines = show(deployment)

    expected = f"""\
bad  Token        no valid token: the secret has no value yet; `make rotate` requests a token
bad  Schedule     cannot be read: GetSchedule, ResourceNotFoundException
bad  Alarm        the stack has no TokenGapAlarm
bad  Notified     on-call@example.com is no longer subscribed to AlarmTopic; {SUBSCRIBE} on-call@example.com`
bad  Replica      there is none in eu-west-1, the ReplicaRegion; see docs/operations.md
bad  Undelivered  the stack has no UndeliveredQueue
bad  Credentials  the credentials secret has no value
"""  # noqa: E501 (as it is printed)
    assert expected == problems(lines)
    assert 1 == exit_status


def test_foreign_value(aws: Any, deployment: Deployment, show: Show) -> None:
    """A value of the token secret that is no token is bad."""
    store(aws, SECRET, "eyJ")

    exit_status, lines = show(deployment)

    assert "bad  Token        no valid token: it is not a JSON object\n" == problems(lines)
    assert 1 == exit_status


def test_overdue(aws: Any, deployment: Deployment, show: Show) -> None:
    """TokenOverdueAlarm is bad if the token is overdue, although it is still valid."""
    set_alarm(aws, "TokenOverdueAlarm", "ALARM")
    publish(aws, 56)

    exit_status, lines = show(deployment)

    assert "bad  Alarm        TokenOverdueAlarm is in ALARM; see docs/operations.md\n" == (
        problems(lines)
    )
    assert 1 == exit_status


def test_nobody_subscribed(aws: Any, deployment: Deployment, show: Show) -> None:
    """Without AlarmEmail and a subscription, a warning says how to subscribe."""
    deployment.refs["AlarmEmail"] = ""
    unsubscribe(aws)

    exit_status, lines = show(deployment)

    assert f"warn Notified     nobody is subscribed to AlarmTopic; {SUBSCRIBE} ADDRESS`\n" == (
        problems(lines)
    )
    assert 0 == exit_status


def test_other_subscription(aws: Any, deployment: Deployment, show: Show) -> None:
    """Another subscription does not replace the one of AlarmEmail."""
    unsubscribe(aws)
    aws("sns").subscribe(
        TopicArn=deployment.ref("AlarmTopic"), Protocol="sms", Endpoint="+15555550100"
    )

    _, lines = show(deployment)

    assert lines[7].startswith("bad  Notified     on-call@example.com is no longer subscribed")
    assert "ok   Notified     sms +15555550100, confirmed" == lines[8]


def test_nothing_missing(aws: Any, deployment: Deployment, show: Show) -> None:
    """What was not asked for is not missed, and a new alarm needs no data for an hour."""
    deployment.refs.update(AlarmEmail="", ReplicaRegion="")
    aws("secretsmanager").remove_regions_from_replication(
        SecretId=SECRET, RemoveReplicaRegions=["eu-west-1"]
    )
    aws("cloudwatch").put_metric_alarm(
        AlarmName="TokenGapAlarm", EvaluationPeriods=1, ComparisonOperator="LessThanThreshold"
    )
    set_alarm(aws, "TokenGapAlarm", "INSUFFICIENT_DATA")

    _, lines = show(deployment)

    assert "" == problems(lines)
    assert (
        "ok   Alarm        TokenGapAlarm has insufficient data, as expected after a deployment"
    ) == lines[5]
    assert "ok   Replica      none" == lines[8]


NOT_USED_YET = (
    "Credentials  the current version is not used yet, as far as the metrics show; `make rotate` "
    "shows the version that it uses"
)


@pytest.mark.parametrize(
    ("minutes_ago", "expected"),
    [
        (16, f"warn {NOT_USED_YET}"),
        (19, f"warn {NOT_USED_YET}"),
        (20, "ok   Credentials  the last rotation used the current version"),
    ],
)
def test_new_credentials(
    aws: Any, deployment: Deployment, show: Show, minutes_ago: int, expected: str
) -> None:
    """New credentials count as used if the last rotation was counted 3 minutes later."""
    store(aws, "credentials", "{}")
    date_credentials(deployment, minutes_ago)

    _, lines = show(deployment)

    assert [f"ok   Credentials  the current version is {minutes_ago} min old", expected] == (
        lines[10:12]
    )


def test_new_credentials_after_a_fallback(aws: Any, deployment: Deployment, show: Show) -> None:
    """Credentials that were stored after the last fallback are not blamed for it."""
    store(aws, "credentials", "{}")
    count(aws, 5, "TokenRotated", "CredentialsFallback")
    date_credentials(deployment, minutes_ago=4)

    assert f"warn {NOT_USED_YET}\n" == problems(show(deployment)[1])


def test_first_credentials(deployment: Deployment, show: Show) -> None:
    """The only version of the credentials is not used yet until a rotation was counted."""
    assert f"ok   {NOT_USED_YET}" == show(replace(deployment, stack_name="new"))[1][11]


def deny(deployment: Deployment, operation: str, code: str) -> None:
    """Deny an operation, with the error code of its service."""
    refusal: Any = SimpleNamespace(status_code=400), {"Error": {"Code": code}}
    deployment.session.events.register(f"before-call.*.{operation}", lambda **_: refusal)


def test_missing_permissions(deployment: Deployment, show: Show) -> None:
    """A missing permission is a warning for each part of the stack that it hides."""
    deny(deployment, "GetSchedule", "AccessDeniedException")
    deny(deployment, "DescribeAlarms", "AccessDenied")
    deny(deployment, "ListSubscriptionsByTopic", "AuthorizationError")
    deny(deployment, "GetMetricData", "AccessDenied")

    exit_status, lines = show(deployment)

    expected = """\
warn Schedule     cannot be read: GetSchedule, permission denied
warn Alarm        cannot be read: DescribeAlarms, permission denied
warn Notified     cannot be read: ListSubscriptionsByTopic, permission denied
warn Credentials  cannot be read: GetMetricData, permission denied
warn Runs         cannot be read: GetMetricData, permission denied
"""
    assert expected == problems(lines)
    assert 0 == exit_status


def test_token_that_may_not_be_read(deployment: Deployment, show: Show) -> None:
    """A missing permission to read the token is bad."""
    deny(deployment, "GetSecretValue", "AccessDeniedException")

    exit_status, lines = show(deployment)

    assert "bad  Token        cannot be read: GetSecretValue, permission denied\n" == (
        problems(lines)
    )
    assert 1 == exit_status


def test_permissions(
    deployment: Deployment,
    create_stack: CreateStack,
    save: Save,
    show: Show,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command needs these permissions, which the runbook lists, and no other."""
    save(SETTINGS)
    create_stack("token", "us-east-1")
    needed = set()
    deployment.session.events.register(
        "before-call",
        lambda model, **_: needed.add(f"{model.service_model.service_name}:{model.name}"),
    )
    monkeypatch.setattr("boto3.Session", lambda **_: deployment.session)

    Deployment.find("default")
    show(deployment)

    assert {
        "cloudformation:DescribeStacks",
        "cloudformation:ListStackResources",
        "cloudwatch:DescribeAlarms",
        "cloudwatch:GetMetricData",
        "scheduler:GetSchedule",
        "secretsmanager:DescribeSecret",
        "secretsmanager:GetSecretValue",
        "secretsmanager:ListSecretVersionIds",
        "sns:ListSubscriptionsByTopic",
        "sqs:GetQueueAttributes",
    } == needed


def test_names(deployment: Deployment) -> None:
    """The names that are looked up are those in the template."""
    template = transformed_template()
    types = {name: resource["Type"] for name, resource in template["Resources"].items()}

    assert deployment.refs.keys() <= types.keys() | template["Parameters"].keys()
    assert set(ALARMS) == {name for name in types if types[name] == "AWS::CloudWatch::Alarm"}


def test_wait(aws: Any, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends with the first valid token."""
    deployment.refs["TokenSecret"] = "empty"
    aws("secretsmanager").create_secret(Name="empty")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        publish(aws, 60 if len(waits) == 1 else 0, "empty")

    monkeypatch.setattr("time.sleep", sleep)
    status.wait_for_token(deployment)

    assert [5, 5] == waits


def test_wait_without_a_token(
    aws: Any, deployment: Deployment, clock: FrozenDateTimeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting ends after five minutes without a valid token."""
    deployment.refs["TokenSecret"] = "empty"
    aws("secretsmanager").create_secret(Name="empty")
    monkeypatch.setattr("time.sleep", clock.tick)

    status.wait_for_token(deployment)

    assert NOW + timedelta(minutes=5) == datetime.now(UTC)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, ["Waiting up to 5 minutes for a valid token ..."]),
        ({"ScheduleExpression": "cron(0 3 * * ? *)"}, []),
        ({"CredentialsSecretArn": "arn:aws:secretsmanager:eu-west-1:1:secret:s-Ef34Gh"}, []),
    ],
    ids=["rate", "cron", "credentials secret in another region"],
)
def test_command(
    create_stack: CreateStack,
    save: Save,
    capsys: pytest.CaptureFixture[str],
    parameters: dict[str, str],
    expected: list[str],
) -> None:
    """The command waits only for a token that can be expected soon, then reports on the stack."""
    save(SETTINGS)
    create_stack("token", "us-east-1", **parameters)

    assert 1 == status.main("default", wait=True)
    assert [
        *expected,
        "ok   Stack        token in us-east-1: CREATE_COMPLETE",
        "bad  Token        the stack has no TokenSecret",
    ] == capsys.readouterr().out.splitlines()[: len(expected) + 2]
