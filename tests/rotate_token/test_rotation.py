"""rotate: real parts over an embedded Secrets Manager and a scripted transport."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import pytest
from botocore.exceptions import ClientError

from rotate_token.access_token import AccessToken
from rotate_token.errors import (
    CredentialsError,
    InvalidClientError,
    SecretsManagerError,
)
from rotate_token.rotation import Result, rotate
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_secretsmanager import SecretsManagerClient

    from rotate_token.credentials import ClientCredentials
    from rotate_token.errors import TokenRequestError

NOW = 1_800_000_000


def old_token(age_seconds: int) -> AccessToken:
    """Make a token of that age, of the usual lifetime."""
    return AccessToken("eyJhbGciOi.eyJpc3MiOi.b2xk", expires_in=3600, issued_at=NOW - age_seconds)


class Scene:
    """Two secrets, an endpoint that plays answers, and a clock that only waiting moves."""

    def __init__(self, secrets: SecretsManagerClient, credentials: ClientCredentials) -> None:
        self.now = float(NOW)
        self.secrets = secrets
        self.answers: list[int] = []
        self.accepted = {credentials.client_secret}
        self.asked_with: list[str] = []
        self.on_request: Callable[[], object] = lambda: None
        self.waits: list[float] = []
        self.failures: list[tuple[TokenRequestError, str]] = []
        secrets.create_secret(Name="smartcar")
        secrets.create_secret(Name="token")
        self.store_client_secret(credentials.client_secret)

    @property
    def requests(self) -> int:
        """How often the endpoint was asked."""
        return len(self.asked_with)

    def store_client_secret(self, client_secret: str) -> str:
        """Make a client secret the current one, and return the version that has it."""
        client = {"client_id": "client_8f3b1c6e", "client_secret": client_secret}
        return self.secrets.put_secret_value(SecretId="smartcar", SecretString=json.dumps(client))[
            "VersionId"
        ]

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer with the next status, or as an endpoint does when the script is through."""
        (client_secret,) = parse_qs(request.content.decode())["client_secret"]
        self.asked_with.append(client_secret)
        self.on_request()
        if self.answers:
            return httpx.Response(self.answers.pop(0))
        if client_secret not in self.accepted:
            return httpx.Response(401, json={"error": "invalid_client"})
        token = {
            "access_token": f"token-{self.requests}",
            "token_type": "bearer",
            "expires_in": 3600,
        }
        return httpx.Response(200, json=token)

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.waits.append(seconds)
        self.now += seconds

    def publish(self, value: str) -> None:
        """Put a value into the token secret."""
        self.secrets.put_secret_value(SecretId="token", SecretString=value)

    def published(self) -> dict[str, Any]:
        """Read the token secret as a consumer does."""
        document: dict[str, Any] = json.loads(
            self.secrets.get_secret_value(SecretId="token")["SecretString"]
        )
        return document

    def store(self) -> SecretStore:
        """Make the store of a run, or of another at the same time."""
        return SecretStore(self.secrets, credentials_secret_id="smartcar", token_secret_id="token")

    def rotate(self, *, forced: bool = False) -> Result:
        """Run the job."""
        return rotate(
            self.store(),
            TokenEndpoint(
                "https://iam.smartcar.com/oauth2/token",
                transport=httpx.MockTransport(self.answer),
                clock=lambda: self.now,
            ),
            forced=forced,
            until=self.now + 860,
            on_failed_attempt=lambda *failure: self.failures.append(failure),
            clock=lambda: self.now,
            sleep=self.sleep,
        )


@pytest.fixture
def scene(secrets: SecretsManagerClient, credentials: ClientCredentials) -> Scene:
    """A scene with credentials and no token yet."""
    return Scene(secrets, credentials)


def test_missing(scene: Scene) -> None:
    """The first run publishes a token."""
    result = scene.rotate()

    assert result.pop("version_id")
    assert result == {
        "status": "rotated",
        "reason": "missing",
        "expires_at": NOW + 3600,
        "expires_in": 3600,
        "credentials": "current",
    }
    assert scene.published() == {
        "access_token": "token-1",
        "token_type": "Bearer",
        "expires_in": 3600,
        "issued_at": NOW,
        "expires_at": NOW + 3600,
    }


@pytest.mark.parametrize("age_seconds", [0, 359])
def test_fresh(scene: Scene, age_seconds: int) -> None:
    """A token that has lived for less than a tenth of its time stays, and nothing is asked."""
    scene.publish(old_token(age_seconds).to_json())

    assert scene.rotate() == {
        "status": "skipped",
        "reason": "fresh",
        "expires_at": NOW - age_seconds + 3600,
        "expires_in": 3600,
    }
    assert scene.requests == 0
    assert scene.published()["access_token"] == "eyJhbGciOi.eyJpc3MiOi.b2xk"


@pytest.mark.parametrize(
    ("age_seconds", "seconds_left"),
    [(360, 3240), (3000, 600), (3600, 0), (7200, -3600), (-60, 3660)],
)
def test_due(scene: Scene, age_seconds: int, seconds_left: int) -> None:
    """Any other token is replaced: used for a while, expired, or issued in the future."""
    scene.publish(old_token(age_seconds).to_json())

    result = scene.rotate()

    assert result["status"] == "rotated"
    assert result["reason"] == "due"
    assert result["seconds_left_on_old_token"] == seconds_left
    assert scene.published()["access_token"] == "token-1"


def test_forced(scene: Scene) -> None:
    """A fresh token is replaced where that is asked for."""
    scene.publish(old_token(60).to_json())

    result = scene.rotate(forced=True)

    assert result["reason"] == "forced"
    assert result["seconds_left_on_old_token"] == 3540
    assert scene.published()["access_token"] == "token-1"


@pytest.mark.parametrize("value", ["null", '{"access_token": "eyJ"}', "not a token"])
def test_unreadable(scene: Scene, value: str, caplog: pytest.LogCaptureFixture) -> None:
    """A value that is not the contract's is replaced, and the log says what was wrong with it."""
    scene.publish(value)

    assert scene.rotate()["reason"] == "unreadable"
    assert scene.published()["access_token"] == "token-1"
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "Secret token holds no published token"
    ]


def test_retried(scene: Scene) -> None:
    """A failure that passes is waited out, and the token dated by the request that got it."""
    scene.answers = [503, 429, 500]

    scene.rotate()

    assert scene.requests == 4
    assert len(scene.waits) == 3
    assert scene.published()["issued_at"] == int(NOW + sum(scene.waits))


def test_refused(scene: Scene) -> None:
    """A failure that does not pass ends the run at once, and the old token stays."""
    scene.publish(old_token(3000).to_json())
    scene.answers = [401]

    with pytest.raises(InvalidClientError):
        scene.rotate()

    assert scene.requests == 1
    assert scene.published()["access_token"] == "eyJhbGciOi.eyJpc3MiOi.b2xk"


@pytest.mark.parametrize("value", ["{}", '{"client_id": "client_8f3b1c6e"}', "client_secret"])
def test_unusable_credentials(scene: Scene, value: str) -> None:
    """Without usable credentials nothing is asked of the endpoint."""
    scene.secrets.put_secret_value(SecretId="smartcar", SecretString=value)

    with pytest.raises(CredentialsError):
        scene.rotate()

    assert scene.requests == 0


def test_no_token_secret(scene: Scene) -> None:
    """A token that cannot be published is an error."""
    scene.secrets.delete_secret(SecretId="token", ForceDeleteWithoutRecovery=True)

    with pytest.raises(SecretsManagerError):
        scene.rotate()


@pytest.mark.parametrize(
    ("operation", "calls"),
    [("get_secret_value", 0), ("get_secret_value", 1), ("put_secret_value", 0)],
    ids=["reading the token", "reading the credentials", "publishing"],
)
def test_secrets_manager_away(
    scene: Scene, operation: str, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What Secrets Manager cannot do for some minutes is tried again by the same run."""
    call = getattr(scene.secrets, operation)
    begun = iter(range(100))

    def fail_for_five_minutes(**arguments: Any) -> Any:
        if next(begun) >= calls and scene.now < NOW + 300:
            response: Any = {
                "Error": {"Code": "InternalServiceError", "Message": "It is away."},
                "ResponseMetadata": {"HTTPStatusCode": 500},
            }
            raise ClientError(response, operation)
        return call(**arguments)

    setattr(scene.secrets, operation, fail_for_five_minutes)

    assert scene.rotate()["status"] == "rotated"
    assert 300 <= scene.now - NOW < 331
    assert scene.requests == 1
    assert scene.failures == []
    assert "(InternalServiceError: It is away.); attempt 2 is in " in caplog.text


def test_corrected_credentials(scene: Scene) -> None:
    """In an outage of over a minute, credentials that were corrected meanwhile are used."""
    scene.answers = [503] * 40

    def correct() -> None:
        if scene.requests == 20:
            scene.accepted = {"corrected"}
            scene.store_client_secret("corrected")

    scene.on_request = correct

    assert scene.rotate()["credentials"] == "current"
    assert scene.asked_with[20:] == ["corrected"] * 21


def test_credentials_at_first(scene: Scene) -> None:
    """For a minute, the credentials that were read first are used."""
    scene.answers = [503, 503]
    scene.on_request = lambda: scene.store_client_secret("corrected")

    scene.rotate()

    assert len(set(scene.asked_with)) == 1


def test_lost_credentials(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Credentials that cannot be read again stay in use, with a warning."""
    scene.answers = [503] * 40
    scene.on_request = lambda: scene.secrets.put_secret_value(
        SecretId="smartcar", SecretString="in the middle of an edit"
    )

    scene.rotate()

    assert len(set(scene.asked_with)) == 1
    assert caplog.messages[-1] == (
        "Secret smartcar holds no client credentials: it is not a JSON object; "
        "the credentials read before stay in use"
    )


def test_previous_credentials(scene: Scene) -> None:
    """Where current credentials are refused, those before them are tried, and their token taken."""
    (good,) = scene.accepted
    scene.store_client_secret("mistyped")

    result = scene.rotate()

    assert result["credentials"] == "previous"
    assert scene.asked_with == ["mistyped", good]
    assert scene.published()["access_token"] == "token-2"
    ((error, what_follows),) = scene.failures
    assert isinstance(error, InvalidClientError)
    assert what_follows.startswith("version ")


def test_both_refused(scene: Scene) -> None:
    """Where both are refused, the error names both versions, and neither secret."""
    first = scene.store_client_secret("revoked")
    second = scene.store_client_secret("mistyped")

    with pytest.raises(
        InvalidClientError, match=f"{second} and {first} of the credentials"
    ) as raised:
        scene.rotate()

    assert scene.asked_with == ["mistyped", "revoked"]
    assert "revoked" not in str(raised.value)
    assert "mistyped" not in str(raised.value)


def test_same_credentials(scene: Scene) -> None:
    """Previous credentials that do not differ are not tried."""
    scene.store_client_secret("revoked")
    scene.store_client_secret("revoked")

    with pytest.raises(InvalidClientError):
        scene.rotate()

    assert scene.asked_with == ["revoked"]


def test_no_previous_credentials(scene: Scene) -> None:
    """Where there are no previous credentials, the refusal of the current ones stands."""
    scene.accepted = set()

    with pytest.raises(InvalidClientError, match="answered 401 invalid_client; "):
        scene.rotate()

    assert scene.requests == 1


def test_unusable_previous_credentials(scene: Scene) -> None:
    """So it does where the previous value is none that can be used."""
    scene.secrets.put_secret_value(SecretId="smartcar", SecretString="{}")
    scene.store_client_secret("mistyped")

    with pytest.raises(InvalidClientError):
        scene.rotate()

    assert scene.requests == 1


def test_outage_during_the_fallback(scene: Scene) -> None:
    """A failure of the fallback that passes is waited out as any other."""
    scene.store_client_secret("mistyped")
    scene.answers = [401, 503]

    assert scene.rotate()["credentials"] == "previous"
    assert scene.requests == 4
    assert len(scene.waits) == 1


def test_another_run_was_faster(scene: Scene) -> None:
    """A run that finds another's token at the end leaves it, and reports it."""
    other = AccessToken("eyJhbGciOi.eyJpc3MiOi.b3RoZXI", expires_in=3600, issued_at=NOW)

    def publish() -> None:
        store = SecretStore(
            scene.secrets, credentials_secret_id="smartcar", token_secret_id="token"
        )
        store.publish_token(other)

    scene.on_request = publish

    assert scene.rotate() == {
        "status": "skipped",
        "reason": "fresh",
        "expires_at": NOW + 3600,
        "expires_in": 3600,
    }
    assert scene.published()["access_token"] == other.access_token


def test_another_run_was_no_help(scene: Scene) -> None:
    """A run that finds another's token at the end, but a much older one, replaces it."""

    def publish() -> None:
        store = SecretStore(
            scene.secrets, credentials_secret_id="smartcar", token_secret_id="token"
        )
        store.publish_token(old_token(400))

    scene.on_request = publish

    assert scene.rotate()["status"] == "rotated"
    assert scene.published()["access_token"] == "token-1"
