"""Which errors are tried again, after how long, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from rotate_token.errors import SecretsManagerUnavailableError, TemporaryTokenRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    Temporary = SecretsManagerUnavailableError | TemporaryTokenRequestError

T = TypeVar("T")

LONGEST_BACKOFF_SECONDS = 30.0

# Full jitter: each wait is anything up to a bound that doubles from 1 s, so the first is 0.5 s on
# average.
_backoff = wait_random_exponential(multiplier=1, max=LONGEST_BACKOFF_SECONDS)


def retry(
    attempt: Callable[[], T],
    *,
    until: float,
    before_wait: Callable[[Temporary, int, float], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> T:
    """
    Call `attempt` until it returns, and return what it returned.

    Args:
        attempt: What to call, at least once.
        until: Unix time from which no further attempt is begun.
        before_wait: Told of each failure that is followed by another attempt: the error, the number
            of the attempt that failed, from 1, and the seconds until the next.
        clock: Returns the Unix time in seconds.
        sleep: Waits for so many seconds.

    Raises:
        SecretsManagerUnavailableError, TemporaryTokenRequestError: The last attempt failed, and
            there is no time for another.
        Exception: Whatever else `attempt` raised, at once.
    """

    def error_of(state: RetryCallState) -> Temporary:
        error: Temporary = cast("Any", state.outcome).exception()
        return error

    def wait_seconds(state: RetryCallState) -> float:
        error = error_of(state)
        asked = error.retry_after_seconds if isinstance(error, TemporaryTokenRequestError) else 0
        return max(_backoff(state), asked or 0)

    return Retrying(
        retry=retry_if_exception_type((SecretsManagerUnavailableError, TemporaryTokenRequestError)),
        wait=wait_seconds,
        stop=lambda state: clock() + state.upcoming_sleep >= until,
        before_sleep=lambda state: before_wait(
            error_of(state), state.attempt_number, state.upcoming_sleep
        ),
        sleep=sleep,
        reraise=True,
    )(attempt)
