"""`make run`, as a person starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def run(*faults: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Tell the story."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SMARTCAR_"))}
    return subprocess.run(
        [sys.executable, "-m", "local.run", *faults],
        cwd=PROJECT,
        env={**inherited, "PYTHONPATH": "functions", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_story() -> None:
    """A run tells what was published, until when it is valid and what to try next."""
    story = run()

    assert story.returncode == 0, story.stderr
    assert "  Token rotated\n" in story.stdout
    assert "  access_token  (864 characters)\n" in story.stdout
    assert "  valid until " in story.stdout
    assert story.stdout.endswith('\nNext: make run FAULTS="503 429 timeout"\n')
    assert "eyJ" not in story.stdout
    assert story.stderr == ""


def test_faults() -> None:
    """Scripted faults are seen as failed attempts."""
    story = run("503", "reset")

    assert story.returncode == 0, story.stderr
    assert "  plays 503, then reset, then behaves\n" in story.stdout
    assert "; attempt 2 is in " in story.stdout
    assert "; attempt 3 is in " in story.stdout
    assert "; attempt 4" not in story.stdout


def test_failure() -> None:
    """A run that fails ends with one line and a status."""
    story = run("401")

    assert story.returncode == 1
    assert story.stderr.startswith("No token was published: http://127.0.0.1:")
    assert story.stderr.count("\n") == 1


def test_unknown_fault() -> None:
    """A word that is no fault is answered with those that are."""
    story = run("503", "meteor")

    assert story.returncode == 1
    assert story.stderr.startswith("FAULTS: meteor is no fault; ")


def test_half_of_the_credentials() -> None:
    """Smartcar is asked only with both halves of the credentials."""
    story = run(SMARTCAR_CLIENT_ID="client_8f3b1c6e")

    assert story.returncode == 1
    assert story.stderr == (
        "SMARTCAR_CLIENT_ID and SMARTCAR_CLIENT_SECRET go together: set both or none\n"
    )


def test_faults_of_smartcar() -> None:
    """Faults cannot be asked of Smartcar itself."""
    story = run(
        "503", SMARTCAR_CLIENT_ID="client_8f3b1c6e", SMARTCAR_CLIENT_SECRET="kYz7Q2vXw9Lr4TnB"
    )

    assert story.returncode == 1
    assert story.stderr.startswith("Smartcar plays no FAULTS")
