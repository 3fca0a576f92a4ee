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

STORE = (
    "`aws secretsmanager put-secret-value {options} --secret-id {CredentialsSecretArn} "
    "--secret-string file://credentials.json`"
)
NEXT_STEPS = {
    "CredentialsError": STORE + " stores them; if the secret's key denies access, set "
    "CredentialsKmsKeyArn; then run `make rotate ENV={environment}`",
    "PreviousCredentials": f"store valid ones with {STORE}; then run `make rotate "
    "ENV={environment}`",
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
    before = "The stack is deployed, but " if after_deployment else ""
    refused = before and f"{before}no run was started: "
    with one_line_errors(refused, f"; then run `make rotate ENV={environment}`"):
        deployment = Deployment.find(environment)
        client = deployment.session.client(
            "lambda",
            config=Config(read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1}),
        )
        name = deployment.ref("RotateTokenFunction")
        modified = client.get_function(FunctionName=name)["Configuration"]["LastModified"]
        print(f"{name} was last modified {age(datetime.fromisoformat(modified))} ago", flush=True)
        error_type, text = rotate(client, name)
        for _ in range(REPETITIONS if after_deployment else 0):
            if error_type not in REPEATED_ERRORS:
                break
            print(f"Trying again in {REPETITION_SECONDS} s, since {text}", flush=True)
            time.sleep(REPETITION_SECONDS)
            error_type, text = rotate(client, name)
        if error_type:
            step = NEXT_STEPS.get(error_type.partition(".")[0], OTHER_STEP).format(
                **deployment.refs, options=deployment.options, environment=environment
            )
            problem = f"{before}{text}; {step}"
            raise DeploymentError(problem[0].upper() + problem[1:])
        print(text)


def rotate(client: Any, name: str) -> tuple[str, str]:  # noqa: ANN401 (a boto3 client)
    """Start a run; return what kind of failure it was, if any, and the result or what failed."""
    try:
        answer = client.invoke(FunctionName=name, Payload=EVENT.read_bytes())
    except (ConnectionClosedError, ReadTimeoutError):
        wait = "the run may continue for up to 15 minutes"
        return "NoResult", f"there is no result after {ANSWER_SECONDS} s; {wait}"
    except client.exceptions.TooManyRequestsException as error:
        return "TooManyRequestsException", f"Lambda started no run: {error}"
    result = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        error_type = result.get("errorType", "Error")
        return error_type, f"the run failed: {error_type}: {result.get('errorMessage')}"
    text = json.dumps(result)
    if result.get("credentials") == "previous":
        reason = "only the previous client credentials work; the token was replaced with them"
        return "PreviousCredentials", f"{reason}: {text}"
    return "", text


if __name__ == "__main__":
    main(sys.argv[1], after_deployment="--after-deployment" in sys.argv)
