"""Run, in simulated time."""

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
from rotate_token.retrying import Run
from tests.samples import Timeline

WRONG_SETTING = ConfigurationError("TOKEN_URL is wrong", "correct it")
REFUSALS = [
    TokenRequestError("It answered 404", "correct it"),
    CredentialsError("It answered 401", "correct them"),
    SecretsManagerError("PutSecretValue failed", "allow it"),
]


def unavailable(retry_after_seconds: float = 0) -> TokenEndpointUnavailableError:
    """Make a transient error."""
    return TokenEndpointUnavailableError("It answered 503", "wait", retry_after_seconds)


def retry(run: Run, *failures: Exception) -> str:
    """Retry an attempt that fails as scripted, then succeeds."""
    script = list(failures)

    def attempt() -> str:
        if script:
            raise script.pop(0)
        return "a token"

    return run.retry(attempt)


def test_backoff() -> None:
    """Waits are random, up to a bound that doubles from 1 s to 30 s."""
    runs = [Timeline() for _ in range(200)]
    for timeline in runs:
        retry(timeline.begin_run(), *[unavailable()] * 8)

    for n, bound in enumerate([1, 2, 4, 8, 16, 30, 30, 30]):
        waits = [timeline.waits[n] for timeline in runs]
        assert max(waits) <= bound
        assert max(waits) > 0.8 * bound
        assert min(waits) < 0.2 * bound


def test_reports() -> None:
    """Each failed attempt, including the last, is reported with what happens next."""
    timeline = Timeline()
    failures = (
        unavailable(7.0),
        SecretsManagerUnavailableError("It did not answer", "wait"),
        REFUSALS[0],
        WRONG_SETTING,
    )

    with pytest.raises(ConfigurationError):
        retry(timeline.begin_run(), *failures)

    assert timeline.reports == [
        (failures[0], "retrying in 7.0 s (attempt 2)"),
        (failures[1], f"retrying in {timeline.waits[1]:.1f} s (attempt 3)"),
        (failures[2], "retrying in 30.0 s (attempt 4)"),
        (failures[3], "giving up"),
    ]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal).__name__)
def test_refusal(refusal: RotationError) -> None:
    """What may be mended is tried again after the longest backoff."""
    timeline = Timeline()

    assert retry(timeline.begin_run(), refusal) == "a token"
    assert timeline.waits == [30.0]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal).__name__)
def test_forced(refusal: RotationError) -> None:
    """A forced run retries a transient failure, and fails at once on any other."""
    timeline = Timeline()

    with pytest.raises(type(refusal)):
        retry(timeline.begin_run(forced=True), unavailable(), refusal)

    assert len(timeline.waits) == 1


def test_bug() -> None:
    """An exception that is not a RotationError is a bug: it is neither retried nor reported."""
    timeline = Timeline()

    with pytest.raises(ZeroDivisionError):
        retry(timeline.begin_run(), ZeroDivisionError())

    assert timeline.waits == []
    assert timeline.reports == []


def test_retry_after() -> None:
    """A wait is at least as long as Retry-After, up to 60 s, so that it does not end the run."""
    timeline = Timeline()

    assert retry(timeline.begin_run(), unavailable(47.0), unavailable(3600.0)) == "a token"
    assert timeline.waits == [47.0, 60.0]


def test_no_time_left() -> None:
    """The last error is raised as soon as no further attempt can start 56 s before the timeout."""
    timeline = Timeline(0)

    with pytest.raises(TokenEndpointUnavailableError):
        retry(timeline.begin_run(900), *[unavailable()] * 1000)

    assert len(timeline.waits) > 20
    assert 900 - 30 - 1 - 56 < timeline.now < 900 - 56


def test_retry_after_the_end() -> None:
    """If Retry-After is longer than the time that is left, the error is raised at once."""
    timeline = Timeline()

    assert retry(timeline.begin_run(56 + 30.1), unavailable(30.0)) == "a token"
    with pytest.raises(TokenEndpointUnavailableError):
        retry(timeline.begin_run(56 + 30), unavailable(30.0))
    assert timeline.waits == [30.0]
