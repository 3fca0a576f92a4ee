"""
What can go wrong in a run, each class named for what failed.

::

    RotationError
    ├── ConfigurationError                  a setting is missing or malformed
    ├── SecretsManagerError                 AWS did not read or write a secret
    │   └── SecretsManagerUnavailableError  … and it may work next time
    ├── CredentialsError                    the credentials secret holds no client credentials
    ├── UnreadableTokenError                the token secret does not hold the published JSON
    ├── TokenSupersededError                another run has published meanwhile
    └── TokenRequestError                   the token endpoint issued no token
        ├── TokenRequestRefusedError        it said no; asking again would not help
        │   └── InvalidClientError          … because it does not know the client or its secret
        ├── InvalidTokenResponseError       it said yes, but with nothing that can be used
        └── TemporaryTokenRequestError      it may work next time
            ├── TokenEndpointUnreachableError   no whole answer came
            ├── TokenEndpointUnavailableError   it answered 408, 425, 429 or 5xx
            └── UnreadableTokenResponseError    it answered 200 with something else than JSON

The message is one sentence for the operator: what failed, where, and what to do about it. Neither
it nor any attribute holds a client secret or a token.
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
    """Secrets Manager did not answer, throttles, or has trouble of its own."""


class CredentialsError(RotationError):
    """The credentials secret does not hold usable client credentials."""


class UnreadableTokenError(RotationError):
    """The token secret's value is not the JSON that this job publishes; a run replaces it."""


class TokenSupersededError(RotationError):
    """Since this run read the token secret, somebody else has published to it."""


class TokenRequestError(RotationError):
    """The token endpoint issued no usable token."""


class TokenRequestRefusedError(TokenRequestError):
    """The token endpoint refused the request for a reason that does not pass by itself."""


class InvalidClientError(TokenRequestRefusedError):
    """The token endpoint answered 401 or ``invalid_client``: it refuses the credentials."""


class InvalidTokenResponseError(TokenRequestError):
    """The token endpoint answered 200 with JSON that holds no usable token."""


class TemporaryTokenRequestError(TokenRequestError):
    """
    The request failed in a way that may pass, so that it is worth asking again.

    Attributes:
        retry_after_seconds: How long the endpoint asked to be left alone; None if it did not say.
    """

    def __init__(
        self, problem: str, next_step: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(problem, next_step)
        self.retry_after_seconds = retry_after_seconds


class TokenEndpointUnreachableError(TemporaryTokenRequestError):
    """No whole answer came: time-out, refused or broken connection, TLS, name resolution."""


class TokenEndpointUnavailableError(TemporaryTokenRequestError):
    """The token endpoint answered 408, 425, 429 or 5xx."""


class UnreadableTokenResponseError(TemporaryTokenRequestError):
    """The token endpoint answered 200 with a body that is not JSON, or too long to be one."""
