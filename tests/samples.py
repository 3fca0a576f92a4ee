"""Sample objects that several tests use."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from rotate_token.access_token import AccessToken
from rotate_token.rotation import Result
from rotate_token.secret_store import SecretStore

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

PROJECT = Path(__file__).parents[1]

Invoke = Callable[..., Result]


def old_token(issued_at: int | None = None) -> AccessToken:
    """Make a token that was issued at a Unix time, or 50 minutes ago: then it is due, and valid."""
    return AccessToken(
        "eyJvbGQi.k3Jd8sLq0ZxVbNm2",
        expires_in=3600,
        issued_at=int(time.time()) - 3000 if issued_at is None else issued_at,
    )


def make_store(client: SecretsManagerClient) -> SecretStore:
    """Make the store of a run."""
    return SecretStore(
        client, credentials_secret_id=CREDENTIALS_SECRET_ID, token_secret_id=TOKEN_SECRET_ID
    )
