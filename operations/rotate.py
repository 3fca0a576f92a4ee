"""
Rotate the token of the deployed stack now: `make rotate`, and the end of each deployment.

An event is sent once: a retry would start another run whenever a response is late.
"""

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
RESPONSE_SECONDS = 60

# What a deployment has just changed is not yet known everywhere in AWS.
REPEATED_ERRORS = {"CredentialsError", "SecretsManagerError"}
REPETITIONS = 3
REPETITION_SECONDS = 20


def main(environment: str, *, after_deployment: bool) -> None:
    """Print the result of a run; exit with one line if it failed or the credentials are wrong."""
    before = "The stack is deployed, but " if after_deployment else ""
    refused = before and f"{before}no run was started: "
    with one_line_errors(refused, f"; then run `make rotate ENV={environment}`"):
        deployment = Deployment.find(environment)
        client = deployment.session.client(
            "lambda",
            config=Config(read_timeout=RESPONSE_SECONDS, retries={"total_max_attempts": 1}),
        )
        name = deployment.ref("RotateTokenFunction")
        modified = client.get_function(FunctionName=name)["Configuration"]["LastModified"]
        print(f"{name} was last modified {age(datetime.fromisoformat(modified))} ago", flush=True)
        error_type, text = invoke(client, name)
        for _ in range(REPETITIONS if after_deployment else 0):
            if error_type not in REPEATED_ERRORS:
                break
            print(f"Trying again in {REPETITION_SECONDS} s, since {text}", flush=True)
            time.sleep(REPETITION_SECONDS)
            error_type, text = invoke(client, name)
        if error_type:
            problem = f"{before}{text}; {next_step(deployment, error_type)}"
            raise DeploymentError(problem[0].upper() + problem[1:])
        print(text)


def invoke(client: Any, name: str) -> tuple[str, str]:  # noqa: ANN401 (a boto3 client)
    """Start a run; return what kind of failure it was, if any, and the result or what failed."""
    try:
        response = client.invoke(FunctionName=name, Payload=EVENT.read_bytes())
    except (ConnectionClosedError, ReadTimeoutError):
        return "NoResult", "no result arrived, but the run may continue for up to 15 minutes"
    except client.exceptions.TooManyRequestsException as error:
        return "TooManyRequestsException", f"no run was started: {error}"
    result = json.loads(response["Payload"].read())
    if "FunctionError" in response:
        error_type = result.get("errorType", "Error")
        return error_type, f"the run failed: {error_type}: {result.get('errorMessage')}"
    text = json.dumps(result)
    if result.get("credentials") == "previous":
        reason = "only the previous client credentials work; the token was replaced with them"
        return "PreviousCredentials", f"{reason}: {text}"
    return "", text


def next_step(deployment: Deployment, error_type: str) -> str:
    """Return what to do about a kind of failure."""
    name, secret_id = deployment.ref("RotateTokenFunction"), deployment.ref("CredentialsSecretArn")
    allow = deployment.aws(f"lambda delete-function-concurrency --function-name {name}")
    store = deployment.aws(
        f"secretsmanager put-secret-value --secret-id {secret_id} "
        "--secret-string file://credentials.json"
    )
    rotate = f"then run {deployment.make('rotate')}"
    steps = {
        "CredentialsError": f"{store} stores them; if the secret's key denies access, set "
        f"CredentialsKmsKeyArn; {rotate}",
        "PreviousCredentials": f"store valid ones with {store}; {rotate}",
        "SecretsManagerError": "allow the function's role to use the token secret or, if its key "
        f"denies access, set KmsKeyArn; {rotate}",
        "ConfigurationError": f"correct the setting with {deployment.make('configure')}",
        "Runtime": f"check out the previous version, and run {deployment.make('deploy')}",
        "NoResult": f"see whether a token was published with {deployment.make('status')}",
        "TooManyRequestsException": "if the function's reserved concurrency is 0, so that no run "
        f"can start, run {allow}; {rotate}",
    }
    return steps.get(error_type.partition(".")[0], f"look it up in docs/operations.md; {rotate}")


if __name__ == "__main__":
    main(sys.argv[1], after_deployment="--after-deployment" in sys.argv)
