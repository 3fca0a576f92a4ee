"""Configuration."""

from itertools import product

import pytest

from rotate_token.configuration import Configuration
from rotate_token.errors import ConfigurationError

ENVIRONMENT = {
    "CREDENTIALS_SECRET_ID": "smartcar/client-credentials",
    "TOKEN_SECRET_ID": "smartcar-token/access-token",
}


def test_defaults() -> None:
    """Two settings are enough; the token endpoint is then Smartcar's."""
    configuration = Configuration.from_environment(ENVIRONMENT)

    assert configuration.token_url == "https://iam.smartcar.com/oauth2/token"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CREDENTIALS_SECRET_ID", ""),
        ("TOKEN_SECRET_ID", ""),
        ("TOKEN_URL", ""),
        ("TOKEN_URL", "iam.smartcar.com/oauth2/token"),
        ("TOKEN_URL", "https://:443/oauth2/token"),
        ("TOKEN_URL", "https://[::1/oauth2/token"),
        ("TOKEN_URL", "https://iam.smartcar.com:port/oauth2/token"),
        ("TOKEN_URL", "https://iam.smartcar.com:0/oauth2/token"),
        ("TOKEN_URL", "https://user:password@iam.smartcar.com/oauth2/token"),
        ("TOKEN_URL", "http://127.0.0.1\\@iam.smartcar.com/oauth2/token"),
        ("TOKEN_URL", "http://iam.smartcar.com/oauth2/token"),
        ("TOKEN_URL", "http://127.0.0.1.example.com/oauth2/token"),
        ("TOKEN_URL", "http://10.0.0.1/oauth2/token"),
        ("TOKEN_URL", "ftp://127.0.0.1/oauth2/token"),
    ],
)
def test_malformed(variable: str, value: str) -> None:
    """A missing or malformed variable is an error that names it."""
    with pytest.raises(ConfigurationError, match=f"^{variable} "):
        Configuration.from_environment({**ENVIRONMENT, variable: value})


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example.com:8443/oauth2/token?tenant=1",
        "http://127.0.0.1:8080/oauth2/token",
        "http://[::1]:8080/oauth2/token",
        "http://localhost/oauth2/token",
    ],
)
def test_token_url(url: str) -> None:
    """The token endpoint has an https URL, or an http URL with a loopback address."""
    assert Configuration.from_environment({**ENVIRONMENT, "TOKEN_URL": url}).token_url == url


ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:"
FORMS = ["{}", ARN + "{}-Ab12Cd", ARN + "{}"]
"""What names a secret: its name, its ARN, and its ARN without AWS's suffix."""


@pytest.mark.parametrize(("one", "other"), list(product(FORMS, repeat=2)))
def test_one_secret(one: str, other: str) -> None:
    """One secret for both, however it is named, is an error: it would be overwritten."""
    name = "team-mobile"  # it ends like an ARN with AWS's suffix

    with pytest.raises(ConfigurationError, match="^TOKEN_SECRET_ID names the same secret as CREDE"):
        Configuration(one.format(name), other.format(name))


@pytest.mark.parametrize(("one", "other"), list(product(FORMS, repeat=2)))
def test_two_secrets(one: str, other: str) -> None:
    """Two secrets are accepted, also if one name is the beginning of the other."""
    assert Configuration(one.format("smartcar"), other.format("smartcar-token"))
    assert Configuration(one.format("smartcar-token"), other.format("smartcar"))


def test_two_accounts() -> None:
    """Secrets of two accounts are never the same one."""
    assert Configuration(f"{ARN}token", f"{ARN.replace('123456789012', '210987654321')}token")
