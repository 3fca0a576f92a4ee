"""Paths, and objects that several tests use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mypy_boto3_secretsmanager import SecretsManagerClient

from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from rotate_token.rotation import Result
from rotate_token.secret_store import SecretStore

PROJECT = Path(__file__).parents[1]
LOOPBACK_ONLY = PROJECT / "tests" / "loopback_only"
"""A folder for PYTHONPATH, which keeps a Python process from reaching other addresses."""

EVENT_SECRET_ARN = "arn:aws:secretsmanager:us-west-2:012345678901:secret:mySecret-a1b2c3"

Invoke = Callable[..., Result]


class Timeline:
    """Time that passes only while a run waits."""

    def __init__(self, now: float = 1_800_000_000) -> None:
        self.now = now
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.waits.append(seconds)
        self.now += seconds


def make_store(client: SecretsManagerClient) -> SecretStore:
    """Make the store of a run."""
    return SecretStore(
        client, credentials_secret_id=CREDENTIALS_SECRET_ID, token_secret_id=TOKEN_SECRET_ID
    )


def label_updated_event() -> Any:
    """Make the sample event in AWS's documentation: a secret has a new current value."""
    return {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": "Secret Label Updated",
        "source": "aws.secretsmanager",
        "account": "012345678901",
        "time": "2024-02-06T16:43:48Z",
        "region": "us-west-2",
        "resources": [EVENT_SECRET_ARN],
        "detail": {
            "name": "mySecret",
            "labelUpdated": "AWSCURRENT",
            "versionId": "a1b2c3d4-5678-90ab-cdef-EXAMPLE11111",
        },
    }
