"""The AWS entry point: reads the environment, creates clients, runs the rotation, reports."""

from __future__ import annotations

import logging
import os
import time
import traceback
from typing import TYPE_CHECKING

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config

from rotate_token.access_token import DOCUMENTED_LIFETIME_SECONDS
from rotate_token.configuration import Configuration
from rotate_token.retrying import Retrier
from rotate_token.rotation import RESERVED_SECONDS, Result, rotate
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from rotate_token.errors import RotationError

# DEBUG lines of the AWS and HTTP clients contain requests and responses, including secrets. They
# stay disabled, whatever level is set later on any logger.
logging.disable(logging.DEBUG)
for name in ("botocore", "httpx"):
    logging.getLogger(name).setLevel(logging.WARNING)

configuration = Configuration.from_environment(os.environ)
logger = Logger(use_rfc3339=True)  # the timestamp format that Lambda reads
copy_config_to_registered_loggers(source_logger=logger, include={"rotate_token"})
metrics = Metrics(namespace="SmartcarTokenRotation")
store = SecretStore(
    boto3.client(
        "secretsmanager",
        # See RESERVED_SECONDS.
        config=Config(
            connect_timeout=1,
            read_timeout=3,
            retries={"mode": "standard", "total_max_attempts": 2},
        ),
    ),
    credentials_secret_id=configuration.credentials_secret_id,
    token_secret_id=configuration.token_secret_id,
)
endpoint = TokenEndpoint(configuration.token_url)


@logger.inject_lambda_context
def lambda_handler(event: object, context: LambdaContext) -> Result:
    """
    Rotate the token if one is due, or if the event is ``{"force": true}``.

    Raises:
        RotationError: No new token was published. Lambda retries the run.
    """
    remaining_seconds = context.get_remaining_time_in_millis() / 1000
    retrier = Retrier(time.time() + remaining_seconds - RESERVED_SECONDS, report_failed_attempt)
    forced = isinstance(event, dict) and event.get("force") is True
    try:
        result = rotate(store, endpoint, retrier, forced=forced)
    except Exception as error:
        clear_locals(error)
        raise
    report(result)
    return result


def report_failed_attempt(error: RotationError, what_follows: str) -> None:
    """Log and count a failed attempt immediately."""
    logger.warning("Attempt failed: %s; %s", error.problem, what_follows)
    metrics.add_metric("AttemptFailed", MetricUnit.Count, 1)
    metrics.flush_metrics()


def clear_locals(error: Exception) -> None:
    """Clear the local variables in an error's frames, because they contain secrets."""
    link: BaseException | None = error
    while link:
        traceback.clear_frames(link.__traceback__)
        link = link.__context__


def report(result: Result) -> None:
    """Log and count the result of a run."""
    if result["status"] == "skipped":
        message = "Rotation skipped: the token is still fresh"
        metrics.add_metric("RotationSkipped", MetricUnit.Count, 1)
    else:
        message = "Token rotated"
        metrics.add_metric("TokenRotated", MetricUnit.Count, 1)
        if result["credentials"] == "previous":
            logger.error(
                "The current client credentials are rejected or unusable, but the token endpoint "
                "accepted the previous ones; store valid credentials before the previous ones are "
                "revoked"
            )
            metrics.add_metric("CredentialsFallback", MetricUnit.Count, 1)
        if result["expires_in"] < DOCUMENTED_LIFETIME_SECONDS:
            logger.warning(
                "The token is valid for only %d s, not for the documented %d s; check that the "
                "period of ScheduleExpression is shorter",
                result["expires_in"],
                DOCUMENTED_LIFETIME_SECONDS,
            )
        if "seconds_left_on_old_token" in result:
            metrics.add_metric(
                "SecondsLeftOnOldToken", MetricUnit.Seconds, result["seconds_left_on_old_token"]
            )
    metrics.flush_metrics()
    logger.info(message, extra=dict(result))
