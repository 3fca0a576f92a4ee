"""`make run` and `make example`."""

import os
import re
import subprocess
import sys

import pytest

from local.run import ATTEMPTS_SECONDS
from rotate_token.retrying import LONGEST_BACKOFF_SECONDS
from tests.samples import LOOPBACK_ONLY, PROJECT

SMARTCAR = {
    "SMARTCAR_CLIENT_ID": "client_8f3b1c6e",
    "SMARTCAR_CLIENT_SECRET": "kYz7Q2vXw9Lr4TnB",
}
PROXY = {"HTTPS_PROXY": "socks4://user:geheim@127.0.0.1:1"}
UNUSABLE = PROXY | {
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "https_proxy": "http://127.0.0.1:port",
    "SSL_CERT_FILE": "missing.pem",
}


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the module behind `make run` or `make example`."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": f"{LOOPBACK_ONLY}:functions", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_steps() -> None:
    """The steps show what was published, until when it is valid, and what to try next."""
    output = run("local.run")

    assert output.returncode == 0, output.stderr
    assert "  Token rotated\n" in output.stdout
    assert "  access_token  (864 characters)\n" in output.stdout
    assert "  valid until " in output.stdout
    assert output.stdout.endswith('\nNext: make run FAULTS="503 429 timeout"\n')
    assert "eyJ" not in output.stdout
    assert output.stderr == ""


def test_faults() -> None:
    """Scripted faults show as failed attempts, with their waits, in 80 columns."""
    output = run("local.run", "503", "429")

    assert output.returncode == 0, output.stderr
    assert "  scripted faults: 503, 429; then normal responses\n" in output.stdout
    words = " ".join(output.stdout.split())
    assert " s (attempt 2) Attempt failed: " in words
    assert " s (attempt 3) Token rotated " in words
    # 429 asks to wait for a second.
    assert re.search(r"\n  result after [1-9]", output.stdout)
    assert max(len(line) for line in output.stdout.splitlines()) <= 80


def test_refusal() -> None:
    """There is time for another attempt after a refusal, such as FAULTS=404."""
    assert ATTEMPTS_SECONDS > LONGEST_BACKOFF_SECONDS


@pytest.mark.parametrize(
    ("faults", "environment", "message"),
    [
        (["503", "meteor"], {}, "FAULTS: unknown fault 'meteor'; choose a status such as 503, or "),
        ([], {"SMARTCAR_CLIENT_ID": "client"}, "SMARTCAR_CLIENT_ID and SMARTCAR_CLIENT_SECRET "),
        (["503"], SMARTCAR, "FAULTS needs the fake token endpoint"),
        ([], SMARTCAR | PROXY, "No token was published: The HTTP client cannot be created: "),
    ],
    ids=["unknown fault", "half of the credentials", "faults of Smartcar", "unusable proxy"],
)
def test_failure(faults: list[str], environment: dict[str, str], message: str) -> None:
    """A run without a token ends with exit status 1 and one line that says why."""
    output = run("local.run", *faults, **environment)

    assert output.returncode == 1
    assert output.stderr.startswith(message)
    assert output.stderr.count("\n") == 1
    assert "geheim" not in output.stderr + output.stdout


@pytest.mark.parametrize("command", ["local.run", "local.example python"])
def test_unused_proxy(command: str) -> None:
    """The fakes are reached with any proxy and certificates."""
    output = run(*command.split(" "), **UNUSABLE)

    assert (output.returncode, output.stderr) == (0, "")
