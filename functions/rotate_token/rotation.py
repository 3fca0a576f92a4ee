"""The rotation: check whether a new token is due, request one, publish it."""

from typing import Literal, NotRequired, TypedDict

from rotate_token.access_token import AccessToken
from rotate_token.credentials import ClientCredentials
from rotate_token.errors import CredentialsError, SecretsManagerError
from rotate_token.retrying import Run
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import TokenEndpoint

FRESH_SHARE = 0.05
LONGEST_FRESH_SECONDS = 180
"""
A token is fresh for this share of its lifetime, but at most for this time; only a forced run
replaces a fresh token.
"""

Reason = Literal["missing", "unreadable", "due", "forced", "fresh"]


class Result(TypedDict):
    """The result of a run; times are Unix times in seconds."""

    status: Literal["rotated", "skipped"]
    reason: Reason
    expires_at: int
    expires_in: int
    is_lifetime_assumed: NotRequired[bool]
    """Whether the token response had no ``expires_in``."""
    version_id: NotRequired[str]
    """The new version of the token secret."""
    credentials: NotRequired[Literal["current", "previous"]]
    """Which client credentials the endpoint accepted."""
    credentials_version_id: NotRequired[str]
    """The version of the credentials secret that holds them."""
    seconds_left_on_old_token: NotRequired[int]
    """The remaining lifetime of the replaced token; negative if it had expired."""


def rotate(store: SecretStore, endpoint: TokenEndpoint, run: Run) -> Result:
    """Publish a new token if one is due, or in any case if the run is forced."""
    old, reason = run.retry(lambda: _assess(store, run))
    if old and reason == "fresh":
        return {
            "status": "skipped",
            "reason": reason,
            "expires_at": old.expires_at,
            "expires_in": old.expires_in,
        }
    result = run.retry(lambda: _replace(store, endpoint, run, reason))
    if old:
        result["seconds_left_on_old_token"] = old.expires_at - int(run.clock())
    return result


def _assess(store: SecretStore, run: Run) -> tuple[AccessToken | None, Reason]:
    """Return the published token, and whether and why it has to be replaced."""
    try:
        old = store.read_token()
    except SecretsManagerError as error:
        run.report(error, "replacing the token")
        return None, "unreadable"
    if old is None:
        return None, "missing"
    if run.forced:
        return old, "forced"
    age_seconds = run.clock() - old.issued_at
    is_fresh = 0 <= age_seconds < min(FRESH_SHARE * old.expires_in, LONGEST_FRESH_SECONDS)
    return old, "fresh" if is_fresh else "due"


def _replace(store: SecretStore, endpoint: TokenEndpoint, run: Run, reason: Reason) -> Result:
    """Make one attempt: read the credentials, request a token, publish it."""
    token, accepted = _request_token(store, endpoint, run)
    return {
        "status": "rotated",
        "reason": reason,
        "expires_at": token.expires_at,
        "expires_in": token.expires_in,
        "is_lifetime_assumed": token.is_lifetime_assumed,
        "version_id": store.publish_token(token),
        "credentials": "current" if accepted.staging_label == "AWSCURRENT" else "previous",
        "credentials_version_id": accepted.version_id,
    }


def _request_token(
    store: SecretStore, endpoint: TokenEndpoint, run: Run
) -> tuple[AccessToken, ClientCredentials]:
    """Request a token with the current credentials or, if these fail, the previous ones."""
    current = None
    try:
        current = store.read_credentials("AWSCURRENT")
        return endpoint.request_token(current, now=run.clock(), seconds=run.seconds_left), current
    except CredentialsError as error:
        failure = error
    try:
        previous = store.read_credentials("AWSPREVIOUS")
        if previous != current:
            run.report(failure, "trying the previous credentials")
            token = endpoint.request_token(previous, now=run.clock(), seconds=run.seconds_left)
            return token, previous
    except CredentialsError as error:
        failure = CredentialsError(
            f"{failure.problem}; with the previous credentials: {error.problem}", failure.next_step
        )
    raise failure
