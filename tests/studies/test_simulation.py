"""The simulation of outages."""

import os
import subprocess
import sys

import pytest

from rotate_token.access_token import AccessToken
from studies.clock import Clock
from studies.simulation import Outcome, Scenario, Write, simulate
from tests.samples import PROJECT


def test_same_seed() -> None:
    """The same seed gives the same outcome, and another seed gives another."""
    scenario = Scenario(failing=0.4, lost_answers=0.3, duplicated=0.5, late=0.5)

    assert simulate(scenario, 1) == simulate(scenario, 1)
    assert simulate(scenario, 1) != simulate(scenario, 2)


def test_gaps() -> None:
    """A gap lasts from the expiry of the published token to the next write, or to the end."""
    tokens = [AccessToken("a", 10, 1), AccessToken("b", 15, 6), AccessToken("c", 30, 30)]
    outcome = Outcome(100, writes=[Write(token.issued_at, token) for token in tokens])

    assert Outcome(100).gaps == []
    assert outcome.gaps == [(21, 30), (60, 100)]
    assert outcome.gap_seconds == 49


def test_locale() -> None:
    """It reads the template as UTF-8, whatever the encoding of the locale is."""
    command = [sys.executable, "-c", "import studies.simulation"]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = os.environ | {"PYTHONPATH": "functions"} | locale
    subprocess.run(command, cwd=PROJECT, env=environment, check=True)


def test_error() -> None:
    """An error of the simulation itself is raised, not lost in a thread."""
    clock = Clock()
    clock.at(1, lambda: clock.sleep(5))
    clock.at(2, lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        clock.wait_for_all()
