"""SecretStore."""

from typing import Any

import boto3
import pytest
from werkzeug import Response

from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import (
    CREDENTIALS_SECRET_ID,
    TOKEN_SECRET_ID,
    FakeSecretsManager,
    Fault,
)
from rotate_token.access_token import AccessToken
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
)
from rotate_token.secret_store import SecretStore
from tests.samples import make_store


def test_binary(secrets_manager: FakeSecretsManager) -> None:
    """The error for a secret without a string value names it, and says what to store."""
    secrets_manager.client.put_secret_value(SecretId=CREDENTIALS_SECRET_ID, SecretBinary=b"kYz7Q2")

    with pytest.raises(
        CredentialsError, match=f"^Secret {CREDENTIALS_SECRET_ID} .* not a JSON object; store"
    ):
        make_store(secrets_manager.client).read_credentials("AWSCURRENT")


@pytest.mark.parametrize(
    ("code", "next_step"),
    [
        ("AccessDeniedException", "grant this permission"),
        ("DecryptionFailure", "check that the secret's KMS key is enabled"),
        ("EncryptionFailure", "check that the secret's KMS key is enabled"),
        ("InvalidRequestException", "if the secret is marked for deletion, restore it"),
        ("LimitExceededException", "the secret has too many versions"),
        ("ResourceNotFoundException", "create the secret"),
        ("AnotherException", "if this persists, check the AWS Health Dashboard"),
    ],
)
def test_refused(
    code: str, next_step: str, secrets_manager: FakeSecretsManager, old: AccessToken
) -> None:
    """The error for a call that is refused passes AWS's reason on, and says what to do."""
    secrets_manager.faults.append(Fault("PutSecretValue", TOKEN_SECRET_ID, code))
    failed = rf"^PutSecretValue failed on secret {TOKEN_SECRET_ID} \({code}: As scripted.\)"
    with pytest.raises(SecretsManagerError, match=f"{failed}; {next_step}"):
        make_store(secrets_manager.client).publish_token(old)


@pytest.mark.parametrize("setting", ["CREDENTIALS_SECRET_ID", "TOKEN_SECRET_ID"])
def test_other_region(setting: str, secrets_manager: FakeSecretsManager) -> None:
    """An ARN of another region than that of the client is an error that names both regions."""
    ids = {
        "credentials_secret_id": CREDENTIALS_SECRET_ID,
        "token_secret_id": TOKEN_SECRET_ID,
        setting.lower(): "arn:aws:secretsmanager:eu-west-1:123456789012:secret:other-Ab12Cd",
    }

    with pytest.raises(
        ConfigurationError, match=f"^{setting} is in eu-west-1, but .* in us-east-1; "
    ):
        SecretStore(secrets_manager.client, **ids)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((b'{"SecretString": "kYz7Q2vXw9Lr4TnB\xc3',), id="half a character"),
        pytest.param((b'{"ARN": "arn:of-the-secret"}',), id="no VersionId"),
        pytest.param((b"[]",), id="an array"),
        pytest.param((b'{"__type": 5}', 400), id="a number as the error code"),
    ],
)
def test_incomplete_answer(answer: tuple[Any, ...], old: AccessToken) -> None:
    """An answer that is incomplete, or not one of Secrets Manager, is a transient error."""
    with LoopbackServer(Response(*answer)) as server:
        store = make_store(boto3.client("secretsmanager", endpoint_url=server.address))
        with pytest.raises(SecretsManagerUnavailableError, match="is incomplete"):
            store.read_credentials("AWSCURRENT")
        with pytest.raises(SecretsManagerUnavailableError, match="is incomplete"):
            store.publish_token(old)
