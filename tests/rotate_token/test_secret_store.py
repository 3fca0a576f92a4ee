"""SecretStore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
from werkzeug import Response

from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
)
from rotate_token.secret_store import SecretStore
from tests.samples import make_store

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

    from rotate_token.access_token import AccessToken


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "it has no value with the label AWSCURRENT, or does not exist"),
        ({"SecretBinary": b"kYz7Q2vXw9Lr4TnB"}, "the value is not a JSON object"),
    ],
)
def test_no_credentials(secrets: SecretsManagerClient, value: Any, problem: str) -> None:
    """The error for a secret without usable credentials names it, and says what to store."""
    if value:
        secrets.create_secret(Name=CREDENTIALS_SECRET_ID, **value)

    with pytest.raises(
        CredentialsError, match=f"^Secret {CREDENTIALS_SECRET_ID} .*: {problem}.*; s"
    ):
        make_store(secrets).read_credentials("AWSCURRENT")


def test_no_token_secret(secrets: SecretsManagerClient, old: AccessToken) -> None:
    """If the token secret does not exist, the error names it, and says what to do."""
    with pytest.raises(
        SecretsManagerError, match=f"^PutSecretValue failed on secret {TOKEN_SECRET_ID} .*; create"
    ):
        make_store(secrets).publish_token(old)


def test_deleted_credentials_secret(secrets: SecretsManagerClient) -> None:
    """AWS's message about a secret that is marked for deletion is passed on, with what to do."""
    secrets.create_secret(Name=CREDENTIALS_SECRET_ID, SecretString="{}")
    secrets.delete_secret(SecretId=CREDENTIALS_SECRET_ID)

    with pytest.raises(
        CredentialsError, match="^GetSecretValue .* smartcar/.*marked.*; .*restore it$"
    ):
        make_store(secrets).read_credentials("AWSCURRENT")


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
        store = make_store(boto3.client("secretsmanager", endpoint_url=server.address))
        with pytest.raises(SecretsManagerUnavailableError, match="is incomplete"):
            store.read_credentials("AWSCURRENT")
        with pytest.raises(SecretsManagerUnavailableError, match="is incomplete"):
            store.publish_token(old)


def test_number() -> None:
    """A number instead of a secret's string value is not a JSON object."""
    with LoopbackServer(Response(b'{"SecretString": 7, "VersionId": "v1"}')) as server:
        store = make_store(boto3.client("secretsmanager", endpoint_url=server.address))
        with pytest.raises(CredentialsError, match="the value is not a JSON object"):
            store.read_credentials("AWSCURRENT")
