"""What a tutorial would show: the function's libraries, each used in the shortest way."""

import json
import os
import time
from typing import Any

import boto3
import httpx
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from tenacity import retry, stop_after_attempt, wait_exponential

logger = Logger()
metrics = Metrics(namespace="TokenRotation")
secrets_manager = boto3.client("secretsmanager")


@retry(stop=stop_after_attempt(3), wait=wait_exponential(), reraise=True)
def request_token(credentials: dict[str, str]) -> Any:  # noqa: ANN401 (JSON)
    """Request a token."""
    form = {"grant_type": "client_credentials", **credentials}
    response = httpx.post(os.environ["TOKEN_URL"], data=form, timeout=15)
    response.raise_for_status()
    return response.json()


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
def lambda_handler(_event: dict[str, Any], _context: LambdaContext) -> None:
    """Get a token and publish it."""
    secret = secrets_manager.get_secret_value(SecretId=os.environ["CREDENTIALS_SECRET_ID"])
    issued_at = int(time.time())
    token = request_token(json.loads(secret["SecretString"]))
    token |= {"issued_at": issued_at, "expires_at": issued_at + token["expires_in"]}
    token["token_type"] = "Bearer"  # noqa: S105
    secrets_manager.put_secret_value(
        SecretId=os.environ["TOKEN_SECRET_ID"], SecretString=json.dumps(token)
    )
    metrics.add_metric(name="TokenRotated", unit=MetricUnit.Count, value=1)
    logger.info("Token rotated")
