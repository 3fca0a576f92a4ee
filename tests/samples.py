"""Sample objects that several tests use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from rotate_token.access_token import AccessToken
from rotate_token.rotation import Result
from rotate_token.secret_store import SecretStore

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

PROJECT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
LOOPBACK_ONLY = PROJECT / "tests" / "loopback_only"
"""A folder for PYTHONPATH, which keeps a Python process from reaching other addresses."""

EVENT_SECRET_ARN = "arn:aws:secretsmanager:us-west-2:012345678901:secret:mySecret-a1b2c3"

Invoke = Callable[..., Result]


def old_token(issued_at: int | None = None) -> AccessToken:
    """Make a token that was issued at a Unix time, or 50 minutes ago: then it is due, and valid."""
    return AccessToken(
        "eyJvbGQi.k3Jd8sLq0ZxVbNm2",
        expires_in=3600,
        issued_at=int(time.time()) - 3000 if issued_at is None else issued_at,
    )


def build_package(project: Path, folder: Path, programs: Path = PROGRAMS, umask: int = -1) -> Path:
    """Build the function of a project, with the Python in `programs`; return its package."""
    # Without the guard of the tests: pip downloads the dependencies.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    build = subprocess.run(
        [PROGRAMS / "sam", "build", "--build-dir", folder],
        cwd=project,
        env={
            **environment,
            "PATH": f"{programs}{os.pathsep}{environment['PATH']}",
            "SAM_CLI_TELEMETRY": "0",
        },
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder / "RotateTokenFunction"


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


def make_store(client: SecretsManagerClient) -> SecretStore:
    """Make the store of a run."""
    return SecretStore(
        client, credentials_secret_id=CREDENTIALS_SECRET_ID, token_secret_id=TOKEN_SECRET_ID
    )
