"""The two secrets: client credentials to read, the access token to read and to publish."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

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
    TokenSupersededError,
    UnreadableTokenError,
)

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_secretsmanager.type_defs import GetSecretValueResponseTypeDef

_NEXT_STEPS = {
    "AccessDeniedException": "allow it in the function's role, the secret's KMS key included",
    "DecryptionFailure": "see that the secret's KMS key is enabled and open to the function's role",
    "EncryptionFailure": "see that the secret's KMS key is enabled and open to the function's role",
    "InvalidRequestException": "if the secret is marked for deletion, restore it",
    "ResourceNotFoundException": "create the secret, or correct the setting that names it",
}


class SecretStore:
    """The credentials secret and the token secret, in AWS Secrets Manager."""

    def __init__(
        self, client: SecretsManagerClient, *, credentials_secret_id: str, token_secret_id: str
    ) -> None:
        self._client = client
        self._credentials_secret_id = credentials_secret_id
        self._token_secret_id = token_secret_id
        self._token_version_id = ""

    def read_credentials(self, version_stage: str = "AWSCURRENT") -> ClientCredentials:
        """
        Read the client credentials, the current ones or those that have the label `version_stage`.

        Raises:
            CredentialsError: There are none, or none that can be used.
            SecretsManagerError: They could not be read.
        """
        secret = self._read(self._credentials_secret_id, version_stage)
        if secret is None:
            problem = "it does not exist or has no value"
        else:
            try:
                return ClientCredentials.from_json(_text(secret), secret["VersionId"])
            except ValueError as error:
                problem = str(error)
        raise CredentialsError(
            f"Secret {self._credentials_secret_id} holds no client credentials: {problem}",
            'store {"client_id": "…", "client_secret": "…"} in it, as a string',
        )

    def read_token(self) -> AccessToken | None:
        """
        Read the published token; None if there is none yet.

        Raises:
            UnreadableTokenError: The secret holds something that this job did not publish.
            SecretsManagerError: It could not be read.
        """
        secret = self._read(self._token_secret_id)
        self._token_version_id = _version_id(secret)
        if secret is None:
            return None
        try:
            return AccessToken.from_json(_text(secret))
        except ValueError as error:
            problem = str(error)
        raise UnreadableTokenError(
            f"Secret {self._token_secret_id} holds no published token: {problem}",
            "nothing is to do, it is replaced",
        )

    def publish_token(self, token: AccessToken) -> str:
        """
        Make `token` the current value, in place of the one that was read last, in one step.

        The new version's id follows from that of the version that was read, and Secrets Manager
        takes an id only once: of several runs that have read the same version, one publishes.

        Returns:
            The id of the new version.

        Raises:
            TokenSupersededError: Since `read_token`, another run has published.
            SecretsManagerError: The secret could not be written; its current value is what it was.
        """
        version_id = self._token_version_id
        while True:
            version_id = str(uuid5(NAMESPACE_OID, version_id))
            try:
                self._client.put_secret_value(
                    SecretId=self._token_secret_id,
                    SecretString=token.to_json(),
                    ClientRequestToken=version_id,
                )
            except self._client.exceptions.ResourceExistsException as error:
                if _version_id(self._read(self._token_secret_id)) != self._token_version_id:
                    raise TokenSupersededError(
                        f"Secret {self._token_secret_id} got another value during the run",
                        "see that nothing else writes to it",
                    ) from error
                # Somebody went back to the version that was read, and its successor exists already.
            except (BotoCoreError, ClientError) as error:
                raise _failure("PutSecretValue", self._token_secret_id, error) from error
            else:
                return version_id

    def _read(
        self, secret_id: str, version_stage: str = "AWSCURRENT"
    ) -> GetSecretValueResponseTypeDef | None:
        """Return a version of a secret, or None if there is none."""
        try:
            return self._client.get_secret_value(SecretId=secret_id, VersionStage=version_stage)
        except self._client.exceptions.ResourceNotFoundException:
            return None
        except (BotoCoreError, ClientError) as error:
            raise _failure("GetSecretValue", secret_id, error) from error


def _version_id(secret: GetSecretValueResponseTypeDef | None) -> str:
    return secret["VersionId"] if secret else ""


def _text(secret: GetSecretValueResponseTypeDef) -> str:
    """Return a secret's value; nothing if it is binary."""
    return secret.get("SecretString", "")


def _failure(
    operation: str, secret_id: str, error: BotoCoreError | ClientError
) -> SecretsManagerError:
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        reason = f"{code}: {error.response['Error']['Message']}"
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        may_pass = code == "ThrottlingException" or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    else:
        code = reason = type(error).__name__
        may_pass = isinstance(error, (AwsConnectionError, HTTPClientError))
    return (SecretsManagerUnavailableError if may_pass else SecretsManagerError)(
        f"{operation} failed on secret {secret_id} ({reason})",
        _NEXT_STEPS.get(code, "if it goes on over several runs, see the AWS Health Dashboard"),
    )
