"""The job: is a new token due, get one, publish it."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from rotate_token.errors import (
    CredentialsError,
    InvalidClientError,
    SecretsManagerError,
    TokenRequestError,
    TokenSupersededError,
    UnreadableTokenError,
)
from rotate_token.retrying import retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotate_token.access_token import AccessToken
    from rotate_token.credentials import ClientCredentials
    from rotate_token.errors import RotationError
    from rotate_token.secret_store import SecretStore
    from rotate_token.token_endpoint import TokenEndpoint

    OnFailedAttempt = Callable[[TokenRequestError, str], None]

logger = logging.getLogger(__name__)

FRESH_SHARE = 0.1
"""A token is fresh for this share of its lifetime; it is not replaced unless that is forced."""

CREDENTIALS_SECONDS = 60.0
"""A run that has lasted for longer reads the credentials again before each attempt."""

RESERVED_SECONDS = 80.0
"""
What a run may take once it has stopped trying: three reads of a secret (9 s each, where Secrets
Manager answers the second call only), two last requests for a token (1 s each), the publication
(9 s), four more operations in case another run has published meanwhile (36 s), the report (5 s).
"""

Reason = Literal["missing", "unreadable", "due", "forced", "fresh"]


class Result(TypedDict):
    """What a run did; times are Unix times in whole seconds."""

    status: Literal["rotated", "skipped"]
    reason: Reason
    expires_at: int
    expires_in: int
    version_id: NotRequired[str]
    """The new version of the token secret."""
    credentials: NotRequired[Literal["current", "previous"]]
    """Which client credentials the endpoint took."""
    seconds_left_on_old_token: NotRequired[int]
    """How long the replaced token would have lived on; negative if it had expired."""


def rotate(
    store: SecretStore,
    endpoint: TokenEndpoint,
    *,
    forced: bool,
    until: float,
    on_failed_attempt: OnFailedAttempt,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """
    Publish a new token if one is due, or in any case if that is `forced`.

    Args:
        store: The two secrets.
        endpoint: What issues tokens.
        forced: Whether a fresh token is replaced too.
        until: Unix time at which to stop trying; each step is tried once in any case.
        on_failed_attempt: Told of each failed attempt that another follows: the error, and what
            follows.
        clock: Returns the Unix time in seconds.
        sleep: Waits for so many seconds.

    Raises:
        RotationError: The token secret is as it was; the message says why.
    """

    def before_wait(error: RotationError, failed: int, seconds: float) -> None:
        what_follows = f"attempt {failed + 1} is in {seconds:.1f} s"
        if isinstance(error, TokenRequestError):
            on_failed_attempt(error, what_follows)
        else:
            logger.warning("%s; %s", error.problem, what_follows)

    patiently = functools.partial(
        retry, until=until, before_wait=before_wait, clock=clock, sleep=sleep
    )
    began_at = clock()
    old, reason = patiently(lambda: _assess(store, forced=forced, now=clock()))
    if old and reason == "fresh":
        return _skipped(old)
    current = patiently(store.read_credentials)

    def attempt() -> tuple[AccessToken, ClientCredentials]:
        nonlocal current
        if clock() - began_at > CREDENTIALS_SECONDS:
            current = _read_again(store, current)
        return _request_token(store, endpoint, current, until, on_failed_attempt)

    token, accepted = patiently(attempt)
    try:
        version_id = patiently(lambda: store.publish_token(token))
    except TokenSupersededError:
        other, _ = patiently(lambda: _assess(store, forced=False, now=clock()))
        if other and token.expires_at - other.expires_at < FRESH_SHARE * token.expires_in:
            return _skipped(other)
        version_id = patiently(lambda: store.publish_token(token))
    result: Result = {
        "status": "rotated",
        "reason": reason,
        "expires_at": token.expires_at,
        "expires_in": token.expires_in,
        "version_id": version_id,
        "credentials": "current" if accepted is current else "previous",
    }
    if old:
        result["seconds_left_on_old_token"] = old.expires_at - int(clock())
    return result


def _assess(store: SecretStore, *, forced: bool, now: float) -> tuple[AccessToken | None, Reason]:
    """Return the published token, and whether and why it has to be replaced."""
    try:
        old = store.read_token()
    except UnreadableTokenError as error:
        logger.warning("%s", error.problem)
        return None, "unreadable"
    if old is None:
        return None, "missing"
    if forced:
        return old, "forced"
    is_fresh = 0 <= now - old.issued_at < FRESH_SHARE * old.expires_in
    return old, "fresh" if is_fresh else "due"


def _skipped(token: AccessToken) -> Result:
    return {
        "status": "skipped",
        "reason": "fresh",
        "expires_at": token.expires_at,
        "expires_in": token.expires_in,
    }


def _read_again(store: SecretStore, credentials: ClientCredentials) -> ClientCredentials:
    """Return the credentials as they are by now, or those at hand where they cannot be read."""
    try:
        return store.read_credentials()
    except (CredentialsError, SecretsManagerError) as error:
        logger.warning("%s; the credentials read before stay in use", error.problem)
        return credentials


def _request_token(
    store: SecretStore,
    endpoint: TokenEndpoint,
    current: ClientCredentials,
    until: float,
    on_failed_attempt: OnFailedAttempt,
) -> tuple[AccessToken, ClientCredentials]:
    """Ask for a token and, where the credentials are refused, once more with those before them."""
    try:
        return endpoint.request_token(current, until=until), current
    except InvalidClientError as error:
        refusal = error
    try:
        previous = store.read_credentials("AWSPREVIOUS")
    except (CredentialsError, SecretsManagerError):
        raise refusal from None
    if previous == current:
        raise refusal
    on_failed_attempt(refusal, f"version {previous.version_id} of the credentials is tried")
    try:
        return endpoint.request_token(previous, until=until), previous
    except InvalidClientError as error:
        raise InvalidClientError(
            f"{error.problem} to versions {current.version_id} and {previous.version_id} of the "
            "credentials secret",
            error.next_step,
        ) from error
