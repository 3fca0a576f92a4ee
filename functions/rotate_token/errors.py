"""
The errors of a run; each class is named after what failed.

::

    RotationError
    ├── ConfigurationError                  a setting is missing or malformed
    ├── SecretsManagerError                 a secret could not be read or written
    │   └── SecretsManagerUnavailableError  … because of a transient failure
    ├── CredentialsError                    the credentials secret has no usable client credentials
    ├── UnreadableTokenError                the token secret does not hold a published token
    └── TokenRequestError                   the token endpoint issued no usable token
        ├── TokenRequestRefusedError        it rejected the request permanently
        │   └── InvalidClientError          … because it rejected the client credentials
        ├── InvalidTokenResponseError       it answered 200 without a usable token
        └── TemporaryTokenRequestError      the failure is transient
            ├── TokenEndpointUnreachableError   no complete response arrived
            ├── TokenEndpointUnavailableError   it reported a temporary failure
            └── UnreadableTokenResponseError    it answered 200 with something other than JSON

The message tells the operator what failed, where, and what to do about it. Neither
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
    """A call to AWS Secrets Manager to read or write a secret failed."""


class SecretsManagerUnavailableError(SecretsManagerError):
    """Secrets Manager did not answer, throttled the call, or failed internally."""


class CredentialsError(RotationError):
    """The credentials secret does not hold usable client credentials."""


class UnreadableTokenError(RotationError):
    """The value of the token secret is not a token that this function published."""


class TokenRequestError(RotationError):
    """The token endpoint issued no usable token."""


class TokenRequestRefusedError(TokenRequestError):
    """The token endpoint rejected the request for a reason that retrying will not fix."""


class InvalidClientError(TokenRequestRefusedError):
    """The token endpoint answered 401 or ``invalid_client``: it rejected the credentials."""


class InvalidTokenResponseError(TokenRequestError):
    """The token endpoint answered 200 with a JSON object that holds no usable token."""


class TemporaryTokenRequestError(TokenRequestError):
    """
    The request failed, but may succeed later.

    Attributes:
        retry_after_seconds: How long the endpoint asked to wait; 0 if it did not ask.
    """

    def __init__(self, problem: str, next_step: str, retry_after_seconds: float = 0) -> None:
        super().__init__(problem, next_step)
        self.retry_after_seconds = retry_after_seconds


class TokenEndpointUnreachableError(TemporaryTokenRequestError):
    """No complete response arrived: timeout, or error in name resolution, connection or TLS."""


class TokenEndpointUnavailableError(TemporaryTokenRequestError):
    """The token endpoint answered 408, 425, 429, 5xx or a transient OAuth error code."""


class UnreadableTokenResponseError(TemporaryTokenRequestError):
    """The token endpoint answered 200 with a body that is not a JSON object, or is too long."""
