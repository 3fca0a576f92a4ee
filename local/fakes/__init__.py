"""Fakes of AWS and Smartcar, on real sockets of this machine."""

import os
import re


def isolate_environment() -> None:
    """Remove this machine's AWS and Powertools settings from the environment."""
    _remove("(AWS|POWERTOOLS)_.*")
    os.environ |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def ignore_proxies() -> None:
    """Remove this machine's proxies and certificates, which the fakes do not need."""
    _remove("(HTTPS?|ALL)_PROXY|SSL_CERT_.*")


def _remove(pattern: str) -> None:
    for name in list(os.environ):
        if re.fullmatch(pattern, name, re.IGNORECASE):
            del os.environ[name]
