"""What docs/consumers.md says about libraries that load or cache the published token."""

import json
import time
from typing import Any

import boto3
import pytest
from authlib.integrations.base_client import InvalidTokenError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from aws_secretsmanager_caching import SecretCache, SecretCacheConfig
from freezegun import freeze_time
from moto import mock_aws
from requests_oauthlib import OAuth2Session
from requests_oauthlib.oauth2_session import TokenExpiredError

from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken


@pytest.mark.parametrize("library", [AuthlibSession, OAuth2Session])
def test_sessions(library: Any, endpoint: FakeSmartcar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Authlib and requests-oauthlib load the document unchanged, and reject an expired token."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    url = f"{endpoint.api_url}/connections"
    token = AccessToken(endpoint.issue_token(), expires_in=3600, issued_at=int(time.time()))
    document = json.loads(token.to_json())

    assert library(token=document).get(url).status_code == 200
    with pytest.raises((InvalidTokenError, TokenExpiredError)):
        library(token={**document, "expires_at": int(time.time()) - 1}).get(url)


@mock_aws
def test_aws_secretsmanager_caching() -> None:
    """By default, aws-secretsmanager-caching returns an expired token; with 300 s it does not."""
    secrets = boto3.client("secretsmanager")
    configured = SecretCache(SecretCacheConfig(secret_refresh_interval=300), secrets)
    caches = [SecretCache(client=secrets), configured]
    with freeze_time() as clock:
        secrets.create_secret(Name="token", SecretString="expires after 3,600 s")
        clock.tick(2900)
        assert {cache.get_secret_string("token") for cache in caches} == {"expires after 3,600 s"}
        secrets.put_secret_value(SecretId="token", SecretString="new")
        clock.tick(701)
        by_default, with_300 = (cache.get_secret_string("token") for cache in caches)

    assert (by_default, with_300) == ("expires after 3,600 s", "new")
