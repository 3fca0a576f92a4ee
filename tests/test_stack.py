"""
The stack, deployed for real into an embedded AWS, and the built package run as it was deployed.

Two stacks stand side by side there: one with the default parameters, one with every parameter set.
"""

from __future__ import annotations

import ast
import json
import operator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from local.cloudformation import deploy, to_cloudformation
from local.fakes.lambda_runtime import FunctionError, LambdaRuntime
from local.fakes.secrets_manager import FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.xdist_group("package")

PROJECT = Path(__file__).parents[1]
KEYS = {
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d",
    "CredentialsKmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/4e5f6a7b",
}
CONSUMERS = ["arn:aws:iam::111122223333:root", "arn:aws:iam::444455556666:role/reader"]
EVERY_PARAMETER = {
    **KEYS,
    "TokenUrl": "https://login.example.com/oauth2/token",
    "ScheduleExpression": "rate(30 minutes)",
    "AlarmEmail": "on-call@example.com",
    "OverdueMinutes": "35",
    "LogLevel": "WARNING",
    "LogRetentionDays": "90",
    "ConsumerPrincipalArns": ",".join(CONSUMERS),
    "ReplicaRegion": "eu-west-1",
}
CREDENTIALS = {
    "client_id": FakeSmartcar.client_id,
    "client_secret": FakeSmartcar.client_secret,
}


@dataclass(frozen=True)
class Stack:
    """A deployed stack: what AWS says of it."""

    name: str
    outputs: dict[str, str]
    resources: dict[str, str]
    function: dict[str, Any]
    role: list[dict[str, Any]]
    reader: list[dict[str, Any]]
    secret: dict[str, Any]
    secret_policy: dict[str, Any]
    schedule: dict[str, Any]
    event_invoke_config: dict[str, Any]
    alarms: dict[str, dict[str, Any]]
    dashboard: dict[str, Any]
    log_group: dict[str, Any]
    subscriptions: list[dict[str, Any]]


def describe(name: str, outputs: dict[str, str], resources: dict[str, str]) -> Stack:
    """Ask each service for what was deployed."""
    iam, secrets = boto3.client("iam"), boto3.client("secretsmanager")
    cloudwatch, functions = boto3.client("cloudwatch"), boto3.client("lambda")
    role = resources["RotateTokenRole"]
    reader = outputs["TokenReaderPolicyArn"]
    secret_id = outputs["TokenSecretName"]
    alarms = cloudwatch.describe_alarms(AlarmNamePrefix=name)["MetricAlarms"]
    logical_ids = {physical: logical for logical, physical in resources.items()}
    return Stack(
        name=name,
        outputs=outputs,
        resources=resources,
        function=dict(
            functions.get_function_configuration(FunctionName=resources["RotateTokenFunction"])
        ),
        role=[
            statement
            for policy in ("code", "platform")
            # moto keeps the document of a role's own policy as Python writes it.
            for statement in ast.literal_eval(
                str(iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"])
            )["Statement"]
        ],
        reader=json.loads(
            json.dumps(
                iam.get_policy_version(PolicyArn=reader, VersionId="v1")["PolicyVersion"][
                    "Document"
                ]
            )
        )["Statement"],
        secret=dict(secrets.describe_secret(SecretId=secret_id)),
        secret_policy=json.loads(
            secrets.get_resource_policy(SecretId=secret_id).get("ResourcePolicy") or "{}"
        ),
        schedule=dict(
            boto3.client("scheduler").get_schedule(Name=resources["RotateTokenFunctionSchedule"])
        ),
        event_invoke_config=dict(
            functions.get_function_event_invoke_config(
                FunctionName=resources["RotateTokenFunction"]
            )
        ),
        alarms={logical_ids[alarm["AlarmName"]]: dict(alarm) for alarm in alarms},
        dashboard=json.loads(
            cloudwatch.get_dashboard(DashboardName=resources["TokenDashboard"])["DashboardBody"]
        ),
        log_group=dict(
            boto3.client("logs").describe_log_groups(
                logGroupNamePrefix=resources["RotateTokenLogGroup"]
            )["logGroups"][0]
        ),
        subscriptions=[
            dict(subscription)
            for subscription in boto3.client("sns").list_subscriptions_by_topic(
                TopicArn=resources["AlarmTopic"]
            )["Subscriptions"]
        ],
    )


@pytest.fixture(scope="module")
def stacks(package: Path) -> dict[str, Stack]:
    """Two stacks in one account and region; what they hold stays for the tests of this file."""
    aws = mock_aws()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        aws.start()
        template = to_cloudformation(package.parent / "template.yaml")
        secret = boto3.client("secretsmanager").create_secret(
            Name="smartcar/client-credentials", SecretString=json.dumps(CREDENTIALS)
        )
        described = {
            name: describe(
                name,
                *deploy(name, template, {**parameters, "CredentialsSecretArn": secret["ARN"]}),
            )
            for name, parameters in {"plain": {}, "full": EVERY_PARAMETER}.items()
        }
        aws.stop(remove_data=False)
    return described


@dataclass(frozen=True)
class Runs:
    """What runs on all paths did: calls of Secrets Manager, and metrics."""

    statuses: list[str]
    read: AccessToken
    calls: set[tuple[str, str]]
    metrics: set[tuple[str, str, frozenset[tuple[str, str]]]]


@pytest.fixture(scope="module")
def runs(stacks: dict[str, Stack], package: Path) -> Runs:
    """Run the package with the configuration of the deployed function, on every path there is."""
    plain = stacks["plain"]
    variables = plain.function["Environment"]["Variables"]
    with FakeSmartcar() as endpoint, FakeSecretsManager() as secrets_manager:
        with LambdaRuntime(
            package,
            {**secrets_manager.environment, **variables, "TOKEN_URL": endpoint.url},
            plain.function["Timeout"],
            plain.function["Handler"],
        ) as function:
            statuses = [function.invoke(event)["status"] for event in ({}, {}, {"force": True})]
            read = AccessToken.from_json(
                secrets_manager.client.get_secret_value(SecretId=plain.outputs["TokenSecretName"])[
                    "SecretString"
                ]
            )
            endpoint.faults.append("400")
            with suppress(FunctionError):
                statuses.append(function.invoke({"force": True})["status"])
            secrets_manager.client.put_secret_value(
                SecretId=variables["CREDENTIALS_SECRET_ID"],
                SecretString=json.dumps({**CREDENTIALS, "client_secret": "mistyped"}),
            )
            own_calls = {
                ("PutSecretValue", variables["CREDENTIALS_SECRET_ID"]),
                ("GetSecretValue", plain.outputs["TokenSecretName"]),
            }
            statuses.append(function.invoke({"force": True})["credentials"])
            lines = [json.loads(line) for line in function.output.splitlines()]
        calls = set(secrets_manager.calls) - own_calls
    emitted = set()
    for line in lines:
        for definition in line.get("_aws", {}).get("CloudWatchMetrics", []):
            for names in definition["Dimensions"]:
                dimensions = frozenset((name, line[name]) for name in names)
                for metric in definition["Metrics"]:
                    emitted.add((definition["Namespace"], metric["Name"], dimensions))
    return Runs(statuses, read, calls, emitted)


def test_runs(runs: Runs) -> None:
    """The deployed function rotates the deployed secret, and a reader finds the token there."""
    assert runs.statuses == ["rotated", "skipped", "rotated", "previous"]
    assert runs.read.expires_in == 3600


def test_least_privilege(stacks: dict[str, Stack], runs: Runs) -> None:
    """The role allows the calls that were made on all paths, and no other."""
    allowed = {
        (action.removeprefix("secretsmanager:"), statement["Resource"])
        for statement in stacks["plain"].role
        for action in actions(statement)
        if action.startswith("secretsmanager:")
    }

    assert allowed == runs.calls


def actions(statement: Mapping[str, Any]) -> list[str]:
    """Return the actions of a statement, which may be one."""
    action = statement["Action"]
    return [action] if isinstance(action, str) else list(action)


def test_role_beside_the_code(stacks: dict[str, Stack]) -> None:
    """What else the role allows, the platform does: logs, the failed event, traces."""
    plain = stacks["plain"]
    rest = {
        (action, statement["Resource"])
        for statement in plain.role
        for action in actions(statement)
        if not action.startswith("secretsmanager:")
    }

    log_group = f"arn:aws:logs:us-east-1:123456789012:log-group:{plain.log_group['logGroupName']}"
    assert {(action, resource.removesuffix(":*")) for action, resource in rest} == {
        ("logs:CreateLogStream", log_group),
        ("logs:PutLogEvents", log_group),
        ("sns:Publish", plain.outputs["AlarmTopicArn"]),
        ("xray:PutTelemetryRecords", "*"),
        ("xray:PutTraceSegments", "*"),
    }


def test_keys(stacks: dict[str, Stack]) -> None:
    """Keys of one's own may be used through Secrets Manager only; without any, none may."""
    full = stacks["full"]
    via = {"StringEquals": {"kms:ViaService": "secretsmanager.us-east-1.amazonaws.com"}}
    statements = [s for s in full.role if "kms" in str(s["Action"])]

    assert full.secret["KmsKeyId"] == KEYS["KmsKeyArn"]
    assert [(actions(s), s["Resource"], s["Condition"]) for s in statements] == [
        (["kms:Decrypt", "kms:GenerateDataKey"], KEYS["KmsKeyArn"], via),
        (["kms:Decrypt"], KEYS["CredentialsKmsKeyArn"], via),
    ]
    assert "kms" not in str(stacks["plain"].role)


def test_readers(stacks: dict[str, Stack]) -> None:
    """The reader policy reads the token, and decrypts it where it has a key of its own."""
    read = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
    plain, full = stacks["plain"], stacks["full"]

    assert [(actions(s), s["Resource"]) for s in plain.reader] == [
        (read, plain.outputs["TokenSecretArn"])
    ]
    assert [(actions(s), s["Resource"]) for s in full.reader] == [
        (read, full.outputs["TokenSecretArn"]),
        (["kms:Decrypt"], KEYS["KmsKeyArn"]),
    ]


def test_consumers(stacks: dict[str, Stack]) -> None:
    """Consumers that are named may read the token, by a policy of the secret; nobody else."""
    (statement,) = stacks["full"].secret_policy["Statement"]

    assert stacks["plain"].secret_policy == {}
    assert statement["Principal"] == {"AWS": CONSUMERS}
    assert actions(statement) == ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]


def test_side_by_side(stacks: dict[str, Stack]) -> None:
    """Two stacks share no resource."""
    plain, full = (set(stack.resources.values()) for stack in stacks.values())

    assert not plain & full


def test_schedule(stacks: dict[str, Stack]) -> None:
    """The schedule as deployed, and what happens to a tick or a run that fails."""
    for stack, expression in zip(
        stacks.values(), ("rate(50 minutes)", "rate(30 minutes)"), strict=True
    ):
        target = stack.schedule["Target"]
        queue = target["DeadLetterConfig"]["Arn"].rpartition(":")[2]
        on_failure = stack.event_invoke_config["DestinationConfig"]["OnFailure"]

        assert stack.schedule["ScheduleExpression"] == expression
        assert stack.schedule["ScheduleExpressionTimezone"] == "UTC"
        assert stack.schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert target["Arn"] == stack.function["FunctionArn"]
        assert target["RetryPolicy"] == {
            "MaximumEventAgeInSeconds": 2940,
            "MaximumRetryAttempts": 185,
        }
        assert "Input" not in target
        assert stack.resources["UndeliveredQueue"].endswith(f"/{queue}")
        assert stack.event_invoke_config["MaximumEventAgeInSeconds"] == 2940
        assert stack.event_invoke_config["MaximumRetryAttempts"] == 2
        assert on_failure == {"Destination": stack.outputs["AlarmTopicArn"]}


def test_options(stacks: dict[str, Stack]) -> None:
    """The other parameters arrive where they belong."""
    plain, full = stacks["plain"], stacks["full"]
    variables = full.function["Environment"]["Variables"]

    assert variables["TOKEN_URL"] == EVERY_PARAMETER["TokenUrl"]
    assert variables["POWERTOOLS_LOG_LEVEL"] == "WARNING"
    assert (plain.log_group["retentionInDays"], full.log_group["retentionInDays"]) == (30, 90)
    assert plain.alarms["TokenOverdueAlarm"]["EvaluationPeriods"] == 55
    assert full.alarms["TokenOverdueAlarm"]["EvaluationPeriods"] == 35
    assert plain.subscriptions == []
    assert [(s["Protocol"], s["Endpoint"]) for s in full.subscriptions] == [
        ("email", "on-call@example.com")
    ]
    assert "ReplicationStatus" not in plain.secret
    assert [replica["Region"] for replica in full.secret["ReplicationStatus"]] == ["eu-west-1"]


def widget_metrics(dashboard: dict[str, Any]) -> set[tuple[str, str, frozenset[tuple[str, str]]]]:
    """Return the metrics of a dashboard; a dot in one repeats a word of the one before."""
    found = set()
    for widget in dashboard["widgets"]:
        before: list[str] = []
        for metric in widget["properties"].get("metrics", []):
            words = [word for word in metric if isinstance(word, str)]
            words = [before[i] if word == "." else word for i, word in enumerate(words)]
            before = words
            dimensions = frozenset(zip(words[2::2], words[3::2], strict=True))
            found.add((words[0], words[1], dimensions))
    return found


def test_metrics(stacks: dict[str, Stack], runs: Runs) -> None:
    """Alarms and widgets use the metrics that runs were seen to emit, and some of AWS's own."""
    plain = stacks["plain"]
    used = widget_metrics(plain.dashboard) | {
        (
            alarm["Namespace"],
            alarm["MetricName"],
            frozenset((dimension["Name"], dimension["Value"]) for dimension in alarm["Dimensions"]),
        )
        for alarm in plain.alarms.values()
    }
    function = frozenset({("FunctionName", plain.resources["RotateTokenFunction"])})
    queue = plain.resources["UndeliveredQueue"].rpartition("/")[2]
    of_aws = {
        ("AWS/Lambda", "Errors", function),
        ("AWS/Lambda", "Duration", function),
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", frozenset({("QueueName", queue)})),
    }

    assert used == runs.metrics | of_aws


def test_dashboard(stacks: dict[str, Stack]) -> None:
    """The dashboard shows every alarm, and no two of its widgets lie upon each other."""
    plain = stacks["plain"]
    arns = {alarm["AlarmArn"] for alarm in plain.alarms.values()}
    shown, *_ = [
        w["properties"]["alarms"] for w in plain.dashboard["widgets"] if w["type"] == "alarm"
    ]
    cells = [
        (x, y)
        for w in plain.dashboard["widgets"]
        for x in range(w["x"], w["x"] + w["width"])
        for y in range(w["y"], w["y"] + w["height"])
    ]

    assert set(shown) == arns
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_alarms(stacks: dict[str, Stack]) -> None:
    """Each alarm tells of trouble and of its end, and where the runbook has a section on it."""
    runbook = (PROJECT / "docs" / "operations.md").read_text()
    for stack in stacks.values():
        topic = [stack.outputs["AlarmTopicArn"]]
        for name, alarm in stack.alarms.items():
            assert alarm["AlarmActions"] == alarm["OKActions"] == topic
            assert f"Runbook: docs/operations.md, {name}." in alarm["AlarmDescription"]
            assert f"\n### {name}\n" in runbook


Series = dict[str, dict[int, float]]


def ticks(*minutes: int) -> dict[int, float]:
    """Make a series that has 1 in these minutes."""
    return dict.fromkeys(minutes, 1.0)


GOOD_DAY: Series = {"TokenRotated": ticks(*range(0, 1440, 50)), "Errors": {}}
# The endpoint is away from minute 49 to 89. Runs wait for it from the tick at 50 on, for 14 minutes
# each, repeated after 1 and 2 minutes; the third gets its token.
OUTAGE: Series = {
    "TokenRotated": ticks(0, *range(89, 1440, 50)),
    "TokenRequestFailed": ticks(*range(50, 65), *range(66, 80), *range(82, 89)),
    "Errors": ticks(64, 80),
}
BLIP: Series = {"TokenRotated": ticks(*range(0, 1440, 50)), "TokenRequestFailed": ticks(50, 100)}
SILENT_SCHEDULE: Series = {"TokenRotated": ticks(0, 50, 100)}
UNDELIVERED: Series = {
    "TokenRotated": ticks(*range(0, 1440, 50)),
    "ApproximateNumberOfMessagesVisible": ticks(*range(120, 240)),
}
FALLBACK: Series = {
    "TokenRotated": ticks(*range(0, 1440, 50)),
    "TokenRequestFailed": ticks(*range(300, 600, 50)),
    "CredentialsFallback": ticks(*range(300, 600, 50)),
}


def firing(alarm: dict[str, Any], series: Series) -> list[int]:
    """Return the minutes from which an alarm is in alarm, as CloudWatch evaluates it."""
    points = series.get(alarm["MetricName"], {})
    period = alarm["Period"] // 60
    compare = {
        "LessThanThreshold": operator.lt,
        "GreaterThanOrEqualToThreshold": operator.ge,
    }[alarm["ComparisonOperator"]]
    breaches = []
    for start in range(0, 1440, period):
        values = [points[minute] for minute in range(start, start + period) if minute in points]
        breaches.append(
            compare(sum(values) if alarm["Statistic"] == "Sum" else max(values), alarm["Threshold"])
            if values
            else alarm["TreatMissingData"] == "breaching"
        )
    count = alarm["EvaluationPeriods"]
    states = [
        all(breaches[max(0, i - count) : i]) and i >= count for i in range(1, len(breaches) + 1)
    ]
    return [
        (i + 1) * period
        for i, state in enumerate(states)
        if state and (i == 0 or not states[i - 1])
    ]


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param(GOOD_DAY, {}, id="good day"),
        pytest.param(BLIP, {}, id="failed attempts now and then"),
        pytest.param(
            OUTAGE,
            {
                "TokenEndpointAlarm": [53, 69, 85],
                "TokenOverdueAlarm": [56],
                "RotationFailedAlarm": [65, 85],
            },
            id="outage",
        ),
        pytest.param(SILENT_SCHEDULE, {"TokenOverdueAlarm": [156]}, id="silent schedule"),
        pytest.param(UNDELIVERED, {"UndeliveredAlarm": [125]}, id="undelivered tick"),
        pytest.param(FALLBACK, {"CredentialsFallbackAlarm": [360]}, id="fallback"),
    ],
)
def test_firing(stacks: dict[str, Stack], series: Series, expected: dict[str, list[int]]) -> None:
    """Alarms fire when they should, and only then; the endpoint's while the old token lives."""
    fired = {name: firing(alarm, series) for name, alarm in stacks["plain"].alarms.items()}

    assert {name: minutes for name, minutes in fired.items() if minutes} == expected
