"""Runs of the function in this process: over real sockets, in simulated time."""

import json
import re
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from local.fakes.lambda_runtime import LocalContext
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, FakeSecretsManager
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token.access_token import AccessToken
from rotate_token.errors import CredentialsError, SecretsManagerUnavailableError, TokenRequestError
from rotate_token.retrying import RESERVED_SECONDS
from rotate_token.secret_store import LONGEST_CALL_SECONDS
from tests.samples import Invoke, Timeline, label_updated_event

NOW = 1_800_000_000
FIRST = FakeSmartcar.client_secret
FORCED = {"force": True}
UNUSUAL = "not for the documented 3600 s; make sure that the schedule's period is shorter than that"


@dataclass
class Scene:
    """The function, what it uses, and what it writes."""

    invoke: Invoke
    endpoint: FakeSmartcar
    secrets_manager: FakeSecretsManager
    capsys: pytest.CaptureFixture[str]

    def put(self, secret_id: str, value: str) -> None:
        """Put a value into a secret."""
        self.secrets_manager.client.put_secret_value(SecretId=secret_id, SecretString=value)

    def version_id(self, secret_id: str) -> str:
        """Return the ID of the current version of a secret."""
        return self.secrets_manager.client.get_secret_value(SecretId=secret_id)["VersionId"]

    def store_client_secret(self, client_secret: str) -> None:
        """Make a client secret the current one."""
        client = {"client_id": FakeSmartcar.client_id, "client_secret": client_secret}
        self.put(CREDENTIALS_SECRET_ID, json.dumps(client))

    def publish_old(self, age_seconds: int, expires_in: int = 3600) -> None:
        """Publish a token that has this age at `NOW`."""
        token = AccessToken("eyJvbGQi", expires_in, NOW - age_seconds)
        self.put(TOKEN_SECRET_ID, token.to_json())

    @property
    def asked_with(self) -> list[str]:
        """The client secret of each request for a token."""
        return [form["client_secret"] for form in self.endpoint.requests]

    def output(self) -> list[dict[str, Any]]:
        """Return the lines that the function wrote, each of them JSON."""
        return [json.loads(line) for line in self.capsys.readouterr().out.splitlines()]


@pytest.fixture
def scene(
    invoke: Invoke,
    endpoint: FakeSmartcar,
    secrets_manager: FakeSecretsManager,
    capsys: pytest.CaptureFixture[str],
) -> Scene:
    """A scene with credentials and no token yet."""
    return Scene(invoke, endpoint, secrets_manager, capsys)


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


def test_rotated(scene: Scene) -> None:
    """A rotation is reported by the result, a metric and a log line with the request ID."""
    context = LocalContext(900)

    result = scene.invoke(None, context, Timeline(NOW))

    token = AccessToken.from_json(scene.secrets_manager.published())
    lines = scene.output()
    assert result == {
        "status": "rotated",
        "reason": "missing",
        "expires_at": NOW + 3600,
        "expires_in": 3600,
        "is_lifetime_assumed": False,
        "version_id": scene.version_id(TOKEN_SECRET_ID),
        "credentials": "current",
        "credentials_version_id": scene.version_id(CREDENTIALS_SECRET_ID),
    }
    assert token.expires_at == NOW + 3600
    assert {token.access_token} == scene.endpoint.tokens
    assert metrics(lines) == [{"TokenRotated": 1}]
    assert messages(lines, "INFO") == ["Token rotated"]
    assert lines[-1]["function_request_id"] == context.aws_request_id
    assert re.fullmatch(r"[0-9-]{10}T[0-9:.]{12}[+-]\d\d:\d\d", lines[-1]["timestamp"])  # RFC 3339
    assert result.items() <= lines[-1].items()


def test_skipped(scene: Scene) -> None:
    """A run that finds a fresh token keeps it, and logs and counts that it skipped the rotation."""
    scene.publish_old(60)

    assert scene.invoke(timeline=Timeline(NOW)) == {
        "status": "skipped",
        "reason": "fresh",
        "expires_at": NOW + 3540,
        "expires_in": 3600,
    }
    lines = scene.output()
    assert metrics(lines) == [{"RotationSkipped": 1}]
    assert messages(lines, "INFO") == ["Rotation skipped: the token is still fresh"]
    assert scene.endpoint.requests == []


@pytest.mark.parametrize(
    ("age_seconds", "event", "reason", "seconds_left"),
    [(3000, None, "due", 600), (7200, None, "due", -3600), (60, FORCED, "forced", 3540)],
)
def test_replaced(
    scene: Scene, age_seconds: int, event: object, reason: str, seconds_left: int
) -> None:
    """A token that is not fresh is replaced, even if it has expired; in a forced run, any is."""
    scene.publish_old(age_seconds)

    result = scene.invoke(event, timeline=Timeline(NOW))

    assert result["reason"] == reason
    assert result["seconds_left_on_old_token"] == seconds_left
    assert metrics(scene.output()) == [{"TokenRotated": 1, "SecondsLeftOnOldToken": seconds_left}]


@pytest.mark.parametrize(
    ("age_seconds", "expires_in", "reason"),
    [
        (-60, 3600, "due"),  # issued in the future
        (0, 3600, "fresh"),
        (29, 600, "fresh"),
        (30, 600, "due"),
        (179, 86_400, "fresh"),
        (180, 86_400, "due"),
    ],
)
def test_age(scene: Scene, age_seconds: int, expires_in: int, reason: str) -> None:
    """A token is fresh for a twentieth of its lifetime, but for 3 minutes at most."""
    scene.publish_old(age_seconds, expires_in)

    assert scene.invoke(timeline=Timeline(NOW))["reason"] == reason


def test_unreadable(scene: Scene) -> None:
    """A value that does not satisfy the contract is replaced, and the log says what is wrong."""
    scene.put(TOKEN_SECRET_ID, "null")

    assert scene.invoke(FORCED)["reason"] == "unreadable"
    (warning,) = messages(scene.output())
    assert re.fullmatch(
        "Attempt failed: SecretsManagerError: .* does not hold a token from this function: "
        "the value is not a JSON object; .*; replacing the token",
        warning,
    )


@pytest.mark.parametrize(
    "event",
    [None, [], "force", {"force": False}, {"force": "true"}, label_updated_event()],
)
def test_any_event(invoke: Invoke, event: object) -> None:
    """An event that is not {"force": true}, even of new credentials, keeps a fresh token."""
    assert invoke(event)["reason"] == "missing"
    assert invoke(event)["reason"] == "fresh"


def test_failed_attempts(scene: Scene) -> None:
    """Each failed attempt, including the last, is logged and counted before the next starts."""
    delays = "47", "3600"
    scene.endpoint.faults.extend(Answer(503, headers={"Retry-After": delay}) for delay in delays)
    scene.endpoint.faults.extend(["404", "404"])
    timeline = Timeline()

    with pytest.raises(TokenRequestError) as raised:
        scene.invoke(None, LocalContext(RESERVED_SECONDS + 47 + 60 + 30 + 29), timeline)

    lines = scene.output()
    first, *_, last = warnings = messages(lines)
    assert [warning.rpartition("; ")[2] for warning in warnings] == [
        "retrying in 47.0 s (attempt 2)",
        "retrying in 60.0 s (attempt 3)",
        "retrying in 30.0 s (attempt 4)",
        "giving up",
    ]
    assert timeline.waits == [47, 60, 30]
    assert first.startswith(f"Attempt failed: TokenEndpointUnavailableError: {scene.endpoint.url} ")
    assert last == f"Attempt failed: TokenRequestError: {raised.value}; giving up"
    assert ["_aws" in line for line in lines] == [False, True] * 4
    assert metrics(lines) == [{"AttemptFailed": 1}] * 4


def test_forced(scene: Scene) -> None:
    """A forced run retries a transient failure, and fails at once on any other."""
    scene.endpoint.faults.extend(["503", "404"])

    with pytest.raises(TokenRequestError):
        scene.invoke(FORCED)

    assert len(scene.endpoint.requests) == 2


def test_corrected_credentials(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that are corrected during a run are used by its next attempt."""
    scene.endpoint.client_secret = "corrected"
    timeline = Timeline()
    monkeypatch.setattr(timeline, "sleep", lambda _: scene.store_client_secret("corrected"))

    assert scene.invoke(timeline=timeline)["credentials"] == "current"
    assert scene.asked_with == [FIRST, "corrected"]


@pytest.mark.parametrize(
    ("current", "faults", "asked_with", "errors"),
    [
        ("mistyped", [], ["mistyped", FIRST], ["CredentialsError"]),
        (
            *("", ["503"], [FIRST, FIRST]),
            ["CredentialsError", "TokenEndpointUnavailableError", "CredentialsError"],
        ),
    ],
    ids=["rejected", "unusable, in an outage"],
)
def test_fallback(
    scene: Scene, current: str, faults: list[str], asked_with: list[str], errors: list[str]
) -> None:
    """If the current credentials fail, the previous ones are used; this is logged and counted."""
    previous = scene.version_id(CREDENTIALS_SECRET_ID)
    scene.store_client_secret(current)
    scene.endpoint.faults.extend(faults)

    result = scene.invoke()

    lines = scene.output()
    warnings = messages(lines)
    assert result["credentials"] == "previous"
    assert result["credentials_version_id"] == previous
    assert scene.asked_with == asked_with
    assert metrics(lines)[len(errors) :] == [{"TokenRotated": 1, "CredentialsFallback": 1}]
    assert [warning.split(": ")[1] for warning in warnings] == errors
    assert warnings[0].endswith("; trying the previous credentials")
    (error,) = messages(lines, "ERROR")
    assert error.startswith("The current client credentials are rejected or unusable")


@pytest.mark.parametrize(
    ("stored", "asked_with", "reasons"),
    [
        ([], [FIRST], "with the previous credentials: .* AWSPREVIOUS, or does not exist; store"),
        (["mistyped"], ["mistyped", FIRST], "with the previous credentials: .* invalid_client; st"),
        (["mistyped", "mistyped"], ["mistyped"], "store a valid client_id and client_secret"),
    ],
    ids=["no previous", "both rejected", "both the same"],
)
def test_no_good_credentials(
    scene: Scene, stored: list[str], asked_with: list[str], reasons: str
) -> None:
    """Without valid credentials a run tries the current and the previous ones, and says why."""
    scene.endpoint.client_secret = "another"
    for client_secret in stored:
        scene.store_client_secret(client_secret)

    with pytest.raises(CredentialsError, match=f"^http.* answered 401 invalid_client; {reasons}"):
        scene.invoke(FORCED)

    assert scene.asked_with == asked_with


@pytest.mark.parametrize("faults", [["timeout"], ["401", "timeout"]])
def test_timeouts(scene: Scene, faults: list[str]) -> None:
    """No request of an attempt lasts longer than further attempts may start."""
    scene.invoke()  # imports the handler, which takes time
    scene.store_client_secret("another")
    scene.endpoint.faults.extend(faults)

    scene.invoke(FORCED, LocalContext(RESERVED_SECONDS + 2))

    assert "sent no complete response within 2 s" in messages(scene.output())[len(faults) - 1]


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
def test_lifetime(scene: Scene, expires_in: int | None, expected: list[str]) -> None:
    """A lifetime that is assumed, or over a minute off the documented one, has a warning."""
    token = {"access_token": "eyJhbGciOi", "token_type": "bearer", "expires_in": expires_in}
    scene.endpoint.faults.append(Answer(200, json.dumps(token).encode()))

    result = scene.invoke()

    assert result["is_lifetime_assumed"] is (expires_in is None)
    assert messages(scene.output()) == expected


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
