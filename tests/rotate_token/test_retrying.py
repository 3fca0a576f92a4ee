"""Run, with a clock that advances only during waits."""

from __future__ import annotations

import pytest

from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    RotationError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
    TokenEndpointUnavailableError,
    TokenRequestError,
)
from rotate_token.retrying import RESERVED_SECONDS, Run


class Timeline:
    """A clock, its waits, and an attempt that fails as scripted."""

    def __init__(self, *failures: Exception) -> None:
        self.now = 1_800_000_000.0
        self.failures = list(failures)
        self.waits: list[float] = []
        self.reported: list[tuple[RotationError, str]] = []

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.waits.append(seconds)
        self.now += seconds

    def attempt(self) -> str:
        """Fail, or succeed at the end of the script."""
        if self.failures:
            raise self.failures.pop(0)
        return "a token"

    def retry(self, timeout_seconds: float = 900, *, forced: bool = False) -> str:
        """Retry the attempt in a run with this timeout."""
        run = Run(
            timeout_seconds,
            report=lambda *report: self.reported.append(report),
            forced=forced,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        return run.retry(self.attempt)


def unavailable(retry_after_seconds: float = 0) -> TokenEndpointUnavailableError:
    """Make a transient error."""
    return TokenEndpointUnavailableError("It answered 503", "wait", retry_after_seconds)


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


def test_reports() -> None:
    """Each failed attempt, including the last, is reported with what happens next."""
    failures = (
        unavailable(7.0),
        SecretsManagerUnavailableError("It did not answer", "wait"),
        TokenRequestError("It answered 404", "correct it"),
        ConfigurationError("TOKEN_URL is wrong", "correct it"),
    )
    timeline = Timeline(*failures)

    with pytest.raises(ConfigurationError):
        timeline.retry()

    assert timeline.reported == [
        (failures[0], "retrying in 7.0 s (attempt 2)"),
        (failures[1], f"retrying in {timeline.waits[1]:.1f} s (attempt 3)"),
        (failures[2], "retrying in 30.0 s (attempt 4)"),
        (failures[3], "giving up"),
    ]


REFUSALS = [
    TokenRequestError("It answered 404", "correct it"),
    CredentialsError("It answered 401", "correct them"),
    SecretsManagerError("PutSecretValue failed", "allow it"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal).__name__)
def test_refusal(refusal: RotationError) -> None:
    """What may be mended is tried again after the longest backoff; a forced run fails at once."""
    timeline, forced = Timeline(refusal), Timeline(refusal)

    assert timeline.retry() == "a token"
    assert timeline.waits == [30.0]
    with pytest.raises(type(refusal)):
        forced.retry(forced=True)
    assert forced.waits == []


def test_forced() -> None:
    """A forced run retries a transient failure."""
    assert Timeline(unavailable()).retry(forced=True) == "a token"


def test_bug() -> None:
    """An exception that is not a RotationError is a bug: it is neither retried nor reported."""
    timeline = Timeline(ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        timeline.retry()

    assert timeline.waits == []
    assert timeline.reported == []


def test_retry_after() -> None:
    """A wait is at least as long as Retry-After, up to 60 s, so that it does not end the run."""
    timeline = Timeline(unavailable(47.0), unavailable(3600.0))

    assert timeline.retry() == "a token"
    assert timeline.waits == [47.0, 60.0]


def test_no_time_left() -> None:
    """The last error is raised as soon as no further attempt can start in time."""
    timeline = Timeline(*(unavailable() for _ in range(1000)))
    started_at = timeline.now

    with pytest.raises(TokenEndpointUnavailableError):
        timeline.retry(timeout_seconds=900)

    assert len(timeline.waits) > 20
    assert 900 - 30 - RESERVED_SECONDS - 1 < timeline.now - started_at < 900 - RESERVED_SECONDS


def test_retry_after_the_end() -> None:
    """If Retry-After is longer than the time that is left, the error is raised at once."""
    timeline = Timeline(unavailable(30.0))

    with pytest.raises(TokenEndpointUnavailableError):
        timeline.retry(timeout_seconds=RESERVED_SECONDS + 30)

    assert timeline.waits == []


def test_first_attempt() -> None:
    """One attempt is made even if no time is left."""
    assert Timeline().retry(timeout_seconds=0) == "a token"
