"""Configuration.from_environment."""

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

    assert configuration == Configuration(
        credentials_secret_id="smartcar/client-credentials",
        token_secret_id="smartcar-token/access-token",
        token_url="https://iam.smartcar.com/oauth2/token",
    )


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
    assert url == Configuration.from_environment({**ENVIRONMENT, "TOKEN_URL": url}).token_url
