"""`make run` and `make example`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.samples import LOOPBACK_ONLY, PROJECT


def run(*faults: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command behind `make run`."""
    return call("local.run", *faults, **environment)


def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SMARTCAR_"))}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=PROJECT,
        env={**inherited, "PYTHONPATH": f"{LOOPBACK_ONLY}:functions", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_steps() -> None:
    """The steps show what was published, until when it is valid, and what to try next."""
    output = run()

    assert output.returncode == 0, output.stderr
    assert "  Token rotated\n" in output.stdout
    assert "  access_token  (864 characters)\n" in output.stdout
    assert "  valid until " in output.stdout
    assert output.stdout.endswith('\nNext: make run FAULTS="503 429 timeout"\n')
    assert "eyJ" not in output.stdout
    assert output.stderr == ""


def test_columns() -> None:
    """The output fits a terminal of 80 columns, even if attempts fail."""
    output = run("503", "429")

    lines = output.stdout.splitlines()
    assert sum("Attempt failed" in line for line in lines) == 2
    assert max(len(line) for line in lines) <= 80


def test_faults() -> None:
    """Scripted faults show as failed attempts."""
    output = run("503", "reset")

    assert output.returncode == 0, output.stderr
    assert "  will answer 503, then reset, then normally\n" in output.stdout
    assert " s (attempt 2)\n" in output.stdout
    assert " s (attempt 3)\n" in output.stdout
    assert "(attempt 4)" not in output.stdout


def test_failure() -> None:
    """A run that fails ends with one line and exit status 1."""
    output = run("401")

    assert output.returncode == 1
    assert output.stderr.startswith("No token was published: http://127.0.0.1:")
    assert output.stderr.count("\n") == 1


def test_unknown_fault() -> None:
    """An unknown fault is an error that lists the known ones."""
    output = run("503", "meteor")

    assert output.returncode == 1
    assert output.stderr.startswith("FAULTS: unknown fault 'meteor'; choose from ")


def test_half_of_the_credentials() -> None:
    """A client ID without a client secret is an error."""
    output = run(SMARTCAR_CLIENT_ID="client_8f3b1c6e")

    assert output.returncode == 1
    assert output.stderr == ("SMARTCAR_CLIENT_ID and SMARTCAR_CLIENT_SECRET must be set together\n")


def test_faults_of_smartcar() -> None:
    """Faults cannot be scripted for Smartcar itself."""
    output = run(
        "503", SMARTCAR_CLIENT_ID="client_8f3b1c6e", SMARTCAR_CLIENT_SECRET="kYz7Q2vXw9Lr4TnB"
    )

    assert output.returncode == 1
    assert output.stderr.startswith("FAULTS needs the fake token endpoint")


UNUSABLE = pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("https_proxy", "http://127.0.0.1:port"),
        ("HTTPS_PROXY", "socks4://user:geheim@127.0.0.1:1"),
        ("SSL_CERT_FILE", "missing.pem"),
    ],
)


@UNUSABLE
def test_unused_proxy(setting: str, value: str) -> None:
    """The fakes are reached with any proxy and certificates."""
    environment = {setting: value}

    for command in (["local.run"], ["local.example", "python"]):
        output = call(*command, **environment)
        assert (output.returncode, output.stderr) == (0, "")


@UNUSABLE
def test_unusable_proxy(setting: str, value: str) -> None:
    """If Smartcar itself cannot be called with this machine's proxy, one line says so."""
    smartcar = {"SMARTCAR_CLIENT_ID": "client_8f3b1c6e", "SMARTCAR_CLIENT_SECRET": "kYz7Q2vXw9"}

    output = run(**smartcar, **{setting: value})

    assert output.returncode == 1
    assert output.stderr.startswith("Smartcar cannot be called with this machine's HTTPS_PROXY, ")
    assert output.stderr.count("\n") == 1
    assert "geheim" not in output.stderr
