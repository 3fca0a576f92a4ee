"""rotate, in simulated time, with a Secrets Manager in this process and a scripted transport."""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from mypy_boto3_secretsmanager import SecretsManagerClient

from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from local.fakes.smartcar import FakeSmartcar
from rotate_token.errors import (
    CredentialsError,
    SecretsManagerError,
    TokenEndpointUnavailableError,
)
from rotate_token.retrying import RESERVED_SECONDS
from rotate_token.rotation import Result, rotate
from rotate_token.token_endpoint import TokenEndpoint
from tests.samples import Timeline, make_store, old_token

NOW = 1_800_000_000
FIRST = FakeSmartcar.client_secret


class Scene(Timeline):
    """Two secrets and a scripted token endpoint, in simulated time."""

    def __init__(self, secrets: SecretsManagerClient) -> None:
        super().__init__(NOW)
        self.secrets = secrets
        self.statuses: list[int] = []
        self.accepted = {FIRST}
        self.asked_with: list[str] = []
        self.timeouts: list[float] = []
        secrets.create_secret(Name=CREDENTIALS_SECRET_ID)
        secrets.create_secret(Name=TOKEN_SECRET_ID)
        self.store_client_secret(FIRST)

    def put(self, secret_id: str, value: str) -> None:
        """Put a value into a secret."""
        self.secrets.put_secret_value(SecretId=secret_id, SecretString=value)

    def store_client_secret(self, client_secret: str) -> None:
        """Make a client secret the current one."""
        client = {"client_id": "client_8f3b1c6e", "client_secret": client_secret}
        self.put(CREDENTIALS_SECRET_ID, json.dumps(client))

    def publish_old(self, age_seconds: int, expires_in: int = 3600) -> None:
        """Publish a token of the given age and lifetime."""
        token = replace(old_token(NOW - age_seconds), expires_in=expires_in)
        self.put(TOKEN_SECRET_ID, token.to_json())

    def read(self, secret_id: str, staging_label: str = "AWSCURRENT") -> Any:
        """Read a version of a secret, with its value as an object."""
        secret = self.secrets.get_secret_value(SecretId=secret_id, VersionStage=staging_label)
        return {**secret, **json.loads(secret["SecretString"])}

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer with the next scripted status or, after the last one, as a token endpoint does."""
        (client_secret,) = parse_qs(request.content.decode())["client_secret"]
        self.asked_with.append(client_secret)
        self.timeouts.append(request.extensions["timeout"]["read"])
        status = 200 if client_secret in self.accepted else 401
        token = {
            "access_token": f"token-{len(self.asked_with)}",
            "token_type": "bearer",
            "expires_in": "3600",
        }
        body = httpx.ByteStream(json.dumps(token).encode())
        return httpx.Response(self.statuses.pop(0) if self.statuses else status, stream=body)

    def rotate(self, timeout_seconds: float = 900, *, forced: bool = False) -> Result:
        """Run the rotation."""
        endpoint = TokenEndpoint(
            "https://iam.smartcar.com/oauth2/token",
            transport=httpx.MockTransport(self.answer),
        )
        run = self.begin_run(timeout_seconds, forced=forced)
        return rotate(make_store(self.secrets), endpoint, run)


@pytest.fixture
def scene(secrets: SecretsManagerClient) -> Scene:
    """A scene with credentials and no token yet."""
    return Scene(secrets)


def test_missing(scene: Scene) -> None:
    """The first run publishes a token."""
    result = scene.rotate()

    token = scene.read(TOKEN_SECRET_ID)
    assert result == {
        "status": "rotated",
        "reason": "missing",
        "expires_at": NOW + 3600,
        "expires_in": 3600,
        "is_lifetime_assumed": False,
        "version_id": token["VersionId"],
        "credentials": "current",
        "credentials_version_id": scene.read(CREDENTIALS_SECRET_ID)["VersionId"],
    }
    assert token["access_token"] == "token-1"
    assert token["issued_at"] == NOW
    assert scene.reports == []


def test_fresh(scene: Scene) -> None:
    """A fresh token is kept, and none is requested."""
    scene.publish_old(60)

    assert scene.rotate() == {
        "status": "skipped",
        "reason": "fresh",
        "expires_at": NOW + 3540,
        "expires_in": 3600,
    }
    assert scene.asked_with == []


@pytest.mark.parametrize(
    ("age_seconds", "forced", "reason", "seconds_left"),
    [(3000, False, "due", 600), (7200, False, "due", -3600), (60, True, "forced", 3540)],
)
def test_replaced(
    scene: Scene,
    age_seconds: int,
    forced: bool,  # noqa: FBT001 (a parameter of the test)
    reason: str,
    seconds_left: int,
) -> None:
    """A token that is not fresh is replaced, even if it has expired; in a forced run, any is."""
    scene.publish_old(age_seconds)

    result = scene.rotate(forced=forced)

    assert result["status"] == "rotated"
    assert result["reason"] == reason
    assert result["seconds_left_on_old_token"] == seconds_left
    assert scene.read(TOKEN_SECRET_ID)["access_token"] == "token-1"


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

    assert scene.rotate()["reason"] == reason


@pytest.mark.parametrize("forced", [False, True])
def test_unreadable(scene: Scene, forced: bool) -> None:  # noqa: FBT001
    """A value that does not satisfy the contract is replaced, and reported with what is wrong."""
    scene.put(TOKEN_SECRET_ID, "null")

    assert scene.rotate(forced=forced)["reason"] == "unreadable"
    assert scene.read(TOKEN_SECRET_ID)["access_token"] == "token-1"
    ((error, what_follows),) = scene.reports
    assert isinstance(error, SecretsManagerError)
    assert error.problem.endswith(
        " does not hold a token from this function: the value is not a JSON object"
    )
    assert what_follows == "replacing the token"


def test_retried(scene: Scene) -> None:
    """Transient failures are retried; issued_at is the time of the request that succeeded."""
    scene.statuses = [503, 429, 500]

    scene.rotate()

    assert len(scene.asked_with) == 4
    assert len(scene.reports) == len(scene.waits) == 3
    assert scene.read(TOKEN_SECRET_ID)["issued_at"] == int(NOW + sum(scene.waits))


@pytest.mark.parametrize("status", [503, 401])
def test_corrected_credentials(scene: Scene, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that are corrected during a run are used by its next attempt."""
    scene.statuses = [status]
    scene.accepted = {"corrected"}
    monkeypatch.setattr(scene, "sleep", lambda _: scene.store_client_secret("corrected"))

    assert scene.rotate()["credentials"] == "current"
    assert scene.asked_with == [FIRST, "corrected"]


def test_rejected_credentials(scene: Scene) -> None:
    """If the endpoint refuses the current client credentials, the previous ones are used."""
    scene.store_client_secret("mistyped")

    result = scene.rotate()

    previous = scene.read(CREDENTIALS_SECRET_ID, "AWSPREVIOUS")
    assert result["credentials"] == "previous"
    assert result["credentials_version_id"] == previous["VersionId"]
    assert scene.asked_with == ["mistyped", FIRST]
    assert scene.read(TOKEN_SECRET_ID)["access_token"] == "token-2"
    ((error, what_follows),) = scene.reports
    assert isinstance(error, CredentialsError)
    assert what_follows == "trying the previous credentials"


def test_timeouts(scene: Scene) -> None:
    """No request of an attempt lasts longer than further attempts may start."""
    scene.store_client_secret("mistyped")

    scene.rotate(RESERVED_SECONDS + 5)

    assert scene.timeouts == [5, 5]


def test_unusable_credentials(scene: Scene) -> None:
    """If the current credentials are unusable, the previous ones are used, even in an outage."""
    scene.put(CREDENTIALS_SECRET_ID, "{}")
    scene.statuses = [503]

    assert scene.rotate()["credentials"] == "previous"
    assert scene.asked_with == [FIRST, FIRST]
    assert [type(error) for error, _ in scene.reports] == [
        *(CredentialsError, TokenEndpointUnavailableError, CredentialsError)
    ]


@pytest.mark.parametrize(
    ("stored", "asked_with", "reasons"),
    [
        (
            [],
            [FIRST],
            "401; with the previous credentials: .* label AWSPREVIOUS, or does not exist",
        ),
        (["mistyped"], ["mistyped", FIRST], "401; with the previous credentials: .* answered 401"),
        (["mistyped", "mistyped"], ["mistyped"], "401"),
    ],
    ids=["no previous", "both rejected", "both the same"],
)
def test_no_good_credentials(
    scene: Scene, stored: list[str], asked_with: list[str], reasons: str
) -> None:
    """Without valid credentials a run tries the current and the previous ones, and says why."""
    scene.accepted = set()
    for client_secret in stored:
        scene.store_client_secret(client_secret)

    with pytest.raises(CredentialsError, match=f"^https://.* answered {reasons}; store a valid"):
        scene.rotate(forced=True)

    assert scene.asked_with == asked_with
    assert len(scene.reports) == len(asked_with)
