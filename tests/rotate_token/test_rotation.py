"""rotate, with its real parts, a Secrets Manager in this process and a scripted transport."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import pytest
from botocore.exceptions import ClientError

from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from local.fakes.smartcar import FakeSmartcar
from rotate_token.errors import (
    CredentialsError,
    RotationError,
    TokenEndpointUnavailableError,
)
from rotate_token.retrying import Run
from rotate_token.rotation import Result, rotate
from rotate_token.token_endpoint import TokenEndpoint
from tests.samples import make_store, old_token

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

NOW = 1_800_000_000
FIRST = FakeSmartcar.client_secret


class Scene:
    """Two secrets, a scripted token endpoint, and a clock that advances only during waits."""

    def __init__(self, secrets: SecretsManagerClient) -> None:
        self.now = float(NOW)
        self.secrets = secrets
        self.store = make_store(secrets)
        self.answers: list[int] = []
        self.accepted = {FIRST}
        self.refusal: tuple[int, dict[str, str]] = 401, {}
        self.asked_with: list[str] = []
        self.waits: list[float] = []
        self.failures: list[tuple[RotationError, str]] = []
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

    def published(self) -> dict[str, Any]:
        """Read the token secret as a consumer does."""
        secret = self.secrets.get_secret_value(SecretId=TOKEN_SECRET_ID)
        document: dict[str, Any] = json.loads(secret["SecretString"])
        return document

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer with the next scripted status or, after the last one, as a token endpoint does."""
        (client_secret,) = parse_qs(request.content.decode())["client_secret"]
        self.asked_with.append(client_secret)
        token = {
            "access_token": f"token-{len(self.asked_with)}",
            "token_type": "bearer",
            "expires_in": "3600",
        }
        status, document = (200, token) if client_secret in self.accepted else self.refusal
        if self.answers:
            status = self.answers.pop(0)
        return httpx.Response(status, stream=httpx.ByteStream(json.dumps(document).encode()))

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.waits.append(seconds)
        self.now += seconds

    def rotate(self, *, forced: bool = False) -> Result:
        """Run the rotation."""
        endpoint = TokenEndpoint(
            "https://iam.smartcar.com/oauth2/token",
            transport=httpx.MockTransport(self.answer),
        )
        run = Run(
            timeout_seconds=900,
            report=lambda *failure: self.failures.append(failure),
            forced=forced,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        return rotate(self.store, endpoint, run)


@pytest.fixture
def scene(secrets: SecretsManagerClient) -> Scene:
    """A scene with credentials and no token yet."""
    return Scene(secrets)


def test_missing(scene: Scene) -> None:
    """The first run publishes a token."""
    result = scene.rotate()

    credentials = scene.secrets.get_secret_value(SecretId=CREDENTIALS_SECRET_ID)
    token = scene.secrets.get_secret_value(SecretId=TOKEN_SECRET_ID)
    assert result == {
        "status": "rotated",
        "reason": "missing",
        "expires_at": NOW + 3600,
        "expires_in": 3600,
        "is_lifetime_assumed": False,
        "version_id": token["VersionId"],
        "credentials": "current",
        "credentials_version_id": credentials["VersionId"],
    }
    assert scene.failures == []
    assert scene.published() == {
        "access_token": "token-1",
        "token_type": "Bearer",
        "expires_in": 3600,
        "issued_at": NOW,
        "expires_at": NOW + 3600,
    }


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
    assert scene.published()["access_token"] == "eyJvbGQi.k3Jd8sLq0ZxVbNm2"


@pytest.mark.parametrize(("age_seconds", "seconds_left"), [(3000, 600), (7200, -3600)])
def test_due(scene: Scene, age_seconds: int, seconds_left: int) -> None:
    """A token that is not fresh is replaced, even if it has expired."""
    scene.publish_old(age_seconds)

    result = scene.rotate()

    assert result["status"] == "rotated"
    assert result["seconds_left_on_old_token"] == seconds_left
    assert scene.published()["access_token"] == "token-1"


def test_forced(scene: Scene) -> None:
    """A forced run replaces a fresh token."""
    scene.publish_old(60)

    assert scene.rotate(forced=True)["reason"] == "forced"
    assert scene.published()["access_token"] == "token-1"


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
    assert scene.published()["access_token"] == "token-1"
    ((error, what_follows),) = scene.failures
    assert error.problem == (
        f"Secret {TOKEN_SECRET_ID} does not hold a token from this function: "
        "the value is not a JSON object"
    )
    assert what_follows == "replacing the token"


def test_retried(scene: Scene) -> None:
    """Transient failures are retried; issued_at is the time of the request that succeeded."""
    scene.answers = [503, 429, 500]

    scene.rotate()

    assert len(scene.asked_with) == 4
    assert len(scene.failures) == len(scene.waits) == 3
    assert scene.published()["issued_at"] == int(NOW + sum(scene.waits))


@pytest.mark.parametrize("answers", [[503], [401]])
def test_corrected_credentials(
    scene: Scene, answers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that are corrected during a run are used by its next attempt."""
    scene.answers = answers
    scene.accepted = {"corrected"}
    monkeypatch.setattr(scene, "sleep", lambda _: scene.store_client_secret("corrected"))

    assert scene.rotate()["credentials"] == "current"
    assert scene.asked_with == [FIRST, "corrected"]


@pytest.mark.parametrize(
    "refusal", [(401, {}), (400, {"error": "unauthorized_client"})], ids=["client", "grant"]
)
def test_rejected_credentials(scene: Scene, refusal: tuple[int, dict[str, str]]) -> None:
    """If the current client is refused, or may not use the grant, the previous one is used."""
    scene.refusal = refusal
    scene.store_client_secret("mistyped")

    result = scene.rotate()

    previous = scene.secrets.get_secret_value(
        SecretId=CREDENTIALS_SECRET_ID, VersionStage="AWSPREVIOUS"
    )
    assert result["credentials"] == "previous"
    assert result["credentials_version_id"] == previous["VersionId"]
    assert scene.asked_with == ["mistyped", FIRST]
    assert scene.published()["access_token"] == "token-2"
    ((error, what_follows),) = scene.failures
    assert isinstance(error, CredentialsError)
    assert what_follows == "trying the previous credentials"


def test_unusable_credentials(scene: Scene) -> None:
    """If the current credentials are unusable, the previous ones are used, even in an outage."""
    scene.put(CREDENTIALS_SECRET_ID, "{}")
    scene.answers = [503]

    assert scene.rotate()["credentials"] == "previous"
    assert scene.asked_with == [FIRST, FIRST]
    assert [type(error) for error, _ in scene.failures] == [
        *(CredentialsError, TokenEndpointUnavailableError, CredentialsError)
    ]


def test_credentials_not_readable(scene: Scene) -> None:
    """If the current credentials may not be read, the previous ones are used."""
    scene.store_client_secret("under another key")

    def deny(params: dict[str, str], **_: object) -> None:
        if params == {"SecretId": CREDENTIALS_SECRET_ID, "VersionStage": "AWSCURRENT"}:
            response: Any = {
                "Error": {"Code": "AccessDeniedException", "Message": "As scripted."},
                "ResponseMetadata": {"HTTPStatusCode": 400},
            }
            raise ClientError(response, "GetSecretValue")

    scene.secrets.meta.events.register("before-parameter-build.*.GetSecretValue", deny)

    assert scene.rotate()["credentials"] == "previous"
    assert scene.asked_with == [FIRST]
    ((error, _),) = scene.failures
    assert error.next_step.startswith("grant this permission to the function's role")


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
    assert len(scene.failures) == len(asked_with)
