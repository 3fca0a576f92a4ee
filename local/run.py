"""
Run one rotation on this machine, step by step: `make run`.

The arguments are the faults of the fake token endpoint. With ``SMARTCAR_CLIENT_ID`` and
``SMARTCAR_CLIENT_SECRET`` in the environment, the token is requested from Smartcar itself.
"""

import json
import logging
import os
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from local.fakes import ignore_proxies, isolate_environment
from local.fakes.lambda_runtime import HANDLER, LocalContext
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.configuration import SMARTCAR_TOKEN_URL
from rotate_token.errors import RotationError
from rotate_token.retrying import RESERVED_SECONDS

EVENT = Path("events", "scheduled.json")

ATTEMPTS_SECONDS = 60
"""New attempts start for this long."""

console = Console(highlight=False, soft_wrap=True, markup=False)
step = textwrap.TextWrapper(
    80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
)
STYLES = {logging.WARNING: "yellow", logging.ERROR: "red"}


class StepHandler(logging.Handler):
    """Shows the messages of the function's log lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        text = step.fill(record.getMessage())
        console.print(text, style=STYLES.get(record.levelno, "green"))


def main(faults: list[str]) -> None:
    """Show the steps; exit with status 1 and one line if no token is published."""
    isolate_environment()
    with ExitStack() as stack:
        client_id, client_secret, token_url = _provider(stack, faults)
        secrets_manager = stack.enter_context(FakeSecretsManager())
        secrets_manager.reset(client_id, client_secret)
        console.print(f"Fake Secrets Manager at {secrets_manager.address}", style="bold")
        console.print(f"  {CREDENTIALS_SECRET_ID}  for client_id {client_id}")
        console.print(f"  {TOKEN_SECRET_ID}  no value yet")
        console.print(f"Token endpoint at {token_url}", style="bold")
        if faults:
            console.print(step.fill(f"scripted faults: {', '.join(faults)}; then normal responses"))
        _invoke({**secrets_manager.environment, "TOKEN_URL": token_url})
        _consume(secrets_manager.published())
    console.print("\nNext:", "make test" if faults else 'make run FAULTS="503 429 timeout"')


def _provider(stack: ExitStack, faults: list[str]) -> tuple[str, str, str]:
    """Return client ID, client secret and token URL: those of Smartcar or of the fake."""
    client_id = os.environ.get("SMARTCAR_CLIENT_ID", "")
    client_secret = os.environ.get("SMARTCAR_CLIENT_SECRET", "")
    if bool(client_id) != bool(client_secret):
        sys.exit("SMARTCAR_CLIENT_ID and SMARTCAR_CLIENT_SECRET must be set together")
    if client_id:
        if faults:
            sys.exit(
                "FAULTS needs the fake token endpoint: "
                "unset SMARTCAR_CLIENT_ID and SMARTCAR_CLIENT_SECRET"
            )
        return client_id, client_secret, SMARTCAR_TOKEN_URL
    ignore_proxies()
    try:
        endpoint = stack.enter_context(FakeSmartcar(faults))
    except ValueError as error:
        sys.exit(f"FAULTS: {error}")
    return endpoint.client_id, endpoint.client_secret, endpoint.url


def _invoke(environment: dict[str, str]) -> None:
    console.print(f"\nInvoking {HANDLER} with {EVENT}", style="bold")
    os.environ |= environment | {"POWERTOOLS_METRICS_DISABLED": "true"}
    from rotate_token import handler  # noqa: PLC0415 (it reads the environment when imported)

    logging.getLogger(handler.logger.name).handlers = [StepHandler()]
    console.print(f"  POST {environment['TOKEN_URL']} with grant_type=client_credentials")
    context = LocalContext(ATTEMPTS_SECONDS + RESERVED_SECONDS)
    started_at = time.monotonic()
    try:
        result = handler.lambda_handler(json.loads(EVENT.read_bytes()), context)
    except RotationError as error:
        sys.exit(f"No token was published: {error}")
    duration_seconds = time.monotonic() - started_at
    console.print(step.fill(f"result after {duration_seconds:.1f} s: {json.dumps(result)}"))


def _consume(document: str) -> None:
    console.print(f"\nReading {TOKEN_SECRET_ID}, as a consumer does", style="bold")
    fields = json.loads(document)
    for name, value in fields.items():
        shown = f"({len(value)} characters)" if name == "access_token" else value
        console.print(f"  {name:13} {shown}")
    end = time.strftime("%H:%M:%S UTC", time.gmtime(fields["expires_at"]))
    console.print(f"  valid until {end}, for another {fields['expires_at'] - time.time():.0f} s")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
