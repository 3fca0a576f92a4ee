"""
Run one of the examples on this machine: `make example`.

A token is published; then the example runs and reads it.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from local.fakes import ignore_proxies, isolate_environment
from local.fakes.secrets_manager import FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMANDS = {
    "python": [sys.executable, "list_connections.py"],
    "lambda": [sys.executable, "-c", "import app; print(app.lambda_handler({}, None))"],
    "node": ["node", "list-connections.mjs"],
    "shell": ["./list_connections.sh"],
}
"""The command that runs each example in its folder."""


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
    isolate_environment()
    ignore_proxies()
    with (
        FakeSecretsManager() as secrets_manager,
        FakeSmartcar() as endpoint,
        TemporaryDirectory() as cache,
    ):
        secrets_manager.reset(endpoint.client_id, endpoint.client_secret)
        secrets_manager.publish(endpoint.issue_token())
        print(f"Token published; examples/{name} calls {endpoint.api_url}/connections:", flush=True)
        environment = variables(secrets_manager, endpoint, cache)
        command = COMMANDS[name]
        return subprocess.run(command, cwd=EXAMPLES / name, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
