"""
Rotate the token of the deployed stack now: `make rotate`.

The event is sent once: a client that retries starts another run whenever a response is late.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from operations.deployment import Deployment, one_line_errors

EVENT = Path("events", "rotate_now.json")

ANSWER_SECONDS = 60


def main(environment: str) -> None:
    """Print the result of the run; exit with one line and status 1 if there is none."""
    with one_line_errors():
        deployment = Deployment.find(environment)
        client = deployment.session.client(
            "lambda",
            config=Config(read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1}),
        )
        try:
            answer = client.invoke(
                FunctionName=deployment.ref("RotateTokenFunction"),
                Payload=EVENT.read_bytes(),
            )
        except (ConnectionClosedError, ReadTimeoutError):
            sys.exit(
                "No result yet: the run may continue for up to 15 minutes. "
                f"`make status ENV={environment}` shows whether it published a token."
            )
        payload = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        sys.exit(
            f"The run failed: {payload.get('errorType', 'Error')}: {payload.get('errorMessage')}"
        )
    print(json.dumps(payload))


if __name__ == "__main__":
    main(sys.argv[1])
