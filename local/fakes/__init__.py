"""Fakes of AWS and Smartcar, on real sockets of this machine."""

import os


def isolate_environment() -> None:
    """Remove this machine's AWS, Powertools and proxy settings from the environment."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "POWERTOOLS_")):
            del os.environ[name]
    os.environ |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
