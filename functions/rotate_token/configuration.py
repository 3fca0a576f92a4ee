"""The settings of the function."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self
from urllib.parse import urlsplit

from rotate_token.errors import ConfigurationError

SMARTCAR_TOKEN_URL = "https://iam.smartcar.com/oauth2/token"  # noqa: S105 (an address)

_RATE = re.compile(r"rate\((?P<value>[0-9]+) (?P<unit>minute|hour|day)s?\)")
_UNIT_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_SECRET_ID = re.compile(r"[A-Za-z0-9/_+=.@:-]+")
_HOST_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z][a-z0-9_-]{0,62}\.?")


@dataclass(frozen=True)
class Configuration:
    """Every setting, checked; each is read from the variable of its name in upper case."""

    credentials_secret_id: str
    token_secret_id: str
    token_url: str = SMARTCAR_TOKEN_URL
    schedule_expression: str = "rate(50 minutes)"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """
        Read the settings from environment variables.

        Raises:
            ConfigurationError: A variable is missing or malformed; the message names it.
        """
        credentials_secret_id = _secret_id(
            environment, "CREDENTIALS_SECRET_ID", "the secret that holds the client credentials"
        )
        token_secret_id = _secret_id(
            environment, "TOKEN_SECRET_ID", "the secret that gets the token"
        )
        if token_secret_id == credentials_secret_id:
            raise ConfigurationError(
                "TOKEN_SECRET_ID names the same secret as CREDENTIALS_SECRET_ID",
                "give the token a secret of its own, or it would replace the client credentials",
            )
        return cls(
            credentials_secret_id=credentials_secret_id,
            token_secret_id=token_secret_id,
            token_url=_token_url(environment.get("TOKEN_URL", SMARTCAR_TOKEN_URL)),
            schedule_expression=environment.get("SCHEDULE_EXPRESSION", cls.schedule_expression),
        )

    @property
    def schedule_period_seconds(self) -> int | None:
        """Seconds from one tick to the next; None where the schedule is no rate."""
        rate = _RATE.fullmatch(self.schedule_expression)
        return int(rate["value"]) * _UNIT_SECONDS[rate["unit"]] if rate else None


def _secret_id(environment: Mapping[str, str], variable: str, meaning: str) -> str:
    secret_id = environment.get(variable, "")
    if not secret_id:
        raise ConfigurationError(
            f"{variable} is not set", f"set it to the name or ARN of {meaning}"
        )
    if not _SECRET_ID.fullmatch(secret_id):
        raise ConfigurationError(
            f"{variable} has a character that names and ARNs of secrets do not have",
            f"set it to the name or ARN of {meaning}",
        )
    return secret_id


def _token_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    address = _ip_address(host)
    if (
        not (address or _HOST_NAME.fullmatch(host))
        or parts.username is not None
        or parts.fragment
        or not (url.isascii() and url.isprintable() and " " not in url)
    ):
        raise ConfigurationError(
            "TOKEN_URL is not the address of a token endpoint",
            "write https://host/path, without a user name and without a fragment",
        )
    is_loopback = address.is_loopback if address else host == "localhost"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback):
        raise ConfigurationError(
            "TOKEN_URL does not begin with https://",
            "only to a loopback address are client credentials sent without encryption",
        )
    return url


def _ip_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
