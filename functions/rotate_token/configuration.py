"""The settings of the function."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from rotate_token.errors import ConfigurationError

SMARTCAR_TOKEN_URL = "https://iam.smartcar.com/oauth2/token"  # noqa: S105 (an address)


@dataclass(frozen=True)
class Configuration:
    """The validated settings, each from the environment variable with its name in upper case."""

    credentials_secret_id: str
    token_secret_id: str
    token_url: str = SMARTCAR_TOKEN_URL

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """
        Read the settings from environment variables.

        Raises:
            ConfigurationError: A variable is missing or malformed; the message names it.
        """
        configuration = cls(
            _required(environment, "CREDENTIALS_SECRET_ID", "holds the client credentials"),
            _required(environment, "TOKEN_SECRET_ID", "receives the token"),
            environment.get("TOKEN_URL", SMARTCAR_TOKEN_URL),
        )
        _check_token_url(configuration.token_url)
        return configuration


def _required(environment: Mapping[str, str], variable: str, purpose: str) -> str:
    value = environment.get(variable)
    if not value:
        raise ConfigurationError(
            f"{variable} is not set", f"set it to the name or ARN of the secret that {purpose}"
        )
    return value


def _check_token_url(url: str) -> None:
    """Raise an error unless client credentials may be sent to the URL."""
    try:
        parts = urlsplit(url)
        is_complete = parts.hostname and parts.username is None and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete:
        raise ConfigurationError(
            "TOKEN_URL is not the URL of a token endpoint",
            "use https://host/path, without user info",
        )
    is_loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback):
        raise ConfigurationError(
            "TOKEN_URL does not start with https://",
            "plain http is accepted for loopback addresses only",
        )
