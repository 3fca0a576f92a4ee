"""The guarantees of docs/outages.md, in simulated time; `simulate` repeats a seed that failed."""

import itertools
from dataclasses import replace

import pytest

from studies.outages import DEFAULT_MINUTES, OUTAGES_MINUTES, Case, find_longest_gap
from studies.simulation import PERIOD_SECONDS, Failure, Outcome, Scenario, simulate
from tests.samples import PROJECT

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
    "a wrong client secret for an hour": Scenario(wrong_secret=((BEFORE, BEFORE + HOUR),)),
}


def share(seed: int) -> float:
    """Return a number from 0 to 1; successive seeds spread evenly."""
    return seed * 0.618 % 1


def simulate_and_check(scenario: Scenario, seed: int) -> Outcome:
    """Simulate a scenario, and check what is true in each one."""
    outcome = simulate(scenario, seed)

    # Each answer has its own token. So a token for each write is an attempt for each write.
    assert len({write.token.access_token for write in outcome.writes}) == len(outcome.writes)
    # One request and one call of Secrets Manager; `issued_at` is rounded down.
    assert all(write.at - write.token.issued_at < 30 for write in outcome.writes)
    # The last report may take 2 s.
    assert all(run.ended_at < run.timeout_at - 2 for run in outcome.runs)
    return outcome


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", WITHOUT_GAP)
def test_without_gap(name: str, seed: int) -> None:
    """Faults that are not a long outage leave no gap."""
    assert simulate_and_check(WITHOUT_GAP[name], seed).gaps == []


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize(
    ("period_minutes", "minutes", "retry_after"), [(50, 8, 0), (50, 7.5, 3600), (20, 38, 0)]
)
@pytest.mark.parametrize("failure", Failure)
def test_short_outage(
    failure: Failure, period_minutes: int, minutes: float, retry_after: int, seed: int
) -> None:
    """An outage of the guaranteed length that begins about a scheduled run leaves no gap."""
    scheduled = 7 * period_minutes * MINUTE
    begin = scheduled + (2 * share(seed) - 1) * MINUTE
    scenario = Scenario(
        scheduled + 2 * HOUR,
        period_minutes * MINUTE,
        failure=failure,
        outages=((begin, begin + minutes * MINUTE),),
        retry_after=retry_after,
    )

    assert simulate_and_check(scenario, seed).gaps == []


@pytest.mark.parametrize("seed", range(60))
def test_outage_after_kept_token(seed: int) -> None:
    """After a run that kept a token of a manual run, an outage of 5 minutes leaves no gap."""
    manual_run = SCHEDULED - share(seed) * 6 * MINUTE
    begin = SCHEDULED + PERIOD_SECONDS + share(7 * seed) * MINUTE
    scenario = Scenario(manual_runs=(manual_run,), outages=((begin, begin + 5 * MINUTE),))

    assert simulate_and_check(scenario, seed).gaps == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("minutes", [12, 28, 49])
@pytest.mark.parametrize(
    ("failure", "retry_after", "recovery_seconds", "pause_minutes"),
    [
        *((failure, 0, 45, 7.5) for failure in Failure),
        (Failure.ANSWERS_503, 3600, 75, 8.75),
    ],
)
def test_long_outage(
    failure: Failure,
    retry_after: int,
    recovery_seconds: int,
    pause_minutes: float,
    minutes: int,
    seed: int,
) -> None:
    """After an outage, an active run publishes a token in seconds, the next one in minutes."""
    begin = (2 + share(seed)) * PERIOD_SECONDS
    end = begin + minutes * MINUTE
    scenario = Scenario(
        end + 2 * HOUR, failure=failure, outages=((begin, end),), retry_after=retry_after
    )
    outcome = simulate_and_check(scenario, seed)

    # A run that has reached the time that it reserves, a minute, is not active.
    is_active = any(
        run.began_at <= end <= run.ended_at and run.timeout_at > end + MINUTE + recovery_seconds
        for run in outcome.runs
    )
    # One second for the answer to the last request.
    longest_wait = recovery_seconds + 1 if is_active else pause_minutes * MINUTE
    waited = sum(until - max(since, end) for since, until in outcome.gaps if since <= end < until)
    assert waited <= longest_wait
    assert outcome.gap_seconds <= max(0, minutes - 9) * MINUTE + longest_wait


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("failure", Failure)
def test_lasting_failure(failure: Failure, seed: int) -> None:
    """While nothing works, runs try for 41 to 43 of 50 minutes; the last fails after 44 to 46."""
    scenario = Scenario(PERIOD_SECONDS, failure=failure, outages=((0, DAY),))
    runs = simulate_and_check(scenario, seed).runs

    assert len(runs) == 3
    assert 41 * MINUTE < sum(run.ended_at - run.began_at for run in runs) < 42.6 * MINUTE
    assert 44 * MINUTE < runs[-1].ended_at - runs[0].began_at < 45.6 * MINUTE


@pytest.mark.parametrize(
    ("scenario", "requests"),
    [
        pytest.param(REFUSED, 85, id="no previous credentials"),
        pytest.param(replace(REFUSED, wrong_secret=((0, DAY),)), 170, id="previous credentials"),
        pytest.param(replace(REFUSED, period=15 * MINUTE), 280, id="every 15 minutes"),
        pytest.param(replace(REFUSED, failure=Failure.ANSWERS_503), 180, id="503"),
    ],
)
def test_requests(scenario: Scenario, requests: int) -> None:
    """While nothing works, a stack makes about this many requests from one schedule to the next."""
    began_at = 2 * HOUR
    outcome = simulate(replace(scenario, seconds=began_at + HOUR), seed=1)

    counted = [at for at in outcome.requests if began_at <= at < began_at + PERIOD_SECONDS]
    assert len(counted) == pytest.approx(requests, rel=0.1)


@pytest.mark.parametrize("seed", range(60))
def test_reserved_time(seed: int) -> None:
    """A run in which all that starts at the last moment takes as long as it may is not cut off."""
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

    simulate_and_check(scenario, seed)


@pytest.mark.parametrize(
    ("scenario", "minutes_left"),
    [
        (Scenario(), 9),
        (Scenario(period=20 * MINUTE), 39),
        *((Scenario(manual_runs=(SCHEDULED - share(n) * 10 * MINUTE,)), 6) for n in range(20)),
    ],
)
def test_time_left(scenario: Scenario, minutes_left: int) -> None:
    """A run replaces a token that is valid for 9 more minutes, or 39; 6 after a manual run."""
    for old, new in itertools.pairwise(simulate_and_check(scenario, seed=1).writes):
        assert old.token.expires_at - new.at > minutes_left * MINUTE - 2


def test_table() -> None:
    """The document has the gaps that the simulation finds at the default schedule."""
    gaps = [find_longest_gap(Case(minutes, DEFAULT_MINUTES)) for minutes in OUTAGES_MINUTES]
    row = f"| {DEFAULT_MINUTES} min | {' | '.join(f'{gap:.1f}' for gap in gaps)} |"

    assert row in (PROJECT / "docs" / "outages.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("minutes", [12, 28, 45, 60])
def test_schedule_matters_more(minutes: int) -> None:
    """Quick retries every 20 minutes leave a shorter gap than this project every 50 minutes."""
    with_quick_retries = find_longest_gap(Case(minutes, 20, "three quick retries"))

    assert with_quick_retries < find_longest_gap(Case(minutes, DEFAULT_MINUTES))
