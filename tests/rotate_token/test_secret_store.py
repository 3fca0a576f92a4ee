"""SecretStore."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config

from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    CredentialsError,
    SecretsManagerError,
    TokenSupersededError,
    UnreadableTokenError,
)
from rotate_token.secret_store import SecretStore

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

TOKEN = AccessToken("eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl", expires_in=3600, issued_at=1_800_000_000)
NEWER = AccessToken("eyJhbGciOi.eyJpc3MiOi.bmV3ZXI", expires_in=3600, issued_at=1_800_003_000)


@pytest.fixture
def store(secrets: SecretsManagerClient) -> SecretStore:
    """A store of two secrets that do not exist yet."""
    return SecretStore(secrets, credentials_secret_id="smartcar", token_secret_id="token")


CLIENT = {"client_id": "client_8f3b1c6e", "client_secret": "kYz7Q2vXw9Lr4TnB"}


def test_read_credentials(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """The current credentials are read, with the version that they are from."""
    version_id = secrets.create_secret(Name="smartcar", SecretString=json.dumps(CLIENT))[
        "VersionId"
    ]

    credentials = store.read_credentials()

    assert credentials == ClientCredentials(**CLIENT, version_id=version_id)
    assert credentials.version_id == version_id


def test_read_previous_credentials(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """The credentials before the current ones are read by their label."""
    secrets.create_secret(Name="smartcar", SecretString=json.dumps(CLIENT))
    secrets.put_secret_value(SecretId="smartcar", SecretString="{}")

    assert store.read_credentials("AWSPREVIOUS").client_secret == CLIENT["client_secret"]


def test_no_credentials_secret(store: SecretStore) -> None:
    """A credentials secret that does not exist is named."""
    with pytest.raises(
        CredentialsError, match="^Secret smartcar .* does not exist or has no value"
    ):
        store.read_credentials()


def test_empty_credentials_secret(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """A credentials secret without a value is named."""
    secrets.create_secret(Name="smartcar")

    with pytest.raises(
        CredentialsError, match="^Secret smartcar .* does not exist or has no value"
    ):
        store.read_credentials()


def test_binary_credentials_secret(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """A binary credentials secret is named, and how to store it instead."""
    secrets.create_secret(Name="smartcar", SecretBinary=b"kYz7Q2vXw9Lr4TnB")

    with pytest.raises(CredentialsError, match="^Secret smartcar .*; store .* as a string$"):
        store.read_credentials()


def test_credentials_secret_without_key(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """A key that the credentials secret lacks is named, with the secret."""
    secrets.create_secret(Name="smartcar", SecretString='{"client_id": "client_8f3b1c6e"}')

    with pytest.raises(CredentialsError, match="^Secret smartcar .* its client_secret is missing"):
        store.read_credentials()


def test_publish_token(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """A published token is the current value, and the one before it the previous value."""
    secrets.create_secret(Name="token")

    store.publish_token(TOKEN)
    store.read_token()
    version_id = store.publish_token(NEWER)

    current = secrets.get_secret_value(SecretId="token")
    previous = secrets.get_secret_value(SecretId="token", VersionStage="AWSPREVIOUS")
    assert current["VersionId"] == version_id
    assert current["SecretString"] == NEWER.to_json()
    assert previous["SecretString"] == TOKEN.to_json()


def test_read_token(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """A published token is read back."""
    secrets.create_secret(Name="token", SecretString=TOKEN.to_json())

    assert TOKEN == store.read_token()


def test_no_token(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """A token secret without a value holds no token."""
    secrets.create_secret(Name="token")

    assert store.read_token() is None


@pytest.mark.parametrize("value", ["null", "{}", "eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl"])
def test_unreadable_token(store: SecretStore, secrets: SecretsManagerClient, value: str) -> None:
    """A value that was not published by this job is told from a token that is missing."""
    secrets.create_secret(Name="token", SecretString=value)

    with pytest.raises(UnreadableTokenError, match="^Secret token holds no published token: it"):
        store.read_token()


def test_no_token_secret(store: SecretStore) -> None:
    """Where the token secret does not exist, its publication says so, and what to do."""
    with pytest.raises(
        SecretsManagerError, match="^PutSecretValue failed on secret token .*; create"
    ):
        store.publish_token(TOKEN)


def test_deleted_credentials_secret(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """What AWS says of a secret that is marked for deletion is passed on, with what to do."""
    secrets.create_secret(Name="smartcar", SecretString="{}")
    secrets.delete_secret(SecretId="smartcar")

    with pytest.raises(
        SecretsManagerError, match="^GetSecretValue .* smartcar .*marked.*; .*restore it$"
    ):
        store.read_credentials()


def test_unreachable() -> None:
    """A Secrets Manager that does not answer is an error of this project too."""
    client = boto3.client(
        "secretsmanager",
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}),
    )
    store = SecretStore(client, credentials_secret_id="smartcar", token_secret_id="token")

    with pytest.raises(
        SecretsManagerError, match="^GetSecretValue failed on secret token .EndpointConnectionError"
    ):
        store.read_token()


def test_superseded(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """Of two runs that have seen the same value, the second to publish is told, and does not."""
    other_run = SecretStore(secrets, credentials_secret_id="smartcar", token_secret_id="token")
    secrets.create_secret(Name="token", SecretString="{}")
    for run in (store, other_run):
        with pytest.raises(UnreadableTokenError):
            run.read_token()

    other_run.publish_token(NEWER)
    with pytest.raises(
        TokenSupersededError, match="^Secret token got another value during the run"
    ):
        store.publish_token(TOKEN)

    assert store.read_token() == NEWER


def test_first_of_two(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """That holds for the very first value as well."""
    other_run = SecretStore(secrets, credentials_secret_id="smartcar", token_secret_id="token")
    secrets.create_secret(Name="token")

    other_run.publish_token(NEWER)
    with pytest.raises(TokenSupersededError):
        store.publish_token(TOKEN)

    assert store.read_token() == NEWER


def test_lost_value(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """A secret that lost its only value gets one again."""
    secrets.create_secret(Name="token")
    first = store.publish_token(TOKEN)
    secrets.update_secret_version_stage(
        SecretId="token", VersionStage="AWSCURRENT", RemoveFromVersionId=first
    )

    assert store.read_token() is None
    assert store.publish_token(NEWER) != first


def test_going_back(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """A person may make an earlier version current again; runs go on from there."""
    secrets.create_secret(Name="token")
    first = store.publish_token(TOKEN)
    store.read_token()
    second = store.publish_token(NEWER)
    secrets.update_secret_version_stage(
        SecretId="token",
        VersionStage="AWSCURRENT",
        MoveToVersionId=first,
        RemoveFromVersionId=second,
    )

    assert store.read_token() == TOKEN
    newest = dataclasses.replace(NEWER, issued_at=1_800_006_000)
    third = store.publish_token(newest)

    assert len({first, second, third}) == 3
    published = secrets.get_secret_value(SecretId="token", VersionId=third)
    assert published["SecretString"] == newest.to_json()
    assert published["VersionStages"] == ["AWSCURRENT"]
