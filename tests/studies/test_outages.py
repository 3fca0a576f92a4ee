"""The promises of docs/outages.md, in simulated time, over as many seeds as there is time for."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from rotate_token.retrying import RESERVED_SECONDS
from rotate_token.token_endpoint import ATTEMPT_SECONDS
from studies.outages import (
    HOUR,
    INCIDENTS_MINUTES,
    MINUTE,
    PAUSE_SECONDS,
    PERIODS_MINUTES,
    RECOVERY_SECONDS,
    SAFE_MINUTES,
)
from studies.world import (
    AWS_TRY_SECONDS,
    PERIOD_SECONDS,
    POLICIES,
    Clock,
    Outcome,
    RunTimes,
    Scenario,
    Write,
    play,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEDULED = 7 * PERIOD_SECONDS
"""The time of a scheduled run."""
BEFORE = SCHEDULED - MINUTE

WITHOUT_GAP = (
    Scenario("no faults"),
    Scenario("5 % of requests fail", failing=0.05),
    Scenario("20 % of requests fail", failing=0.2),
    Scenario("50 % of requests fail", failing=0.5),
    Scenario("responses take 1 to 20 s", answers_in=(1, 20)),
    Scenario("20 % fail, and one request a minute is allowed", failing=0.2, at_most_every=60),
    Scenario(
        "down and up again every 5 minutes for 4 hours",
        outages=tuple((BEFORE + n * 600, BEFORE + n * 600 + 300) for n in range(24)),
    ),
    Scenario("20 % of calls of Secrets Manager are throttled", throttled=0.2),
    Scenario("50 % of writes are applied without an answer", lost_answers=0.5),
    Scenario("20 % of runs delivered twice, 20 % up to 5 minutes late", duplicated=0.2, late=0.2),
    Scenario("all runs delivered twice, with faults", duplicated=1, failing=0.5, lost_answers=0.2),
    *(
        Scenario(f"every {minutes} minutes, delivered twice", 86400, minutes * 60, 1, failing=0.2)
        for minutes in PERIODS_MINUTES
    ),
    Scenario("a wrong client secret for an hour", wrong_secret=((BEFORE, BEFORE + HOUR),)),
)
WITH_GAP = (
    *(
        Scenario(f"an outage of {minutes} minutes", outages=((BEFORE, BEFORE + minutes * MINUTE),))
        for minutes in INCIDENTS_MINUTES
    ),
    Scenario("Secrets Manager is unavailable", aws_outages=((BEFORE, BEFORE + 28 * MINUTE),)),
    Scenario("Secrets Manager hangs", aws_outages=((BEFORE, BEFORE + 28 * MINUTE),), hangs=True),
    Scenario("two wrong secrets", wrong_secret=((BEFORE, BEFORE + HOUR),), revoked=True),
)


def seeds(seconds: float = 0.5) -> Iterator[int]:
    """Count for the given time, at least to two. `play` repeats a seed that failed."""
    end = time.monotonic() + seconds
    for seed in itertools.count():
        if seed > 1 and time.monotonic() > end:
            return
        yield seed


def share(seed: int) -> float:
    """Return a number from 0 to 1; successive seeds spread evenly."""
    return seed * 0.618 % 1


def check(outcome: Outcome, seed: int) -> None:
    """Check what is true in every scenario. `play` itself parses each published document."""
    # Each answer has its own token. So a token for each write is an attempt for each write.
    assert len({write.access_token for write in outcome.writes}) == len(outcome.writes), f"{seed=}"
    # The age of a token includes one call of Secrets Manager; `issued_at` is rounded down.
    oldest = ATTEMPT_SECONDS + 2 * AWS_TRY_SECONDS + 1 + 1
    assert max(write.at - write.issued_at for write in outcome.writes) <= oldest, f"{seed=}"
    assert all(run.ended_at <= run.until + RESERVED_SECONDS for run in outcome.runs), f"{seed=}"


@pytest.mark.parametrize("scenario", WITHOUT_GAP + WITH_GAP, ids=lambda scenario: scenario.name)
def test_scenarios(scenario: Scenario) -> None:
    """The invariants hold in each scenario, and no other policy ends a gap a retry earlier."""
    for seed in seeds():
        outcome, *others = (play(scenario, seed, policy) for policy in POLICIES.values())

        check(outcome, seed)
        assert bool(outcome.gaps) == (scenario in WITH_GAP), f"{seed=}"
        for other in others:
            assert outcome.gap_seconds <= other.gap_seconds + RECOVERY_SECONDS, f"{seed=}"


@pytest.mark.parametrize("hangs", [False, True])
def test_refused_writes(hangs: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """A manual run and a scheduled run that wait for the same write outage leave no gap."""
    for seed in seeds():
        begin = SCHEDULED - 14 * MINUTE
        scenario = Scenario(
            write_outages=((begin, SCHEDULED + share(seed) * 2 * MINUTE),),
            manual_runs=(SCHEDULED - share(7 * seed) * 14 * MINUTE,),
            hangs=hangs,
        )
        outcome = play(scenario, seed)

        check(outcome, seed)
        assert outcome.gaps == [], f"{seed=}"


def test_lost_answers() -> None:
    """Each attempt writes at most once, even if no write is ever answered."""
    for seed in seeds():
        outcome = play(Scenario(seconds=PERIOD_SECONDS, lost_answers=1), seed)

        check(outcome, seed)
        assert len(outcome.writes) == len(outcome.requests) > 10, f"{seed=}"


def test_manual_run() -> None:
    """The token is valid for 6 more minutes at any run, even after a manual run at any moment."""
    for seed in seeds():
        outcome = play(Scenario(manual_runs=(SCHEDULED - share(seed) * 10 * MINUTE,)), seed)

        check(outcome, seed)
        remaining = [old.expires_at - new.at for old, new in itertools.pairwise(outcome.writes)]
        assert min(remaining) > 6 * MINUTE - 2, f"{seed=}"


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("minutes", [SAFE_MINUTES, 12, *INCIDENTS_MINUTES])
def test_outages(minutes: int, hangs: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """After an outage at any moment consumers wait only as long as the document says."""
    for seed in seeds():
        begin = PERIOD_SECONDS * (2 + share(seed))
        end = begin + minutes * MINUTE
        outcome = play(Scenario(seconds=end + 2 * HOUR, outages=((begin, end),), hangs=hangs), seed)

        check(outcome, seed)
        waited = outcome.seconds_without_token_after(end)
        if minutes == SAFE_MINUTES:
            assert outcome.gaps == [], f"{seed=}"
        elif outcome.active_seconds_after(end) > RECOVERY_SECONDS:
            assert waited <= RECOVERY_SECONDS + 1, f"{seed=}"
        else:
            assert waited <= PAUSE_SECONDS + RECOVERY_SECONDS, f"{seed=}"


def test_same_seed() -> None:
    """The same seed gives the same outcome, and another seed gives another."""
    scenario = Scenario(failing=0.4, throttled=0.3, lost_answers=0.3, duplicated=0.5, late=0.5)

    assert play(scenario, 1) == play(scenario, 1)
    assert play(scenario, 1) != play(scenario, 2)


def test_gaps() -> None:
    """A gap lasts from the expiry of the published token to the next write, or to the end."""
    writes = [Write(0, 0, 10, "a"), Write(5, 5, 20, "b"), Write(30, 30, 60, "c")]
    outcome = Outcome(100, writes=writes, runs=[RunTimes(25, 30, 50)])

    assert Outcome(100).gaps == []
    assert outcome.gaps == [(20, 30), (60, 100)]
    assert outcome.gap_seconds == 50
    assert outcome.seconds_without_token_after(22) == 8
    assert outcome.seconds_without_token_after(40) == 0
    assert outcome.active_seconds_after(30) == 20


def test_error_in_world() -> None:
    """An error of the simulation itself is raised, not lost in a thread."""
    clock = Clock()
    clock.at(1, lambda: clock.sleep(5))
    clock.at(2, lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        clock.run()
