"""The template: what a stack has, what starts its function, and what its roles allow."""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from moto.events.models import EventPattern

from local.fakes.lambda_runtime import HANDLER, MEMORY_MB, FunctionError, LambdaRuntime
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken
from rotate_token.configuration import SMARTCAR_TOKEN_URL, Configuration
from tests.samples import EVENT_SECRET_ARN, LOOPBACK_ONLY, PROJECT, label_updated_event
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
BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
REPLICA_ARN = (
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:smartcar-token/access-token-Ab12Cd"
)
READ = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]


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


def dashboard(stack: Stack) -> dict[str, Any]:
    """Return the body of the dashboard."""
    body: dict[str, Any] = json.loads(stack.properties("TokenDashboard")["DashboardBody"])
    return body


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
            {
                **aws.environment,
                **variables,
                "TOKEN_URL": endpoint.url,
                "PYTHONPATH": str(LOOPBACK_ONLY),
            },
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
def test_least_privilege(runs: Runs, plain: Stack) -> None:
    """In Secrets Manager, the role allows only the calls that the runs on all paths made."""
    of_secrets = {pair for pair in allowed(plain) if pair[0].startswith("secretsmanager:")}

    assert of_secrets == {(f"secretsmanager:{call}", arn) for call, arn in runs.calls}


@pytest.mark.xdist_group("package")
def test_metrics(runs: Runs, plain: Stack) -> None:
    """Alarms and widgets use the metrics that the runs emitted, and two metrics of Lambda."""
    used = set()
    for alarm in plain.of_type("AWS::CloudWatch::Alarm").values():
        metric = alarm["Metrics"][1]["MetricStat"]["Metric"]
        (dimension,) = metric["Dimensions"]
        used.add((metric["Namespace"], metric["MetricName"], "{Name}={Value}".format(**dimension)))
    for widget in dashboard(plain)["widgets"]:
        before: list[str] = []
        for line in widget["properties"].get("metrics", []):
            words = [word for word in line if isinstance(word, str)]
            # A dot stands for the word above it.
            before = [before[i] if word == "." else word for i, word in enumerate(words)]
            used.add((before[0], before[1], "=".join(before[2:])))

    assert used == runs.metrics | {
        ("AWS/Lambda", "Duration", "FunctionName=RotateTokenFunction"),
        ("AWS/Lambda", "Errors", "FunctionName=RotateTokenFunction"),
    }


def test_resources(plain: Stack) -> None:
    """A stack with the default settings has these resources, and no tags."""
    assert {name: resource["Type"] for name, resource in plain.resources.items()} == {
        "AlarmTopic": "AWS::SNS::Topic",
        "AlarmTopicPolicy": "AWS::SNS::TopicPolicy",
        "AttemptsFailingAlarm": "AWS::CloudWatch::Alarm",
        "CredentialsFallbackAlarm": "AWS::CloudWatch::Alarm",
        "RotateTokenFunction": "AWS::Lambda::Function",
        "RotateTokenFunctionEventInvokeConfig": "AWS::Lambda::EventInvokeConfig",
        "RotateTokenFunctionNewCredentials": "AWS::Events::Rule",
        "RotateTokenFunctionNewCredentialsPermission": "AWS::Lambda::Permission",
        "RotateTokenFunctionSchedule": "AWS::Scheduler::Schedule",
        "RotateTokenFunctionScheduleRole": "AWS::IAM::Role",
        "RotateTokenLogGroup": "AWS::Logs::LogGroup",
        "RotateTokenRole": "AWS::IAM::Role",
        "TokenDashboard": "AWS::CloudWatch::Dashboard",
        "TokenGapAlarm": "AWS::CloudWatch::Alarm",
        "TokenOverdueAlarm": "AWS::CloudWatch::Alarm",
        "TokenReaderPolicy": "AWS::IAM::ManagedPolicy",
        "TokenSecret": "AWS::SecretsManager::Secret",
        "UndeliveredQueue": "AWS::SQS::Queue",
    }
    # SAM adds one to the function.
    assert "Tags:" not in (PROJECT / "template.yaml").read_text()


def test_role_of_the_platform(plain: Stack) -> None:
    """Beyond Secrets Manager, the role allows only logs, traces and failure notifications."""
    assert {pair for pair in allowed(plain) if not pair[0].startswith("secretsmanager:")} == {
        ("logs:CreateLogStream", "RotateTokenLogGroup.Arn"),
        ("logs:PutLogEvents", "RotateTokenLogGroup.Arn"),
        ("sns:Publish", "AlarmTopic"),
        ("xray:PutTelemetryRecords", "*"),
        ("xray:PutTraceSegments", "*"),
    }


def test_subnets(plain: Stack, full: Stack) -> None:
    """In subnets, the role may also manage the function's network interfaces."""
    assert full.properties("RotateTokenFunction")["VpcConfig"] == {
        "SubnetIds": ["subnet-0a1b2c3d", "subnet-4e5f6a7b"],
        "SecurityGroupIds": ["sg-8c9d0e1f"],
    }
    assert {pair for pair in allowed(full) if pair[0].startswith("ec2:")} == {
        ("ec2:AssignPrivateIpAddresses", "*"),
        ("ec2:CreateNetworkInterface", "*"),
        ("ec2:DeleteNetworkInterface", "*"),
        ("ec2:DescribeNetworkInterfaces", "*"),
        ("ec2:DescribeSubnets", "*"),
        ("ec2:UnassignPrivateIpAddresses", "*"),
    }
    assert "VpcConfig" not in plain.properties("RotateTokenFunction")


@pytest.mark.parametrize(
    ("parameters", "refusals"),
    [
        pytest.param({}, [], id="neither"),
        pytest.param(
            {"SubnetIds": "subnet-0a1b2c3d,subnet-4e5f6a7b", "SecurityGroupIds": "sg-8c9d0e1f"},
            [],
            id="both",
        ),
        pytest.param(
            {"SubnetIds": "subnet-0a1b2c3d"},
            ["SubnetIds is set, so SecurityGroupIds must be set as well."],
            id="only subnets",
        ),
        pytest.param(
            {"SecurityGroupIds": "sg-8c9d0e1f"},
            ["SecurityGroupIds is set, so SubnetIds must be set as well."],
            id="only security groups",
        ),
    ],
)
def test_rules(parameters: dict[str, str], refusals: list[str]) -> None:
    """Subnets without security groups are refused, and the other way round."""
    assert Stack(parameters).refusals() == refusals


def test_permissions_boundary(plain: Stack, full: Stack) -> None:
    """Each role has the permissions boundary, if there is one."""
    before, after = (
        {name: role.get("PermissionsBoundary") for name, role in roles.items()}
        for roles in (plain.of_type("AWS::IAM::Role"), full.of_type("AWS::IAM::Role"))
    )

    assert before == {"RotateTokenRole": None, "RotateTokenFunctionScheduleRole": None}
    assert after == {"RotateTokenRole": BOUNDARY, "RotateTokenFunctionScheduleRole": BOUNDARY}


def test_keys(plain: Stack, full: Stack) -> None:
    """Customer managed keys may be used through Secrets Manager only."""
    via = {"StringEquals": {"kms:ViaService": "secretsmanager.us-east-1.amazonaws.com"}}

    assert full.properties("TokenSecret")["KmsKeyId"] == KEYS["KmsKeyArn"]
    assert [
        (actions(s), s["Resource"], s["Condition"]) for s in statements(full) if "kms" in str(s)
    ] == [
        (["kms:Decrypt", "kms:GenerateDataKey"], KEYS["KmsKeyArn"], via),
        (["kms:Decrypt"], KEYS["CredentialsKmsKeyArn"], via),
    ]
    assert "kms" not in str(statements(plain))


def test_readers(plain: Stack, full: Stack) -> None:
    """The reader policy covers the secret, its replica and its key."""
    of_plain, of_full = (
        [(actions(s), s["Resource"]) for s in policy["PolicyDocument"]["Statement"]]
        for policy in (
            plain.properties("TokenReaderPolicy"),
            full.properties("TokenReaderPolicy"),
        )
    )

    assert of_plain == [(READ, [TOKEN_SECRET_ARN])]
    assert of_full == [
        (READ, [TOKEN_SECRET_ARN, REPLICA_ARN]),
        (["kms:Decrypt"], KEYS["KmsKeyArn"]),
    ]


def test_consumers(full: Stack) -> None:
    """The resource policy of the secret allows only the given principals to read the token."""
    policy = full.properties("TokenSecretPolicy")
    (statement,) = policy["ResourcePolicy"]["Statement"]

    assert policy["SecretId"] == TOKEN_SECRET_ARN
    assert policy["BlockPublicPolicy"] is True
    assert statement["Principal"] == {"AWS": CONSUMERS}
    assert actions(statement) == READ


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
    policies = plain.properties("RotateTokenFunctionScheduleRole")["Policies"]
    assert {
        (statement["Action"], statement["Resource"])
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
    } == {
        ("lambda:InvokeFunction", "RotateTokenFunction.Arn"),
        ("sqs:SendMessage", "UndeliveredQueue.Arn"),
    }


@pytest.mark.parametrize(
    ("change", "starts_a_run"),
    [
        pytest.param({}, True, id="new value"),
        pytest.param({"detail": {"labelUpdated": "mine"}}, False, id="another label"),
        pytest.param(
            {"resources": ["arn:aws:secretsmanager:us-west-2:012345678901:secret:other-a1b2c3"]},
            False,
            id="another secret",
        ),
        pytest.param({"detail-type": "AWS API Call via CloudTrail"}, False, id="CloudTrail"),
        pytest.param({"source": "my.application"}, False, id="another source"),
    ],
)
def test_new_credentials(
    change: dict[str, Any],
    starts_a_run: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    """AWS's sample event of a new current value starts a run; other events do not."""
    stack = Stack({"CredentialsSecretArn": EVENT_SECRET_ARN})
    rule = stack.properties("RotateTokenFunctionNewCredentials")

    pattern = EventPattern(None, rule["EventPattern"])
    assert pattern.matches_event(label_updated_event() | change) is starts_a_run


def test_delivery_of_new_credentials(plain: Stack) -> None:
    """The event forces a run, and is dropped after 5 minutes without delivery."""
    rule = plain.properties("RotateTokenFunctionNewCredentials")

    assert rule["Targets"] == [
        {
            "Arn": "RotateTokenFunction.Arn",
            "Id": "RotateTokenFunctionNewCredentialsLambdaTarget",
            "Input": '{"force": true}',
            "RetryPolicy": {"MaximumEventAgeInSeconds": 300},
        }
    ]
    assert plain.properties("RotateTokenFunctionNewCredentialsPermission") == {
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
    assert plain.outputs.keys() - full.outputs.keys() == {"TokenDashboardUrl"}


def test_function(plain: Stack) -> None:
    """The template's handler, memory size and token endpoint are those of the code."""
    function = plain.properties("RotateTokenFunction")
    module, _, _ = function["Handler"].rpartition(".")

    assert (function["Handler"], function["MemorySize"]) == (HANDLER, MEMORY_MB)
    assert (PROJECT / "functions" / module.replace(".", "/")).with_suffix(".py").is_file()
    assert function["Environment"]["Variables"]["TOKEN_URL"] == SMARTCAR_TOKEN_URL


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


def test_limits() -> None:
    """The shortest time until a token is overdue is 5 minutes longer than the shortest schedule."""
    overdue = transformed_template()["Parameters"]["OverdueMinutes"]

    assert (overdue["MinValue"], overdue["MaxValue"]) == (20, 1440)


def test_message_of_the_required_parameter() -> None:
    """Without the ARN of the credentials, the message names the command that prints it."""
    secret = transformed_template()["Parameters"]["CredentialsSecretArn"]

    assert secret["ConstraintDescription"] == (
        "must be the complete ARN of the credentials secret, including the six characters at its "
        "end, as printed by: aws secretsmanager describe-secret "
        "--secret-id smartcar/client-credentials --query ARN --output text"
    )


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
            [*(f"rate({n} minutes)" for n in range(15, 51)), "cron(0/30 * * * ? *)"],
            [*(f"rate({n} minutes)" for n in (1, 14, 51, 60, 100)), "rate(1 hour)", "50 minutes"],
        ),
        ("AlarmEmail", ["", "on-call@example.com"], ["on-call", "two words@example.com"]),
        ("ReplicaRegion", ["", "eu-west-1", "us-gov-west-1"], ["Ireland", "eu-west"]),
        ("KmsKeyArn", ["", KEYS["KmsKeyArn"]], ["alias/token"]),
        ("ConsumerPrincipalArns", ["", *CONSUMERS], ["123456789012", "*"]),
        (
            "PermissionsBoundaryArn",
            ["", BOUNDARY, "arn:aws:iam::aws:policy/PowerUserAccess"],
            ["boundary", "arn:aws:iam::123456789012:role/boundary"],
        ),
        ("SubnetIds", ["", "subnet-0a1b2c3d"], ["vpc-0a1b2c3d", "subnet-"]),
        ("SecurityGroupIds", ["", "sg-8c9d0e1f"], ["default"]),
    ],
)
def test_patterns(name: str, accepted: list[str], rejected: list[str]) -> None:
    """The pattern of a parameter accepts valid values, and rejects invalid ones."""
    pattern = transformed_template()["Parameters"][name]["AllowedPattern"]

    assert [value for value in accepted if not re.fullmatch(pattern, value)] == []
    assert [value for value in rejected if re.fullmatch(pattern, value)] == []


def test_dashboard(plain: Stack) -> None:
    """The dashboard shows every alarm, and its widgets do not overlap."""
    alarm_widget, *_ = widgets = dashboard(plain)["widgets"]
    cells = [
        (x, y)
        for w in widgets
        for x in range(w["x"], w["x"] + w["width"])
        for y in range(w["y"], w["y"] + w["height"])
    ]

    assert alarm_widget["properties"]["alarms"] == [
        "TokenOverdueAlarm.Arn",
        "AttemptsFailingAlarm.Arn",
        "TokenGapAlarm.Arn",
        "CredentialsFallbackAlarm.Arn",
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_dashboard_list(plain: Stack) -> None:
    """The list of the dashboard shows errors, warnings and runs that timed out."""
    *_, listing = dashboard(plain)["widgets"]

    _, fields, condition, *_ = listing["properties"]["query"].split(" | ")
    assert fields == (
        "fields coalesce(level, log_level, record.status) as severity, "
        "coalesce(errorMessage, message, type) as what"
    )
    assert condition == "filter severity in ['WARNING', 'WARN', 'ERROR', 'timeout']"
