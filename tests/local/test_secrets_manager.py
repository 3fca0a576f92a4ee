"""Nobody but a run itself reads the secrets of its fake Secrets Manager."""

import subprocess
import sys

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, FakeSecretsManager
from tests.samples import PROJECT


def test_another_key(secrets_manager: FakeSecretsManager) -> None:
    """A read is refused if it is signed with the access key ID of another run."""
    code = "from local.fakes.secrets_manager import ACCESS_KEY_ID; print(ACCESS_KEY_ID, end='')"
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": "functions"}
    key = subprocess.check_output(command, cwd=PROJECT, env=environment, text=True)
    session = boto3.Session(key, "testing")
    client = session.client("secretsmanager", endpoint_url=secrets_manager.address)

    with pytest.raises(ClientError, match="403"):
        client.get_secret_value(SecretId=CREDENTIALS_SECRET_ID)


@pytest.mark.parametrize(("method", "path"), [("GET", "/moto-api/data.json"), ("OPTIONS", "/")])
def test_no_key(method: str, path: str, secrets_manager: FakeSecretsManager) -> None:
    """Neither a page of moto is shown, nor may a page in a browser send a request."""
    headers = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    answer = httpx.request(method, secrets_manager.address + path, headers=headers)

    assert (answer.status_code, answer.content) == (403, b"")
    assert "Access-Control-Allow-Origin" not in answer.headers
