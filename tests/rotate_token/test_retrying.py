"""Retrying, with a clock that only waiting moves."""

from __future__ import annotations

import pytest

from rotate_token.errors import (
    TemporaryTokenRequestError,
    TokenEndpointUnavailableError,
    TokenRequestRefusedError,
)
from rotate_token.retrying import retry


class Timeline:
    """A clock, what waits on it, and an attempt that fails as the script says."""

    def __init__(self, *failures: Exception) -> None:
        self.now = 1_800_000_000.0
        self.failures = list(failures)
        self.attempts = 0
        self.waits: list[float] = []
        self.told: list[tuple[TemporaryTokenRequestError, int, float]] = []

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.waits.append(seconds)
        self.now += seconds

    def attempt(self) -> str:
        """Fail, or succeed when the script is through."""
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        return "a token"

    def retry(self, for_seconds: float = 900) -> str:
        """Retry the attempt for so long."""
        return retry(
            self.attempt,
            until=self.now + for_seconds,
            before_wait=lambda *failure: self.told.append(failure),
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def unavailable(retry_after_seconds: float | None = None) -> TokenEndpointUnavailableError:
    """Make an error that may pass."""
    return TokenEndpointUnavailableError("It answered 503", "wait", retry_after_seconds)


def test_success() -> None:
    """What succeeds at once is not waited for."""
    timeline = Timeline()

    assert timeline.retry() == "a token"
    assert timeline.attempts == 1
    assert timeline.waits == []


def test_backoff() -> None:
    """Waits are random, up to a bound that doubles from 1 s to 30 s."""
    runs = [Timeline(*(unavailable() for _ in range(8))) for _ in range(200)]
    for timeline in runs:
        timeline.retry()

    for n, bound in enumerate([1, 2, 4, 8, 16, 30, 30, 30]):
        waits = [timeline.waits[n] for timeline in runs]
        assert max(waits) <= bound
        assert max(waits) > 0.8 * bound
        assert min(waits) < 0.2 * bound


def test_before_wait() -> None:
    """Each failure that is followed by another attempt is told, with its number and the wait."""
    failures = unavailable(), unavailable()
    timeline = Timeline(*failures)

    timeline.retry()

    assert timeline.told == [
        (failures[0], 1, timeline.waits[0]),
        (failures[1], 2, timeline.waits[1]),
    ]


def test_retry_after() -> None:
    """An endpoint that says when to come back is not asked earlier."""
    timeline = Timeline(unavailable(retry_after_seconds=77.0))

    timeline.retry()

    assert timeline.waits == [77.0]


def test_permanent_error() -> None:
    """An error that does not pass is left through at once."""
    timeline = Timeline(TokenRequestRefusedError("It answered 401", "mend it"))

    with pytest.raises(TokenRequestRefusedError):
        timeline.retry()

    assert timeline.attempts == 1


def test_no_time_left() -> None:
    """The last error is raised as soon as no other attempt can begin in time."""
    timeline = Timeline(*(unavailable() for _ in range(1000)))
    started_at = timeline.now

    with pytest.raises(TokenEndpointUnavailableError):
        timeline.retry(for_seconds=600)

    assert timeline.attempts > 20
    assert 570 - 1 < timeline.now - started_at < 600


def test_retry_after_the_end() -> None:
    """An endpoint that asks for more time than is left is not waited for."""
    timeline = Timeline(unavailable(retry_after_seconds=900.0))

    with pytest.raises(TokenEndpointUnavailableError):
        timeline.retry(for_seconds=600)

    assert timeline.waits == []


def test_first_attempt() -> None:
    """However late it is, one attempt is made."""
    assert Timeline().retry(for_seconds=-1) == "a token"
