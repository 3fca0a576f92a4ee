"""SecretStore."""

import json
from typing import Any

import boto3
import pytest
from mypy_boto3_secretsmanager import SecretsManagerClient
from werkzeug import Response

from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from rotate_token.access_token import AccessToken
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
)
from rotate_token.secret_store import CLIENT_CONFIG, SecretStore
from tests.samples import make_store


def make_store_at(server: LoopbackServer) -> SecretStore:
    """Make the store of a run that takes this server for Secrets Manager."""
    return make_store(
        boto3.client("secretsmanager", endpoint_url=server.address, config=CLIENT_CONFIG)
    )


def test_binary(secrets: SecretsManagerClient) -> None:
    """The error for a secret without a string value names it, and says what to store."""
    secrets.create_secret(Name=CREDENTIALS_SECRET_ID, SecretBinary=b"kYz7Q2vXw9Lr4TnB")

    with pytest.raises(
        CredentialsError, match=f"^Secret {CREDENTIALS_SECRET_ID} .* not a JSON object; store"
    ):
        make_store(secrets).read_credentials("AWSCURRENT")


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
def test_refused(code: str, next_step: str, old: AccessToken) -> None:
    """The error for a call that is refused passes AWS's reason on, and says what to do."""
    body = json.dumps({"__type": code, "message": "Because."})
    with (
        LoopbackServer(Response(body, 400)) as server,
        pytest.raises(SecretsManagerError) as raised,
    ):
        make_store_at(server).publish_token(old)

    failed = f"PutSecretValue failed on secret {TOKEN_SECRET_ID} ({code}: Because.)"
    assert raised.value.problem == failed
    assert raised.value.next_step.startswith(next_step)


@pytest.mark.parametrize("setting", ["CREDENTIALS_SECRET_ID", "TOKEN_SECRET_ID"])
def test_other_region(setting: str, secrets: SecretsManagerClient) -> None:
    """An ARN of another region than that of the client is an error that names both regions."""
    ids = {
        "credentials_secret_id": CREDENTIALS_SECRET_ID,
        "token_secret_id": TOKEN_SECRET_ID,
        setting.lower(): "arn:aws:secretsmanager:eu-west-1:123456789012:secret:other-Ab12Cd",
    }

    with pytest.raises(
        ConfigurationError, match=f"^{setting} is in eu-west-1, but .* in us-east-1; "
    ):
        SecretStore(secrets, **ids)


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
        store = make_store_at(server)
        with pytest.raises(SecretsManagerUnavailableError, match="is incomplete"):
            store.read_credentials("AWSCURRENT")
        with pytest.raises(SecretsManagerUnavailableError, match="is incomplete"):
            store.publish_token(old)
