"""The promises of docs/outages.md, in simulated time, over as many seeds as there is time for."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rotate_token.retrying import LONGEST_BACKOFF_SECONDS
from rotate_token.rotation import RESERVED_SECONDS
from rotate_token.token_endpoint import ATTEMPT_SECONDS
from studies import world as simulation
from studies.outages import DAY, HOUR, MINUTE, SAFE_MINUTES, SCENARIOS
from studies.world import (
    LIFETIME_SECONDS,
    STACK,
    TICK_DELAY_SECONDS,
    Outcome,
    Scenario,
    simulate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

RECOVERY_SECONDS = LONGEST_BACKOFF_SECONDS + ATTEMPT_SECONDS + 1
"""One backoff plus one attempt, and a second for the answer and its publication."""
LONGEST_PAUSE_SECONDS = (
    STACK.period - 3 * (STACK.timeout - RESERVED_SECONDS) - sum(simulation.RETRY_WAITS_SECONDS)
)


def seeds(seconds: float = 0.5) -> Iterator[int]:
    """Count up for so many seconds, but to two at least; a seed that fails replays alone."""
    end = time.monotonic() + seconds
    for seed in itertools.count():
        if seed > 1 and time.monotonic() > end:
            return
        yield seed


def check(outcome: Outcome, seed: int) -> None:
    """Hold an outcome against what is true in every scenario; `simulate` reads each document."""
    moments = [moment for moment, _ in outcome.writes]
    assert min(b - a for a, b in itertools.pairwise(moments)) >= 5 * MINUTE, f"seed {seed}"
    least = LIFETIME_SECONDS - STACK.timeout
    assert all(expires_at - moment > least for moment, expires_at in outcome.writes), f"seed {seed}"
    assert max(end - begin for begin, end, _ in outcome.runs) < STACK.timeout, f"seed {seed}"


def test_same_seed() -> None:
    """The same seed gives the same run, another one does not."""
    scenario = Scenario("", 2 * DAY, failing=0.4, throttled=0.3, repeated=0.5, late=0.5)

    assert simulate(scenario, 1) == simulate(scenario, 1)
    assert simulate(scenario, 1) != simulate(scenario, 2)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenarios(scenario: Scenario) -> None:
    """In every scenario writes are rare, documents whole and lasting, and runs end in time."""
    scenario = replace(scenario, seconds=6 * DAY)
    harmless = not (scenario.outages or scenario.aws_away[1] or scenario.revoked)
    for seed in seeds():
        outcome = simulate(scenario, seed)

        check(outcome, seed)
        if harmless or scenario.outages[1:]:
            assert outcome.gaps == [], f"seed {seed}"


@pytest.mark.parametrize("minutes", [10, 15, 30, 45, 50, 55])
def test_schedules(minutes: int) -> None:
    """With every sensible schedule, and each tick delivered twice, the same holds."""
    for seed in seeds():
        outcome = simulate(Scenario("", DAY, minutes * MINUTE, repeated=1, failing=0.2), seed)

        check(outcome, seed)
        assert outcome.gaps == [], f"seed {seed}"


@pytest.mark.parametrize("hangs", [False, True])
def test_short_outage(hangs: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """An outage of as many minutes as are promised leaves no gap, whenever it begins."""
    for seed in seeds(2):
        begin = 2 * STACK.period + seed * 0.618 % 1 * STACK.period
        outages = ((begin, begin + SAFE_MINUTES * MINUTE),)
        outcome = simulate(Scenario("", 5 * HOUR, outages=outages, hangs=hangs), seed)

        check(outcome, seed)
        assert outcome.gaps == [], f"seed {seed}"


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("minutes", [12, 28, 49, 116])
def test_long_outage(minutes: int, hangs: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """After a longer one a run that is alive has a token within one backoff plus one attempt."""
    for seed in seeds():
        begin = 2 * STACK.period + seed * 0.618 % 1 * STACK.period
        end = begin + minutes * MINUTE
        outcome = simulate(Scenario("", end + 3 * HOUR, outages=((begin, end),), hangs=hangs), seed)

        check(outcome, seed)
        waited = outcome.seconds_without_token_after(end)
        if outcome.seconds_alive_at(end) > RECOVERY_SECONDS:
            assert waited <= RECOVERY_SECONDS, f"seed {seed}"
        else:
            longest = LONGEST_PAUSE_SECONDS + TICK_DELAY_SECONDS + 2 * RECOVERY_SECONDS
            assert waited <= longest, f"seed {seed}"


def test_gaps() -> None:
    """The gaps of an outcome are when its last token had expired, until the next or the end."""
    outcome = Outcome(100, writes=[(0, 10), (5, 20), (30, 60)], runs=[(25, 30, 50)])

    assert Outcome(100).gaps == []
    assert outcome.gaps == [(20, 30), (60, 100)]
    assert outcome.valid_share == pytest.approx(0.5)
    assert outcome.seconds_without_token_after(22) == 8
    assert outcome.seconds_without_token_after(40) == 0
    assert outcome.seconds_alive_at(30) == 20


def test_error_in_simulation() -> None:
    """An error of the simulation itself ends it, and is not lost in a thread."""
    clock = simulation.Clock()
    clock.at(simulation.START + 1, lambda: clock.sleep(5))
    clock.at(simulation.START + 2, lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        clock.run()
