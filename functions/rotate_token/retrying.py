"""Which errors are retried, after how long, and until when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from rotate_token.errors import (
    RotationError,
    SecretsManagerUnavailableError,
    TemporaryTokenRequestError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

T = TypeVar("T")

LONGEST_BACKOFF_SECONDS = 30.0

# Full jitter: each wait is random, up to a bound that starts at 1 s and doubles.
_backoff = wait_random_exponential(multiplier=1, max=LONGEST_BACKOFF_SECONDS)


@dataclass(frozen=True)
class Retrier:
    """
    Retries transient failures while there is time.

    Attributes:
        until: Unix time from which no further attempt starts.
        on_failed_attempt: Called immediately for each failed attempt, with the error and a text
            that says what happens next.
        clock: Returns the Unix time in seconds.
        sleep: Waits for the given number of seconds.
    """

    until: float
    on_failed_attempt: Callable[[RotationError, str], None]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def call(self, attempt: Callable[[], T]) -> T:
        """
        Call `attempt`, at least once, until it succeeds; return its result.

        Raises:
            RotationError: It failed permanently, or there is no time for another attempt.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(
                (SecretsManagerUnavailableError, TemporaryTokenRequestError)
            ),
            wait=_wait_seconds,
            stop=lambda state: self.clock() + state.upcoming_sleep >= self.until,
            before_sleep=lambda state: self.on_failed_attempt(
                _error_of(state),
                f"retrying in {state.upcoming_sleep:.1f} s (attempt {state.attempt_number + 1})",
            ),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except RotationError as error:
            self.on_failed_attempt(error, "giving up")
            raise


def _wait_seconds(state: RetryCallState) -> float:
    """Return the backoff or, if it is longer, the time that the token endpoint asked for."""
    return max(_backoff(state), getattr(_error_of(state), "retry_after_seconds", 0))


def _error_of(state: RetryCallState) -> RotationError:
    error: RotationError = cast("Any", state.outcome).exception()
    return error
