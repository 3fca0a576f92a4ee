"""Follow the log of the deployed function: `make logs`."""

from __future__ import annotations

import os
import sys

from operations.deployment import Deployment, one_line_errors


def main(environment: str) -> None:
    """
    Become `sam logs` for the log group of the stack.

    By itself, `sam logs` does not read the stack name that `sam deploy --guided` saved.
    """
    with one_line_errors():
        deployment = Deployment.find(environment)
        log_group = deployment.ref("RotateTokenLogGroup")
    command = ["sam", "logs", "--tail", "--region", deployment.region, "--cw-log-group", log_group]
    if deployment.session.profile_name != "default":
        command += ["--profile", deployment.session.profile_name]
    os.execvp("sam", command)  # noqa: S606, S607 (as make would call it)


if __name__ == "__main__":
    main(sys.argv[1])
