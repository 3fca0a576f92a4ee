"""The AWS entry point: reads the environment, creates clients, runs the rotation, reports."""

import logging
import os
import traceback

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from rotate_token.access_token import DOCUMENTED_LIFETIME_SECONDS
from rotate_token.configuration import Configuration
from rotate_token.errors import RotationError
from rotate_token.retrying import Run
from rotate_token.rotation import Result, rotate
from rotate_token.secret_store import CLIENT_CONFIG, SecretStore
from rotate_token.token_endpoint import TokenEndpoint

LIFETIME_TOLERANCE_SECONDS = 60

# DEBUG lines of the AWS and HTTP clients contain requests and responses, including secrets. They
# stay disabled, whatever level is set later on any logger.
logging.disable(logging.DEBUG)
logging.getLogger("botocore").setLevel(logging.WARNING)
logging.getLogger("httpx").setLevel(logging.WARNING)

configuration = Configuration.from_environment(os.environ)
logger = Logger(use_rfc3339=True)  # the timestamp format that Lambda reads
metrics = Metrics(namespace="SmartcarTokenRotation")
store = SecretStore(
    boto3.client("secretsmanager", config=CLIENT_CONFIG),
    credentials_secret_id=configuration.credentials_secret_id,
    token_secret_id=configuration.token_secret_id,
)
endpoint = TokenEndpoint(configuration.token_url)


@logger.inject_lambda_context
def lambda_handler(event: object, context: LambdaContext) -> Result:
    """
    Rotate the token if one is due, or if the event is ``{"force": true}``.

    A failed run raises its error, so that Lambda retries it.
    """
    run = Run(
        context.get_remaining_time_in_millis() / 1000,
        report_failed_attempt,
        forced=isinstance(event, dict) and event.get("force") is True,
    )
    try:
        result = rotate(store, endpoint, run)
    except Exception as error:
        forget_secrets(error)
        raise
    count(result)
    log(result)
    return result


def report_failed_attempt(error: RotationError, what_follows: str) -> None:
    """Log and count a failed attempt immediately."""
    name = type(error).__name__
    logger.warning("Attempt failed: %s: %s; %s", name, error, what_follows)
    metrics.add_metric("AttemptFailed", MetricUnit.Count, 1)
    metrics.flush_metrics()


def forget_secrets(error: Exception) -> None:
    """Drop what an error holds besides its message: local variables, and the errors before it."""
    traceback.clear_frames(error.__traceback__)
    error.__cause__ = error.__context__ = None


def count(result: Result) -> None:
    """Write the metrics of a run."""
    if result["status"] == "skipped":
        metrics.add_metric("RotationSkipped", MetricUnit.Count, 1)
    else:
        metrics.add_metric("TokenRotated", MetricUnit.Count, 1)
        if result["credentials"] == "previous":
            metrics.add_metric("CredentialsFallback", MetricUnit.Count, 1)
        if "seconds_left_on_old_token" in result:
            metrics.add_metric(
                "SecondsLeftOnOldToken", MetricUnit.Seconds, result["seconds_left_on_old_token"]
            )
    metrics.flush_metrics()


def log(result: Result) -> None:
    """Log the result of a run, and what an operator has to know about it."""
    if result["status"] == "skipped":
        logger.info("Rotation skipped: the token is still fresh", extra=dict(result))
        return
    if result["credentials"] == "previous":
        logger.error(
            "The current client credentials are rejected or unusable, but the token endpoint "
            "accepted the previous ones; store valid credentials before the previous ones are "
            "revoked"
        )
    expires_in = result["expires_in"]
    if result["is_lifetime_assumed"]:
        logger.warning("The token response has no expires_in; assuming %d s", expires_in)
    elif abs(expires_in - DOCUMENTED_LIFETIME_SECONDS) > LIFETIME_TOLERANCE_SECONDS:
        logger.warning(
            "The token is valid for %d s, not for the documented %d s; "
            "make sure that the schedule's period is shorter than that",
            expires_in,
            DOCUMENTED_LIFETIME_SECONDS,
        )
    logger.info("Token rotated", extra=dict(result))
