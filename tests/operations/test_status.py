"""`make status`, against the services of a stack in this process; the time is frozen."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from freezegun import freeze_time

from operations import status
from operations.deployment import Deployment
from operations.status import ALARMS, BY_HAND
from rotate_token.access_token import AccessToken
from tests.samples import PROJECT
from tests.stack import transformed_template

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SECRET = "smartcar-token/access-token"
SCHEDULE: Any = {
    "Name": "schedule",
    "ScheduleExpression": "rate(50 minutes)",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "arn:aws:lambda:us-east-1:1:function:f", "RoleArn": "arn:aws:iam::1:role/r"},
}
RUNBOOK = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
HEALTHY, OUTAGE = re.findall(r"^(A valid token .+?)\n```", RUNBOOK, re.MULTILINE | re.DOTALL)


class Stack:
    """A healthy stack, created by calls to its services, and what may happen to it."""

    def __init__(self, aws: Any, clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.aws, self.clock, self.capsys = aws, clock, capsys
        self.secrets, self.alarms = aws("secretsmanager"), aws("cloudwatch")
        topic = aws("sns").create_topic(Name="alarms")["TopicArn"]
        aws("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="on-call@example.com")
        for alarm in ALARMS:
            self.put_alarm(alarm)
        aws("scheduler").create_schedule(**SCHEDULE)
        aws("logs").create_log_group(logGroupName="runs")
        aws("logs").create_log_stream(logGroupName="runs", logStreamName="stream")
        role = aws("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        aws("lambda").create_function(
            FunctionName="f", Role=role, Runtime="python3.13", Handler="h", Code={"ZipFile": b"z"}
        )
        self.refs = {
            "AlarmEmail": "on-call@example.com",
            "AlarmTopic": topic,
            "CredentialsSecretArn": self.create_secret("credentials", SecretString="{}"),
            "OverdueMinutes": "55",
            "ReplicaRegion": "eu-west-1",
            "RotateTokenFunction": "f",
            "RotateTokenFunctionSchedule": "schedule",
            "RotateTokenLogGroup": "runs",
            "TokenSecret": self.create_secret(SECRET, AddReplicaRegions=[{"Region": "eu-west-1"}]),
            "UndeliveredQueue": aws("sqs").create_queue(QueueName="q")["QueueUrl"],
            **{alarm: alarm for alarm in ALARMS},
        }
        self.session = boto3.Session(region_name="us-east-1")

    def create_secret(self, name: str, **options: Any) -> Any:
        return self.secrets.create_secret(Name=name, **options)["ARN"]

    def publish(self, minutes_ago: int) -> None:
        issued_at = int((datetime.now(UTC) - timedelta(minutes=minutes_ago)).timestamp())
        token = AccessToken("eyJ0b2tlbg", 3600, issued_at)
        self.secrets.put_secret_value(SecretId=SECRET, SecretString=token.to_json())

    def count(self, minutes_ago: int, metric: str, value: int = 1) -> None:
        ours = "SmartcarTokenRotation", {"Name": "service", "Value": "smartcar-token"}
        lambdas = "AWS/Lambda", {"Name": "FunctionName", "Value": "f"}
        namespace, dimension = ours if metric == "AttemptFailed" else lambdas
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        data = {"MetricName": metric, "Dimensions": [dimension], "Timestamp": at, "Value": value}
        self.alarms.put_metric_data(Namespace=namespace, MetricData=[data])

    def log(self, minutes_ago: int, **line: str) -> None:
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        event = {"timestamp": int(1000 * at.timestamp()), "message": json.dumps(line)}
        self.aws("logs").put_log_events(
            logGroupName="runs", logStreamName="stream", logEvents=[event]
        )

    def put_alarm(self, name: str) -> None:
        self.alarms.put_metric_alarm(
            AlarmName=name, EvaluationPeriods=1, ComparisonOperator="LessThanThreshold"
        )

    def set_alarm(self, name: str, state: str = "ALARM") -> None:
        self.alarms.set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")

    def change(self, operation: str, edit: Callable[[Any], None]) -> None:
        """Edit the responses to an operation, for what moto does not have."""
        self.session.events.register(f"after-call.*.{operation}", lambda parsed, **_: edit(parsed))

    def change_subscription(self, **changes: str) -> None:
        self.change("ListSubscriptionsByTopic", lambda r: r["Subscriptions"][0].update(changes))

    def deny(self, operation: str, code: str = "AccessDeniedException") -> None:
        refusal: Any = SimpleNamespace(status_code=400), {"Error": {"Code": code}}
        self.session.events.register(f"before-call.*.{operation}", lambda **_: refusal)

    def show(self, state: str = "CREATE_COMPLETE") -> tuple[int, list[str]]:
        """Return the exit status and the lines; each heading of the runbook in them exists."""
        name, account = "smartcar-token", "123456789012"
        deployment = Deployment("default", self.session, name, account, state, self.refs)
        exit_status = status.show(deployment)
        output = self.capsys.readouterr().out
        for heading in re.findall("see docs/operations.md, (.+)", output):
            assert f"# {heading}\n" in RUNBOOK
        return exit_status, output.splitlines()

    def shows(self, *expected: str, verdict: str = "…", state: str = "CREATE_COMPLETE") -> None:
        """Check the verdict and the lines that are not ok, in which … stands for any text."""
        exit_status, (first, *lines) = self.show(state)
        problems = [line for line in lines if not line.startswith("ok ")]
        assert len(problems) == len(expected), problems
        for line, pattern in zip([first, *problems], [verdict, *expected], strict=True):
            assert re.fullmatch(re.escape(pattern).replace("…", ".*"), line), line
        assert exit_status == any(line.startswith("bad ") for line in problems)


@pytest.fixture
def deployed(aws: Any, capsys: pytest.CaptureFixture[str]) -> Iterator[Stack]:
    """A stack that was created a day ago; failures were an hour ago."""
    # AWS starts before the time stands still.
    with freeze_time(NOW - timedelta(days=1)) as clock:
        stack = Stack(aws, clock, capsys)
        clock.move_to(NOW)
        stack.publish(17)
        for metric in ("AttemptFailed", "Errors", "Throttles"):
            stack.count(60, metric)
        stack.count(3, "Errors", value=0)
        stack.log(70, CredentialsFallback="1")
        stack.log(60, message="Attempt failed: CredentialsError: no; giving up")
        stack.log(17, message="Token rotated")

        def date_states(response: Any) -> None:
            for alarm in response.get("MetricAlarms", []):
                alarm["StateTransitionedTimestamp"] = alarm["StateUpdatedTimestamp"]

        stack.change("DescribeAlarms", date_states)
        yield stack


def test_healthy_stack(deployed: Stack) -> None:
    """A healthy stack is shown as in the runbook, and the exit status is 0."""
    assert deployed.show() == (0, HEALTHY.splitlines())


def test_outage(deployed: Stack) -> None:
    """In an outage, the lines that are not ok are as in the runbook, and the exit status is 1."""
    (reason,) = re.findall("(Attempt failed: .+); see", OUTAGE)
    deployed.publish(56)
    deployed.count(2, "AttemptFailed")
    deployed.log(1, message=reason)
    deployed.set_alarm("TokenOverdueAlarm")
    deployed.set_alarm("AttemptsFailingAlarm")

    verdict, *lines = OUTAGE.splitlines()
    deployed.shows(*lines, verdict=verdict)


def test_stack(deployed: Stack) -> None:
    """A stack is bad unless a version is active or a deployment is under way."""
    options = "--stack-name smartcar-token --region us-east-1"
    correct = "correct what `aws cloudformation describe-stack-events …'FAILED'…` says, and"
    resume = f"`aws cloudformation continue-update-rollback {options}`"

    for state, line in {
        "UPDATE_IN_PROGRESS": "warn Stack …: UPDATE_IN_PROGRESS: wait for its end",
        "UPDATE_ROLLBACK_IN_PROGRESS": "warn Stack …: wait for its end",
        "UPDATE_ROLLBACK_COMPLETE": f"warn Stack … was rolled back; {correct} deploy again",
        "UPDATE_ROLLBACK_FAILED": f"bad  Stack …; {correct} run {resume}",
        "CREATE_FAILED": f"bad  Stack …; {correct} deploy again",
    }.items():
        deployed.shows(line, state=state)
    deployed.shows(state="UPDATE_COMPLETE")


@pytest.mark.parametrize("state", ["ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE", "DELETE_FAILED"])
def test_partial_stack(deployed: Stack, state: str) -> None:
    """About a stack that exists only in part, nothing is said but how it is deleted."""
    command = "`.venv/bin/sam delete --stack-name smartcar-token --region us-east-1`"
    step = f"delete it with {command}, and deploy again"

    assert deployed.show(state) == (
        1,
        [
            f"The stack exists only in part; to do first: {step}",
            f"bad  Stack        smartcar-token in account 123456789012, us-east-1: {state}; {step}",
        ],
    )


def test_function(deployed: Stack) -> None:
    """A function that cannot run is bad, whatever the reason."""
    failed = {"LastUpdateStatus": "Failed", "LastUpdateStatusReason": "no access to the key"}
    stopped = {"Concurrency": {"ReservedConcurrentExecutions": 0}}
    deployed.change("GetFunction", lambda response: response["Configuration"].update(failed))
    deployed.change("GetFunction", lambda response: response.update(stopped))
    allow = "`aws lambda delete-function-concurrency --function-name f --region us-east-1`"
    deployed.shows(
        "bad  Function …: no access to the key; correct the cause, and deploy again",
        f"bad  Function … is 0, so no run can start; {allow}",
    )


def test_credentials(deployed: Stack) -> None:
    """Credentials are bad if the secret has no value, and a warning if they were not used."""
    replace_it = "see docs/operations.md, Replacing the client secret"
    deployed.log(17, CredentialsFallback="1")
    deployed.shows(f"warn Credentials … had to use the previous version; {replace_it}")
    deployed.secrets.put_secret_value(SecretId="credentials", SecretString="{}")
    deployed.shows()

    deployed.secrets.delete_secret(SecretId="credentials")
    restore = "`aws secretsmanager restore-secret --secret-id arn:… --region us-east-1`"
    deployed.shows(f"bad  Credentials … deletion; {restore}")
    deployed.refs["CredentialsSecretArn"] = deployed.create_secret("empty")
    deployed.shows(f"bad  Credentials … has no value; {replace_it}")
    deployed.refs["CredentialsSecretArn"] = "arn:aws:secretsmanager:eu-west-1:1:secret:elsewhere"
    create = "create it in us-east-1, and run `make configure ENV=default`"
    deployed.shows(f"bad  Credentials … in eu-west-1, where the function does not look; {create}")


def test_runs(deployed: Stack) -> None:
    """A failure after the last rotation is bad, whether it was counted or only logged."""
    last = "bad  Runs … last rotation 17 min ago; last failure"
    for minutes, metric in ((16, "AttemptFailed"), (15, "Errors"), (14, "Throttles")):
        deployed.count(minutes, metric)
        deployed.shows(f"{last} {minutes} min ago; see docs/operations.md, Errors")
    deployed.deny("GetMetricData")
    deployed.log(2, message="Attempt failed: CredentialsError: no; giving up")
    deployed.shows(f"{last} 2 min ago: Attempt failed: CredentialsError: no; giving up; …, Errors")
    deployed.log(1, errorType="Runtime.ImportModuleError", errorMessage="No module\n 'httpx'")
    deployed.shows(f"{last} 60 s ago: Runtime.ImportModuleError: No module 'httpx'; …, Errors")


def test_failed_attempt_before_the_rotation(deployed: Stack) -> None:
    """A run that succeeded is ok, although its first attempt failed in the same second."""
    deployed.clock.move_to(NOW + timedelta(seconds=30.2))
    deployed.count(0, "AttemptFailed")
    deployed.log(0, message="Attempt failed: CredentialsError: no; trying the previous credentials")
    deployed.publish(0)
    deployed.clock.tick(60)

    deployed.shows()


def test_token(deployed: Stack) -> None:
    """A token is bad when it has expired, and a warning when it should have been replaced."""
    deployed.publish(54)
    deployed.shows(verdict="A valid token is published, for another 6 min, and …; nothing to do")
    deployed.publish(55)
    deployed.shows("warn Token … 55 min ago, not replaced in time; …, TokenOverdueAlarm")
    deployed.publish(60)
    deployed.shows(
        "bad  Token … expired on 2026-11-25 at 12:00 UTC; issued 60 min ago; …, TokenOverdueAlarm",
        verdict="No valid token is published, and the last run succeeded; …",
    )


def test_no_token(deployed: Stack) -> None:
    """A secret without a token is bad; no part of its value is shown."""
    gone = f"cannot be read: DescribeSecret failed (ResourceNotFoundException); {BY_HAND}"
    deployed.secrets.put_secret_value(SecretId=SECRET, SecretString="eyJ")
    deployed.shows(
        "warn Credentials …",
        "bad  Runs … no rotation is known; last failure 60 min ago: Attempt failed: …, Errors",
        "bad  Token … the value is not a JSON object; `make rotate ENV=default` replaces it",
    )
    deployed.deny("GetSecretValue")
    deployed.shows(
        "warn Credentials …",
        "bad  Runs …",
        "bad  Token …:GetSecretValue and, with KmsKeyArn, kms:Decrypt; …, Restricted accounts",
    )
    deployed.refs["TokenSecret"] = "gone"
    deployed.shows("warn …", "bad  Runs …", f"bad  Token … {gone}", f"bad  Replica … {gone}")


def test_new_stack(deployed: Stack) -> None:
    """About a new stack, only its missing token is bad; failures of a day ago do not count."""
    deployed.clock.tick(timedelta(hours=23, minutes=1))
    new = deployed.create_secret("token")
    deployed.refs.update(TokenSecret=new, AlarmEmail="", ReplicaRegion="")
    deployed.put_alarm("TokenOverdueAlarm")
    deployed.set_alarm("TokenOverdueAlarm", "INSUFFICIENT_DATA")
    deployed.shows(
        "bad  Token … the secret has no value; `make rotate ENV=default` requests a token",
        verdict="No valid token is published, and no run has failed; to do first: `make rotate …",
    )
    deployed.secrets.delete_secret(SecretId="token")
    deployed.shows("bad  Token … deletion; `aws secretsmanager restore-secret …`")


def test_alarms(deployed: Stack) -> None:
    """An alarm that reports something, or that cannot, is shown with what to do about it."""
    deployed.set_alarm("TokenGapAlarm")
    deployed.set_alarm("TokenOverdueAlarm", "INSUFFICIENT_DATA")
    deployed.log(16, CredentialsFallback="1")
    deployed.set_alarm("CredentialsFallbackAlarm")
    deployed.alarms.disable_alarm_actions(AlarmNames=["TokenGapAlarm"])
    deployed.alarms.delete_alarms(AlarmNames=["AttemptsFailingAlarm"])
    enable = "`aws cloudwatch enable-alarm-actions --alarm-names TokenGapAlarm --region us-east-1`"
    deployed.shows(
        "warn Credentials …",
        "warn Alarm … still has insufficient data, 24 h after its deployment; …, TokenOverdueAlarm",
        f"bad  Alarm … AttemptsFailingAlarm no longer exists; {BY_HAND}",
        "warn Alarm … TokenGapAlarm is in ALARM; …, TokenGapAlarm",
        f"warn Alarm … TokenGapAlarm notifies nobody; {enable}",
        "bad  Alarm … CredentialsFallbackAlarm is in ALARM; …, CredentialsFallbackAlarm",
        verdict=f"…; to do first: {BY_HAND}",
    )


def test_recovery(deployed: Stack) -> None:
    """Alarms clear after a rotation, two even if they fire later, unless attempts fail again."""
    for alarm in ALARMS:
        deployed.set_alarm(alarm)
    deployed.clock.tick(60)
    deployed.publish(0)
    deployed.clock.tick(60)
    for alarm in ("AttemptsFailingAlarm", "CredentialsFallbackAlarm"):
        deployed.set_alarm(alarm)
    recovered = [f"warn Alarm … {alarm} … clears by itself: its cause is over" for alarm in ALARMS]
    deployed.shows(*recovered, verdict="…; nothing to do")

    deployed.log(0, message="Attempt failed: CredentialsError: no; retrying in 30.0 s (attempt 2)")
    recovered[1] = "bad  Alarm … AttemptsFailingAlarm is in ALARM; …, AttemptsFailingAlarm"
    deployed.shows("bad  Runs …", *recovered)


def test_notified(deployed: Stack) -> None:
    """A subscription that is missing, or not confirmed, is shown with what to do."""
    topic = deployed.refs["AlarmTopic"]
    subscribe = f"`aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint"
    deployed.change_subscription(SubscriptionArn="PendingConfirmation")
    deployed.shows("warn Notified … on-call@example.com, not confirmed; confirm it within two …")
    deployed.change_subscription(Protocol="sms", Endpoint="+15555550100")
    deployed.shows(
        "bad  Notified … on-call@example.com is no longer subscribed to AlarmTopic; "
        f"{subscribe} on-call@example.com --region us-east-1`",
        "warn Notified … sms +15555550100, not confirmed; …",
    )
    deployed.change_subscription(SubscriptionArn="Deleted")
    deployed.shows("bad  Notified … on-call@example.com is no longer …")
    deployed.refs["AlarmEmail"] = ""
    deployed.shows(f"warn Notified … nobody …; {subscribe} ADDRESS --region us-east-1`")


def test_replica(deployed: Stack) -> None:
    """A replica that is missing or failed is bad."""
    deployed.aws("secretsmanager", "eu-south-1").create_secret(Name=SECRET)
    deployed.secrets.replicate_secret_to_regions(
        SecretId=SECRET, AddReplicaRegions=[{"Region": "eu-south-1"}]
    )
    deployed.refs["ReplicaRegion"] = "eu-north-1"
    deployed.shows(
        "bad  Replica … no replica in eu-north-1 (ReplicaRegion); …, Replication",
        "bad  Replica … eu-south-1 failed: …already exists…; …, Replication",
    )


def test_schedule(deployed: Stack) -> None:
    """A schedule that is disabled is bad; events that it did not deliver are a warning."""
    deployed.aws("scheduler").update_schedule(**SCHEDULE, State="DISABLED")
    disabled = f"bad  Schedule … rate(50 minutes), disabled; {BY_HAND}"
    deployed.aws("sqs").send_message(QueueUrl="q", MessageBody="{}")
    deployed.shows(disabled, f"warn Undelivered  1 event in UndeliveredQueue; {BY_HAND}")
    deployed.aws("sqs").receive_message(QueueUrl="q")
    deployed.aws("sqs").send_message(QueueUrl="q", MessageBody="{}")
    deployed.shows(disabled, f"warn Undelivered  2 events in UndeliveredQueue; {BY_HAND}")


def test_missing_resources(deployed: Stack) -> None:
    """What the stack should consist of and does not is bad, and hides nothing else."""
    deployed.aws("lambda").delete_function(FunctionName="f")
    deployed.aws("scheduler").delete_schedule(Name="schedule")
    del deployed.refs["TokenGapAlarm"], deployed.refs["RotateTokenLogGroup"]
    deployed.shows(
        f"bad  Function … GetFunction failed (ResourceNotFoundException); {BY_HAND}",
        f"bad  Runs … the stack has no RotateTokenLogGroup; {BY_HAND}",
        f"bad  Schedule … GetSchedule failed (ResourceNotFoundException); {BY_HAND}",
        f"bad  Alarm … the stack has no TokenGapAlarm; {BY_HAND}",
    )


def test_missing_permissions(deployed: Stack) -> None:
    """What may not be read is a warning that names the permission, and bad if it is the token."""
    deployed.deny("ListSubscriptionsByTopic", "AuthorizationError")
    for permission in status.PERMISSIONS:
        deployed.deny(permission.partition(":")[2])
    denied, step = "cannot be read without the permission", "…, Restricted accounts"

    deployed.shows(
        f"warn Function … {denied} lambda:GetFunction; {step}",
        f"warn Credentials … {denied} secretsmanager:DescribeSecret; {step}",
        f"warn Runs … {denied} logs:FilterLogEvents; {step}",
        f"warn Runs … {denied} cloudwatch:GetMetricData; {step}",
        f"bad  Token … {denied} secretsmanager:DescribeSecret; {step}",
        f"warn Schedule … {denied} scheduler:GetSchedule; {step}",
        f"warn Alarm … {denied} cloudwatch:DescribeAlarms; {step}",
        f"warn Notified … {denied} sns:ListSubscriptionsByTopic; {step}",
        f"warn Replica … {denied} secretsmanager:DescribeSecret; {step}",
        f"warn Undelivered … {denied} sqs:GetQueueAttributes; {step}",
        verdict="Whether a valid token is published cannot be read, and whether … be read; …",
    )


def test_denied_log(deployed: Stack) -> None:
    """A log that may not be read hides no failure, and no fallback."""
    deployed.deny("FilterLogEvents")
    deployed.count(16, "Errors")
    deployed.set_alarm("CredentialsFallbackAlarm")

    deployed.shows(
        "warn Runs … logs:FilterLogEvents; …, Restricted accounts",
        "bad  Runs … last failure 16 min ago; …, Errors",
        "bad  Alarm … CredentialsFallbackAlarm is in ALARM; …",
    )


@pytest.mark.usefixtures("stack")
def test_permissions(deployed: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command needs these permissions, which the runbook lists, and no other."""
    needed = set()
    deployed.session.events.register(
        "before-call",
        lambda model, **_: needed.add(f"{model.service_model.service_name}:{model.name}"),
    )
    monkeypatch.setattr("boto3.Session", lambda **_: deployed.session)

    Deployment.find("default")
    deployed.show()

    looked_up = {"cloudformation:DescribeStacks", "cloudformation:ListStackResources"}
    assert needed == looked_up | set(status.PERMISSIONS)
    assert not [each for each in needed if each.partition(":")[2] not in RUNBOOK]


def test_names(deployed: Stack) -> None:
    """The names that are looked up are those in the template."""
    template = transformed_template()
    types = {name: resource["Type"] for name, resource in template["Resources"].items()}

    assert deployed.refs.keys() <= types.keys() | template["Parameters"].keys()
    assert set(ALARMS) == {name for name in types if types[name] == "AWS::CloudWatch::Alarm"}
