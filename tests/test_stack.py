"""The template: what a stack has, what its role allows, and when its alarms fire."""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from contextlib import suppress
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from local.fakes.lambda_runtime import HANDLER, MEMORY_MB, FunctionError, LambdaRuntime
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken
from rotate_token.configuration import SMARTCAR_TOKEN_URL, Configuration
from tests.samples import PROJECT
from tests.stack import (
    CREDENTIALS_SECRET_ARN,
    TOKEN_SECRET_ARN,
    Stack,
    transformed_template,
)

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d",
    "CredentialsKmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/4e5f6a7b",
}
CONSUMERS = ["arn:aws:iam::111122223333:root", "arn:aws:iam::444455556666:role/reader"]
PLAIN = Stack({})
FULL = Stack(
    {
        **KEYS,
        "TokenUrl": "https://login.example.com/oauth2/token",
        "ScheduleExpression": "rate(30 minutes)",
        "AlarmEmail": "on-call@example.com",
        "OverdueMinutes": "35",
        "Dashboard": "false",
        "LogLevel": "WARNING",
        "LogRetentionDays": "90",
        "ConsumerPrincipalArns": ",".join(CONSUMERS),
        "ReplicaRegion": "eu-west-1",
    }
)
READ = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
RUNBOOK = (PROJECT / "docs" / "operations.md").read_text()


def statements(stack: Stack) -> list[dict[str, Any]]:
    """Return the statements of the function's role."""
    policies = stack.properties("RotateTokenRole")["Policies"]
    return [s for policy in policies for s in policy["PolicyDocument"]["Statement"]]


def allowed(stack: Stack) -> set[tuple[str, str]]:
    """Return the actions of the function's role, each with its resource."""
    return {(action, s["Resource"]) for s in statements(stack) for action in actions(s)}


def actions(statement: dict[str, Any]) -> list[str]:
    """Return the actions of a statement, which may be one."""
    action = statement["Action"]
    return [action] if isinstance(action, str) else action


class Runs(NamedTuple):
    """The results of runs on all paths, their calls to Secrets Manager, and their metrics."""

    statuses: list[str]
    calls: set[tuple[str, str]]
    metrics: set[tuple[str, str, str]]


@pytest.fixture(scope="module")
def runs(package: Path) -> Runs:
    """Run the package on all paths, with the environment variables of the template."""
    with FakeSmartcar() as endpoint, FakeSecretsManager() as aws:
        aws.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
        arns = {
            aws.client.describe_secret(SecretId=name)["ARN"]: arn
            for name, arn in (
                (CREDENTIALS_SECRET_ID, CREDENTIALS_SECRET_ARN),
                (TOKEN_SECRET_ID, TOKEN_SECRET_ARN),
            )
        }
        credentials_arn, token_arn = arns
        stack = Stack({"CredentialsSecretArn": credentials_arn}, token_secret_arn=token_arn)
        function = stack.properties("RotateTokenFunction")
        variables = function["Environment"]["Variables"]
        mistyped = {"client_id": FakeSmartcar.client_id, "client_secret": "mistyped"}
        with LambdaRuntime(
            package,
            {**aws.environment, **variables, "TOKEN_URL": endpoint.url},
            function["Timeout"],
            function["Handler"],
        ) as runtime:
            statuses = [runtime.invoke(event)["status"] for event in ({}, {}, {"force": True})]
            endpoint.faults.append("400")
            with suppress(FunctionError):
                statuses.append(runtime.invoke({"force": True})["status"])
            aws.client.put_secret_value(
                SecretId=CREDENTIALS_SECRET_ID, SecretString=json.dumps(mistyped)
            )
            statuses.append(runtime.invoke({"force": True})["credentials"])
            lines = [json.loads(line) for line in runtime.output.splitlines()]
        assert AccessToken.from_json(aws.published()).expires_in == 3600
    calls = {(operation, arns[secret]) for operation, secret in aws.calls if secret in arns}
    metrics = {
        (definition["Namespace"], metric["Name"], f"{dimension}={line[dimension]}")
        for line in lines
        for definition in line.get("_aws", {}).get("CloudWatchMetrics", [])
        for (dimension,) in definition["Dimensions"]
        for metric in definition["Metrics"]
    }
    return Runs(statuses, calls, metrics)


@pytest.mark.xdist_group("package")
def test_runs(runs: Runs) -> None:
    """With the template's environment, runs rotate, skip, and fall back."""
    assert runs.statuses == ["rotated", "skipped", "rotated", "previous"]


@pytest.mark.xdist_group("package")
def test_least_privilege(runs: Runs) -> None:
    """In Secrets Manager, the role allows only the calls that the runs on all paths made."""
    of_secrets = {pair for pair in allowed(PLAIN) if pair[0].startswith("secretsmanager:")}

    assert of_secrets == {(f"secretsmanager:{call}", arn) for call, arn in runs.calls}


def test_role_of_the_platform() -> None:
    """Beyond Secrets Manager, the role allows only logs, traces and failure notifications."""
    assert {pair for pair in allowed(PLAIN) if not pair[0].startswith("secretsmanager:")} == {
        ("logs:CreateLogStream", "RotateTokenLogGroup.Arn"),
        ("logs:PutLogEvents", "RotateTokenLogGroup.Arn"),
        ("sns:Publish", "AlarmTopic"),
        ("xray:PutTelemetryRecords", "*"),
        ("xray:PutTraceSegments", "*"),
    }


def test_keys() -> None:
    """Customer managed keys may be used through Secrets Manager only."""
    via = {"StringEquals": {"kms:ViaService": "secretsmanager.us-east-1.amazonaws.com"}}

    assert FULL.properties("TokenSecret")["KmsKeyId"] == KEYS["KmsKeyArn"]
    assert [
        (actions(s), s["Resource"], s["Condition"]) for s in statements(FULL) if "kms" in str(s)
    ] == [
        (["kms:Decrypt", "kms:GenerateDataKey"], KEYS["KmsKeyArn"], via),
        (["kms:Decrypt"], KEYS["CredentialsKmsKeyArn"], via),
    ]
    assert "kms" not in str(statements(PLAIN))


def test_readers() -> None:
    """The reader policy covers the secret, its replica and its key."""
    plain, full = (
        [(actions(s), s["Resource"]) for s in policy["PolicyDocument"]["Statement"]]
        for stack in (PLAIN, FULL)
        for policy in [stack.properties("TokenReaderPolicy")]
    )

    assert plain == [(READ, [TOKEN_SECRET_ARN])]
    assert full == [
        (READ, [TOKEN_SECRET_ARN, TOKEN_SECRET_ARN.replace("us-east-1", "eu-west-1")]),
        (["kms:Decrypt"], KEYS["KmsKeyArn"]),
    ]


def test_consumers() -> None:
    """The resource policy of the secret allows only the given principals to read the token."""
    policy = FULL.properties("TokenSecretPolicy")
    (statement,) = policy["ResourcePolicy"]["Statement"]

    assert "TokenSecretPolicy" not in PLAIN.resources
    assert policy["SecretId"] == TOKEN_SECRET_ARN
    assert policy["BlockPublicPolicy"] is True
    assert statement["Principal"] == {"AWS": CONSUMERS}
    assert actions(statement) == READ


def test_schedule() -> None:
    """Each event reaches the function or a queue, and each failed run notifies the topic."""
    for stack, expression in ((PLAIN, "rate(50 minutes)"), (FULL, "rate(30 minutes)")):
        schedule = stack.properties("RotateTokenFunctionSchedule")
        target = schedule["Target"]
        invocation = stack.properties("RotateTokenFunctionEventInvokeConfig")

        assert schedule["ScheduleExpression"] == expression
        assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert "Name" not in schedule
        assert target["Arn"] == "RotateTokenFunction.Arn"
        assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] == 2940
        assert target["DeadLetterConfig"] == {"Arn": "UndeliveredQueue.Arn"}
        assert "Input" not in target
        policies = stack.properties("RotateTokenFunctionScheduleRole")["Policies"]
        assert {
            (statement["Action"], statement["Resource"])
            for policy in policies
            for statement in policy["PolicyDocument"]["Statement"]
        } == {
            ("lambda:InvokeFunction", "RotateTokenFunction.Arn"),
            ("sqs:SendMessage", "UndeliveredQueue.Arn"),
        }
        assert invocation["MaximumEventAgeInSeconds"] == 2940
        assert invocation["MaximumRetryAttempts"] == 2
        assert invocation["DestinationConfig"]["OnFailure"] == {"Destination": "AlarmTopic"}


def test_parameters_arrive() -> None:
    """Each parameter changes its resource."""
    variables = FULL.properties("RotateTokenFunction")["Environment"]["Variables"]
    settings = {field.name.upper() for field in dataclasses.fields(Configuration)}

    assert {name for name in variables if not name.startswith("POWERTOOLS_")} == settings
    assert variables["TOKEN_URL"] == "https://login.example.com/oauth2/token"
    assert variables["POWERTOOLS_LOG_LEVEL"] == "WARNING"
    assert FULL.properties("RotateTokenLogGroup")["RetentionInDays"] == "90"
    assert FULL.properties("TokenOverdueAlarm")["EvaluationPeriods"] == "35"
    assert FULL.properties("AlarmSubscription")["Endpoint"] == "on-call@example.com"
    assert FULL.properties("TokenSecret")["ReplicaRegions"] == [{"Region": "eu-west-1"}]
    assert not {"AlarmSubscription", "TokenSecretPolicy"} & PLAIN.resources.keys()
    assert "ReplicaRegions" not in PLAIN.properties("TokenSecret")
    assert {"TokenDashboard"} == PLAIN.resources.keys() - FULL.resources.keys()
    assert {"TokenDashboardUrl"} == PLAIN.outputs.keys() - FULL.outputs.keys()


def test_function() -> None:
    """The template's handler, memory size and token endpoint are those of the code."""
    function = PLAIN.properties("RotateTokenFunction")
    module, _, _ = function["Handler"].rpartition(".")

    assert (function["Handler"], function["MemorySize"]) == (HANDLER, MEMORY_MB)
    assert (PROJECT / "functions" / module.replace(".", "/")).with_suffix(".py").is_file()
    assert function["Environment"]["Variables"]["TOKEN_URL"] == SMARTCAR_TOKEN_URL


def test_parameters() -> None:
    """Each parameter has a description, a constraint with a message, a label and a group."""
    template = transformed_template()
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]

    assert sorted(grouped) == sorted(template["Parameters"])
    assert interface["ParameterLabels"].keys() == template["Parameters"].keys()
    for name, parameter in template["Parameters"].items():
        assert parameter["Description"].endswith((".", "}.")), name
        assert parameter["ConstraintDescription"].startswith("must "), name
        assert parameter.keys() & {"AllowedPattern", "AllowedValues", "MinValue"}, name
        assert name == "CredentialsSecretArn" or "Default" in parameter


@pytest.mark.parametrize(
    ("name", "accepted", "rejected"),
    [
        (
            "CredentialsSecretArn",
            [CREDENTIALS_SECRET_ARN],
            ["smartcar/credentials", CREDENTIALS_SECRET_ARN[:-7]],
        ),
        (
            "TokenUrl",
            [SMARTCAR_TOKEN_URL, "https://login.example.com:8443/t?x=1"],
            ["http://iam.smartcar.com/oauth2/token", "https://user@host/", "https://"],
        ),
        (
            "ScheduleExpression",
            [*(f"rate({n} minutes)" for n in range(10, 51)), "cron(0/30 * * * ? *)"],
            [*(f"rate({n} minutes)" for n in (1, 9, 51, 60, 100)), "rate(1 hour)", "50 minutes"],
        ),
        ("AlarmEmail", ["", "on-call@example.com"], ["on-call", "two words@example.com"]),
        ("ReplicaRegion", ["", "eu-west-1", "us-gov-west-1"], ["Ireland", "eu-west"]),
        ("KmsKeyArn", ["", KEYS["KmsKeyArn"]], ["alias/token"]),
        ("ConsumerPrincipalArns", ["", *CONSUMERS], ["123456789012", "*"]),
    ],
)
def test_patterns(name: str, accepted: list[str], rejected: list[str]) -> None:
    """The pattern of a parameter accepts valid values, and rejects invalid ones."""
    pattern = transformed_template()["Parameters"][name]["AllowedPattern"]

    assert [value for value in accepted if not re.fullmatch(pattern, value)] == []
    assert [value for value in rejected if re.fullmatch(pattern, value)] == []


ALARMS = PLAIN.of_type("AWS::CloudWatch::Alarm")
DASHBOARD = json.loads(PLAIN.properties("TokenDashboard")["DashboardBody"])


def metric_of(alarm: dict[str, Any]) -> dict[str, Any]:
    """Return the metric that an alarm evaluates, its value in each minute."""
    expression, metric = alarm["Metrics"]
    assert metric["Id"] in expression["Expression"]
    assert metric["ReturnData"] is False
    assert metric["MetricStat"]["Period"] == 60
    of_alarm: dict[str, Any] = metric["MetricStat"]["Metric"]
    return of_alarm


@pytest.mark.xdist_group("package")
def test_metrics(runs: Runs) -> None:
    """Alarms and widgets use the metrics that the runs emitted, and two metrics of Lambda."""
    used = set()
    for alarm in ALARMS.values():
        metric = metric_of(alarm)
        (dimension,) = metric["Dimensions"]
        used.add((metric["Namespace"], metric["MetricName"], "{Name}={Value}".format(**dimension)))
    for widget in DASHBOARD["widgets"]:
        before: list[str] = []
        for line in widget["properties"].get("metrics", []):
            words = [word for word in line if isinstance(word, str)]
            # A dot stands for the word above it.
            before = [before[i] if word == "." else word for i, word in enumerate(words)]
            used.add((before[0], before[1], "=".join(before[2:])))

    assert used == runs.metrics | {
        ("AWS/Lambda", metric, "FunctionName=RotateTokenFunction")
        for metric in ("Duration", "Errors")
    }


def test_dashboard() -> None:
    """The dashboard shows every alarm, and its widgets do not overlap."""
    alarm_widget, *_ = DASHBOARD["widgets"]
    cells = [
        (x, y)
        for w in DASHBOARD["widgets"]
        for x in range(w["x"], w["x"] + w["width"])
        for y in range(w["y"], w["y"] + w["height"])
    ]

    assert set(alarm_widget["properties"]["alarms"]) == {f"{name}.Arn" for name in ALARMS}
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


@pytest.mark.parametrize("name", ALARMS)
def test_alarms(name: str) -> None:
    """Each alarm notifies the topic when it fires and when it clears, and is in the runbook."""
    alarm = ALARMS[name]

    assert alarm["AlarmActions"] == alarm["OKActions"] == ["AlarmTopic"]
    assert f"Runbook: docs/operations.md, {name}." in alarm["AlarmDescription"]
    assert f"\n### {name}\n" in RUNBOOK


Series = dict[str, dict[int, float]]
DAY = 1440


def ones(*minutes: int) -> dict[int, float]:
    """Make a metric that is 1 in these minutes."""
    return dict.fromkeys(minutes, 1.0)


def in_alarm(alarm: dict[str, Any], values: dict[int, float], now: int, more: int) -> bool:
    """
    Evaluate an alarm at a minute, as CloudWatch does where data may be missing.

    CloudWatch looks `more` periods further back than the evaluation periods; AWS does not publish
    that number. The most recent values count, and only values that are still missing are filled in.
    """
    periods = int(alarm["EvaluationPeriods"])
    compare = {
        "LessThanThreshold": operator.lt,
        "GreaterThanOrEqualToThreshold": operator.ge,
    }[alarm["ComparisonOperator"]]
    window = range(now - periods - more, now)
    breaches = [compare(values[m], alarm["Threshold"]) for m in window if m in values][-periods:]
    missing = periods - len(breaches)
    breaching = sum(breaches) + missing * (alarm["TreatMissingData"] == "breaching")
    datapoints: int = alarm.get("DatapointsToAlarm", periods)
    return int(breaching) >= datapoints


def states(alarm: dict[str, Any], series: Series) -> list[tuple[int, int]]:
    """Return the intervals of a day, in minutes, in which an alarm is in the state ALARM."""
    known = series.get(metric_of(alarm)["MetricName"], {})
    is_filled = alarm["Metrics"][0]["Expression"].startswith("FILL(")
    # FILL needs at least one value: without any, all of them are missing.
    values = {m: known.get(m, 0.0) for m in range(DAY)} if known and is_filled else known
    by_range = {
        tuple(in_alarm(alarm, values, now, more) for now in range(DAY)) for more in range(6)
    }
    (state,) = by_range  # the same, however far CloudWatch looks back
    changes = [now for now in range(1, DAY) if state[now] != (now > 1 and state[now - 1])]
    return list(zip_longest(changes[::2], changes[1::2], fillvalue=DAY))


ROTATED = ones(*range(0, DAY, 50))
# The endpoint is down from minute 49 to 89. The scheduled run at minute 50 and two retries last 14
# minutes each; Lambda waits 1 and 2 minutes between them. The second retry gets a token.
OUTAGE = {
    "TokenRotated": ones(0, *range(89, DAY, 50)),
    "AttemptFailed": ones(*range(50, 65), *range(66, 80), *range(82, 89)),
    "SecondsLeftOnOldToken": {89: -1740.0, **dict.fromkeys(range(139, DAY, 50), 600.0)},
}


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param({"TokenRotated": ROTATED}, {}, id="no failures"),
        pytest.param(
            {"TokenRotated": ROTATED, "AttemptFailed": ones(50, 100)}, {}, id="single failures"
        ),
        pytest.param(
            OUTAGE,
            {
                "AttemptsFailingAlarm": [(52, 98)],
                "TokenOverdueAlarm": [(56, 90)],
                "TokenGapAlarm": [(90, 150)],
            },
            id="outage",
        ),
        pytest.param(
            {"TokenRotated": ROTATED, "AttemptFailed": ones(50, 55, 60)},
            {"AttemptsFailingAlarm": [(56, 66)]},
            id="Retry-After of five minutes",
        ),
        pytest.param(
            {"TokenRotated": ones(0, 50, 100)},
            {"TokenOverdueAlarm": [(156, DAY)]},
            id="schedule stops",
        ),
        pytest.param({}, {"TokenOverdueAlarm": [(1, DAY)]}, id="schedule never starts"),
        pytest.param(
            {
                "TokenRotated": ROTATED,
                "AttemptFailed": ones(*range(300, 600, 50)),
                "CredentialsFallback": ones(*range(300, 600, 50)),
            },
            {"CredentialsFallbackAlarm": [(301, 611)]},
            id="fallback",
        ),
        pytest.param(
            {
                "TokenRotated": ones(*range(0, DAY, 50)),
                "SecondsLeftOnOldToken": dict.fromkeys(range(50, DAY, 50), -1200.0),
            },
            {"TokenGapAlarm": [(51, DAY)]},
            id="short lifetime",
        ),
    ],
)
def test_firing(series: Series, expected: dict[str, list[tuple[int, int]]]) -> None:
    """Alarms fire and clear in time: within minutes in an outage, and not for a single failure."""
    fired = {name: states(alarm, series) for name, alarm in ALARMS.items()}

    assert {name: intervals for name, intervals in fired.items() if intervals} == expected
