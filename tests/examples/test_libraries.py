"""The published document in libraries that consumers use, with the settings that the page gives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_secretsmanager_caching import SecretCache, SecretCacheConfig
from freezegun import freeze_time
from requests_oauthlib import OAuth2Session

from local.example import COMMANDS, EXAMPLES, publish, variables
from rotate_token.access_token import AccessToken

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_secretsmanager import SecretsManagerClient

    from local.fakes.secrets_manager import FakeSecretsManager
    from local.fakes.smartcar import FakeSmartcar


def token(access_token: str, issued_at: float) -> AccessToken:
    """Make a token of the usual lifetime."""
    return AccessToken(access_token, expires_in=3600, issued_at=int(issued_at))


def document(issued_at: float) -> dict[str, Any]:
    """Make what a consumer reads."""
    published: dict[str, Any] = json.loads(token("eyJuZXci", issued_at).to_json())
    return published


@pytest.mark.parametrize(("age_seconds", "expired"), [(0, False), (3500, False), (3601, True)])
def test_authlib(age_seconds: int, expired: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """Authlib takes the document as it is, and its check of expiry agrees."""
    loaded = AuthlibSession(token=document(time.time() - age_seconds)).token

    assert loaded["access_token"] == "eyJuZXci"
    assert loaded.is_expired(leeway=0) is expired


def test_requests_oauthlib() -> None:
    """requests-oauthlib takes the document as it is, with the same time of expiry."""
    published = document(time.time())

    session = OAuth2Session(token=published)

    assert session.access_token == "eyJuZXci"
    assert session.token["expires_at"] == published["expires_at"]
    assert session._client._expires_at == published["expires_at"]  # noqa: SLF001 (its only trace)


def publish_at(secrets: SecretsManagerClient, access_token: str) -> None:
    """Publish a token now, as the job does."""
    published = token(access_token, time.time()).to_json()
    secrets.put_secret_value(SecretId="token", SecretString=published)


@pytest.mark.parametrize(
    ("settings", "finds"), [({}, "first"), ({"secret_refresh_interval": 300}, "second")]
)
def test_aws_secretsmanager_caching(
    settings: dict[str, Any], finds: str, secrets: SecretsManagerClient
) -> None:
    """By default this cache hands out a token that has expired; at 300 seconds it does not."""
    secrets.create_secret(Name="token")
    with freeze_time() as clock:
        publish_at(secrets, "first")
        clock.tick(3000 - 180)
        cache = SecretCache(SecretCacheConfig(**settings), secrets)
        assert json.loads(cache.get_secret_string("token"))["access_token"] == "first"
        clock.tick(180)
        publish_at(secrets, "second")
        clock.tick(700)

        read = json.loads(cache.get_secret_string("token"))

        assert read["access_token"] == finds
        assert (read["expires_at"] < time.time()) == (finds == "first")


@pytest.mark.parametrize(("settings", "finds"), [({}, "second"), ({"max_age": 3600}, "first")])
def test_powertools(settings: dict[str, Any], finds: str, secrets: SecretsManagerClient) -> None:
    """Powertools keep a secret for 5 minutes by default, which does; an hour does not."""
    secrets.create_secret(Name="token")
    with freeze_time() as clock:
        publish_at(secrets, "first")
        clock.tick(3000 - 180)
        provider = SecretsProvider(boto3_client=secrets)
        assert read(provider, settings)["access_token"] == "first"
        clock.tick(180)
        publish_at(secrets, "second")
        clock.tick(700)

        assert read(provider, settings)["access_token"] == finds


def read(provider: SecretsProvider, settings: dict[str, Any]) -> dict[str, Any]:
    """Read the token as the page says."""
    found: dict[str, Any] = provider.get("token", transform="json", **settings)  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("name", ["python", "powertools", "lambda"])
def test_programs(
    name: str, secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar, tmp_path: Path
) -> None:
    """The programs in Python list the connections."""
    publish(secrets_manager, endpoint)
    folder, command = COMMANDS[name]

    run = subprocess.run(
        command,
        cwd=EXAMPLES / folder,
        env={**variables(secrets_manager, endpoint, str(tmp_path)), "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.stdout == "{'data': []}\n", run.stderr
    assert sys.executable == command[0]
