"""The run: its deadline and clock, what it retries, when, and for how long."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from rotate_token.errors import ConfigurationError, RotationError, TransientError
from rotate_token.secret_store import LONGEST_CALL_SECONDS
from rotate_token.token_endpoint import SHORTEST_ATTEMPT_SECONDS

T = TypeVar("T")

LONGEST_BACKOFF_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 60.0
"""A longer Retry-After is followed for this time only: the endpoint may be available by then."""

REPORT_SECONDS = 2.0

RESERVED_SECONDS = 4 * LONGEST_CALL_SECONDS + 2 * SHORTEST_ATTEMPT_SECONDS + REPORT_SECONDS
"""
Reserved at the end of a run for what may start at the last moment: calls that read the published
token, the current and the previous credentials, and publish; a token request with each; a report.
"""

# Full jitter: each wait is random, up to a bound that starts at 1 s and doubles.
_backoff = wait_random_exponential(multiplier=1, max=LONGEST_BACKOFF_SECONDS)


class Run:
    """
    One run of the function.

    Args:
        timeout_seconds: The time until Lambda ends the run.
        report: Called immediately for each failed attempt, with the error and a text that says what
            happens next.
        forced: Whether somebody asked for a new token, and waits for the result.
        clock: Returns the Unix time in seconds.
        sleep: Waits for the given number of seconds.
    """

    def __init__(
        self,
        timeout_seconds: float,
        report: Callable[[RotationError, str], None],
        *,
        forced: bool,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.report = report
        self.forced = forced
        self.clock = clock
        self.sleep = sleep
        self._until = clock() + timeout_seconds - RESERVED_SECONDS

    @property
    def seconds_left(self) -> float:
        """Seconds during which further attempts may start; negative afterwards."""
        return self._until - self.clock()

    def retry(self, attempt: Callable[[], T]) -> T:
        """
        Call `attempt`, at least once, until it succeeds; return its result.

        Raises:
            RotationError: It failed, and trying again is of no use, or there is no time for it.
        """
        retrying = Retrying(
            retry=retry_if_exception(self._is_worth_retrying),
            wait=_wait_seconds,
            stop=self._is_too_late,
            before_sleep=self._report_wait,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except RotationError as error:
            self.report(error, "giving up")
            raise

    def _is_worth_retrying(self, error: BaseException) -> bool:
        """Return whether a later attempt may succeed; if somebody waits, within seconds."""
        if self.forced:
            return isinstance(error, TransientError)
        return isinstance(error, RotationError) and not isinstance(error, ConfigurationError)

    def _is_too_late(self, state: RetryCallState) -> bool:
        return state.upcoming_sleep >= self.seconds_left

    def _report_wait(self, state: RetryCallState) -> None:
        attempt = state.attempt_number + 1
        self.report(
            _error_of(state), f"retrying in {state.upcoming_sleep:.1f} s (attempt {attempt})"
        )


def _wait_seconds(state: RetryCallState) -> float:
    """
    Return how long to wait before the next attempt.

    A transient error: the backoff or, if it is longer, the time that the token endpoint asked for.
    Any other error: the longest backoff, because it rarely passes within seconds.
    """
    error = _error_of(state)
    if not isinstance(error, TransientError):
        return LONGEST_BACKOFF_SECONDS
    return max(_backoff(state), min(error.retry_after_seconds, LONGEST_RETRY_AFTER_SECONDS))


def _error_of(state: RetryCallState) -> RotationError:
    """Return the error of the attempt that has just failed."""
    outcome: Any = state.outcome
    error: RotationError = outcome.exception()
    return error
