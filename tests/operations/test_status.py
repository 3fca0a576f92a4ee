"""`make status`, against the services of a stack in this process; the time is frozen."""

from __future__ import annotations

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
from operations.status import Mark
from rotate_token.access_token import AccessToken
from tests.stack import transformed_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.operations.conftest import CreateStack, Save

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


def publish(aws: Any, minutes_ago: int) -> None:
    """Publish a token that was issued some time ago."""
    issued_at = int((datetime.now(UTC) - timedelta(minutes=minutes_ago)).timestamp())
    store(aws, SECRET, AccessToken("eyJ0b2tlbg", 3600, issued_at).to_json())


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


def problems(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the printed lines that are not marked ok."""
    lines = capsys.readouterr().out.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("ok "))


def set_alarm(aws: Any, name: str, state: str) -> None:
    """Put an alarm into a state."""
    aws("cloudwatch").set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")


def change_subscription(deployment: Deployment, **changes: str) -> None:
    """List the subscription with changes; moto confirms it at once."""

    def change(parsed: Any, **_: Any) -> None:
        parsed["Subscriptions"][0].update(changes)

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


def test_healthy_stack(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """Each part of a healthy stack is a line with the mark ok, and the exit status is 0."""
    assert 0 == status.show(deployment)
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
    ] == capsys.readouterr().out.splitlines()


def test_states(deployment: Deployment) -> None:
    """A stack is bad unless a version is active or a deployment is under way."""
    marks = {
        "UPDATE_COMPLETE": Mark.OK,
        "UPDATE_IN_PROGRESS": Mark.WARN,
        "UPDATE_ROLLBACK_IN_PROGRESS": Mark.WARN,
        "ROLLBACK_IN_PROGRESS": Mark.BAD,
        "ROLLBACK_COMPLETE": Mark.BAD,
        "CREATE_FAILED": Mark.BAD,
        "DELETE_IN_PROGRESS": Mark.BAD,
    }

    assert marks == {
        state: next(status.stack(replace(deployment, state=state)))[0] for state in marks
    }


SUBSCRIBE = (
    "`aws sns subscribe --region us-east-1 --topic-arn arn:aws:sns:us-east-1:123456789012:alarms "
    "--protocol email --notification-endpoint"
)


def test_warnings(aws: Any, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """What can wait until working hours is marked warn, and the exit status is 0."""
    set_alarm(aws, "TokenOverdueAlarm", "ALARM")
    publish(aws, 54)
    set_alarm(aws, "AttemptsFailingAlarm", "INSUFFICIENT_DATA")
    set_alarm(aws, "TokenGapAlarm", "ALARM")
    aws("cloudwatch").disable_alarm_actions(AlarmNames=["CredentialsFallbackAlarm"])
    change_subscription(deployment, SubscriptionArn="PendingConfirmation")
    aws("sqs").send_message(QueueUrl="q", MessageBody="{}")

    exit_status = status.show(replace(deployment, state="UPDATE_ROLLBACK_COMPLETE"))

    expected = """\
warn Stack        smartcar-token in us-east-1: UPDATE_ROLLBACK_COMPLETE: the last update failed, and the version before it is active
warn Alarm        TokenOverdueAlarm is in ALARM, although the token is new; see docs/operations.md
warn Alarm        AttemptsFailingAlarm still has insufficient data, 24 h after its deployment
warn Alarm        TokenGapAlarm is in ALARM; see docs/operations.md
warn Alarm        CredentialsFallbackAlarm notifies nobody; `aws cloudwatch enable-alarm-actions --region us-east-1 --alarm-names CredentialsFallbackAlarm`
warn Notified     email on-call@example.com, not confirmed; confirm within two days, with the link in the message from AWS
warn Undelivered  1 in UndeliveredQueue; see docs/operations.md
"""  # noqa: E501 (as it is printed)
    assert expected == problems(capsys)
    assert 0 == exit_status


def test_bad(aws: Any, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """What needs action now is marked bad, and the exit status is 1."""
    publish(aws, 120)
    aws("scheduler").update_schedule(**SCHEDULE, State="DISABLED")
    set_alarm(aws, "TokenOverdueAlarm", "ALARM")
    set_alarm(aws, "AttemptsFailingAlarm", "ALARM")
    aws("cloudwatch").delete_alarms(AlarmNames=["TokenGapAlarm"])
    change_subscription(deployment, SubscriptionArn="Deleted")
    aws("secretsmanager", "ap-south-1").create_secret(Name=SECRET)
    aws("secretsmanager").replicate_secret_to_regions(
        SecretId=SECRET, AddReplicaRegions=[{"Region": "ap-south-1"}]
    )
    elsewhere = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:credentials-Ef34Gh"
    deployment.refs.update(
        CredentialsSecretArn=elsewhere, OverdueMinutes="180", ReplicaRegion="eu-north-1"
    )

    exit_status = status.show(replace(deployment, state="UPDATE_ROLLBACK_FAILED"))

    expected = f"""\
bad  Stack        smartcar-token in us-east-1: UPDATE_ROLLBACK_FAILED; see docs/operations.md
bad  Token        expired on 2026-11-25 at 11:00 UTC; issued 2 h ago
bad  Schedule     rate(50 minutes), disabled
bad  Alarm        TokenOverdueAlarm is in ALARM; see docs/operations.md
bad  Alarm        AttemptsFailingAlarm is in ALARM; see docs/operations.md
bad  Alarm        TokenGapAlarm no longer exists
bad  Notified     on-call@example.com is no longer subscribed to AlarmTopic; {SUBSCRIBE} on-call@example.com`
bad  Replica      there is none in eu-north-1, the ReplicaRegion; see docs/operations.md
bad  Replica      ap-south-1 failed: Replication failed: Secret name simple already exists in region ap-south-1.
bad  Credentials  the secret is in eu-west-1, where the function does not look; create it in us-east-1, and run `make configure`
"""  # noqa: E501 (as it is printed)
    assert expected == problems(capsys)
    assert 1 == exit_status


def test_missing(aws: Any, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """What the stack should have and does not is marked bad."""
    empty = aws("secretsmanager").create_secret(Name="empty")["ARN"]
    deployment.refs.update(TokenSecret=empty, CredentialsSecretArn=empty)
    aws("scheduler").delete_schedule(Name="schedule")
    del deployment.refs["TokenGapAlarm"]

    status.show(deployment)

    assert """\
bad  Token        no valid token: the secret has no value yet; `make rotate` requests a token
bad  Schedule     cannot be read: GetSchedule, ResourceNotFoundException
bad  Alarm        the stack has no TokenGapAlarm
bad  Replica      there is none in eu-west-1, the ReplicaRegion; see docs/operations.md
bad  Credentials  the credentials secret has no value
""" == problems(capsys)


def test_foreign_value(aws: Any, deployment: Deployment) -> None:
    """A value of the token secret that is no token is bad."""
    store(aws, SECRET, "eyJ")

    assert [(Mark.BAD, "no valid token: the value is not a JSON object")] == list(
        status.token(deployment)
    )


def test_overdue(aws: Any, deployment: Deployment) -> None:
    """TokenOverdueAlarm is bad if the token is overdue, although it is still valid."""
    set_alarm(aws, "TokenOverdueAlarm", "ALARM")
    publish(aws, 56)

    assert (Mark.BAD, "TokenOverdueAlarm is in ALARM; see docs/operations.md") == (
        next(status.alarms(deployment))
    )


def test_new_alarm(aws: Any, deployment: Deployment, clock: FrozenDateTimeFactory) -> None:
    """A new alarm needs no data for an hour."""
    set_alarm(aws, "TokenOverdueAlarm", "INSUFFICIENT_DATA")
    clock.move_to(NOW - timedelta(hours=23, seconds=1))

    assert (
        Mark.OK,
        "TokenOverdueAlarm has insufficient data, as expected after a deployment",
    ) == next(status.alarms(deployment))


def test_nobody_subscribed(deployment: Deployment) -> None:
    """Without AlarmEmail and a subscription, a warning says how to subscribe."""
    deployment.refs["AlarmEmail"] = ""
    change_subscription(deployment, SubscriptionArn="Deleted")

    assert [(Mark.WARN, f"nobody is subscribed to AlarmTopic; {SUBSCRIBE} ADDRESS`")] == (
        list(status.notifications(deployment))
    )


def test_other_subscription(deployment: Deployment) -> None:
    """Another subscription is listed, and does not replace the one of AlarmEmail."""
    change_subscription(deployment, Protocol="sms", Endpoint="+15555550100")

    missing, other = status.notifications(deployment)

    assert Mark.BAD == missing[0]
    assert (Mark.OK, "sms +15555550100, confirmed") == other


def test_nothing_missing(aws: Any, deployment: Deployment) -> None:
    """What was not asked for is not missed."""
    deployment.refs.update(AlarmEmail="", ReplicaRegion="")
    aws("secretsmanager").remove_regions_from_replication(
        SecretId=SECRET, RemoveReplicaRegions=["eu-west-1"]
    )

    assert [(Mark.OK, "email on-call@example.com, confirmed")] == (
        list(status.notifications(deployment))
    )
    assert [(Mark.OK, "none")] == list(status.replica(deployment))


NOT_USED_YET = (
    "the current version is not used yet, as far as the metrics show; `make rotate` shows the "
    "version that it uses"
)


@pytest.mark.parametrize(
    ("minutes_ago", "expected"),
    [
        (19, NOT_USED_YET),
        (20, "the last rotation used the previous version; store valid credentials"),
    ],
)
def test_new_credentials(aws: Any, deployment: Deployment, minutes_ago: int, expected: str) -> None:
    """A rotation shows which version it used if it was counted 3 minutes after the current one."""
    store(aws, "credentials", "{}")
    count(aws, 17, "CredentialsFallback")
    date_credentials(deployment, minutes_ago)

    _, used = status.credentials(deployment)

    assert (Mark.WARN, expected) == used


def test_first_credentials(deployment: Deployment) -> None:
    """The only version of the credentials is not used yet until a rotation was counted."""
    _, used = status.credentials(replace(deployment, stack_name="new"))

    assert (Mark.OK, NOT_USED_YET) == used


def deny(deployment: Deployment, operation: str, code: str) -> None:
    """Deny an operation, with the error code of its service."""
    refusal: Any = SimpleNamespace(status_code=400), {"Error": {"Code": code}}
    deployment.session.events.register(f"before-call.*.{operation}", lambda **_: refusal)


def test_missing_permissions(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing permission is a warning for each part that it hides, and bad if it is the token."""
    deny(deployment, "GetSecretValue", "AccessDeniedException")
    deny(deployment, "GetSchedule", "AccessDeniedException")
    deny(deployment, "DescribeAlarms", "AccessDenied")
    deny(deployment, "ListSubscriptionsByTopic", "AuthorizationError")
    deny(deployment, "GetMetricData", "AccessDenied")

    status.show(deployment)

    assert """\
bad  Token        cannot be read: GetSecretValue, permission denied
warn Schedule     cannot be read: GetSchedule, permission denied
warn Alarm        cannot be read: DescribeAlarms, permission denied
warn Notified     cannot be read: ListSubscriptionsByTopic, permission denied
warn Credentials  cannot be read: GetMetricData, permission denied
warn Runs         cannot be read: GetMetricData, permission denied
""" == problems(capsys)


def test_alarms_without_the_token(aws: Any, deployment: Deployment) -> None:
    """A token that may not be read hides no alarm."""
    set_alarm(aws, "TokenOverdueAlarm", "ALARM")
    deny(deployment, "GetSecretValue", "AccessDeniedException")

    assert [Mark.BAD, Mark.OK, Mark.OK, Mark.OK] == [mark for mark, _ in status.alarms(deployment)]


def test_permissions(
    deployment: Deployment,
    create_stack: CreateStack,
    save: Save,
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
    status.show(deployment)

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


def test_wait(
    aws: Any, deployment: Deployment, clock: FrozenDateTimeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting ends with the first valid token."""
    publish(aws, 60)

    def sleep(seconds: float) -> None:
        clock.tick(seconds)
        publish(aws, 0)

    monkeypatch.setattr("time.sleep", sleep)

    status.wait_for_token(deployment)

    assert NOW + timedelta(seconds=5) == datetime.now(UTC)


def test_wait_without_a_token(
    aws: Any, deployment: Deployment, clock: FrozenDateTimeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting ends after five minutes without a token."""
    store(aws, SECRET, "{}")
    monkeypatch.setattr("time.sleep", clock.tick)

    status.wait_for_token(deployment)

    assert NOW + timedelta(minutes=5) == datetime.now(UTC)


@pytest.mark.parametrize(
    ("wait", "parameters"),
    [
        (False, {}),
        (True, {"ScheduleExpression": "cron(0 3 * * ? *)"}),
        (True, {"CredentialsSecretArn": "arn:aws:secretsmanager:eu-west-1:1:secret:s-Ef34Gh"}),
    ],
    ids=["not asked", "cron", "credentials secret in another region"],
)
def test_no_wait(
    create_stack: CreateStack,
    save: Save,
    capsys: pytest.CaptureFixture[str],
    *,
    wait: bool,
    parameters: dict[str, str],
) -> None:
    """Without being asked, or if no token can be expected soon, the command does not wait."""
    save(SETTINGS)
    create_stack("token", "us-east-1", **parameters)

    status.main("default", wait=wait)

    assert capsys.readouterr().out.startswith("ok   Stack        token in us-east-1: ")
