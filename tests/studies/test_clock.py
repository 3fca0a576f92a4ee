"""Simulated time."""

import pytest

from studies.clock import Clock


def test_order() -> None:
    """Threads continue in the order of simulated time, and see it pass."""
    clock = Clock()
    log: list[tuple[str, float]] = []

    def process(name: str) -> None:
        clock.sleep(5)
        log.append((name, clock.now))

    clock.at(2, lambda: process("second"))
    clock.at(1, lambda: process("first"))
    clock.run()

    assert log == [("first", 6), ("second", 7)]


def test_error() -> None:
    """An error of the simulation itself is raised, not lost in a thread."""
    clock = Clock()
    clock.at(1, lambda: clock.sleep(5))
    clock.at(2, lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        clock.run()
