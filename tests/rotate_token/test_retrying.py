"""Run, in simulated time; test_rotation.py has its reports."""

from collections.abc import Callable

import pytest

from rotate_token.errors import ConfigurationError, TokenEndpointUnavailableError
from rotate_token.retrying import Run
from tests.samples import Timeline

WRONG_SETTING = ConfigurationError("TOKEN_URL is wrong", "correct it")


def unavailable(retry_after_seconds: float = 0) -> TokenEndpointUnavailableError:
    """Make a transient error."""
    return TokenEndpointUnavailableError("It answered 503", "wait", retry_after_seconds)


def retry(
    timeline: Timeline,
    *failures: Exception,
    timeout_seconds: float = 900,
    report: Callable[..., None] = lambda *_: None,
) -> None:
    """Retry an attempt that fails as scripted, then succeeds."""
    script = list(failures)

    def attempt() -> None:
        if script:
            raise script.pop(0)

    run = Run(
        timeout_seconds, report, forced=False, clock=lambda: timeline.now, sleep=timeline.sleep
    )
    run.retry(attempt)


def test_backoff() -> None:
    """Waits are random, up to a bound that doubles from 1 s to 30 s."""
    timelines = [Timeline() for _ in range(200)]
    for timeline in timelines:
        retry(timeline, *[unavailable()] * 8)

    for n, bound in enumerate([1, 2, 4, 8, 16, 30, 30, 30]):
        waits = [timeline.waits[n] for timeline in timelines]
        assert max(waits) <= bound
        assert max(waits) > 0.8 * bound
        assert min(waits) < 0.2 * bound


@pytest.mark.parametrize(
    ("failure", "reported"),
    [(WRONG_SETTING, [(WRONG_SETTING, "giving up")]), (ZeroDivisionError(), [])],
)
def test_not_retried(failure: Exception, reported: list[object]) -> None:
    """A wrong setting is not retried, and neither is a bug, which is not even reported."""
    timeline = Timeline()
    reports: list[object] = []

    with pytest.raises(type(failure)):
        retry(timeline, failure, report=lambda *report: reports.append(report))

    assert timeline.waits == []
    assert reports == reported


def test_no_time_left() -> None:
    """The error is raised at once if the next attempt can only start 56 s before the timeout."""
    timeline = Timeline()

    retry(timeline, unavailable(30), timeout_seconds=56 + 30.1)
    with pytest.raises(TokenEndpointUnavailableError):
        retry(timeline, unavailable(30), timeout_seconds=56 + 30)

    assert timeline.waits == [30]
