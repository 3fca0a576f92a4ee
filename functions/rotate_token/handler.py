"""The AWS entry: reads the environment, makes the clients, runs the rotation, reports."""

from __future__ import annotations

import gc

gc.disable()  # until all is imported: that makes much, and leaves next to nothing to collect

import logging
import os
import time
import traceback
from typing import TYPE_CHECKING, cast

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config
from botocore.loaders import Loader
from botocore.session import get_session

from rotate_token.configuration import Configuration
from rotate_token.errors import TokenRequestError
from rotate_token.rotation import RESERVED_SECONDS, Result, rotate
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_secretsmanager import SecretsManagerClient

# The DEBUG lines of these hold secrets, and their INFO lines nothing of interest.
for client in ("boto3", "botocore", "urllib3", "httpx", "httpcore"):
    logging.getLogger(client).setLevel(logging.WARNING)
# Nor may a level that is set later, on any logger, let DEBUG lines through.
logging.disable(logging.DEBUG)


class SecretsManagerLoader(Loader):
    """Loads the data of one service, without listing twice the hundreds that botocore knows."""

    def list_available_services(self, _type_name: str) -> list[str]:
        """Return the one."""
        return ["secretsmanager"]


session = get_session()
session.register_component("data_loader", SecretsManagerLoader())

configuration = Configuration.from_environment(os.environ)
logger = Logger(use_rfc3339=True)  # as Lambda reads timestamps
metrics = Metrics(namespace="SmartcarTokenRotation")
store = SecretStore(
    cast(
        "SecretsManagerClient",
        session.create_client(
            "secretsmanager",
            config=Config(
                connect_timeout=1,
                read_timeout=3,
                retries={"mode": "standard", "total_max_attempts": 2},
            ),
        ),
    ),
    credentials_secret_id=configuration.credentials_secret_id,
    token_secret_id=configuration.token_secret_id,
)
endpoint = TokenEndpoint(configuration.token_url)

package_logger = logging.getLogger("rotate_token")
package_logger.addHandler(logger.registered_handler)
package_logger.setLevel(logger.log_level)
package_logger.propagate = False

gc.freeze()
gc.enable()


@logger.inject_lambda_context
def lambda_handler(event: object, context: LambdaContext) -> Result:
    """
    Rotate the token if that is due, or if the event is ``{"force": true}``.

    Raises:
        RotationError: No new token was published; Lambda's retries and the alarms rely on it.
    """
    try:
        result = rotate(
            store,
            endpoint,
            forced=isinstance(event, dict) and event.get("force") is True,
            until=time.time() + context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS,
            on_failed_attempt=report_failed_attempt,
        )
    except BaseException as error:
        if isinstance(error, TokenRequestError):
            count_failed_attempt()
        clear_locals(error)
        raise
    report(result)
    return result


def report_failed_attempt(error: TokenRequestError, what_follows: str) -> None:
    """Say at once, by a metric and a log line, that an attempt failed."""
    count_failed_attempt()
    logger.warning("Token request failed: %s; %s", error.problem, what_follows)


def count_failed_attempt() -> None:
    """Publish the metric of one failed attempt at once."""
    metrics.add_metric("TokenRequestFailed", MetricUnit.Count, 1)
    metrics.flush_metrics()


def clear_locals(error: BaseException) -> None:
    """Empty the frames of an error, which hold secrets, before anything may render them."""
    link: BaseException | None = error
    while link:
        traceback.clear_frames(link.__traceback__)
        link = link.__context__


def report(result: Result) -> None:
    """Say by metrics and a log line what the run did."""
    if result["status"] == "skipped":
        message = "Rotation skipped, the token is fresh"
        metrics.add_metric("RotationSkipped", MetricUnit.Count, 1)
    else:
        message = "Token rotated"
        metrics.add_metric("TokenRotated", MetricUnit.Count, 1)
        metrics.add_metric("TokenLifetimeSeconds", MetricUnit.Seconds, result["expires_in"])
        if result["credentials"] == "previous":
            logger.error(
                "The endpoint refuses the current client credentials and took the previous ones; "
                "put valid ones into the credentials secret before these are revoked"
            )
            metrics.add_metric("CredentialsFallback", MetricUnit.Count, 1)
        period_seconds = configuration.schedule_period_seconds
        if period_seconds and result["expires_in"] <= period_seconds:
            logger.warning(
                "The token lives for %d s, and the next is due in %d s; shorten ScheduleExpression",
                result["expires_in"],
                period_seconds,
            )
        if "seconds_left_on_old_token" in result:
            metrics.add_metric(
                "SecondsLeftOnOldToken", MetricUnit.Seconds, result["seconds_left_on_old_token"]
            )
    metrics.flush_metrics()
    logger.info(message, extra=dict(result))
