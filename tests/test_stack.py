"""The template: what a stack has, what starts its function, and what its roles allow."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from moto.events.models import EventPattern

from local.fakes.lambda_runtime import HANDLER, MEMORY_MB, LambdaRuntime
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.configuration import SMARTCAR_TOKEN_URL, Configuration
from tests.samples import EVENT_SECRET_ARN, LOOPBACK_ONLY, PROJECT, label_updated_event
from tests.stack import CREDENTIALS_SECRET_ARN, TOKEN_SECRET_ARN, Stack, transformed_template

SCHEDULED, ROTATE_NOW = (
    json.loads((PROJECT / "events" / name).read_bytes())
    for name in ("scheduled.json", "rotate_now.json")
)
KEYS = {
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d",
    "CredentialsKmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/4e5f6a7b",
}
CONSUMERS = ["arn:aws:iam::111122223333:root", "arn:aws:iam::444455556666:role/reader"]
BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
READ = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
VIA_SECRETS_MANAGER = {"StringEquals": {"kms:ViaService": "secretsmanager.us-east-1.amazonaws.com"}}


@pytest.fixture
def plain() -> Stack:
    """A stack with the default settings."""
    return Stack({})


@pytest.fixture
def full() -> Stack:
    """A stack with another value for each setting."""
    return Stack(
        {
            **KEYS,
            "TokenUrl": "https://login.example.com/oauth2/token",
            "ScheduleExpression": "rate(30 minutes)",
            "AlarmEmail": "on-call@example.com",
            "OverdueMinutes": "35",
            "Dashboard": "false",
            "LogRetentionDays": "90",
            "ConsumerPrincipalArns": ",".join(CONSUMERS),
            "ReplicaRegion": "eu-west-1",
            "PermissionsBoundaryArn": BOUNDARY,
            "SubnetIds": "subnet-0a1b2c3d,subnet-4e5f6a7b",
            "SecurityGroupIds": "sg-8c9d0e1f",
        }
    )


def allowed(stack: Stack, role: str = "RotateTokenRole") -> dict[tuple[str, str], Any]:
    """Return the actions of a role, each with its resource, and their conditions."""
    conditions = {}
    for policy in stack.properties(role)["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                conditions[action, statement["Resource"]] = statement.get("Condition")
    return conditions


def dashboard(stack: Stack) -> dict[str, Any]:
    """Return the body of the dashboard."""
    body: dict[str, Any] = json.loads(stack.properties("TokenDashboard")["DashboardBody"])
    return body


class Runs(NamedTuple):
    """Runs on all paths: the stack, their results, calls to Secrets Manager, and output."""

    stack: Stack
    results: list[dict[str, Any]]
    calls: list[tuple[str, str]]
    lines: list[dict[str, Any]]


@pytest.fixture(scope="module")
def runs(package: Path) -> Runs:
    """Run the package on all paths, with the environment variables of the template."""
    with FakeSmartcar() as endpoint, FakeSecretsManager() as aws:
        aws.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
        credentials_arn, token_arn = arns = [
            aws.client.describe_secret(SecretId=name)["ARN"]
            for name in (CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID)
        ]
        secrets = {"CredentialsSecretArn": credentials_arn, "TokenSecret": token_arn}
        stack = Stack({**secrets, "TokenUrl": endpoint.url})
        function = stack.properties("RotateTokenFunction")
        variables = {**function["Environment"]["Variables"], "PYTHONPATH": str(LOOPBACK_ONLY)}
        with LambdaRuntime(
            package, {**aws.environment, **variables}, function["Timeout"], function["Handler"]
        ) as runtime:
            results = [runtime.invoke(event) for event in (SCHEDULED, SCHEDULED, ROTATE_NOW)]
            aws.client.put_secret_value(SecretId=CREDENTIALS_SECRET_ID, SecretString="unusable")
            results.append(runtime.invoke(ROTATE_NOW))
            lines = [json.loads(line) for line in runtime.output.splitlines()]
    calls = [(operation, secret) for operation, secret in aws.calls if secret in arns]
    return Runs(stack, results, calls, lines)


@pytest.mark.xdist_group("package")
def test_runs(runs: Runs) -> None:
    """With the template's environment, runs rotate, skip, rotate when forced, and fall back."""
    results = [(run["status"], run["reason"], run.get("credentials")) for run in runs.results]
    levels = [line["level"] for line in runs.lines if "_aws" not in line]

    assert results == [
        ("rotated", "missing", "current"),
        ("skipped", "fresh", None),
        ("rotated", "forced", "current"),
        ("rotated", "forced", "previous"),
    ]
    assert levels == ["INFO", "INFO", "INFO", "WARNING", "ERROR", "INFO"]


@pytest.mark.xdist_group("package")
def test_aws_calls(runs: Runs) -> None:
    """A rotation calls Secrets Manager three times, a skipped run once; the role allows no more."""
    operations = [operation for operation, _ in runs.calls]
    rotation = ["GetSecretValue", "GetSecretValue", "PutSecretValue"]
    of_secrets = {pair for pair in allowed(runs.stack) if pair[0].startswith("secretsmanager:")}

    assert operations[:7] == [*rotation, "GetSecretValue", *rotation]
    assert of_secrets == {(f"secretsmanager:{call}", arn) for call, arn in runs.calls}


@pytest.mark.xdist_group("package")
def test_metrics(runs: Runs) -> None:
    """Alarms and widgets use the metrics that the runs emitted, and two metrics of Lambda."""
    emitted = {
        (definition["Namespace"], metric["Name"], f"{dimension}={line[dimension]}")
        for line in runs.lines
        for definition in line.get("_aws", {}).get("CloudWatchMetrics", [])
        for (dimension,) in definition["Dimensions"]
        for metric in definition["Metrics"]
    }
    used = set()
    for alarm in runs.stack.of_type("AWS::CloudWatch::Alarm").values():
        metric = alarm["Metrics"][1]["MetricStat"]["Metric"]
        (dimension,) = metric["Dimensions"]
        used.add((metric["Namespace"], metric["MetricName"], "{Name}={Value}".format(**dimension)))
    for widget in dashboard(runs.stack)["widgets"]:
        before: list[str] = []
        for line in widget["properties"].get("metrics", []):
            words = [word for word in line if isinstance(word, str)]
            # A dot stands for the word above it.
            before = [before[i] if word == "." else word for i, word in enumerate(words)]
            used.add((before[0], before[1], "=".join(before[2:])))

    assert used == emitted | {
        ("AWS/Lambda", "Duration", "FunctionName=RotateTokenFunction"),
        ("AWS/Lambda", "Errors", "FunctionName=RotateTokenFunction"),
    }


def test_optional_features() -> None:
    """No resource has tags of its own, and nothing is traced: accounts may not permit either."""
    # SAM adds a tag to the function.
    template = (PROJECT / "template.yaml").read_text(encoding="utf-8")

    assert re.findall("Tags|Tracing|xray", template) == []


def test_role(plain: Stack) -> None:
    """Only Lambda may assume the role, which allows only logs and failure notifications besides."""
    (trust,) = plain.properties("RotateTokenRole")["AssumeRolePolicyDocument"]["Statement"]

    assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert {pair for pair in allowed(plain) if not pair[0].startswith("secretsmanager:")} == {
        ("logs:CreateLogStream", "RotateTokenLogGroup.Arn"),
        ("logs:PutLogEvents", "RotateTokenLogGroup.Arn"),
        ("sns:Publish", "AlarmTopic"),
    }


def test_topic(plain: Stack) -> None:
    """The policy of the topic allows only CloudWatch in this account to publish to it."""
    policy = plain.properties("AlarmTopicPolicy")

    assert policy["Topics"] == ["AlarmTopic"]
    assert policy["PolicyDocument"]["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Action": "sns:Publish",
            "Resource": "AlarmTopic",
            "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
        }
    ]


def test_subnets(plain: Stack, full: Stack) -> None:
    """In subnets, the role may manage network interfaces; any other statement names a resource."""
    assert full.properties("RotateTokenFunction")["VpcConfig"] == {
        "SubnetIds": ["subnet-0a1b2c3d", "subnet-4e5f6a7b"],
        "SecurityGroupIds": ["sg-8c9d0e1f"],
    }
    services = {action.partition(":")[0] for action, resource in allowed(full) if resource == "*"}
    assert services == {"ec2"}
    assert "VpcConfig" not in plain.properties("RotateTokenFunction")


def test_rules(plain: Stack, full: Stack) -> None:
    """Subnets without security groups are refused, and the other way round."""
    assert plain.refusals() == full.refusals() == []
    for given, missing in (("SubnetIds", "SecurityGroupIds"), ("SecurityGroupIds", "SubnetIds")):
        (refusal,) = Stack({given: "any"}).refusals()
        assert refusal == f"{given} is set, so {missing} must be set as well."


def test_permissions_boundary(plain: Stack, full: Stack) -> None:
    """A boundary is set on each role; the runbook lists what it must allow: all their actions."""
    for stack, boundary in ((plain, None), (full, BOUNDARY)):
        roles = stack.of_type("AWS::IAM::Role").values()
        assert [role.get("PermissionsBoundary") for role in roles] == [boundary, boundary]

    runbook = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    _, _, rest = runbook.partition(" It must allow\n")
    listed, service = set(), ""
    for prefix, name in re.findall(r"`(\w+:)?(\w+)`", rest.partition("\n- ")[0]):
        service = prefix or service
        listed.add(service + name)

    assert listed == {
        action for role in full.of_type("AWS::IAM::Role") for action, _ in allowed(full, role)
    }


def test_keys(full: Stack) -> None:
    """Customer managed keys may be used through Secrets Manager only."""
    assert full.properties("TokenSecret")["KmsKeyId"] == KEYS["KmsKeyArn"]
    of_keys = {pair: how for pair, how in allowed(full).items() if pair[0].startswith("kms:")}
    assert of_keys == {
        ("kms:Decrypt", KEYS["KmsKeyArn"]): VIA_SECRETS_MANAGER,
        ("kms:GenerateDataKey", KEYS["KmsKeyArn"]): VIA_SECRETS_MANAGER,
        ("kms:Decrypt", KEYS["CredentialsKmsKeyArn"]): VIA_SECRETS_MANAGER,
    }


def test_readers(plain: Stack, full: Stack) -> None:
    """The reader policy covers the secret, its replica and, through Secrets Manager, its key."""
    of_plain, of_full = (
        [
            (s["Action"], s["Resource"], s.get("Condition"))
            for s in stack.properties("TokenReaderPolicy")["PolicyDocument"]["Statement"]
        ]
        for stack in (plain, full)
    )

    assert of_plain == [(READ, [TOKEN_SECRET_ARN], None)]
    assert of_full == [
        (READ, [TOKEN_SECRET_ARN, TOKEN_SECRET_ARN.replace("us-east-1", "eu-west-1")], None),
        ("kms:Decrypt", KEYS["KmsKeyArn"], VIA_SECRETS_MANAGER),
    ]


def test_consumers(full: Stack) -> None:
    """The resource policy of the secret allows only the given principals to read the token."""
    policy = full.properties("TokenSecretPolicy")

    assert policy["SecretId"] == TOKEN_SECRET_ARN
    assert policy["BlockPublicPolicy"] is True
    assert policy["ResourcePolicy"]["Statement"] == [
        {"Effect": "Allow", "Principal": {"AWS": CONSUMERS}, "Action": READ, "Resource": "*"}
    ]


def test_schedule(plain: Stack) -> None:
    """Each event of the schedule reaches the function or, after 49 minutes, a queue."""
    assert plain.properties("RotateTokenFunctionSchedule") == {
        "Description": "Replaces the Smartcar application access token before it expires.",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ScheduleExpression": "rate(50 minutes)",
        "Target": {
            "Arn": "RotateTokenFunction.Arn",
            "DeadLetterConfig": {"Arn": "UndeliveredQueue.Arn"},
            "RetryPolicy": {"MaximumEventAgeInSeconds": 2940, "MaximumRetryAttempts": 185},
            "RoleArn": "RotateTokenFunctionScheduleRole.Arn",
        },
    }
    assert allowed(plain, "RotateTokenFunctionScheduleRole").keys() == {
        ("lambda:InvokeFunction", "RotateTokenFunction.Arn"),
        ("sqs:SendMessage", "UndeliveredQueue.Arn"),
    }


def test_new_credentials() -> None:
    """AWS's sample event of a new current value starts a run, within 5 minutes; others do not."""
    stack = Stack({"CredentialsSecretArn": EVENT_SECRET_ARN})
    rule = stack.properties("RotateTokenFunctionNewCredentials")
    pattern = EventPattern(None, rule["EventPattern"])

    assert pattern.matches_event(label_updated_event())
    for change in (
        {"detail": {"labelUpdated": "mine"}},
        {"resources": [EVENT_SECRET_ARN.replace("mySecret", "another")]},
        {"detail-type": "AWS API Call via CloudTrail"},
        {"source": "my.application"},
    ):
        assert not pattern.matches_event(label_updated_event() | change), change

    (target,) = rule["Targets"]
    assert rule.keys() == {"EventPattern", "Targets"}
    assert target.keys() == {"Arn", "Id", "RetryPolicy"}
    assert target["Arn"] == "RotateTokenFunction.Arn"
    assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 300}
    assert stack.properties("RotateTokenFunctionNewCredentialsPermission") == {
        "Action": "lambda:InvokeFunction",
        "FunctionName": "RotateTokenFunction",
        "Principal": "events.amazonaws.com",
        "SourceArn": "RotateTokenFunctionNewCredentials.Arn",
    }


def test_failed_runs(plain: Stack) -> None:
    """Lambda retries a failed run twice, whichever event started it, then notifies the topic."""
    assert plain.properties("RotateTokenFunctionEventInvokeConfig") == {
        "DestinationConfig": {"OnFailure": {"Destination": "AlarmTopic"}},
        "FunctionName": "RotateTokenFunction",
        "MaximumEventAgeInSeconds": 2940,
        "MaximumRetryAttempts": 2,
        "Qualifier": "$LATEST",
    }


def test_parameters_arrive(plain: Stack, full: Stack) -> None:
    """Each parameter changes its resource."""
    variables = full.properties("RotateTokenFunction")["Environment"]["Variables"]
    settings = {field.name.upper() for field in dataclasses.fields(Configuration)}

    assert variables.keys() == settings | {"POWERTOOLS_SERVICE_NAME"}
    assert variables["TOKEN_URL"] == "https://login.example.com/oauth2/token"
    schedule = full.properties("RotateTokenFunctionSchedule")
    assert schedule["ScheduleExpression"] == "rate(30 minutes)"
    assert full.properties("RotateTokenLogGroup")["RetentionInDays"] == "90"
    assert full.properties("TokenOverdueAlarm")["EvaluationPeriods"] == "35"
    assert full.properties("AlarmSubscription")["Endpoint"] == "on-call@example.com"
    assert full.properties("TokenSecret")["ReplicaRegions"] == [{"Region": "eu-west-1"}]
    assert "ReplicaRegions" not in plain.properties("TokenSecret")
    assert plain.resources.keys() - full.resources.keys() == {"TokenDashboard"}
    assert full.resources.keys() - plain.resources.keys() == {
        "AlarmSubscription",
        "TokenSecretPolicy",
    }
    assert plain.outputs.keys() - full.outputs.keys() == {"TokenDashboardUrl"}


def test_dashboard_url() -> None:
    """The output with the address of the dashboard exists only where that is the console's."""
    stack = Stack({"AWS::Partition": "aws-us-gov"})

    assert "TokenDashboard" in stack.resources
    assert "TokenDashboardUrl" not in stack.outputs


def test_function(plain: Stack) -> None:
    """Handler, memory size, endpoint and platform are those of the code; log lines are JSON."""
    function = plain.properties("RotateTokenFunction")

    assert (function["Handler"], function["MemorySize"]) == (HANDLER, MEMORY_MB)
    assert function["Environment"]["Variables"]["TOKEN_URL"] == SMARTCAR_TOKEN_URL
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
    assert function["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": "RotateTokenLogGroup"}


def test_parameters() -> None:
    """Each parameter has a description, a constraint with a message, a label and a group."""
    template = transformed_template()
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]

    assert grouped == list(template["Parameters"])
    assert interface["ParameterLabels"].keys() == template["Parameters"].keys()
    for name, parameter in template["Parameters"].items():
        assert parameter["Description"].endswith((".", "}.")), name
        assert parameter["ConstraintDescription"].startswith("must "), name
        assert parameter.keys() & {"AllowedPattern", "AllowedValues", "MinValue"}, name
        assert name == "CredentialsSecretArn" or "Default" in parameter


PATTERNS: dict[str, tuple[list[str], list[str]]] = {
    "CredentialsSecretArn": ([CREDENTIALS_SECRET_ARN], ["smartcar/c", CREDENTIALS_SECRET_ARN[:-7]]),
    "TokenUrl": (
        [SMARTCAR_TOKEN_URL, "https://login.example.com:8443/t?x=1"],
        ["http://iam.smartcar.com/oauth2/token", "https://user@host/", "https://"],
    ),
    "ScheduleExpression": (
        [*(f"rate({n} minutes)" for n in range(15, 51)), "cron(0/30 * * * ? *)"],
        [*(f"rate({n} minutes)" for n in (1, 14, 51, 60, 100)), "rate(1 hour)", "50 minutes"],
    ),
    "AlarmEmail": (["", "on-call@example.com"], ["on-call", "two words@example.com"]),
    "ReplicaRegion": (["", "eu-west-1", "us-gov-west-1"], ["Ireland", "eu-west"]),
    "KmsKeyArn": (["", KEYS["KmsKeyArn"]], ["alias/token"]),
    "CredentialsKmsKeyArn": (["", KEYS["KmsKeyArn"]], ["alias/token"]),
    "ConsumerPrincipalArns": (["", *CONSUMERS], ["123456789012", "*"]),
    "PermissionsBoundaryArn": (
        ["", BOUNDARY, "arn:aws:iam::aws:policy/PowerUserAccess"],
        ["boundary", "arn:aws:iam::123456789012:role/boundary"],
    ),
    "SubnetIds": (["", "subnet-0a1b2c3d"], ["vpc-0a1b2c3d", "subnet-"]),
    "SecurityGroupIds": (["", "sg-8c9d0e1f"], ["default"]),
}


def test_values() -> None:
    """Each parameter accepts valid values, and rejects others."""
    parameters = transformed_template()["Parameters"]
    overdue = parameters["OverdueMinutes"]

    # 5 minutes longer than the shortest schedule, and a day, the longest time that an alarm has.
    assert (overdue["MinValue"], overdue["MaxValue"]) == (20, 1440)
    assert PATTERNS.keys() == {name for name in parameters if "AllowedPattern" in parameters[name]}
    for name, (accepted, rejected) in PATTERNS.items():
        pattern = re.compile(parameters[name]["AllowedPattern"])
        assert list(filter(pattern.fullmatch, accepted + rejected)) == accepted, name


def test_dashboard(plain: Stack) -> None:
    """The dashboard shows every alarm, and its widgets do not overlap."""
    alarm_widget, *_ = widgets = dashboard(plain)["widgets"]
    cells = [
        (x, y)
        for w in widgets
        for x in range(w["x"], w["x"] + w["width"])
        for y in range(w["y"], w["y"] + w["height"])
    ]

    alarms = plain.of_type("AWS::CloudWatch::Alarm")
    assert alarm_widget["properties"]["alarms"] == [f"{name}.Arn" for name in alarms]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
