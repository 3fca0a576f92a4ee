"""The handler, over real sockets, in this process."""

import json
import re
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest

from local.fakes.lambda_runtime import LocalContext
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, FakeSecretsManager
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token.errors import SecretsManagerUnavailableError, TokenRequestError
from rotate_token.secret_store import LONGEST_CALL_SECONDS
from tests.samples import Invoke, label_updated_event

UNUSUAL = "not for the documented 3600 s; make sure that the schedule's period is shorter than that"


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


def messages(lines: list[dict[str, Any]], level: str = "WARNING") -> list[str]:
    """Return the messages of a level."""
    return [line["message"] for line in lines if line.get("level") == level]


def test_rotated(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """A rotation is reported by the result, a metric and a log line with the request ID."""
    context = LocalContext(900)

    result = invoke(None, context)

    lines = output(capsys)
    assert result["status"] == "rotated"
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

    assert invoke({"force": True})["reason"] == "forced"
    (flushed,) = metrics(output(capsys))
    assert flushed.keys() == {"TokenRotated", "SecondsLeftOnOldToken"}
    assert 3590 <= flushed["SecondsLeftOnOldToken"] <= 3600


@pytest.mark.parametrize(
    "event",
    [None, [], "force", {"force": False}, {"force": "true"}, label_updated_event()],
)
def test_any_event(invoke: Invoke, event: object) -> None:
    """An event that is not {"force": true}, even of new credentials, keeps a fresh token."""
    assert invoke(event)["reason"] == "missing"
    assert invoke(event)["reason"] == "fresh"


def test_failed_attempts(
    invoke: Invoke, endpoint: FakeSmartcar, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each failed attempt, including the last, is logged and counted before the next starts."""
    endpoint.faults.extend(["503", "404"])

    with pytest.raises(TokenRequestError) as raised:
        invoke({"force": True})

    lines = output(capsys)
    assert ["_aws" in line for line in lines] == [False, True] * 2
    assert metrics(lines) == [{"AttemptFailed": 1}] * 2
    first, second = messages(lines)
    assert first.startswith(f"Attempt failed: TokenEndpointUnavailableError: {endpoint.url} answe")
    assert first.endswith(" s (attempt 2)")
    assert second == f"Attempt failed: TokenRequestError: {raised.value}; giving up"


def test_fallback(
    invoke: Invoke, secrets_manager: FakeSecretsManager, capsys: pytest.CaptureFixture[str]
) -> None:
    """The use of the previous credentials is logged as an error, and counted."""
    secrets_manager.client.put_secret_value(SecretId=CREDENTIALS_SECRET_ID, SecretString="{}")

    result = invoke()

    lines = output(capsys)
    assert result["credentials"] == "previous"
    assert metrics(lines) == [{"AttemptFailed": 1}, {"TokenRotated": 1, "CredentialsFallback": 1}]
    (error,) = messages(lines, "ERROR")
    assert error.startswith("The current client credentials are rejected or unusable")


@pytest.mark.parametrize(
    ("expires_in", "expected"),
    [
        (3540, []),
        (3660, []),
        (3539, [f"The token is valid for 3539 s, {UNUSUAL}"]),
        (3661, [f"The token is valid for 3661 s, {UNUSUAL}"]),
        (None, ["The token response has no expires_in; assuming 3600 s"]),
    ],
)
def test_lifetime(
    expires_in: int | None,
    expected: list[str],
    invoke: Invoke,
    endpoint: FakeSmartcar,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A lifetime that is assumed, or over a minute off the documented one, has a warning."""
    token = {"access_token": "eyJhbGciOi", "token_type": "bearer", "expires_in": expires_in}
    endpoint.faults.append(Answer(200, json.dumps(token).encode()))

    result = invoke()

    assert result["is_lifetime_assumed"] is (expires_in is None)
    assert messages(output(capsys)) == expected


def test_longest_call(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A call ends within the time that a run reserves for it, however slow Secrets Manager is.

    Its name resolves to three addresses: two accept no connection, the third never answers.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.socket()) for _ in range(3)]
        servers[0].bind(("127.0.0.1", 0))
        port = servers[0].getsockname()[1]
        try:
            servers[1].bind(("127.0.0.2", port))
            servers[2].bind(("127.0.0.3", port))
        except OSError:
            pytest.skip("127.0.0.1 is the only loopback address of this machine")
        for server in servers[:2]:
            server.listen(0)
            stack.enter_context(socket.create_connection(server.getsockname()))  # fills its queue
        servers[2].listen()
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", s.getsockname()) for s in servers]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: addresses)
        monkeypatch.setattr(time, "sleep", lambda _: None)  # the wait between two tries
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://secretsmanager.example.com:{port}")
        started_at = time.monotonic()
        with pytest.raises(SecretsManagerUnavailableError, match="ReadTimeoutError"):
            invoke(None, LocalContext(0))
        call_seconds = time.monotonic() - started_at

    # Between two tries, botocore waits for up to a second.
    assert 10 <= call_seconds < LONGEST_CALL_SECONDS - 1
