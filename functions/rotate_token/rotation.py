"""The rotation: check whether a new token is due, request one, publish it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from rotate_token.errors import CredentialsError, InvalidClientError, UnreadableTokenError

if TYPE_CHECKING:
    from rotate_token.access_token import AccessToken
    from rotate_token.retrying import Retrier
    from rotate_token.secret_store import SecretStore
    from rotate_token.token_endpoint import TokenEndpoint

logger = logging.getLogger(__name__)

FRESH_SHARE = 0.05
"""A token is fresh for this share of its lifetime; only a forced run replaces a fresh token."""

RESERVED_SECONDS = 45.0
"""
Time reserved for an attempt that starts at the last moment: four calls to Secrets Manager (9 s
each, if its name resolves to one address: two tries of up to 4 s, with 1 s between them), two token
requests (1 s each), and a report.
"""

Reason = Literal["missing", "unreadable", "due", "forced", "fresh"]
Credentials = Literal["current", "previous"]


class Result(TypedDict):
    """The result of a run; times are Unix times in seconds."""

    status: Literal["rotated", "skipped"]
    reason: Reason
    expires_at: int
    expires_in: int
    version_id: NotRequired[str]
    """The new version of the token secret."""
    credentials: NotRequired[Credentials]
    """Which version of the client credentials the endpoint accepted."""
    seconds_left_on_old_token: NotRequired[int]
    """The remaining lifetime of the replaced token; negative if it had expired."""


def rotate(
    store: SecretStore, endpoint: TokenEndpoint, retrier: Retrier, *, forced: bool
) -> Result:
    """
    Publish a new token if one is due, or in any case if `forced`.

    Raises:
        RotationError: No new token was published; the message says why.
    """
    old, reason = retrier.call(lambda: _assess(store, retrier.clock(), forced=forced))
    if old and reason == "fresh":
        return {
            "status": "skipped",
            "reason": reason,
            "expires_at": old.expires_at,
            "expires_in": old.expires_in,
        }
    token, version_id, credentials = retrier.call(lambda: _replace(store, endpoint, retrier))
    result: Result = {
        "status": "rotated",
        "reason": reason,
        "expires_at": token.expires_at,
        "expires_in": token.expires_in,
        "version_id": version_id,
        "credentials": credentials,
    }
    if old:
        result["seconds_left_on_old_token"] = old.expires_at - int(retrier.clock())
    return result


def _assess(store: SecretStore, now: float, *, forced: bool) -> tuple[AccessToken | None, Reason]:
    """Return the published token, and whether and why it has to be replaced."""
    try:
        old = store.read_token()
    except UnreadableTokenError as error:
        logger.warning("%s", error)
        return None, "unreadable"
    if old is None:
        return None, "missing"
    if forced:
        return old, "forced"
    is_fresh = 0 <= now - old.issued_at < FRESH_SHARE * old.expires_in
    return old, "fresh" if is_fresh else "due"


def _replace(
    store: SecretStore, endpoint: TokenEndpoint, retrier: Retrier
) -> tuple[AccessToken, str, Credentials]:
    """Make one attempt: read the credentials, request a token, publish it."""
    token, credentials = _request_token(store, endpoint, retrier)
    return token, store.publish_token(token), credentials


def _request_token(
    store: SecretStore, endpoint: TokenEndpoint, retrier: Retrier
) -> tuple[AccessToken, Credentials]:
    """Request a token with the current credentials or, if these fail, the previous ones."""
    current = None
    try:
        current = store.read_credentials()
        return endpoint.request_token(current, until=retrier.until), "current"
    except (CredentialsError, InvalidClientError) as error:
        rejection = error
    try:
        previous = store.read_credentials("AWSPREVIOUS")
    except CredentialsError:
        raise rejection from None
    if previous == current:
        raise rejection
    retrier.on_failed_attempt(rejection, "trying the previous credentials")
    return endpoint.request_token(previous, until=retrier.until), "previous"
