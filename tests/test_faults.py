"""
The fault table: the effect of each fault on a run.

Each row runs the handler over real sockets, with all loggers at DEBUG. If the fault is retried, the
row runs twice: with a transient and with a lasting fault. Some rows also run the package that
`sam build` creates. After each run,

- the secret holds the old document, or a complete new one,
- the run has ended on time,
- each failed attempt has been counted, and
- no output, result or error contains 8 consecutive characters of a secret.
"""

from __future__ import annotations

import gzip
import json
import logging
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, quote_plus

import pytest

from local.fakes.lambda_runtime import FunctionError, LambdaRuntime, LocalContext
from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, Fault
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token import token_endpoint
from rotate_token.access_token import LONGEST_TOKEN, AccessToken
from rotate_token.errors import (
    CredentialsError,
    InvalidClientError as Rejected,
    InvalidTokenResponseError as Unusable,
    RotationError,
    SecretsManagerError as AwsRefused,
    SecretsManagerUnavailableError as AwsUnavailable,
    TemporaryTokenRequestError,
    TokenEndpointUnavailableError as Unavailable,
    TokenEndpointUnreachableError as Unreachable,
    TokenRequestRefusedError as Refused,
    UnreadableTokenResponseError as Unreadable,
)
from tests.samples import OLD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment

    from local.fakes.secrets_manager import FakeSecretsManager
    from tests.samples import Invoke

TOKEN = "eyJuZXci.p7Wc5tRf1YhGuKa9"
ISSUED = {"access_token": TOKEN, "token_type": "bearer", "expires_in": 3600}
SECRET = FakeSmartcar.client_secret
BRIEF = 10
"""A run with this many seconds left makes one attempt only."""


class Row(NamedTuple):
    """
    A fault.

    Attributes:
        name: Its name.
        fault: A fault or an answer of FakeSmartcar, or a fault of FakeSecretsManager.
        error: The error that a run ends with while the fault lasts; None if the run succeeds.
        artifact: Whether the built package is run against it too.
    """

    name: str
    fault: str | Answer | Fault
    error: type[RotationError] | None = None
    artifact: bool = False

    @property
    def retried(self) -> bool:
        """Whether a run succeeds if the fault occurs only once."""
        return issubclass(self.error or object, (TemporaryTokenRequestError, AwsUnavailable))

    def fails(self, *, lasting: bool) -> bool:
        """Whether the run ends with the error."""
        return self.error is not None and (lasting or not self.retried)

    def requests(self, *, lasting: bool) -> int:
        """How many requests for a token the run makes."""
        attempts = 2 if self.retried and not lasting else 1
        is_early = isinstance(self.fault, Fault) and self.fault.operation == "GetSecretValue"
        return attempts - 1 if is_early and self.error else attempts


def js(document: object) -> bytes:
    """Write JSON."""
    return json.dumps(document).encode()


def issued(**changes: object) -> Answer:
    """Make a token response with changes."""
    return Answer(200, js({**ISSUED, **changes}))


def aws(operation: str, secret_id: str, code: str, error: type[RotationError] | None) -> Row:
    """Make a row for a fault of Secrets Manager."""
    name = f"{code} of {operation} {secret_id}"
    return Row(name, Fault(operation, secret_id, code), error)


GZIP = {"Content-Encoding": "gzip"}
TABLE = [
    # No complete response
    Row("reset", "reset", Unreachable, artifact=True),
    Row("timeout", "timeout", Unreachable),
    Row("slow", "slow", Unreachable),
    Row("slow-headers", "slow-headers", Unreachable),
    Row("truncated", "truncated", Unreachable, artifact=True),
    # Statuses
    *(
        Row(str(status), Answer(status), Unavailable, artifact=status in {429, 500})
        for status in (408, 425, 429, 500, 502, 503, 504, 520, 525, 530, 599)
    ),
    *(
        Row(str(status), Answer(status), Refused)
        for status in (201, 204, 301, 302, 400, 403, 404, 405, 410, 415, 418, 422, 430, 451)
    ),
    Row("201 with a token", Answer(201, js(ISSUED)), Refused),
    Row("401", Answer(401), Rejected),
    Row("502 with HTML", Answer(502, b"<html><h1>Bad Gateway</h1></html>"), Unavailable),
    Row("403 with HTML", Answer(403, b"<html><h1>Forbidden</h1></html>"), Refused),
    Row("redirect to the same host", "redirect", Refused),
    Row("308 elsewhere", Answer(308, headers={"Location": "$ELSEWHERE"}), Refused),
    Row("307 elsewhere", Answer(307, headers={"Location": "$ELSEWHERE"}), Refused, artifact=True),
    Row("307 to a malformed address", Answer(307, headers={"Location": "http://xn--/"}), Refused),
    # Retry-After
    Row("429 in 1 s", Answer(429, headers={"Retry-After": "1"}), Unavailable),
    Row("503 soon", Answer(503, headers={"Retry-After": "soon"}), Unavailable),
    Row("503 in 30 years", Answer(503, headers={"Retry-After": "999999999"}), Unavailable),
    Row(
        "503 until last year",
        Answer(503, headers={"Retry-After": "Wed, 01 Jan 2025 00:00:00 GMT"}),
        Unavailable,
    ),
    # OAuth errors
    *(
        Row(f"400 {code}", Answer(400, js({"error": code})), Refused, artifact=code[0] == "i")
        for code in ("invalid_request", "unauthorized_client", "of_the_provider")
    ),
    *(
        Row(f"{status} {code}", Answer(status, js({"error": code})), Unavailable)
        for status in (200, 400, 401)
        for code in ("server_error", "temporarily_unavailable")
    ),
    Row("400 invalid_client", Answer(400, js({"error": "invalid_client"})), Rejected),
    Row(
        "401 invalid_client", Answer(401, js({"error": "invalid_client"})), Rejected, artifact=True
    ),
    Row("401 with the secret", Answer(401, js({"error": SECRET})), Rejected, artifact=True),
    Row("401 with broken gzip", Answer(401, b"not gzip", GZIP), Rejected),
    Row("200 invalid_scope", Answer(200, js({"error": "invalid_scope"})), Refused),
    Row("200 with an error that is an object", Answer(200, js({"error": {"code": 7}})), Refused),
    Row("200 with an error beside a token", issued(error="server_error"), Unavailable),
    # Bodies that are not a JSON object
    Row("empty", Answer(200), Unreadable),
    Row("HTML labeled as JSON", "html", Unreadable, artifact=True),
    Row("half a JSON object", Answer(200, b'{"access_token": "eyJ'), Unreadable),
    Row("invalid UTF-8", Answer(200, b'{"\xff\xfe"}'), Unreadable),
    Row("deeply nested", Answer(200, b"[" * 100_000), Unreadable),
    Row("a number of 5,000 digits", Answer(200, b"7" * 5000), Unreadable),
    Row("over 1 MiB", Answer(200, b" " * 1_100_000), Unreadable),
    Row("flood", "flood", Unreadable),
    Row("broken gzip", Answer(200, b"not gzip", GZIP), Unreadable),
    Row("half of gzip", Answer(200, gzip.compress(js(ISSUED))[:40], GZIP), Unreadable),
    Row("over 1 MiB from gzip", Answer(200, gzip.compress(b" " * 1_100_000), GZIP), Unreadable),
    Row("Brotli", Answer(200, js(ISSUED), {"Content-Encoding": "br"}), Unreadable),
    *(
        Row(f"JSON {document}", Answer(200, js(document)), Unreadable, artifact=document is None)
        for document in (None, True, float("nan"), "token", ["token"])
    ),
    # Objects without a usable token; test_access_token.py has the other shapes
    Row("an empty object", Answer(200, b"{}"), Unusable),
    Row("no access_token", issued(access_token=None), Unusable),
    Row("access_token with a line break", issued(access_token=f"{TOKEN}\r\nX: 1"), Unusable),
    Row("access_token too long", issued(access_token="x" * (LONGEST_TOKEN + 1)), Unusable),
    Row("another token_type", issued(token_type="mac"), Unusable),
    Row("expires_in 0", issued(expires_in=0), Unusable),
    # Unusual but valid
    Row("token_type in capitals", issued(token_type="BEARER")),
    Row("no expires_in", issued(expires_in=None)),
    Row("expires_in as a string", issued(expires_in="3600")),
    Row("unknown fields", issued(scope="", x=[None])),
    Row("the same key twice", Answer(200, b'{"access_token": "first", ' + js(ISSUED)[1:])),
    Row("labeled as text", Answer(200, js(ISSUED), {"Content-Type": "text/plain"})),
    Row("with a byte order mark", Answer(200, b"\xef\xbb\xbf" + js(ISSUED))),
    Row("gzip that was not asked for", Answer(200, gzip.compress(js(ISSUED)), GZIP)),
    # AWS Secrets Manager
    *(
        aws(operation, secret_id, code, error)
        for operation, secret_id in (
            ("GetSecretValue", TOKEN_SECRET_ID),
            ("GetSecretValue", CREDENTIALS_SECRET_ID),
            ("PutSecretValue", TOKEN_SECRET_ID),
        )
        for code, error in (
            ("ThrottlingException", AwsUnavailable),
            ("RequestTimeout", AwsUnavailable),
            ("InternalServiceError", AwsUnavailable),
            ("AccessDeniedException", AwsRefused),
            ("DecryptionFailure", AwsRefused),
        )
    ),
    aws("GetSecretValue", TOKEN_SECRET_ID, "ResourceNotFoundException", None),
    aws("GetSecretValue", CREDENTIALS_SECRET_ID, "ResourceNotFoundException", CredentialsError),
    aws("PutSecretValue", TOKEN_SECRET_ID, "ResourceNotFoundException", AwsRefused),
    aws("PutSecretValue", TOKEN_SECRET_ID, "EncryptionFailure", AwsRefused),
    aws("PutSecretValue", TOKEN_SECRET_ID, "LimitExceededException", AwsRefused),
]
OF_ARTIFACT = [row for row in TABLE if row.artifact]


class Elsewhere(LoopbackServer):
    """Another host, which counts the requests that it should not get."""

    def __init__(self) -> None:
        super().__init__(self._serve)
        self.requests = 0

    def _serve(self, _: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        self.requests += 1
        start_response("200 OK", [])
        return []


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    """The server to which redirects lead."""
    with Elsewhere() as server:
        yield server


@pytest.fixture
def secrets_manager(secrets_manager: FakeSecretsManager) -> FakeSecretsManager:
    """Secrets Manager with credentials, and with a token that is due."""
    secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=OLD.to_json())
    return secrets_manager


def play(
    row: Row,
    endpoint: FakeSmartcar,
    secrets_manager: FakeSecretsManager,
    elsewhere: Elsewhere,
    *,
    lasting: bool = False,
) -> None:
    """Script the fault, transient or lasting."""
    if isinstance(row.fault, Fault):
        operation, secret_id, code = row.fault.operation, row.fault.secret_id, row.fault.code
        times = float("inf") if lasting else 2  # botocore tries a call twice
        secrets_manager.faults.append(Fault(operation, secret_id, code, times))
    elif isinstance(row.fault, Answer) and row.fault.headers.get("Location") == "$ELSEWHERE":
        endpoint.faults.append(Answer(row.fault.status, headers={"Location": elsewhere.address}))
    else:
        endpoint.faults.append(row.fault)


@contextmanager
def all_loggers_at_debug() -> Iterator[None]:
    """Set the level of every logger to DEBUG."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def run(invoke: Invoke, context: LocalContext) -> tuple[Exception | None, str]:
    """Run the handler; return its error, and everything that its result or error shows."""
    with all_loggers_at_debug():
        try:
            return None, repr(invoke(None, context))
        except RotationError as error:
            return error, rendered(error)


def rendered(error: Exception) -> str:
    """Show an error in every form that it can be shown in."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    chain = [error, error.__context__, error.__cause__]
    return "".join([*trace.format(), repr(chain), str([vars(link) for link in chain if link])])


def leaked(text: str, *secrets: str) -> set[str]:
    """Return the pieces of secrets that a text contains, plain or percent-encoded."""
    forms = {
        form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret))
    }
    pieces = {form[i : i + 8] for form in forms for i in range(len(form) - 7)}
    return {piece for piece in pieces if piece in text}


@pytest.mark.parametrize(
    ("row", "lasting"),
    [
        pytest.param(row, lasting, id=f"{row.name}{', lasting' if lasting else ''}")
        for row in TABLE
        for lasting in ([False, True] if row.retried else [False])
    ],
)
def test_fault(
    row: Row,
    lasting: bool,  # noqa: FBT001 (a parameter of the test)
    invoke: Invoke,
    endpoint: FakeSmartcar,
    elsewhere: Elsewhere,
    secrets_manager: FakeSecretsManager,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run recovers from a transient fault, otherwise ends with its error; it shows no secret."""
    # Short, so that the test is fast; long enough for a response from a loaded machine.
    monkeypatch.setattr(token_endpoint, "ATTEMPT_SECONDS", 1.5)
    monkeypatch.setattr(token_endpoint, "SHORTEST_ATTEMPT_SECONDS", 1.5)
    play(row, endpoint, secrets_manager, elsewhere, lasting=lasting)
    context = LocalContext(BRIEF if lasting else 900)

    error, outcome = run(invoke, context)

    secrets_manager.faults.clear()
    token = AccessToken.from_json(secrets_manager.published())
    output = capsys.readouterr()
    visible = f"{output.out}\n{output.err}\n{caplog.text}\n{outcome}"
    if row.fails(lasting=lasting):
        assert type(error) is row.error
        assert token == OLD
    else:
        assert error is None
        assert token.expires_at > time.time() + 3500
    assert len(endpoint.requests) == row.requests(lasting=lasting)
    assert output.out.count('"AttemptFailed":[1.0]') == (1 if row.error else 0)
    assert elsewhere.requests == 0
    assert context.get_remaining_time_in_millis() > 5000
    assert leaked(visible, SECRET, OLD.access_token, token.access_token, TOKEN) == set()


@pytest.mark.xdist_group("package")
@pytest.mark.parametrize("row", OF_ARTIFACT, ids=lambda row: row.name)
def test_artifact(
    row: Row,
    package: Path,
    environment: dict[str, str],
    endpoint: FakeSmartcar,
    elsewhere: Elsewhere,
    secrets_manager: FakeSecretsManager,
) -> None:
    """The built package retries a fault or fails with its error, and shows no secret."""
    play(row, endpoint, secrets_manager, elsewhere)
    error = ""

    with LambdaRuntime(package, {**environment, "POWERTOOLS_LOG_LEVEL": "DEBUG"}) as function:
        try:
            outcome = repr(function.invoke({}))
        except FunctionError as failure:
            outcome = str(failure)
            error = outcome.partition(":")[0]
        visible = f"{function.output}\n{outcome}"

    token = AccessToken.from_json(secrets_manager.published())
    assert row.error
    assert error == (row.error.__name__ if row.fails(lasting=False) else "")
    assert (token == OLD) == bool(error)
    assert len(endpoint.requests) == row.requests(lasting=False)
    assert elsewhere.requests == 0
    assert leaked(visible, SECRET, OLD.access_token, token.access_token, TOKEN) == set()
