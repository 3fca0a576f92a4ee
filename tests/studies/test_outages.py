"""The guarantees of docs/outages.md, in simulated time. `play` repeats a seed that failed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rotate_token.access_token import AccessToken
from rotate_token.errors import ConfigurationError
from studies.world import PERIOD_SECONDS, POLICIES, Failure, Outcome, Scenario, Write, play

if TYPE_CHECKING:
    from rotate_token.retrying import Run

MINUTE, HOUR, DAY = 60, 3600, 86400
SCHEDULED = 7 * PERIOD_SECONDS
"""The time of a scheduled run."""
BEFORE = SCHEDULED - MINUTE
REFUSED = Scenario(PERIOD_SECONDS, failure=Failure.ANSWERS_401, outages=((0, DAY),))
"""The client credentials are revoked."""

WITHOUT_GAP = {
    "50 % of requests fail": Scenario(failing=0.5),
    "20 % of requests fail, with Retry-After": Scenario(failing=0.2, retry_after=3600),
    "responses take 1 to 20 s": Scenario(answers_in=(1, 20)),
    "down and up again every 5 minutes for 4 hours": Scenario(
        outages=tuple((BEFORE + n * 600, BEFORE + n * 600 + 300) for n in range(24))
    ),
    "20 % of calls of Secrets Manager are throttled": Scenario(
        failing=0.2, failure=Failure.AWS_THROTTLES
    ),
    "50 % of writes are applied without an answer": Scenario(lost_answers=0.5),
    "20 % of runs delivered twice, 20 % late": Scenario(duplicated=0.2, late=0.2),
    "all runs delivered twice, with faults": Scenario(duplicated=1, failing=0.5, lost_answers=0.2),
    "every 15 minutes, delivered twice": Scenario(period=15 * MINUTE, duplicated=1, failing=0.2),
    "every 30 minutes, delivered twice": Scenario(period=30 * MINUTE, duplicated=1, failing=0.2),
    "every 40 minutes, delivered twice": Scenario(period=40 * MINUTE, duplicated=1, failing=0.2),
    "a wrong client secret for an hour": Scenario(wrong_secret=((BEFORE, BEFORE + HOUR),)),
}


def share(seed: int) -> float:
    """Return a number from 0 to 1; successive seeds spread evenly."""
    return seed * 0.618 % 1


def check(outcome: Outcome, seed: int) -> None:
    """Check what is true in every scenario. `play` itself parses each published document."""
    # Each answer has its own token. So a token for each write is an attempt for each write.
    tokens = {write.token.access_token for write in outcome.writes}
    assert len(tokens) == len(outcome.writes), f"{seed=}"
    # One request and one call of Secrets Manager; `issued_at` is rounded down.
    assert all(write.at - write.token.issued_at < 30 for write in outcome.writes), f"{seed=}"
    assert all(run.ended_at < run.timeout_at for run in outcome.runs), f"{seed=}"


@pytest.mark.parametrize("name", WITHOUT_GAP)
def test_without_gap(name: str) -> None:
    """Faults that are not a long outage leave no gap."""
    for seed in range(4):
        outcome = play(WITHOUT_GAP[name], seed)

        check(outcome, seed)
        assert outcome.gaps == [], f"{seed=}"


def test_frequent_refusals() -> None:
    """A 404 to every fifth request leaves no gap in a quarter of a year."""
    outcome = play(Scenario(90 * DAY, failing=0.2, failure=Failure.ANSWERS_404), seed=1)

    check(outcome, seed=1)
    assert outcome.gaps == []


@pytest.mark.parametrize(("period_minutes", "minutes"), [(50, 8), (20, 38)])
@pytest.mark.parametrize("failure", Failure)
def test_short_outage(failure: Failure, period_minutes: int, minutes: int) -> None:
    """An outage of the guaranteed length that begins about a scheduled run leaves no gap."""
    for seed in range(15):
        scheduled = 7 * period_minutes * MINUTE
        begin = scheduled + (2 * share(seed) - 1) * MINUTE
        scenario = Scenario(
            scheduled + 2 * HOUR,
            period_minutes * MINUTE,
            failure=failure,
            outages=((begin, begin + minutes * MINUTE),),
        )
        outcome = play(scenario, seed)

        check(outcome, seed)
        assert outcome.gaps == [], f"{seed=}"


@pytest.mark.parametrize("minutes", [12, 28, 49])
@pytest.mark.parametrize(
    ("failure", "retry_after", "recovery_seconds", "pause_minutes"),
    [
        *((failure, 0, 45, 7.5) for failure in Failure),
        (Failure.ANSWERS_503, 3600, 75, 8.75),
    ],
)
def test_long_outage(
    minutes: int, failure: Failure, retry_after: int, recovery_seconds: int, pause_minutes: float
) -> None:
    """After an outage, an active run publishes a token in seconds, the next one in minutes."""
    for seed in range(6):
        begin = (2 + share(seed)) * PERIOD_SECONDS
        end = begin + minutes * MINUTE
        scenario = Scenario(
            end + 2 * HOUR, failure=failure, outages=((begin, end),), retry_after=retry_after
        )
        outcome = play(scenario, seed)

        check(outcome, seed)
        # A run that has reached the time that it reserves, a minute, is not active.
        is_active = any(
            run.began_at <= end <= run.ended_at and run.timeout_at > end + MINUTE + recovery_seconds
            for run in outcome.runs
        )
        # One second for the answer to the last request.
        longest_wait = recovery_seconds + 1 if is_active else pause_minutes * MINUTE
        waited = sum(
            until - max(since, end) for since, until in outcome.gaps if since <= end < until
        )
        assert waited <= longest_wait, f"{seed=}"
        assert outcome.gap_seconds <= max(0, minutes - 9) * MINUTE + longest_wait, f"{seed=}"


@pytest.mark.parametrize("seconds_before", [0, 14.9])
@pytest.mark.parametrize("failure", Failure)
def test_longest_pause(failure: Failure, seconds_before: float) -> None:
    """After an outage that ends with the last attempt of all runs, or during it, one is soon."""
    for seed in range(4):
        lasting = Scenario(PERIOD_SECONDS, failure=failure, outages=((0, DAY),))
        end = play(lasting, seed).runs[-1].ended_at - seconds_before
        outcome = play(replace(lasting, seconds=2 * PERIOD_SECONDS, outages=((0, end),)), seed)

        assert outcome.writes[0].at - end < 7.5 * MINUTE, f"{seed=}"


@pytest.mark.parametrize("failure", Failure)
def test_lasting_failure(failure: Failure) -> None:
    """While nothing works, runs try for 41 to 43 of 50 minutes; the last fails after 44 to 46."""
    for seed in range(3):
        outcome = play(Scenario(PERIOD_SECONDS, failure=failure, outages=((0, DAY),)), seed)

        began_at, *_ = (run.began_at for run in outcome.runs)
        *_, ended_at = (run.ended_at for run in outcome.runs)
        active_seconds = sum(run.ended_at - run.began_at for run in outcome.runs)
        check(outcome, seed)
        assert len(outcome.runs) == 3
        assert 41 * MINUTE < active_seconds < 42.6 * MINUTE, f"{seed=}"
        assert 44 * MINUTE < ended_at - began_at < 45.6 * MINUTE, f"{seed=}"


def test_wrong_setting() -> None:
    """A wrong setting fails all three runs within four minutes of the scheduled time."""

    def fail() -> None:
        raise ConfigurationError("Simulated", "none")

    def rotate(_store: object, _endpoint: object, run: Run) -> None:
        run.retry(fail)

    outcome = play(Scenario(PERIOD_SECONDS), 1, rotate)

    assert len(outcome.runs) == len(outcome.failed_attempts) == 3
    assert outcome.runs[-1].ended_at < 4.2 * MINUTE


@pytest.mark.parametrize(
    ("scenario", "requests"),
    [
        pytest.param(REFUSED, 85, id="no previous credentials"),
        pytest.param(replace(REFUSED, wrong_secret=((0, DAY),)), 170, id="previous credentials"),
        pytest.param(replace(REFUSED, period=15 * MINUTE), 280, id="every 15 minutes"),
    ],
)
def test_requests(scenario: Scenario, requests: int) -> None:
    """A stack whose client credentials are revoked makes about this many requests per schedule."""
    began_at = 2 * HOUR
    outcome = play(replace(scenario, seconds=began_at + HOUR), seed=1)

    counted = [at for at in outcome.requests if began_at <= at < began_at + PERIOD_SECONDS]
    assert len(counted) == pytest.approx(requests, rel=0.05)


@pytest.mark.parametrize("retry_after", [1800, 3600])
@pytest.mark.parametrize(("minutes", "gap_minutes"), [(5, 0), (7.75, 0), (28, 21)])
def test_long_retry_after(minutes: float, gap_minutes: float, retry_after: int) -> None:
    """A Retry-After that is longer than the outage does not prolong a gap by its length."""
    for seed in range(12):
        begin = BEFORE + share(seed) * 2 * MINUTE
        end = begin + minutes * MINUTE
        scenario = Scenario(SCHEDULED + 2 * HOUR, outages=((begin, end),), retry_after=retry_after)
        outcome = play(scenario, seed)

        check(outcome, seed)
        assert outcome.gap_seconds <= gap_minutes * MINUTE, f"{seed=}"


def test_reserved_time() -> None:
    """A run in which all that starts at the last moment takes as long as it may is not cut off."""
    for seed in range(60):
        # Secrets Manager recovers about when the run stops: 844 s after its start.
        recovers_at = SCHEDULED + 815 + share(seed) * 90
        scenario = Scenario(
            SCHEDULED + HOUR,
            answers_in=(0.9, 1.0),
            failure=Failure.AWS_THROTTLES,
            outages=((BEFORE, recovers_at),),
            is_aws_slow=True,
            wrong_secret=((BEFORE, SCHEDULED + HOUR),),
        )

        check(play(scenario, seed), seed)


@pytest.mark.parametrize("failure", [Failure.AWS_THROTTLES, Failure.AWS_HANGS])
def test_concurrent_runs(failure: Failure) -> None:
    """A manual run and a scheduled run that wait for the same outage leave no gap."""
    for seed in range(12):
        begin = SCHEDULED - 14 * MINUTE
        scenario = Scenario(
            failure=failure,
            outages=((begin, SCHEDULED + share(seed) * 2 * MINUTE),),
            manual_runs=(SCHEDULED - share(7 * seed) * 14 * MINUTE,),
        )
        outcome = play(scenario, seed)

        check(outcome, seed)
        assert outcome.gaps == [], f"{seed=}"


def test_lost_answers() -> None:
    """Each attempt writes at most once, even if no write is ever answered."""
    for seed in range(6):
        outcome = play(Scenario(PERIOD_SECONDS, lost_answers=1), seed)

        check(outcome, seed)
        assert len(outcome.writes) == len(outcome.requests) > 10, f"{seed=}"


@pytest.mark.parametrize(("period_minutes", "minutes_left"), [(50, 9), (20, 39)])
def test_time_left(period_minutes: int, minutes_left: int) -> None:
    """A shorter schedule replaces a token while it is valid for as much longer."""
    outcome = play(Scenario(period=period_minutes * MINUTE), seed=1)

    for old, new in itertools.pairwise(outcome.writes):
        assert old.token.expires_at - new.at > minutes_left * MINUTE - 2


@pytest.mark.parametrize("minutes", [12, 28, 45, 60])
def test_schedule_matters_more(minutes: int) -> None:
    """Quick retries every 20 minutes leave a shorter gap than this project every 50 minutes."""

    def gap_seconds(policy: str, period: float) -> float:
        outages = ((3 * period, 3 * period + minutes * MINUTE),)
        scenario = Scenario(3 * period + 2 * HOUR, period, outages=outages)
        return play(scenario, 1, POLICIES[policy]).gap_seconds

    assert gap_seconds("three quick retries", 20 * MINUTE) < gap_seconds(
        "this project", PERIOD_SECONDS
    )


def test_manual_run() -> None:
    """The token is valid for 6 more minutes at any run, even after a manual run at any moment."""
    for seed in range(20):
        outcome = play(Scenario(manual_runs=(SCHEDULED - share(seed) * 10 * MINUTE,)), seed)

        check(outcome, seed)
        for old, new in itertools.pairwise(outcome.writes):
            assert old.token.expires_at - new.at > 6 * MINUTE - 2, f"{seed=}"


def test_same_seed() -> None:
    """The same seed gives the same outcome, and another seed gives another."""
    scenario = Scenario(failing=0.4, lost_answers=0.3, duplicated=0.5, late=0.5)

    assert play(scenario, 1) == play(scenario, 1)
    assert play(scenario, 1) != play(scenario, 2)


def test_gaps() -> None:
    """A gap lasts from the expiry of the published token to the next write, or to the end."""
    tokens = [AccessToken("a", 10, 1), AccessToken("b", 15, 6), AccessToken("c", 30, 30)]
    outcome = Outcome(100, writes=[Write(token.issued_at, token) for token in tokens])

    assert Outcome(100).gaps == []
    assert outcome.gaps == [(21, 30), (60, 100)]
    assert outcome.gap_seconds == 49
