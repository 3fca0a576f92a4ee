"""Simulated time."""

import pytest

from studies.clock import Clock


def test_error() -> None:
    """An error of the simulation itself is raised, not lost in a thread."""
    clock = Clock()
    clock.at(1, lambda: clock.sleep(5))
    clock.at(2, lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        clock.wait_for_all()
