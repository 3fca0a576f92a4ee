"""The run: its deadline and clock, what it tries again, after how long, and until when."""

import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from rotate_token.errors import RotationError, TransientError

T = TypeVar("T")

LONGEST_BACKOFF_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 60.0
"""A longer Retry-After is followed for this time only: the endpoint may be available by then."""

RESERVED_SECONDS = 56.0
"""
Time reserved at the end of a run for what may start at the last moment: four calls to Secrets
Manager (13 s each: two tries of up to 6 s, with up to 1 s between them), two token requests (1 s
each), and a report.

A try lasts 6 s if the name of Secrets Manager resolves to three addresses, as that of a VPC
endpoint in three zones does, each of which gets a connect timeout of 1 s, and if the last one gets
the read timeout of 3 s. A slow name resolution, or an answer that arrives in pieces, may take
longer: then Lambda's timeout ends the run.
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
        clock: Returns the Unix time in seconds.
        sleep: Waits for the given number of seconds.
    """

    def __init__(
        self,
        timeout_seconds: float,
        report: Callable[[RotationError, str], None],
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.report = report
        self.clock = clock
        self.sleep = sleep
        self._until = clock() + timeout_seconds - RESERVED_SECONDS

    @property
    def seconds_left(self) -> float:
        """How long further attempts may start, in seconds; negative afterwards."""
        return self._until - self.clock()

    def retry(self, attempt: Callable[[], T]) -> T:
        """
        Call `attempt`, at least once, until it succeeds; return its result.

        Raises:
            RotationError: It failed permanently, or there is no time for another attempt.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            wait=_wait_seconds,
            stop=lambda state: state.upcoming_sleep >= self.seconds_left,
            before_sleep=lambda state: self.report(
                _error_of(state),
                f"retrying in {state.upcoming_sleep:.1f} s (attempt {state.attempt_number + 1})",
            ),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except RotationError as error:
            self.report(error, "giving up")
            raise


def _wait_seconds(state: RetryCallState) -> float:
    """Return the backoff or, if it is longer, the time that the token endpoint asked for."""
    asked = min(_error_of(state).retry_after_seconds, LONGEST_RETRY_AFTER_SECONDS)
    return max(_backoff(state), asked)


def _error_of(state: RetryCallState) -> TransientError:
    error: TransientError = cast("Any", state.outcome).exception()
    return error
