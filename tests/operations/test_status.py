"""`make status`, against fakes of the services in a stack."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from freezegun import freeze_time
from moto import mock_aws

from operations import status
from operations.deployment import Deployment
from rotate_token.access_token import AccessToken
from tests.samples import PROJECT
from tests.stack import transformed_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[Any, Deployment], object]
    Show = Callable[[Deployment], tuple[int, list[str]]]

PYTHONPATH = os.pathsep.join(map(str, (PROJECT, PROJECT / "functions")))
SECRET = "smartcar-token/access-token"
ALARMS = ("TokenOverdueAlarm", "AttemptsFailingAlarm", "TokenGapAlarm", "CredentialsFallbackAlarm")
SCHEDULE: Any = {
    "Name": "schedule",
    "ScheduleExpression": "rate(50 minutes)",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "arn:aws:lambda:us-east-1:1:function:f", "RoleArn": "arn:aws:iam::1:role/r"},
}
STAGING = """
[default.global.parameters]
stack_name = "other"
[staging.global.parameters]
stack_name = "token"
region = "eu-west-1"
[staging.deploy.parameters]
region = "eu-central-1"
"""


@pytest.fixture(autouse=True)
def _no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the AWS region and credentials of other tests."""
    for name in ("DEFAULT_REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def aws() -> Iterator[Any]:
    """An empty AWS account in this process: a function that creates clients."""
    with mock_aws():
        yield boto3.Session(region_name="us-east-1").client


def publish(aws: Any, age_seconds: int, secret: str = SECRET) -> None:
    """Publish a token that was issued some time ago."""
    store(aws, AccessToken("eyJ0b2tlbg", 3600, int(time.time()) - age_seconds).to_json(), secret)


def store(aws: Any, value: str, secret: str = SECRET) -> None:
    """Put a value into a secret."""
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


@pytest.fixture
def deployment(aws: Any) -> Deployment:
    """A healthy stack, created by calls to its services."""
    secrets = aws("secretsmanager")
    topic = aws("sns").create_topic(Name="alarms")["TopicArn"]
    aws("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="on-call@example.com")
    for alarm in ALARMS:
        aws("cloudwatch").put_metric_alarm(
            AlarmName=alarm, EvaluationPeriods=1, ComparisonOperator="LessThanThreshold"
        )
    alarm_state(aws, "TokenGapAlarm", "INSUFFICIENT_DATA")
    aws("scheduler").create_schedule(**SCHEDULE)
    credentials = secrets.create_secret(Name="credentials", SecretString="{}")["ARN"]
    token = secrets.create_secret(Name=SECRET, AddReplicaRegions=[{"Region": "eu-west-1"}])["ARN"]
    secrets.create_secret(Name="empty")
    publish(aws, 1000)
    count(aws, 70, "TokenRotated", "CredentialsFallback")
    count(aws, 18, "AttemptFailed")
    count(aws, 17, "TokenRotated")
    count(aws, 16, "RotationSkipped")
    return Deployment(
        boto3.Session(region_name="us-east-1"),
        "smartcar-token",
        "CREATE_COMPLETE",
        refs={
            "CredentialsSecretArn": credentials,
            "ScheduleExpression": "rate(50 minutes)",
            "TokenSecret": token,
            "RotateTokenFunctionSchedule": "schedule",
            "AlarmTopic": topic,
            "UndeliveredQueue": aws("sqs").create_queue(QueueName="q")["QueueUrl"],
        },
        alarms={alarm: alarm for alarm in ALARMS},
    )


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
    end = datetime.fromtimestamp(status.read_token(deployment).expires_at, UTC)

    exit_status, lines = show(deployment)

    assert 0 == exit_status
    lines[10] = re.sub(r"\d s old", "0 s old", lines[10])
    assert [
        "ok   Stack        smartcar-token in us-east-1: CREATE_COMPLETE",
        f"ok   Token        valid until {end:%H:%M} UTC, for another 43 min; issued 16 min ago",
        "ok   Schedule     rate(50 minutes), enabled",
        "ok   Alarm        TokenOverdueAlarm is OK",
        "ok   Alarm        AttemptsFailingAlarm is OK",
        "ok   Alarm        TokenGapAlarm has insufficient data, as expected after a deployment",
        "ok   Alarm        CredentialsFallbackAlarm is OK",
        "ok   Notified     email on-call@example.com, confirmed",
        "ok   Replica      eu-west-1 InSync",
        "ok   Dead letters none",
        "ok   Credentials  the current version is 0 s old",
        "ok   Credentials  the last rotation used the current version",
        "ok   Runs         2 rotated, 1 skipped, 1 failed attempts in the last 24 hours",
    ] == lines


def alarm_state(aws: Any, name: str, state: str) -> None:
    """Put an alarm into a state."""
    aws("cloudwatch").set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")


def ref(deployment: Deployment, **changes: str) -> Deployment:
    """Replace values of parameters or physical IDs of resources."""
    return replace(deployment, refs={**deployment.refs, **changes})


def fail_replica(aws: Any, _: Deployment) -> None:
    """Replicate to a region that has a secret of the same name."""
    aws("secretsmanager", "ap-south-1").create_secret(Name=SECRET)
    aws("secretsmanager").replicate_secret_to_regions(
        SecretId=SECRET, AddReplicaRegions=[{"Region": "ap-south-1"}]
    )


def unsubscribe(aws: Any, _: Deployment) -> None:
    """Leave the topic without a subscription."""
    (subscription,) = aws("sns").list_subscriptions()["Subscriptions"]
    aws("sns").unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])


def overdue(aws: Any, _: Deployment) -> None:
    """Publish a valid token that is older than the period of the schedule."""
    publish(aws, 3300)
    alarm_state(aws, "TokenOverdueAlarm", "ALARM")


PROBLEMS: dict[str, Change] = {
    "bad Stack": lambda _, stack: replace(stack, state="UPDATE_ROLLBACK_COMPLETE"),
    "warn Stack": lambda _, stack: replace(stack, state="UPDATE_IN_PROGRESS"),
    "bad Token expired on 20": lambda aws, _: publish(aws, 7200),
    "bad Token no valid token: the secret has no": lambda _, stack: ref(stack, TokenSecret="empty"),
    "bad Token no valid token: it is not a JSON": lambda aws, _: store(aws, "eyJ"),
    "bad Schedule rate(50 minutes), disabled": lambda aws, _: aws("scheduler").update_schedule(
        **SCHEDULE, State="DISABLED"
    ),
    "bad Schedule cannot be read: GetSchedule, ResourceNotFoundException": lambda aws, _: aws(
        "scheduler"
    ).delete_schedule(Name="schedule"),
    "bad Alarm TokenGapAlarm is in": lambda aws, _: alarm_state(aws, "TokenGapAlarm", "ALARM"),
    "bad Alarm TokenOverdueAlarm is in ALARM; see docs/operations.md": overdue,
    "warn Alarm TokenOverdueAlarm is in ALARM, although the token is fresh": lambda aws, _: (
        alarm_state(aws, "TokenOverdueAlarm", "ALARM")
    ),
    "bad Alarm TokenGapAlarm no longer exists": lambda aws, _: aws("cloudwatch").delete_alarms(
        AlarmNames=["TokenGapAlarm"]
    ),
    "bad Alarm the stack has no alarms": lambda _, stack: replace(stack, alarms={}),
    "bad Replica ap-south-1 failed: Replication failed": fail_replica,
    "bad Credentials the cred": lambda _, stack: ref(stack, CredentialsSecretArn="empty"),
    "bad Dead letters the stack has no UndeliveredQueue": lambda _, stack: replace(
        stack, refs={name: id_ for name, id_ in stack.refs.items() if name != "UndeliveredQueue"}
    ),
    "warn Notified nobody is subscribed to AlarmTopic": unsubscribe,
    "warn Dead letters 1 in UndeliveredQueue": lambda aws, _: aws("sqs").send_message(
        QueueUrl="q", MessageBody="{}"
    ),
    "warn Credentials the last rotation used the previous": lambda aws, _: count(
        aws, 5, "TokenRotated", "CredentialsFallback"
    ),
}


@pytest.mark.parametrize("expected", PROBLEMS)
def test_problem(aws: Any, deployment: Deployment, show: Show, expected: str) -> None:
    """Each problem is one line with its mark, and only a bad one makes the exit status 1."""
    changed = PROBLEMS[expected](aws, deployment)
    exit_status, lines = show(changed if isinstance(changed, Deployment) else deployment)

    (line,) = [line for line in lines if not line.startswith("ok ")]
    assert " ".join(line.split()).startswith(expected)
    assert exit_status == int(expected.startswith("bad"))


def test_names(deployment: Deployment) -> None:
    """The names that are looked up are those in the template."""
    template = transformed_template()
    types = {name: resource["Type"] for name, resource in template["Resources"].items()}

    assert deployment.refs.keys() <= types.keys() | template["Parameters"].keys()
    assert set(ALARMS) == {name for name in types if types[name] == "AWS::CloudWatch::Alarm"}


def test_unconfirmed_subscription(deployment: Deployment, show: Show) -> None:
    """A subscription that is not confirmed is a warning."""

    # moto confirms at once.
    def await_confirmation(parsed: Any, **_: Any) -> None:
        parsed["Subscriptions"][0]["SubscriptionArn"] = "PendingConfirmation"

    deployment.session.events.register("after-call.sns.*", await_confirmation)
    exit_status, lines = show(deployment)

    assert 0 == exit_status
    assert lines[7].startswith("warn Notified     email on-call@example.com, not confirmed; ")


@pytest.mark.parametrize(
    ("operation", "code", "topics"),
    [
        ("GetSecretValue", "AccessDeniedException", ["bad  Token"]),
        ("GetSchedule", "AccessDeniedException", ["warn Schedule"]),
        ("DescribeAlarms", "AccessDenied", ["warn Alarm"]),
        ("ListSubscriptionsByTopic", "AuthorizationError", ["warn Notified"]),
        ("GetMetricData", "AccessDenied", ["warn Credentials", "warn Runs"]),
    ],
)
def test_missing_permission(
    deployment: Deployment, show: Show, operation: str, code: str, topics: list[str]
) -> None:
    """A missing permission is reported; it is bad only if the token cannot be read."""
    refusal: Any = SimpleNamespace(status_code=400), {"Error": {"Code": code}}
    deployment.session.events.register(f"before-call.*.{operation}", lambda **_: refusal)
    exit_status, lines = show(deployment)

    assert exit_status == int(topics == ["bad  Token"])
    assert [f"{topic:17} cannot be read: {operation}, permission denied" for topic in topics] == [
        line for line in lines if not line.startswith("ok ")
    ]


def test_wait(aws: Any, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends with the first valid token."""
    new = ref(deployment, TokenSecret="empty")
    monkeypatch.setattr("time.sleep", lambda _: publish(aws, 0, "empty"))

    status.wait_for_token(new)

    assert status.has_fresh_token(new)


def test_wait_without_a_token(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends after five minutes without a valid token."""
    new = ref(deployment, TokenSecret="empty")
    with freeze_time() as clock:
        started_at = time.time()
        monkeypatch.setattr("time.sleep", clock.tick)
        status.wait_for_token(new)

        assert 300 == time.time() - started_at


def test_command(
    aws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command reports on the stack in samconfig.toml, in the region of its last deployment."""
    monkeypatch.chdir(tmp_path)
    Path("samconfig.toml").write_text(STAGING)
    resources = {"AlarmTopic": {"Type": "AWS::SNS::Topic"}}
    aws("cloudformation", "eu-central-1").create_stack(
        StackName="token", TemplateBody=json.dumps({"Resources": resources})
    )

    assert 1 == status.main("staging", wait=True)
    lines = capsys.readouterr().out.splitlines()
    assert [
        "Waiting up to 5 minutes for a valid token ...",
        "ok   Stack        token in eu-central-1: CREATE_COMPLETE",
        "bad  Token        the stack has no TokenSecret",
    ] == lines[:3]
    assert "warn Notified     nobody is subscribed to AlarmTopic" in lines


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("environment", "settings", "expected"),
    [
        ("staging", STAGING, "There is no stack token in eu-central-1; `make configure ENV=s"),
        ("nowhere", STAGING, "samconfig.toml has no environment nowhere, only default, staging"),
        ("default", "[default]", "samconfig.toml has no stack_name for the environment default"),
        ("default", STAGING, "No AWS region found: "),
        ("default", STAGING.replace("other", 'o"\nprofile="x'), "The config profile (x) could not"),
    ],
)
def test_no_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: str, settings: str, expected: str
) -> None:
    """If the stack cannot be found, one line says why."""
    monkeypatch.chdir(tmp_path)
    Path("samconfig.toml").write_text("version = 0.1\n" + settings)

    with pytest.raises(SystemExit, match=re.escape(expected)):
        status.main(environment)


def test_no_credentials(tmp_path: Path) -> None:
    """Without AWS credentials, the command ends with one line and status 1."""
    (tmp_path / "samconfig.toml").write_text(STAGING)
    ended = subprocess.run(
        [sys.executable, "-m", "operations.status", "default"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "AWS_DEFAULT_REGION": "us-east-1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (1, "") == (ended.returncode, ended.stdout)
    assert ended.stderr.startswith("No AWS credentials found: ")
    assert 1 == ended.stderr.count("\n")
