"""
Check in about a second what would end a deployment after minutes: `make configure`, `make deploy`.

`make configure` asks for the region and the credentials secret, so it goes on without them.
"""

from __future__ import annotations

import re
import sys

from operations.deployment import (
    SETTINGS,
    DeploymentError,
    describe_stack,
    one_line_errors,
    open_environment,
)


def main(environment: str, *, asks: bool) -> None:
    """Show where the stack will be deployed, or exit with one line that says why it cannot be."""
    with one_line_errors():
        session, settings = open_environment(environment)
        name, region = settings["stack_name"], session.region_name
        # Without a region, SAM suggests us-east-1.
        client = session.client("sts", region_name=region or "us-east-1")
        account = client.get_caller_identity()["Account"]
        print(f"Stack {name} in account {account}, region {region or 'not set'}", flush=True)
        if asks and not region:
            return
        stack = describe_stack(session, name)
        if stack and stack["StackStatus"] in {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED"}:
            location = f"--stack-name {name} --region {region}"
            raise DeploymentError(
                "The first deployment of this stack failed, and CloudFormation can only delete it: "
                f"find the cause with `aws cloudformation describe-stack-events {location}` (often "
                "a missing permission, a principal that does not exist, or a secret of the same "
                f"name that is scheduled for deletion), run `.venv/bin/sam delete {location}`, and "
                "deploy again"
            )
        overrides = str(settings.get("parameter_overrides"))
        if not (asks or stack or "CredentialsSecretArn" in overrides):
            raise DeploymentError(
                f"{SETTINGS} has no CredentialsSecretArn; run `make configure ENV={environment}`"
            )
        secret = re.search(r"CredentialsSecretArn\W+arn:[\w-]+:secretsmanager:([\w-]+):", overrides)
        if secret and secret[1] != region:
            problem = (
                f"The credentials secret in {SETTINGS} is in {secret[1]}, but the stack is in "
                f"{region}; enter one in {region} in `make configure ENV={environment}`"
            )
            if not asks:
                raise DeploymentError(problem)
            print(problem, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], asks="--ask" in sys.argv)
