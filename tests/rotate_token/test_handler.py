"""The handler, over real sockets, in this process."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from local.fakes.lambda_runtime import LocalContext
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from local.fakes.smartcar import FakeSmartcar
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    TokenEndpointUnavailableError,
    TokenRequestRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.fakes.secrets_manager import FakeSecretsManager
    from rotate_token.rotation import Result

    Invoke = Callable[..., Result]

SCHEDULED = {"source": "aws.scheduler", "detail": "{}"}


def output(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what the function wrote since the last look: every line is JSON."""
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


def test_rotated(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """A rotation is told by the result, by metrics and by a log line with the request id."""
    context = LocalContext(900)

    result = invoke(SCHEDULED, context)

    lines = output(capsys)
    assert result["status"] == "rotated"
    assert result["reason"] == "missing"
    assert metrics(lines) == [{"TokenRotated": 1, "TokenLifetimeSeconds": 3600}]
    assert lines[-1]["level"] == "INFO"
    assert lines[-1]["message"] == "Token rotated"
    assert lines[-1]["function_request_id"] == context.aws_request_id
    assert re.fullmatch(r"[0-9-]{10}T[0-9:.]{12}\+00:00", lines[-1]["timestamp"])  # RFC 3339
    assert result.items() <= lines[-1].items()


def test_skipped(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run skips, and says so."""
    invoke()
    output(capsys)

    result = invoke()

    lines = output(capsys)
    assert result["status"] == "skipped"
    assert metrics(lines) == [{"RotationSkipped": 1}]
    assert lines[-1]["message"] == "Rotation skipped, the token is fresh"


def test_forced(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """A forced run replaces a fresh token, and tells how much life that had left."""
    invoke()
    output(capsys)

    result = invoke({"force": True})

    (flushed,) = metrics(output(capsys))
    assert result["reason"] == "forced"
    assert flushed.keys() == {"TokenRotated", "TokenLifetimeSeconds", "SecondsLeftOnOldToken"}
    assert 3590 <= flushed["SecondsLeftOnOldToken"] <= 3600


@pytest.mark.parametrize("event", [None, [], "force", {"force": False}, {"force": "true"}])
def test_any_event(invoke: Invoke, event: object) -> None:
    """Any other event rotates only what is due."""
    assert invoke(event)["reason"] == "missing"
    assert invoke(event)["reason"] == "fresh"


def test_failed_attempts(
    invoke: Invoke, endpoint: FakeSmartcar, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each failed attempt is a metric and a warning, at once."""
    endpoint.faults.extend(["503", "html"])

    invoke()

    lines = output(capsys)
    assert [set(flushed) for flushed in metrics(lines)] == [
        {"TokenRequestFailed"},
        {"TokenRequestFailed"},
        {"TokenRotated", "TokenLifetimeSeconds"},
    ]
    warnings = [line["message"] for line in lines if line.get("level") == "WARNING"]
    assert len(warnings) == 2
    failure = f"Token request failed: {endpoint.url} answered"
    assert warnings[0].startswith(f"{failure} 503 temporarily_unavailable; attempt 2 is in ")
    assert warnings[1].startswith(f"{failure} 200 with something else than JSON; attempt 3 is in ")


def test_failed_run(
    invoke: Invoke, endpoint: FakeSmartcar, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that fails raises, and counts its last attempt as well."""
    endpoint.faults.append("401")

    with pytest.raises(TokenRequestRefusedError):
        invoke()

    assert metrics(output(capsys)) == [{"TokenRequestFailed": 1}]


def test_no_time(invoke: Invoke, endpoint: FakeSmartcar) -> None:
    """A run that has little time left makes one attempt."""
    endpoint.faults.extend(["503", "503"])

    with pytest.raises(TokenEndpointUnavailableError):
        invoke(SCHEDULED, LocalContext(10))

    assert len(endpoint.requests) == 1


def test_no_credentials(
    invoke: Invoke,
    secrets_manager: FakeSecretsManager,
    endpoint: FakeSmartcar,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run without usable credentials raises, and counts no attempt, since none was made."""
    secrets_manager.client.put_secret_value(SecretId=CREDENTIALS_SECRET_ID, SecretString="{}")

    with pytest.raises(CredentialsError):
        invoke()

    assert endpoint.requests == []
    assert output(capsys) == []


def test_unreadable_token(
    invoke: Invoke,
    secrets_manager: FakeSecretsManager,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A warning from inside the package is a JSON line with the request id as well."""
    secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString="{}")
    context = LocalContext(900)

    invoke(SCHEDULED, context)

    warning = output(capsys)[0]
    assert warning["level"] == "WARNING"
    assert warning["message"].startswith(f"Secret {TOKEN_SECRET_ID} holds no published token")
    assert warning["function_request_id"] == context.aws_request_id


def test_fallback(
    invoke: Invoke, secrets_manager: FakeSecretsManager, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token that was got with the previous credentials is an error in the log, and a metric."""
    mistyped = {"client_id": FakeSmartcar.client_id, "client_secret": "mistyped"}
    secrets_manager.client.put_secret_value(
        SecretId=CREDENTIALS_SECRET_ID, SecretString=json.dumps(mistyped)
    )

    result = invoke()

    lines = output(capsys)
    assert result["credentials"] == "previous"
    assert metrics(lines) == [
        {"TokenRequestFailed": 1},
        {"TokenRotated": 1, "TokenLifetimeSeconds": 3600, "CredentialsFallback": 1},
    ]
    (error,) = [line["message"] for line in lines if line.get("level") == "ERROR"]
    assert error.startswith("The endpoint refuses the current client credentials")


@pytest.mark.parametrize(
    ("schedule", "warned"),
    [("rate(59 minutes)", False), ("rate(1 hour)", True), ("cron(0 * * * ? *)", False)],
)
def test_short_life(
    schedule: str,
    warned: bool,  # noqa: FBT001 (a parameter of the test)
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A token that does not live until the next tick is published and warned about."""
    monkeypatch.setenv("SCHEDULE_EXPRESSION", schedule)

    assert invoke()["status"] == "rotated"

    warnings = [line["message"] for line in output(capsys) if line.get("level") == "WARNING"]
    message = (
        "The token lives for 3600 s, and the next is due in 3600 s; shorten ScheduleExpression"
    )
    assert warnings == ([message] if warned else [])


def test_no_debug_lines(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The clients write no DEBUG line, whatever the level of their loggers."""
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "DEBUG")
    names = ("", "boto3", "botocore", "botocore.endpoint", "urllib3", "httpx", "httpcore")
    for name in names:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)

    invoke()

    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert not any(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in names)


def test_configuration(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing setting stops the function before it handles any event."""
    monkeypatch.delenv("TOKEN_SECRET_ID")

    with pytest.raises(ConfigurationError, match="^TOKEN_SECRET_ID is not set; "):
        invoke()
