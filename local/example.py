"""
Run one of the examples on this machine: `make example`.

A token is published in the same way as by the function; then the example runs and reads it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from local.fakes import isolate_environment
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.retrying import Run
from rotate_token.rotation import rotate
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import TokenEndpoint

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMANDS = {
    "python": ("python", [sys.executable, "list_connections.py"]),
    "lambda": ("lambda", [sys.executable, "-c", "import app; print(app.lambda_handler({}, None))"]),
    "node": ("node", ["node", "list-connections.js"]),
    "shell": ("shell", ["./list_connections.sh"]),
}
"""The folder of each example, and the command that runs it there."""


def publish(secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar) -> str:
    """Publish a new token in the same way as the function, and return it."""
    store = SecretStore(
        secrets_manager.client,
        credentials_secret_id=CREDENTIALS_SECRET_ID,
        token_secret_id=TOKEN_SECRET_ID,
    )
    run = Run(timeout_seconds=60, report=lambda *_: None)
    rotate(store, TokenEndpoint(endpoint.url), run, forced=True)
    token = store.read_token()
    if token is None:
        raise LookupError("no token was published")
    return token.access_token


def variables(
    secrets_manager: FakeSecretsManager, endpoint: FakeSmartcar, folder: str
) -> dict[str, str]:
    """Return the environment of an example; its cache goes into the folder."""
    return {
        **os.environ,
        **secrets_manager.environment,
        "SMARTCAR_API_URL": endpoint.api_url,
        "SMARTCAR_TOKEN_CACHE": str(Path(folder, "smartcar-token.json")),
    }


def main(name: str) -> int:
    """Run an example, and return its exit status."""
    if name not in COMMANDS:
        sys.exit(f"EXAMPLE: unknown example {name!r}; choose from {', '.join(COMMANDS)}")
    folder, command = COMMANDS[name]
    isolate_environment()
    with (
        FakeSecretsManager() as secrets_manager,
        FakeSmartcar() as endpoint,
        TemporaryDirectory() as cache,
    ):
        secrets_manager.reset(endpoint.client_id, endpoint.client_secret)
        publish(secrets_manager, endpoint)
        print(f"Token published; examples/{folder} calls {endpoint.api_url}/connections:")
        sys.stdout.flush()
        environment = variables(secrets_manager, endpoint, cache)
        return subprocess.run(
            command, cwd=EXAMPLES / folder, env=environment, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
