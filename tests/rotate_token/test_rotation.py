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
    ConfigurationError,
    CredentialsError,
    RotationError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
    TokenEndpointUnavailableError,
)
from rotate_token.retrying import Run
from rotate_token.rotation import Result, rotate
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import TokenEndpoint
from tests.samples import make_store, old_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_secretsmanager import SecretsManagerClient

    from rotate_token.credentials import ClientCredentials

NOW = 1_800_000_000
FIRST = FakeSmartcar.client_secret


def client_error(code: str, status: int, operation: str) -> ClientError:
    """Make an error of Secrets Manager."""
    response: Any = {
        "Error": {"Code": code, "Message": "As scripted."},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, operation)


class Scene:
    """Two secrets, a scripted token endpoint, and a clock that advances only during waits."""

    def __init__(self, secrets: SecretsManagerClient, credentials: ClientCredentials) -> None:
        self.now = float(NOW)
        self.secrets = secrets
        self.store = make_store(secrets)
        self.answers: list[int] = []
        self.accepted = {credentials.client_secret}
        self.asked_with: list[str] = []
        self.on_request: Callable[[], object] = lambda: None
        self.waits: list[float] = []
        self.failures: list[tuple[RotationError, str]] = []
        secrets.create_secret(Name=CREDENTIALS_SECRET_ID)
        secrets.create_secret(Name=TOKEN_SECRET_ID)
        self.store_client_secret(credentials.client_secret)

    def store_client_secret(self, client_secret: str) -> None:
        """Make a client secret the current one."""
        client = {"client_id": "client_8f3b1c6e", "client_secret": client_secret}
        self.store_credentials(json.dumps(client))

    def store_credentials(self, value: str) -> None:
        """Put a value into the credentials secret."""
        self.secrets.put_secret_value(SecretId=CREDENTIALS_SECRET_ID, SecretString=value)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer with the next scripted status or, after the last one, as a token endpoint does."""
        (client_secret,) = parse_qs(request.content.decode())["client_secret"]
        self.asked_with.append(client_secret)
        self.on_request()
        status = 200 if client_secret in self.accepted else 401
        if self.answers:
            status = self.answers.pop(0)
        token = {
            "access_token": f"token-{len(self.asked_with)}",
            "token_type": "bearer",
            "expires_in": 3600,
        }
        document = token if status == 200 else {}
        return httpx.Response(status, stream=httpx.ByteStream(json.dumps(document).encode()))

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.waits.append(seconds)
        self.now += seconds

    def publish(self, value: str) -> None:
        """Put a value into the token secret."""
        self.secrets.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=value)

    def publish_old(self, age_seconds: int) -> None:
        """Publish a token of the given age and the usual lifetime."""
        self.publish(old_token(NOW - age_seconds).to_json())

    def published(self) -> dict[str, Any]:
        """Read the token secret as a consumer does."""
        secret = self.secrets.get_secret_value(SecretId=TOKEN_SECRET_ID)
        document: dict[str, Any] = json.loads(secret["SecretString"])
        return document

    def break_for(self, seconds: float, operation: str, after_calls: int = 0) -> None:
        """Make an operation of Secrets Manager fail for some time, after a number of calls."""
        call = getattr(self.secrets, operation)
        calls = iter(range(1000))

        def fail_for_a_while(**arguments: Any) -> Any:
            if next(calls) >= after_calls and self.now < NOW + seconds:
                raise client_error("InternalServiceError", 500, operation)
            return call(**arguments)

        setattr(self.secrets, operation, fail_for_a_while)

    def deny(self, operation: str, secret_id: str, version_stages: tuple[str, ...]) -> None:
        """Make Secrets Manager deny an operation on these versions of a secret."""
        call = getattr(self.secrets, operation)

        def fail_for_good(**arguments: Any) -> Any:
            stage = arguments.get("VersionStage", "AWSCURRENT")
            if arguments["SecretId"] == secret_id and stage in version_stages:
                raise client_error("AccessDeniedException", 400, operation)
            return call(**arguments)

        setattr(self.secrets, operation, fail_for_good)

    def rotate(self, *, forced: bool = False) -> Result:
        """Run the rotation."""
        endpoint = TokenEndpoint(
            "https://iam.smartcar.com/oauth2/token",
            transport=httpx.MockTransport(self.answer),
        )
        run = Run(
            timeout_seconds=900,
            report=lambda *failure: self.failures.append(failure),
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        return rotate(self.store, endpoint, run, forced=forced)


@pytest.fixture
def scene(secrets: SecretsManagerClient, credentials: ClientCredentials) -> Scene:
    """A scene with credentials and no token yet."""
    return Scene(secrets, credentials)


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


@pytest.mark.parametrize("age_seconds", [0, 179])
def test_fresh(scene: Scene, age_seconds: int) -> None:
    """A token is kept, and none requested, before a twentieth of its lifetime has passed."""
    scene.publish_old(age_seconds)

    assert scene.rotate() == {
        "status": "skipped",
        "reason": "fresh",
        "expires_at": NOW - age_seconds + 3600,
        "expires_in": 3600,
    }
    assert scene.asked_with == []
    assert scene.published()["access_token"] == "eyJvbGQi.k3Jd8sLq0ZxVbNm2"


@pytest.mark.parametrize(
    ("age_seconds", "seconds_left"),
    [(180, 3420), (3000, 600), (3600, 0), (7200, -3600), (-60, 3660)],
)
def test_due(scene: Scene, age_seconds: int, seconds_left: int) -> None:
    """A token that is not fresh is replaced, even if it has expired or is from the future."""
    scene.publish_old(age_seconds)

    result = scene.rotate()

    assert result["status"] == "rotated"
    assert result["reason"] == "due"
    assert result["seconds_left_on_old_token"] == seconds_left
    assert scene.published()["access_token"] == "token-1"


def test_forced(scene: Scene) -> None:
    """A forced run replaces a fresh token."""
    scene.publish_old(60)

    result = scene.rotate(forced=True)

    assert result["reason"] == "forced"
    assert result["seconds_left_on_old_token"] == 3540
    assert scene.published()["access_token"] == "token-1"


@pytest.mark.parametrize(
    ("age_seconds", "expires_in", "reason"),
    [
        (179, 86_400, "fresh"),
        (180, 86_400, "due"),
        (180, 3_600_000, "due"),
        (29, 600, "fresh"),
        (30, 600, "due"),
    ],
)
def test_other_lifetimes(scene: Scene, age_seconds: int, expires_in: int, reason: str) -> None:
    """A token is fresh for 3 minutes at most, and for less if it is valid for less than an hour."""
    token = replace(old_token(NOW - age_seconds), expires_in=expires_in)
    scene.publish(token.to_json())

    assert scene.rotate()["reason"] == reason


@pytest.mark.parametrize("value", ["null", '{"access_token": "eyJ"}', "not a token"])
@pytest.mark.parametrize("forced", [False, True])
def test_unreadable(scene: Scene, value: str, forced: bool) -> None:  # noqa: FBT001
    """A value that does not satisfy the contract is replaced, and reported with what is wrong."""
    scene.publish(value)

    assert scene.rotate(forced=forced)["reason"] == "unreadable"
    assert scene.published()["access_token"] == "token-1"
    ((error, what_follows),) = scene.failures
    assert str(error).startswith(
        f"Secret {TOKEN_SECRET_ID} does not hold a token from this functio"
    )
    assert what_follows == "replacing the token; find out who wrote it"


@pytest.mark.parametrize("forced", [False, True])
def test_token_not_readable(scene: Scene, forced: bool) -> None:  # noqa: FBT001
    """A token that may not be read is replaced, and reported with the reason and what to do."""
    scene.publish_old(60)
    scene.deny("get_secret_value", TOKEN_SECRET_ID, ("AWSCURRENT",))

    assert scene.rotate(forced=forced)["reason"] == "unreadable"
    assert scene.asked_with == [FIRST]
    ((error, what_follows),) = scene.failures
    assert isinstance(error, SecretsManagerError)
    assert "AccessDeniedException" in error.problem
    assert what_follows.startswith("replacing the token; allow it in the function's role")


def test_nothing_allowed(scene: Scene) -> None:
    """If the token may be neither read nor published, the run fails with the publication."""
    scene.deny("get_secret_value", TOKEN_SECRET_ID, ("AWSCURRENT",))
    scene.deny("put_secret_value", TOKEN_SECRET_ID, ("AWSCURRENT",))

    with pytest.raises(SecretsManagerError, match="^PutSecretValue failed .*AccessDeniedException"):
        scene.rotate()


@pytest.mark.parametrize("value", ["{}", '{"client_id": "client_8f3b1c6e", "client_secret": "x"}'])
@pytest.mark.parametrize("is_arn", [(True, False), (False, True), (False, False), (True, True)])
def test_one_secret_under_two_names(scene: Scene, value: str, is_arn: tuple[bool, bool]) -> None:
    """A secret that is named twice, by name or ARN, is an error before anything is written."""
    scene.store_credentials(value)
    arn = scene.secrets.describe_secret(SecretId=CREDENTIALS_SECRET_ID)["ARN"]
    credentials_secret_id, token_secret_id = (
        arn if is_ else CREDENTIALS_SECRET_ID for is_ in is_arn
    )
    scene.store = SecretStore(
        scene.secrets,
        credentials_secret_id=credentials_secret_id,
        token_secret_id=token_secret_id,
    )

    with pytest.raises(ConfigurationError, match="^TOKEN_SECRET_ID names the same secret as CREDE"):
        scene.rotate()

    assert scene.asked_with == []
    secret = scene.secrets.get_secret_value(SecretId=CREDENTIALS_SECRET_ID)
    assert secret["SecretString"] == value


def test_retried(scene: Scene) -> None:
    """Transient failures are retried; issued_at is the time of the request that succeeded."""
    scene.answers = [503, 429, 500]

    scene.rotate()

    assert len(scene.asked_with) == 4
    assert len(scene.failures) == len(scene.waits) == 3
    assert scene.published()["issued_at"] == int(NOW + sum(scene.waits))


@pytest.mark.parametrize(
    ("operation", "after_calls"),
    [("get_secret_value", 0), ("get_secret_value", 1), ("put_secret_value", 0)],
    ids=["reading the token", "reading the credentials", "publishing"],
)
def test_secrets_manager_down(scene: Scene, operation: str, after_calls: int) -> None:
    """In an outage of Secrets Manager, the same run retries, and each failure is reported."""
    scene.break_for(300, operation, after_calls)

    assert scene.rotate()["status"] == "rotated"
    assert 300 <= scene.now - NOW < 331
    assert len(scene.failures) == len(scene.waits)
    assert {type(error) for error, _ in scene.failures} == {SecretsManagerUnavailableError}


def test_publication_fails_for_a_while(scene: Scene) -> None:
    """An attempt publishes the token that it requested, however long publishing has failed."""
    scene.break_for(800, "put_secret_value")

    scene.rotate()

    assert len(scene.asked_with) == len(scene.failures) + 1
    assert scene.published()["issued_at"] == int(scene.now)
    assert scene.published()["access_token"] == f"token-{len(scene.asked_with)}"


def test_corrected_credentials(scene: Scene) -> None:
    """Credentials that are corrected during an outage are used by the next attempt."""
    scene.answers = [503, 503]

    def correct() -> None:
        scene.accepted = {"corrected"}
        scene.store_client_secret("corrected")

    scene.on_request = correct

    assert scene.rotate()["credentials"] == "current"
    assert scene.asked_with[1:] == ["corrected"] * 2


def test_rejected_credentials(scene: Scene) -> None:
    """If the current credentials are rejected, the previous ones are used."""
    (good,) = scene.accepted
    scene.store_client_secret("mistyped")

    result = scene.rotate()

    previous = scene.secrets.get_secret_value(
        SecretId=CREDENTIALS_SECRET_ID, VersionStage="AWSPREVIOUS"
    )
    assert result["credentials"] == "previous"
    assert result["credentials_version_id"] == previous["VersionId"]
    assert scene.asked_with == ["mistyped", good]
    assert scene.published()["access_token"] == "token-2"
    ((error, what_follows),) = scene.failures
    assert isinstance(error, CredentialsError)
    assert what_follows == "trying the previous credentials"


@pytest.mark.parametrize("value", ["{}", '{"client_id": "client_8f3b1c6e"}', "half an ed"])
def test_unusable_credentials(scene: Scene, value: str) -> None:
    """If the current credentials are unusable, the previous ones are used, even in an outage."""
    scene.store_credentials(value)
    scene.answers = [503]

    assert scene.rotate()["credentials"] == "previous"
    assert len(scene.asked_with) == 2
    assert [type(error) for error, _ in scene.failures] == [
        *(CredentialsError, TokenEndpointUnavailableError, CredentialsError)
    ]


@pytest.mark.parametrize(
    ("stored", "asked_with", "error"),
    [
        ([], ["revoked"], CredentialsError),
        (["mistyped"], ["mistyped", "revoked"], CredentialsError),
        (["mistyped", "mistyped"], ["mistyped"], CredentialsError),
        (["", "mistyped"], ["mistyped"], CredentialsError),
        (["", ""], [], CredentialsError),
    ],
    ids=["no previous", "both rejected", "both the same", "previous unusable", "both unusable"],
)
def test_no_good_credentials(
    scene: Scene, stored: list[str], asked_with: list[str], error: type[RotationError]
) -> None:
    """Without valid credentials a run fails, reports each failure, and shows no secret."""
    scene.accepted = set()
    for client_secret in stored:
        scene.store_client_secret(client_secret)

    with pytest.raises(error):
        scene.rotate()

    assert ["revoked" if secret == FIRST else secret for secret in scene.asked_with] == asked_with
    assert len(scene.failures) == max(1, len(asked_with))
    assert not any("mistyped" in f"{failure} {step}" for failure, step in scene.failures)


def test_both_reasons(scene: Scene) -> None:
    """If neither credentials can be used, the error says why, for the current and the previous."""
    scene.accepted = set()
    scene.store_credentials("half an ed")

    with pytest.raises(
        CredentialsError, match="it is not a JSON object; with the previous .* answered 401; store "
    ):
        scene.rotate()


def test_credentials_not_readable(scene: Scene) -> None:
    """If the current credentials may not be read, the previous ones are used."""
    scene.store_client_secret("under another key")
    scene.deny("get_secret_value", CREDENTIALS_SECRET_ID, ("AWSCURRENT",))

    assert scene.rotate()["credentials"] == "previous"
    assert scene.asked_with == [FIRST]
    ((error, _),) = scene.failures
    assert "AccessDeniedException" in error.problem


def test_no_credentials_readable(scene: Scene) -> None:
    """If no credentials may be read, the error says so for both versions."""
    scene.store_client_secret("under another key")
    scene.deny("get_secret_value", CREDENTIALS_SECRET_ID, ("AWSCURRENT", "AWSPREVIOUS"))

    with pytest.raises(CredentialsError, match="AccessDenied.*; with the previous .*AccessDenied"):
        scene.rotate()

    assert scene.asked_with == []
    assert len(scene.failures) == 1


def test_outage_during_the_fallback(scene: Scene) -> None:
    """A transient failure of a request with the previous credentials is retried."""
    scene.store_client_secret("mistyped")
    scene.answers = [401, 503]

    assert scene.rotate()["credentials"] == "previous"
    assert len(scene.asked_with) == 4
    assert len(scene.waits) == 1


def test_previous_credentials_unavailable(scene: Scene) -> None:
    """If the previous credentials cannot be read in an outage, the run retries."""
    scene.store_client_secret("mistyped")
    scene.break_for(10, "get_secret_value", after_calls=2)

    assert scene.rotate()["credentials"] == "previous"
    assert {type(error) for error, _ in scene.failures} == {
        *(SecretsManagerUnavailableError, CredentialsError)
    }
