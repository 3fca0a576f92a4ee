"""Fakes of AWS and Smartcar, on real sockets of this machine."""

import os
import re


def isolate_environment(*, loopback_only: bool = True) -> None:
    """
    Remove this machine's AWS and Powertools settings from the environment.

    If only the fakes are called, its proxies and certificates are removed as well.
    """
    others = "|SSL_CERT_|(HTTPS?|ALL)_PROXY$" if loopback_only else ""
    for name in list(os.environ):
        if re.match(f"AWS_|POWERTOOLS_{others}", name, re.IGNORECASE):
            del os.environ[name]
    os.environ |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
