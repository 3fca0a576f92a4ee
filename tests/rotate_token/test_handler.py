"""The handler, over real sockets, in this process."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from local.fakes.lambda_runtime import LocalContext
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token.errors import TokenRequestRefusedError

if TYPE_CHECKING:
    from local.fakes.secrets_manager import FakeSecretsManager
    from tests.samples import Invoke

SCHEDULED = {"source": "aws.scheduler", "detail": "{}"}


def output(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines that the function wrote since the last call, each of them JSON."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def metrics(lines: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the metrics, a dictionary for each time that they were flushed."""
    flushed = []
    for line in lines:
        if "_aws" in line:
            (definition,) = line["_aws"]["CloudWatchMetrics"]
            assert definition["Namespace"] == "SmartcarTokenRotation"
            assert definition["Dimensions"] == [["service"]]
            names = [metric["Name"] for metric in definition["Metrics"]]
            flushed.append({name: sum(line[name]) for name in names})
    return flushed


def warnings(lines: list[dict[str, Any]]) -> list[str]:
    """Return the messages of the warnings."""
    return [line["message"] for line in lines if line.get("level") == "WARNING"]


def test_rotated(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """A rotation is reported by the result, a metric and a log line with the request ID."""
    context = LocalContext(900)

    result = invoke(SCHEDULED, context)

    lines = output(capsys)
    assert result["status"] == "rotated"
    assert result["reason"] == "missing"
    assert metrics(lines) == [{"TokenRotated": 1}]
    assert lines[-1]["level"] == "INFO"
    assert lines[-1]["message"] == "Token rotated"
    assert lines[-1]["function_request_id"] == context.aws_request_id
    assert re.fullmatch(r"[0-9-]{10}T[0-9:.]{12}[+-]\d\d:\d\d", lines[-1]["timestamp"])  # RFC 3339
    assert result.items() <= lines[-1].items()


def test_skipped(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that finds a fresh token logs and counts that it skipped the rotation."""
    invoke()
    output(capsys)

    result = invoke()

    lines = output(capsys)
    assert result["status"] == "skipped"
    assert metrics(lines) == [{"RotationSkipped": 1}]
    assert lines[-1]["message"] == "Rotation skipped: the token is still fresh"


def test_forced(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """A forced run replaces a fresh token, and reports the lifetime that it had left."""
    invoke()
    output(capsys)

    result = invoke({"force": True})

    (flushed,) = metrics(output(capsys))
    assert result["reason"] == "forced"
    assert flushed.keys() == {"TokenRotated", "SecondsLeftOnOldToken"}
    assert 3590 <= flushed["SecondsLeftOnOldToken"] <= 3600


@pytest.mark.parametrize("event", [None, [], "force", {"force": False}, {"force": "true"}])
def test_any_event(invoke: Invoke, event: object) -> None:
    """An event that is not {"force": true} replaces the token only if one is due."""
    assert invoke(event)["reason"] == "missing"
    assert invoke(event)["reason"] == "fresh"


def test_failed_attempts(
    invoke: Invoke, endpoint: FakeSmartcar, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each failed attempt, including the last, is logged and counted before the next starts."""
    endpoint.faults.extend(["503", "html", "400"])

    with pytest.raises(TokenRequestRefusedError):
        invoke()

    lines = output(capsys)
    assert ["_aws" in line for line in lines] == [False, True] * 3
    assert metrics(lines) == [{"AttemptFailed": 1}] * 3
    failure = f"Attempt failed: {endpoint.url} answered"
    first, second, third = warnings(lines)
    assert first.startswith(f"{failure} 503 temporarily_unavailable; retrying in ")
    assert first.endswith(" s (attempt 2)")
    assert second.startswith(f"{failure} 200 with something other than a JSON object; retrying in ")
    assert third == f"{failure} 400 invalid_request; giving up"


def test_unreadable_token(
    invoke: Invoke,
    secrets_manager: FakeSecretsManager,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A warning of another module of the package is a JSON line with the request ID."""
    secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString="{}")
    context = LocalContext(900)

    invoke(SCHEDULED, context)

    warning = output(capsys)[0]
    assert warning["level"] == "WARNING"
    assert warning["message"].startswith(f"Secret {TOKEN_SECRET_ID} does not hold a token")
    assert warning["function_request_id"] == context.aws_request_id


@pytest.mark.parametrize("value", ['{"client_id": "client_8f3b1c6e"}', None])
def test_fallback(
    value: str | None,
    invoke: Invoke,
    secrets_manager: FakeSecretsManager,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The use of the previous credentials is logged as an error, and counted."""
    mistyped = {"client_id": FakeSmartcar.client_id, "client_secret": "mistyped"}
    secrets_manager.client.put_secret_value(
        SecretId=CREDENTIALS_SECRET_ID, SecretString=value or json.dumps(mistyped)
    )

    result = invoke()

    lines = output(capsys)
    assert result["credentials"] == "previous"
    assert metrics(lines) == [{"AttemptFailed": 1}, {"TokenRotated": 1, "CredentialsFallback": 1}]
    assert warnings(lines)[0].endswith("; trying the previous credentials")
    (error,) = [line["message"] for line in lines if line.get("level") == "ERROR"]
    assert error.startswith("The current client credentials are rejected or unusable")


@pytest.mark.parametrize(("expires_in", "warned"), [(3600, False), (3599, True)])
def test_short_lifetime(
    expires_in: int,
    warned: bool,  # noqa: FBT001 (a parameter of the test)
    invoke: Invoke,
    endpoint: FakeSmartcar,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A token with a shorter lifetime than documented is published with a warning."""
    token = {"access_token": "eyJhbGciOi", "token_type": "bearer", "expires_in": expires_in}
    endpoint.faults.append(Answer(200, json.dumps(token).encode()))

    assert invoke()["expires_in"] == expires_in

    message = (
        "The token is valid for only 3599 s, not for the documented 3600 s; "
        "check that the period of ScheduleExpression is shorter"
    )
    assert warnings(output(capsys)) == ([message] if warned else [])


def test_no_debug_lines(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The AWS and HTTP clients write no DEBUG line, whatever the level of their loggers."""
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "DEBUG")
    names = ("", "boto3", "botocore", "botocore.endpoint", "urllib3", "httpx", "httpcore")
    for name in names:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)

    invoke()

    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert not any(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in names)
