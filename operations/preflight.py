"""
Find within a second what would fail a deployment minutes later: `make configure`, `make deploy`.

`make configure` asks for the credentials secret, so it goes on with a wrong one, or without one.
"""

import json
import re
import sys

from operations.deployment import (
    PARTIAL,
    SETTINGS,
    DeploymentError,
    deletion,
    describe_stack,
    one_line_errors,
    open_environment,
    parameters,
    place,
)


def main(environment: str, *, asks: bool) -> None:
    """Show where the stack will be deployed, or exit with one line that says why it cannot be."""
    with one_line_errors():
        session, settings = open_environment(environment)
        name, region = settings["stack_name"], session.region_name
        configure = f"`make configure ENV={environment}`"
        print(f"Stack {name} in {place(session)}", flush=True)
        stack = describe_stack(session, name)
        if stack and stack["StackStatus"].startswith(PARTIAL):
            raise DeploymentError(
                f"Stack {name} is in {stack['StackStatus']}, so it exists only in part: "
                + deletion(session, name)
            )
        if asks and stack and not settings.get("parameter_overrides"):
            values = {
                "region": region,
                "parameter_overrides": assignments(parameters(stack)),
                "tags": assignments({tag["Key"]: tag["Value"] for tag in stack.get("Tags", [])}),
            }
            for key, value in values.items():
                if value and not settings.get(key):
                    print(f"{key} = {json.dumps(value)}", flush=True)
            raise DeploymentError(
                f"{SETTINGS} does not have the settings of this stack, which `make configure` "
                f"would reset: add the lines above to [{environment}.deploy.parameters], and run "
                f"{configure} again"
            )
        overrides = str(settings.get("parameter_overrides"))
        if not (asks or stack or "CredentialsSecretArn" in overrides):
            raise DeploymentError(f"{SETTINGS} has no CredentialsSecretArn; run {configure}")
        secret = re.search(r"CredentialsSecretArn\W+arn:[\w-]+:secretsmanager:([\w-]+):", overrides)
        if secret and secret[1] != region:
            problem = (
                f"{SETTINGS} names a credentials secret in {secret[1]}, but the stack is in "
                f"{region}: run {configure} and enter the ARN of a secret in {region}"
            )
            if not asks:
                raise DeploymentError(problem)
            print(problem, flush=True)


def assignments(values: dict[str, str]) -> str:
    """Write parameters or tags as the SAM CLI saves them."""
    escaped = {key: value.replace('"', r"\"") for key, value in values.items()}
    return " ".join(f'{key}="{value}"' for key, value in escaped.items())


if __name__ == "__main__":
    main(sys.argv[1], asks="--ask" in sys.argv)
