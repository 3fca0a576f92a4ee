"""
Rotate the token of the deployed stack now: `make rotate`, and the end of each deployment.

An event is sent once: a retry would start another run whenever a response is late.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from operations.deployment import Deployment, DeploymentError, age, one_line_errors

EVENT = Path("events", "rotate_now.json")

ANSWER_SECONDS = 60

# What a deployment has just changed is not yet known everywhere in AWS.
REPEATED_ERRORS = {"CredentialsError", "SecretsManagerError"}
REPETITIONS = 3
REPETITION_SECONDS = 20


NEXT_STEPS = {
    "CredentialsError": "store valid ones with `aws secretsmanager put-secret-value {options} "
    "--secret-id {CredentialsSecretArn} --secret-string file://credentials.json` or, if their key "
    "denies access, set CredentialsKmsKeyArn; then run `make rotate ENV={environment}`",
    "SecretsManagerError": "allow the function's role to use the token secret or, if its key "
    "denies access, set KmsKeyArn; then run `make rotate ENV={environment}`",
    "ConfigurationError": "correct the setting with `make configure ENV={environment}`",
    "Runtime": "check out the version before, and run `make deploy ENV={environment}`",
    "NoResult": "see whether a token was published with `make status ENV={environment}`",
    "TooManyRequestsException": "if the function's reserved concurrency is 0, so that no run can "
    "start, run `aws lambda delete-function-concurrency {options} --function-name "
    "{RotateTokenFunction}`; then run `make rotate ENV={environment}`",
}
OTHER_STEP = "look it up in docs/operations.md; then run `make rotate ENV={environment}`"


def main(environment: str, *, after_deployment: bool) -> None:
    """Print the result of a run; exit with one line if it failed or the credentials are wrong."""
    before = "The stack is deployed, but its run failed: " if after_deployment else ""
    with one_line_errors(before, f"; then run `make rotate ENV={environment}`"):
        deployment = Deployment.find(environment)
        client = deployment.session.client(
            "lambda",
            config=Config(read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1}),
        )
        name = deployment.ref("RotateTokenFunction")
        modified = client.get_function(FunctionName=name)["Configuration"]["LastModified"]
        print(f"{name} was last modified {age(datetime.fromisoformat(modified))} ago", flush=True)
        result = rotate(client, name)
        for _ in range(REPETITIONS if after_deployment else 0):
            if result.get("errorType") not in REPEATED_ERRORS:
                break
            problem = f"{result['errorType']}: {result.get('errorMessage')}"
            print(f"{problem}; trying again in {REPETITION_SECONDS} s", flush=True)
            time.sleep(REPETITION_SECONDS)
            result = rotate(client, name)
        if "errorType" in result:
            error_type = result["errorType"]
            problem = f"{error_type}: {result.get('errorMessage')}"
        else:
            print(json.dumps(result), flush=True)
            if result.get("credentials") != "previous":
                return
            error_type = "CredentialsError"
            problem = "it had to use the previous client credentials; the current ones do not work"
        step = NEXT_STEPS.get(error_type.partition(".")[0], OTHER_STEP).format(
            **deployment.refs, options=deployment.options, environment=environment
        )
        raise DeploymentError(f"{before or 'The run failed: '}{problem}; {step}")


def rotate(client: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 (a boto3 client)
    """Start a run; return its result, or its ``errorType`` and ``errorMessage``."""
    try:
        answer = client.invoke(FunctionName=name, Payload=EVENT.read_bytes())
    except (ConnectionClosedError, ReadTimeoutError):
        problem = f"none within {ANSWER_SECONDS} s; the run may continue for up to 15 minutes"
        return {"errorType": "NoResult", "errorMessage": problem}
    except client.exceptions.TooManyRequestsException as error:
        return {"errorType": "TooManyRequestsException", "errorMessage": str(error)}
    result: dict[str, Any] = json.loads(answer["Payload"].read())
    return {"errorType": "Error"} | result if "FunctionError" in answer else result


if __name__ == "__main__":
    main(sys.argv[1], after_deployment="--after-deployment" in sys.argv)
