"""The two secrets: client credentials to read, the access token to read and to publish."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError as AwsConnectionError,
    HTTPClientError,
)

from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    CredentialsError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
    UnreadableTokenError,
)

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_KEY_STEP = "check that the secret's KMS key is enabled and that the function's role may use it"
_NEXT_STEPS = {
    "AccessDeniedException": "allow it in the function's role, including on the secret's KMS key",
    "DecryptionFailure": _KEY_STEP,
    "EncryptionFailure": _KEY_STEP,
    "InvalidRequestException": "if the secret is marked for deletion, restore it",
    "LimitExceededException": "the secret has too many versions: use a longer schedule, and wait "
    "until AWS has removed versions that are older than 24 hours",
    "ResourceNotFoundException": "create the secret, or correct the setting that names it",
}

# The error codes that botocore's standard retry mode retries: throttling, then transient errors.
_TEMPORARY_CODES = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "RequestThrottled",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "SlowDown",
    "PriorRequestNotComplete",
    "TransactionInProgressException",
    "EC2ThrottledException",
    "ProvisionedThroughputExceededException",
    "RequestTimeout",
    "RequestTimeoutException",
}


class SecretStore:
    """The credentials secret and the token secret, in AWS Secrets Manager."""

    def __init__(
        self, client: SecretsManagerClient, *, credentials_secret_id: str, token_secret_id: str
    ) -> None:
        self._client = client
        self._credentials_secret_id = credentials_secret_id
        self._token_secret_id = token_secret_id

    def read_credentials(self, version_stage: str = "AWSCURRENT") -> ClientCredentials:
        """
        Read the client credentials: the current ones, or those with the label `version_stage`.

        Raises:
            CredentialsError: There are none, or they are unusable.
            SecretsManagerError: They could not be read.
        """
        value = self._read(self._credentials_secret_id, version_stage)
        if value is None:
            problem = "it does not exist or has no value"
        else:
            try:
                return ClientCredentials.from_json(value)
            except ValueError as error:
                problem = str(error)
        raise CredentialsError(
            f"Secret {self._credentials_secret_id} has no usable client credentials: {problem}",
            'store {"client_id": "…", "client_secret": "…"} as its string value',
        )

    def read_token(self) -> AccessToken | None:
        """
        Read the published token; None if there is none yet.

        Raises:
            UnreadableTokenError: The secret's value was not published by this function.
            SecretsManagerError: It could not be read.
        """
        value = self._read(self._token_secret_id)
        if value is None:
            return None
        try:
            return AccessToken.from_json(value)
        except ValueError as error:
            problem = str(error)
        raise UnreadableTokenError(
            f"Secret {self._token_secret_id} does not hold a token from this function: {problem}",
            "no action needed, this run replaces it",
        )

    def publish_token(self, token: AccessToken) -> str:
        """
        Replace the current value atomically, and return the ID of the new version.

        Raises:
            SecretsManagerError: The secret could not be written.
        """
        try:
            return self._client.put_secret_value(
                SecretId=self._token_secret_id, SecretString=token.to_json()
            )["VersionId"]
        except (BotoCoreError, ClientError) as error:
            raise _failure("PutSecretValue", self._token_secret_id, error) from error

    def _read(self, secret_id: str, version_stage: str = "AWSCURRENT") -> str | None:
        """Return a secret's value: None if it has none, an empty string if it is binary."""
        try:
            secret = self._client.get_secret_value(SecretId=secret_id, VersionStage=version_stage)
        except self._client.exceptions.ResourceNotFoundException:
            return None
        except (BotoCoreError, ClientError) as error:
            raise _failure("GetSecretValue", secret_id, error) from error
        return secret.get("SecretString", "")


def _failure(
    operation: str, secret_id: str, error: BotoCoreError | ClientError
) -> SecretsManagerError:
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        reason = f"{code}: {error.response['Error']['Message']}"
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        may_pass = code in _TEMPORARY_CODES or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    else:
        code = reason = type(error).__name__
        may_pass = isinstance(error, (AwsConnectionError, HTTPClientError))
    return (SecretsManagerUnavailableError if may_pass else SecretsManagerError)(
        f"{operation} failed on secret {secret_id} ({reason})",
        _NEXT_STEPS.get(code, "if this persists, check the AWS Health Dashboard"),
    )
