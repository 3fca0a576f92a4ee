"""The settings of the function."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from rotate_token.errors import ConfigurationError

SMARTCAR_TOKEN_URL = "https://iam.smartcar.com/oauth2/token"  # noqa: S105 (an address)

_ARN = re.compile(r"arn:[^:]*:secretsmanager:[^:]*:(?P<account>[^:]*):secret:(?P<name>.*)")
_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}$")


@dataclass(frozen=True)
class Configuration:
    """
    The settings, each from the environment variable with its name in upper case.

    Raises:
        ConfigurationError: A setting is missing or wrong; the message names its variable.
    """

    credentials_secret_id: str
    token_secret_id: str
    token_url: str = SMARTCAR_TOKEN_URL

    def __post_init__(self) -> None:
        _require(
            self.credentials_secret_id, "CREDENTIALS_SECRET_ID", "holds the client credentials"
        )
        _require(self.token_secret_id, "TOKEN_SECRET_ID", "receives the token")
        if _is_one_secret(self.credentials_secret_id, self.token_secret_id):
            raise ConfigurationError(
                "TOKEN_SECRET_ID names the same secret as CREDENTIALS_SECRET_ID",
                "use a separate secret for the token, or the token will overwrite the client "
                "credentials",
            )
        _check_token_url(self.token_url)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from environment variables."""
        return cls(
            environment.get("CREDENTIALS_SECRET_ID", ""),
            environment.get("TOKEN_SECRET_ID", ""),
            environment.get("TOKEN_URL", SMARTCAR_TOKEN_URL),
        )


def _require(secret_id: str, variable: str, purpose: str) -> None:
    if not secret_id:
        raise ConfigurationError(
            f"{variable} is not set", f"set it to the name or ARN of the secret that {purpose}"
        )


def _is_one_secret(one: str, other: str) -> bool:
    """Return whether two names or ARNs may be those of one secret."""
    arns = _ARN.fullmatch(one), _ARN.fullmatch(other)
    if arns[0] and arns[1] and arns[0]["account"] != arns[1]["account"]:
        return False
    return not _names(one).isdisjoint(_names(other))


def _names(secret_id: str) -> set[str]:
    """Return what may be the name of a secret: an ARN ends with it, or with AWS's suffix to it."""
    arn = _ARN.fullmatch(secret_id)
    return {arn["name"], _SUFFIX.sub("", arn["name"])} if arn else {secret_id}


def _check_token_url(url: str) -> None:
    """Raise an error unless client credentials may be sent to the URL."""
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete:
        raise ConfigurationError(
            "TOKEN_URL is not a complete URL", "use https://host/path, without user info"
        )
    is_loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback):
        raise ConfigurationError(
            "TOKEN_URL does not start with https://",
            "plain http is accepted for loopback addresses only",
        )
