"""
What can go wrong in a run, each class named for what failed.

::

    RotationError
    ├── ConfigurationError                  a setting is missing or malformed
    ├── SecretsManagerError                 AWS refused to read or write a secret
    │   └── SecretsManagerUnavailableError  … for a reason that may pass
    ├── CredentialsError                    the credentials secret has no usable client credentials
    ├── UnreadableTokenError                the token secret does not hold the published JSON
    └── TokenRequestError                   the token endpoint issued no usable token
        ├── TokenRequestRefusedError        it refused, and would refuse again
        │   └── InvalidClientError          … because it rejected the client credentials
        ├── InvalidTokenResponseError       it answered 200 without a usable token
        └── TemporaryTokenRequestError      it failed for a reason that may pass
            ├── TokenEndpointUnreachableError   no complete response arrived
            ├── TokenEndpointUnavailableError   it reported a temporary failure
            └── UnreadableTokenResponseError    it answered 200 with something other than JSON

The message is one sentence for the operator: what failed, where, and what to do about it. Neither
the message nor any attribute holds a client secret or a token.
"""


class RotationError(Exception):
    """
    A run could not keep the token secret up to date.

    Attributes:
        problem: What failed, and where.
        next_step: What the operator can do about it.
    """

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(f"{problem}; {next_step}")
        self.problem = problem
        self.next_step = next_step


class ConfigurationError(RotationError):
    """A setting of the function is missing or malformed."""


class SecretsManagerError(RotationError):
    """AWS Secrets Manager refused or failed to read or write a secret."""


class SecretsManagerUnavailableError(SecretsManagerError):
    """Secrets Manager did not answer, throttled the call, or failed internally."""


class CredentialsError(RotationError):
    """The credentials secret does not hold usable client credentials."""


class UnreadableTokenError(RotationError):
    """The token secret's value is not the JSON that this function publishes; a run replaces it."""


class TokenRequestError(RotationError):
    """The token endpoint issued no usable token."""


class TokenRequestRefusedError(TokenRequestError):
    """The token endpoint refused the request for a reason that retrying will not fix."""


class InvalidClientError(TokenRequestRefusedError):
    """The token endpoint answered 401 or ``invalid_client``: it rejected the credentials."""


class InvalidTokenResponseError(TokenRequestError):
    """The token endpoint answered 200 with a JSON object that holds no usable token."""


class TemporaryTokenRequestError(TokenRequestError):
    """
    The request failed for a reason that may pass.

    Attributes:
        retry_after_seconds: How long the endpoint asked to wait; 0 if it did not ask.
    """

    def __init__(self, problem: str, next_step: str, retry_after_seconds: float = 0) -> None:
        super().__init__(problem, next_step)
        self.retry_after_seconds = retry_after_seconds


class TokenEndpointUnreachableError(TemporaryTokenRequestError):
    """No complete response: time-out, refused or broken connection, TLS, name resolution."""


class TokenEndpointUnavailableError(TemporaryTokenRequestError):
    """The token endpoint answered 408, 425, 429, 5xx or an OAuth error code that may pass."""


class UnreadableTokenResponseError(TemporaryTokenRequestError):
    """The token endpoint answered 200 with a body that is not a JSON object, or is too long."""
