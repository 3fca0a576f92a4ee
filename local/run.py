"""
One rotation on this machine, told on the terminal: what `make run` starts.

The arguments are the faults that the local token endpoint plays. With ``SMARTCAR_CLIENT_ID`` and
``SMARTCAR_CLIENT_SECRET`` in the environment, Smartcar itself is asked instead.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

from local.fakes.lambda_runtime import HANDLER, LocalContext
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.access_token import AccessToken
from rotate_token.configuration import SMARTCAR_TOKEN_URL
from rotate_token.errors import RotationError
from rotate_token.rotation import RESERVED_SECONDS

if TYPE_CHECKING:
    import logging

EVENT = Path("events", "scheduled.json")

PATIENCE_SECONDS = 30
"""For how long attempts are begun."""


class StoryFormatter(LambdaPowertoolsFormatter):
    """Shows the function's log lines as sentences, in place of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message alone."""
        return f"  {record.getMessage()}"


def main(faults: list[str]) -> None:
    """Play the story; leave with status 1 and one line where it ends badly."""
    with ExitStack() as stack:
        client_id, client_secret, token_url = _provider(stack, faults)
        secrets_manager = stack.enter_context(FakeSecretsManager())
        secrets_manager.reset(client_id, client_secret)
        print(f"Secrets Manager, embedded, at {secrets_manager.address}")
        print(f"  {CREDENTIALS_SECRET_ID}  client_id {client_id}, client_secret not shown")
        print(f"  {TOKEN_SECRET_ID}  no value yet")
        print(f"Token endpoint at {token_url}")
        if faults:
            print(f"  plays {', then '.join(faults)}, then behaves")
        _invoke({**secrets_manager.environment, "TOKEN_URL": token_url})
        _consume(secrets_manager.published())
    print("\nNext:", "make test" if faults else 'make run FAULTS="503 429 timeout"')


def _provider(stack: ExitStack, faults: list[str]) -> tuple[str, str, str]:
    """Return client id, client secret and token URL: Smartcar's, or those of a local endpoint."""
    client_id = os.environ.get("SMARTCAR_CLIENT_ID", "")
    client_secret = os.environ.get("SMARTCAR_CLIENT_SECRET", "")
    if bool(client_id) != bool(client_secret):
        sys.exit("SMARTCAR_CLIENT_ID and SMARTCAR_CLIENT_SECRET go together: set both or none")
    if client_id:
        if faults:
            sys.exit("Smartcar plays no FAULTS: leave them out, or unset SMARTCAR_CLIENT_ID")
        return client_id, client_secret, SMARTCAR_TOKEN_URL
    try:
        endpoint = stack.enter_context(FakeSmartcar(faults))
    except ValueError as error:
        sys.exit(f"FAULTS: {error}")
    return endpoint.client_id, endpoint.client_secret, endpoint.url


def _invoke(environment: dict[str, str]) -> None:
    print(f"\nInvoking {HANDLER} with {EVENT}")
    os.environ.pop("AWS_PROFILE", None)
    os.environ |= environment | {"POWERTOOLS_METRICS_DISABLED": "true"}
    from rotate_token import handler  # noqa: PLC0415 (it reads the environment when imported)

    handler.logger.registered_handler.setFormatter(StoryFormatter())
    print(f"  POST {environment['TOKEN_URL']} with grant_type=client_credentials")
    context = LocalContext(PATIENCE_SECONDS + RESERVED_SECONDS)
    started_at = time.monotonic()
    try:
        result = handler.lambda_handler(json.loads(EVENT.read_text()), context)
    except RotationError as error:
        sys.exit(f"No token was published: {error}")
    print(f"  after {time.monotonic() - started_at:.1f} s: {json.dumps(result)}")


def _consume(document: str) -> None:
    print(f"\nReading {TOKEN_SECRET_ID}, as a consumer does")
    token = AccessToken.from_json(document)
    for name, value in json.loads(document).items():
        shown = f"({len(value)} characters)" if name == "access_token" else value
        print(f"  {name:13} {shown}")
    until = time.strftime("%H:%M:%S UTC", time.gmtime(token.expires_at))
    print(f"  valid until {until}, for another {token.expires_at - time.time():.0f} s")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
