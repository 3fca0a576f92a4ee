"""The two secrets: client credentials to read, the access token to read and to publish."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    RotationError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
)

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_ARN = re.compile(r"arn:[^:]*:secretsmanager:(?P<region>[^:]*):")

# What Secrets Manager answers, besides 5xx. LimitExceededException is left out on purpose: the
# secret has too many versions, which does not pass.
_TRANSIENT_CODES = {
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
}

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


class SecretStore:
    """
    The credentials secret and the token secret, in AWS Secrets Manager.

    Raises:
        ConfigurationError: A secret is in another region than the client, or both are the same.
    """

    def __init__(
        self, client: SecretsManagerClient, *, credentials_secret_id: str, token_secret_id: str
    ) -> None:
        self._client = client
        self._credentials_secret_id = credentials_secret_id
        self._token_secret_id = token_secret_id
        self._arns: dict[str, str] = {}
        ids = {"CREDENTIALS_SECRET_ID": credentials_secret_id, "TOKEN_SECRET_ID": token_secret_id}
        for setting, secret_id in ids.items():
            arn = _ARN.match(secret_id)
            if arn and arn["region"] != client.meta.region_name:
                raise ConfigurationError(
                    f"{setting} is in {arn['region']}, but the function uses Secrets Manager in "
                    f"{client.meta.region_name}",
                    "use a secret in the region of the function",
                )

    def read_credentials(self, version_stage: str) -> ClientCredentials:
        """
        Read the client credentials: ``AWSCURRENT`` or ``AWSPREVIOUS``.

        Raises:
            CredentialsError: There are none, or they are unusable or cannot be read.
            SecretsManagerUnavailableError: They cannot be read now.
        """
        try:
            secret = self._read(self._credentials_secret_id, version_stage)
        except SecretsManagerError as error:
            raise CredentialsError(error.problem, error.next_step) from error
        if secret is None:
            problem = f"it does not exist or has no version {version_stage}"
        else:
            try:
                return ClientCredentials.from_json(*secret)
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
            SecretsManagerError: The value cannot be read, or was not published by this function.
            SecretsManagerUnavailableError: It cannot be read now.
        """
        secret = self._read(self._token_secret_id, "AWSCURRENT")
        if secret is None:
            return None
        document, _ = secret
        try:
            return AccessToken.from_json(document)
        except ValueError as error:
            problem = str(error)
        raise SecretsManagerError(
            f"Secret {self._token_secret_id} does not hold a token from this function: {problem}",
            "find out who wrote it",
        )

    def publish_token(self, token: AccessToken) -> str:
        """
        Replace the current value atomically, and return the ID of the new version.

        Raises:
            SecretsManagerError: The secret could not be written.
            SecretsManagerUnavailableError: It cannot be written now.
        """
        try:
            return self._client.put_secret_value(
                SecretId=self._token_secret_id, SecretString=token.to_json()
            )["VersionId"]
        except (BotoCoreError, ClientError, KeyError, UnicodeDecodeError) as error:
            raise _failure("PutSecretValue", self._token_secret_id, error) from error

    def _read(self, secret_id: str, version_stage: str) -> tuple[str, str] | None:
        """Return the string value of a secret and its version, or None if it does not exist."""
        try:
            secret = self._client.get_secret_value(SecretId=secret_id, VersionStage=version_stage)
            self._arns[secret_id], version_id = secret["ARN"], secret["VersionId"]
        except self._client.exceptions.ResourceNotFoundException:
            return None
        except (BotoCoreError, ClientError, KeyError, UnicodeDecodeError) as error:
            failure = _failure("GetSecretValue", secret_id, error)
        else:
            # One secret has several IDs: its name, its ARN, and the ARN without its last part.
            if self._arns.get(self._credentials_secret_id) == self._arns.get(self._token_secret_id):
                raise ConfigurationError(
                    "TOKEN_SECRET_ID names the same secret as CREDENTIALS_SECRET_ID",
                    "use a separate secret for the token, or it overwrites the client credentials",
                )
            return secret.get("SecretString", ""), version_id
        raise failure  # outside the handlers, because a UnicodeDecodeError holds the value


def _failure(operation: str, secret_id: str, error: Exception) -> RotationError:
    """Translate the error of a call; it is permanent only if Secrets Manager says so."""
    code, may_pass = "", True
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        reason = f"{code}: {error.response['Error']['Message']}"
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        # If the response was cut off, botocore takes the status for the code.
        may_pass = (
            code in _TRANSIENT_CODES
            or code.isdecimal()
            or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        )
    elif isinstance(error, BotoCoreError):
        reason = type(error).__name__
    else:
        reason = "the response was cut off"
    return (SecretsManagerUnavailableError if may_pass else SecretsManagerError)(
        f"{operation} failed on secret {secret_id} ({reason})",
        _NEXT_STEPS.get(code, "if this persists, check the AWS Health Dashboard"),
    )
