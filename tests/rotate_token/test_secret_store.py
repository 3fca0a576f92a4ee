"""SecretStore."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
)
from rotate_token.secret_store import SecretStore
from tests.samples import make_store

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from mypy_boto3_secretsmanager import SecretsManagerClient

    from rotate_token.access_token import AccessToken

ARN_IN_IRELAND = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:smartcar/other-Ab12Cd"
CLIENT = {"client_id": "client_8f3b1c6e", "client_secret": "kYz7Q2vXw9Lr4TnB"}


@pytest.fixture
def store(secrets: SecretsManagerClient) -> SecretStore:
    """A store whose two secrets do not exist yet."""
    return make_store(secrets)


def test_read_credentials(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """The current or previous credentials are read, with the ID of their version."""
    secrets.create_secret(Name=CREDENTIALS_SECRET_ID, SecretString=json.dumps(CLIENT))
    newer = {**CLIENT, "client_secret": "aB3dE5fG7hJ9kL1m"}
    secrets.put_secret_value(SecretId=CREDENTIALS_SECRET_ID, SecretString=json.dumps(newer))

    current, previous = store.read_credentials("AWSCURRENT"), store.read_credentials("AWSPREVIOUS")

    assert current == ClientCredentials(**newer, version_id="any")
    assert previous == ClientCredentials(**CLIENT, version_id="any")
    versions = secrets.describe_secret(SecretId=CREDENTIALS_SECRET_ID)["VersionIdsToStages"]
    assert versions == {
        current.version_id: ["AWSCURRENT"],
        previous.version_id: ["AWSPREVIOUS"],
    }


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "it does not exist or has no version AWSCURRENT"),
        ({"SecretBinary": b"kYz7Q2vXw9Lr4TnB"}, "it is not a JSON object"),
        ({"SecretString": '{"client_id": "client_8f3b1c6e"}'}, "its client_secret is missing"),
    ],
)
def test_no_credentials(
    store: SecretStore, secrets: SecretsManagerClient, value: Any, problem: str
) -> None:
    """The error for a secret without usable credentials names it, and says what to store."""
    if value:
        secrets.create_secret(Name=CREDENTIALS_SECRET_ID, **value)

    with pytest.raises(
        CredentialsError, match=f"^Secret {CREDENTIALS_SECRET_ID} .*: {problem}.*; s"
    ):
        store.read_credentials("AWSCURRENT")


def test_publish_token(store: SecretStore, secrets: SecretsManagerClient, old: AccessToken) -> None:
    """A published token is the current value, and the one before it the previous value."""
    secrets.create_secret(Name=TOKEN_SECRET_ID)
    newer = replace(old, issued_at=old.issued_at + 3000)

    store.publish_token(old)
    version_id = store.publish_token(newer)

    current = secrets.get_secret_value(SecretId=TOKEN_SECRET_ID)
    previous = secrets.get_secret_value(SecretId=TOKEN_SECRET_ID, VersionStage="AWSPREVIOUS")
    assert current["VersionId"] == version_id
    assert current["SecretString"] == newer.to_json()
    assert previous["SecretString"] == old.to_json()


def test_no_token_secret(store: SecretStore, old: AccessToken) -> None:
    """If the token secret does not exist, the error names it, and says what to do."""
    with pytest.raises(
        SecretsManagerError, match=f"^PutSecretValue failed on secret {TOKEN_SECRET_ID} .*; create"
    ):
        store.publish_token(old)


def test_deleted_credentials_secret(store: SecretStore, secrets: SecretsManagerClient) -> None:
    """AWS's message about a secret that is marked for deletion is passed on, with what to do."""
    secrets.create_secret(Name=CREDENTIALS_SECRET_ID, SecretString="{}")
    secrets.delete_secret(SecretId=CREDENTIALS_SECRET_ID)

    with pytest.raises(
        CredentialsError, match="^GetSecretValue .* smartcar/.*marked.*; .*restore it$"
    ):
        store.read_credentials("AWSCURRENT")


def test_unreachable() -> None:
    """If Secrets Manager cannot be reached, the error is transient."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    client = boto3.client(
        "secretsmanager",
        endpoint_url=f"http://127.0.0.1:{port}",
        config=Config(retries={"total_max_attempts": 1}),
    )

    with pytest.raises(
        SecretsManagerUnavailableError,
        match=f"^GetSecretValue failed on secret {TOKEN_SECRET_ID} .EndpointConnectionError",
    ):
        make_store(client).read_token()


@pytest.mark.parametrize(
    ("setting", "ids"),
    [
        ("CREDENTIALS_SECRET_ID", (ARN_IN_IRELAND, TOKEN_SECRET_ID)),
        ("TOKEN_SECRET_ID", (CREDENTIALS_SECRET_ID, ARN_IN_IRELAND)),
    ],
)
def test_other_region(setting: str, ids: tuple[str, str], secrets: SecretsManagerClient) -> None:
    """An ARN of another region than that of the client is an error that names both regions."""
    credentials_secret_id, token_secret_id = ids

    with pytest.raises(
        ConfigurationError, match=f"^{setting} is in eu-west-1, but .* in us-east-1; "
    ):
        SecretStore(
            secrets, credentials_secret_id=credentials_secret_id, token_secret_id=token_secret_id
        )


@pytest.mark.parametrize(
    "body",
    [b'{"SecretString": "kYz7Q2vXw9Lr4TnB\xc3', b'{"ARN": "arn:of-the-secret"}', b""],
    ids=["half a character", "no VersionId", "empty"],
)
def test_incomplete_answer(body: bytes) -> None:
    """An incomplete answer is a transient error that holds none of it."""

    def answer(_: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [body]

    with LoopbackServer(answer) as server:
        client = boto3.client("secretsmanager", endpoint_url=server.address)
        with pytest.raises(SecretsManagerUnavailableError, match="cut off") as raised:
            make_store(client).read_credentials("AWSCURRENT")

    assert raised.value.__context__ is None
