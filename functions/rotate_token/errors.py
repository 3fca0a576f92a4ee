"""
The errors of a run; the tree says what the run does next.

::

    RotationError
    ├── TransientError                      it tries again after a backoff
    │   ├── SecretsManagerUnavailableError
    │   └── TokenEndpointUnavailableError
    ├── CredentialsError                    it tries the previous credentials, then as the next two
    ├── SecretsManagerError                 it tries again after 30 s; a token that it cannot read,
    │                                       it replaces
    ├── TokenRequestError                   it tries again after 30 s
    └── ConfigurationError                  it fails at once: no setting changes while it runs

A forced run, for which somebody waits, fails at once on all but a `TransientError`.

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


class TransientError(RotationError):
    """
    An attempt failed, but a later one may succeed.

    Attributes:
        retry_after_seconds: How long the token endpoint asked to wait; 0 if it did not ask.
    """

    def __init__(self, problem: str, next_step: str, retry_after_seconds: float = 0) -> None:
        super().__init__(problem, next_step)
        self.retry_after_seconds = retry_after_seconds


class SecretsManagerUnavailableError(TransientError):
    """Secrets Manager did not answer completely, throttled the call, or failed internally."""


class TokenEndpointUnavailableError(TransientError):
    """The token endpoint did not answer completely, or it answered with a transient failure."""


class CredentialsError(RotationError):
    """The client credentials cannot be read or are unusable, or the endpoint refuses the client."""


class ConfigurationError(RotationError):
    """A setting of the function, or of its environment, is missing or wrong."""


class SecretsManagerError(RotationError):
    """Secrets Manager refused to read or write the token, or the value is not a token."""


class TokenRequestError(RotationError):
    """The token endpoint answered with neither a usable token nor a known error."""
