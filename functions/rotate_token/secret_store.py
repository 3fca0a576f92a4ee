"""The two secrets: client credentials to read, the access token to read and to publish."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials, StagingLabel
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    RotationError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
)

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

CLIENT_CONFIG = Config(
    connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2}
)
LONGEST_CALL_SECONDS = 13.0
"""
The longest time for a call with `CLIENT_CONFIG`: two tries of 6 s, with up to 1 s between them.

A try lasts 6 s if the name of Secrets Manager resolves to three addresses, as that of a VPC
endpoint in three zones does, each of which gets the connect timeout, and if the last one gets the
read timeout. A slow name resolution or TLS handshake, or an answer that arrives in pieces, may take
longer: then Lambda's timeout ends the run.
"""

_ARN = re.compile(r"arn:[^:]*:secretsmanager:(?P<region>[^:]*):")

# What Secrets Manager answers, besides 5xx. LimitExceededException is left out on purpose: the
# secret has too many versions, a condition that does not clear by itself.
_TRANSIENT_CODES = {
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
}

_KEY_STEP = "check that the secret's KMS key is enabled and that the function's role may use it"
_NEXT_STEPS = {
    "AccessDeniedException": "grant this permission to the function's role, and the use of the "
    "secret's KMS key",
    "DecryptionFailure": _KEY_STEP,
    "EncryptionFailure": _KEY_STEP,
    "InvalidRequestException": "if the secret is marked for deletion, restore it",
    "LimitExceededException": "the secret has too many versions: use a longer schedule, and wait "
    "until AWS has removed versions that are older than 24 hours",
    "ResourceNotFoundException": "create the secret, or correct the setting that names it",
}

# What a call raises; the last four, if its response is cut off or not one of Secrets Manager.
_FAILURES = (BotoCoreError, ClientError, AttributeError, KeyError, TypeError, UnicodeDecodeError)


class _NoValueError(ValueError):
    """A secret does not exist, or has no value with a staging label."""


class SecretStore:
    """
    The credentials secret and the token secret, in AWS Secrets Manager.

    Each method raises `SecretsManagerUnavailableError` if the call may succeed later.

    Raises:
        ConfigurationError: A secret is in another region than the client.
    """

    def __init__(
        self, client: SecretsManagerClient, *, credentials_secret_id: str, token_secret_id: str
    ) -> None:
        self._client = client
        self._credentials_secret_id = credentials_secret_id
        self._token_secret_id = token_secret_id
        ids = {"CREDENTIALS_SECRET_ID": credentials_secret_id, "TOKEN_SECRET_ID": token_secret_id}
        for setting, secret_id in ids.items():
            arn = _ARN.match(secret_id)
            if arn and arn["region"] != client.meta.region_name:
                raise ConfigurationError(
                    f"{setting} is in {arn['region']}, but the function uses Secrets Manager in "
                    f"{client.meta.region_name}",
                    "use a secret in the region of the function",
                )

    def read_credentials(self, staging_label: StagingLabel) -> ClientCredentials:
        """
        Read the client credentials with a staging label.

        Raises:
            CredentialsError: There are none, or they are unusable or cannot be read.
        """
        try:
            document, version_id = self._read(self._credentials_secret_id, staging_label)
            return ClientCredentials.from_json(document, version_id, staging_label)
        except SecretsManagerError as error:
            raise CredentialsError(error.problem, error.next_step) from error
        except ValueError as error:
            raise CredentialsError(
                f"Secret {self._credentials_secret_id} has no usable client credentials: {error}",
                'store {"client_id": "…", "client_secret": "…"} as its string value',
            ) from error

    def read_token(self) -> AccessToken | None:
        """
        Read the published token; None if there is none yet.

        Raises:
            SecretsManagerError: The value cannot be read, or was not published by this function.
        """
        try:
            document, _ = self._read(self._token_secret_id, "AWSCURRENT")
            return AccessToken.from_json(document)
        except _NoValueError:
            return None
        except ValueError as error:
            raise SecretsManagerError(
                f"Secret {self._token_secret_id} does not hold a token from this function: {error}",
                "find out who wrote it",
            ) from error

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
        except _FAILURES as error:
            raise _translate("PutSecretValue", self._token_secret_id, error) from error

    def _read(self, secret_id: str, staging_label: StagingLabel) -> tuple[str, str]:
        """Return the string value with a staging label, and the ID of its version."""
        try:
            secret = self._client.get_secret_value(SecretId=secret_id, VersionStage=staging_label)
            return secret.get("SecretString", ""), secret["VersionId"]
        except self._client.exceptions.ResourceNotFoundException as error:
            raise _NoValueError(
                f"it has no value with the label {staging_label}, or does not exist"
            ) from error
        except _FAILURES as error:
            raise _translate("GetSecretValue", secret_id, error) from error


def _translate(operation: str, secret_id: str, error: Exception) -> RotationError:
    """Translate the error of a call; it is permanent only if Secrets Manager says so."""
    problem = f"{operation} failed on secret {secret_id}"
    next_step = "if this persists, check the AWS Health Dashboard"
    if isinstance(error, BotoCoreError):
        return SecretsManagerUnavailableError(f"{problem} ({type(error).__name__})", next_step)
    if not isinstance(error, ClientError):
        return SecretsManagerUnavailableError(f"{problem} (the response is incomplete)", next_step)
    code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
    may_pass = (
        code in _TRANSIENT_CODES
        or code.isdecimal()  # the response was cut off: then botocore takes the status for the code
        or error.response["ResponseMetadata"]["HTTPStatusCode"] >= HTTPStatus.INTERNAL_SERVER_ERROR
    )
    error_class = SecretsManagerUnavailableError if may_pass else SecretsManagerError
    return error_class(f"{problem} ({code}: {message})", _NEXT_STEPS.get(code, next_step))
