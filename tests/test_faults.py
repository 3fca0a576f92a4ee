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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, quote_plus

import pytest

from local.fakes.lambda_runtime import FunctionError, LambdaRuntime, LocalContext
from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, Fault
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token import token_endpoint
from rotate_token.access_token import LONGEST_TOKEN, AccessToken
from rotate_token.errors import (
    ConfigurationError,
    CredentialsError,
    RotationError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
    TokenEndpointUnavailableError as Unavailable,
    TokenRequestError as Refused,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment

    from local.fakes.secrets_manager import FakeSecretsManager
    from tests.samples import Invoke

GZIP_MAGIC = b"\x1f\x8b"
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
        requests: How many requests for a token a run makes if the fault occurs once.
        requests_while_it_lasts: How many it makes in its only attempt while the fault lasts; None
            if the fault is not retried, so that it makes no difference how long it lasts.
        failed_attempts: How many failed attempts it counts.
        publishes: Whether the token is published although the run ends with the error.
        artifact: Whether the built package is run against it too.
    """

    name: str
    fault: str | Answer | Fault
    error: type[RotationError] | None = None
    requests: int = 1
    requests_while_it_lasts: int | None = None
    failed_attempts: int = 1
    publishes: bool = False
    artifact: bool = False

    def fails(self, *, lasting: bool) -> bool:
        """Whether the run ends with the error."""
        return self.error is not None and (lasting or self.requests_while_it_lasts is None)


def js(document: object) -> bytes:
    """Write JSON."""
    return json.dumps(document).encode()


def issued(**changes: object) -> Answer:
    """Make a token response with changes."""
    return Answer(200, js({**ISSUED, **changes}))


def retried(name: str, fault: str | Answer, *, artifact: bool = False) -> Row:
    """Make a row for a failure of the token endpoint that passes."""
    return Row(name, fault, Unavailable, 2, requests_while_it_lasts=1, artifact=artifact)


def rejected(name: str, fault: Answer, *, artifact: bool = False) -> Row:
    """Make a row for client credentials that the token endpoint rejects."""
    return Row(name, fault, CredentialsError, artifact=artifact)


def harmless(name: str, fault: Answer) -> Row:
    """Make a row for an unusual answer that is accepted."""
    return Row(name, fault, failed_attempts=0)


class Call(NamedTuple):
    """A call to Secrets Manager."""

    operation: str
    secret_id: str

    def fails(self, code: str, error: type[RotationError] | None, **expected: Any) -> Row:
        """Make a row for a call that fails."""
        return Row(f"{code} of {' '.join(self)}", Fault(*self, code), error, **expected)

    def passes(self, code: str, requests: int, while_it_lasts: int, **expected: Any) -> Row:
        """Make a row for a call that fails for a while."""
        return self.fails(
            code,
            SecretsManagerUnavailableError,
            requests=requests,
            requests_while_it_lasts=while_it_lasts,
            artifact=code.startswith("cut"),
            **expected,
        )


READ_TOKEN = Call("GetSecretValue", TOKEN_SECRET_ID)
READ_CREDENTIALS = Call("GetSecretValue", CREDENTIALS_SECRET_ID)
PUBLISH = Call("PutSecretValue", TOKEN_SECRET_ID)


TABLE = [
    # No complete response
    retried("reset", "reset", artifact=True),
    retried("timeout", "timeout"),
    retried("slow", "slow"),
    retried("slow-headers", "slow-headers"),
    retried("truncated", "truncated", artifact=True),
    # Statuses
    *(
        retried(str(status), Answer(status), artifact=status in {429, 500})
        for status in (408, 425, 429, 500, 502, 503, 504, 520, 525, 530, 599)
    ),
    *(
        Row(str(status), Answer(status), Refused)
        for status in (201, 204, 301, 302, 400, 403, 404, 405, 410, 415, 418, 422, 430, 451)
    ),
    Row("201 with a token", Answer(201, js(ISSUED)), Refused),
    rejected("401", Answer(401)),
    retried("502 with HTML", Answer(502, b"<html><h1>Bad Gateway</h1></html>")),
    Row("403 with HTML", Answer(403, b"<html><h1>Forbidden</h1></html>"), Refused),
    Row("redirect to the same host", "redirect", Refused),
    Row("308 elsewhere", Answer(308, headers={"Location": "$ELSEWHERE"}), Refused),
    Row("307 elsewhere", Answer(307, headers={"Location": "$ELSEWHERE"}), Refused, artifact=True),
    # httpx parses the address, although it does not follow it.
    Row(
        "307 to a malformed address",
        Answer(307, headers={"Location": "http://xn--/"}),
        ConfigurationError,
    ),
    # Retry-After
    *(
        retried(f"503 with Retry-After {value}", Answer(503, headers={"Retry-After": value}))
        for value in ("1", "3600", "999999999", "soon", "Wed, 01 Jan 2025 00:00:00 GMT")
    ),
    # OAuth errors
    *(
        Row(f"400 {code}", Answer(400, js({"error": code})), Refused, artifact=code[0] == "i")
        for code in ("invalid_request", "unauthorized_client", "of_the_provider")
    ),
    *(
        retried(f"{status} {code}", Answer(status, js({"error": code})))
        for status in (200, 400, 401)
        for code in ("server_error", "temporarily_unavailable")
    ),
    rejected("400 invalid_client", Answer(400, js({"error": "invalid_client"}))),
    rejected("401 invalid_client", Answer(401, js({"error": "invalid_client"})), artifact=True),
    rejected("401 with the secret", Answer(401, js({"error": SECRET})), artifact=True),
    rejected("401 with broken gzip", Answer(401, GZIP_MAGIC + b"not gzip")),
    Row("200 invalid_scope", Answer(200, js({"error": "invalid_scope"})), Refused),
    Row("200 with an error that is an object", Answer(200, js({"error": {"code": 7}})), Refused),
    retried("200 with an error beside a token", issued(error="server_error")),
    # Bodies that are not a JSON object
    retried("empty", Answer(200)),
    retried("HTML labeled as JSON", "html", artifact=True),
    retried("half a JSON object", Answer(200, b'{"access_token": "eyJ')),
    retried("invalid UTF-8", Answer(200, b'{"\xff\xfe"}')),
    retried("deeply nested", Answer(200, b"[" * 100_000)),
    retried("a number of 5,000 digits", Answer(200, b"7" * 5000)),
    retried("over 1 MiB", Answer(200, js(ISSUED) + b" " * 1_100_000)),
    retried("flood", "flood"),
    retried("broken gzip", Answer(200, GZIP_MAGIC + b"not gzip")),
    retried("half of gzip", Answer(200, gzip.compress(js(ISSUED))[:40])),
    retried("over 1 MiB from gzip", Answer(200, gzip.compress(js(ISSUED) + b" " * 1_100_000))),
    retried("gzip in gzip", Answer(200, gzip.compress(gzip.compress(js(ISSUED))))),
    *(
        retried(f"JSON {document}", Answer(200, js(document)), artifact=document is None)
        for document in (None, True, float("nan"), "token", ["token"])
    ),
    # Objects without a usable token; test_access_token.py has the other shapes
    Row("an empty object", Answer(200, b"{}"), Refused),
    Row("no access_token", issued(access_token=None), Refused),
    Row("access_token with a line break", issued(access_token=f"{TOKEN}\r\nX: 1"), Refused),
    Row("access_token too long", issued(access_token="x" * (LONGEST_TOKEN + 1)), Refused),
    Row("another token_type", issued(token_type="mac"), Refused),
    Row("expires_in 0", issued(expires_in=0), Refused),
    # Unusual but valid
    harmless("token_type in capitals", issued(token_type="BEARER")),
    harmless("no expires_in", issued(expires_in=None)),
    harmless("expires_in as a string", issued(expires_in="3600")),
    harmless("unknown fields", issued(scope="", x=[None])),
    harmless("the same key twice", Answer(200, b'{"access_token": "first", ' + js(ISSUED)[1:])),
    harmless("labeled as text", Answer(200, js(ISSUED), {"Content-Type": "text/plain"})),
    harmless("with a byte order mark", Answer(200, b"\xef\xbb\xbf" + js(ISSUED))),
    harmless("gzip that was not asked for", Answer(200, gzip.compress(js(ISSUED)))),
    *(
        harmless(f"labeled as {coding!r}", Answer(200, js(ISSUED), {"Content-Encoding": coding}))
        for coding in ("", "UTF-8", "identity, identity", "gzip", "br")
    ),
    # AWS Secrets Manager
    *(
        row
        for code in ("ThrottlingException", "RequestTimeout", "InternalServiceError", "cut-error")
        for row in (
            READ_TOKEN.passes(code, 1, 0),
            READ_CREDENTIALS.passes(code, 1, 0),
            PUBLISH.passes(code, 2, 1),
        )
    ),
    READ_TOKEN.passes("cut", 1, 0),
    READ_CREDENTIALS.passes("cut", 1, 0),
    PUBLISH.passes("cut", 2, 1, publishes=True),
    READ_TOKEN.fails("AccessDeniedException", None, artifact=True),
    READ_TOKEN.fails("DecryptionFailure", None),
    READ_TOKEN.fails("InvalidRequestException", None),
    READ_TOKEN.fails("ResourceNotFoundException", None, failed_attempts=0),
    *(
        READ_CREDENTIALS.fails(code, CredentialsError, requests=0)
        for code in ("AccessDeniedException", "DecryptionFailure", "ResourceNotFoundException")
    ),
    *(
        PUBLISH.fails(code, SecretsManagerError)
        for code in (
            "AccessDeniedException",
            "EncryptionFailure",
            "LimitExceededException",
            "ResourceNotFoundException",
        )
    ),
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
def secrets_manager(secrets_manager: FakeSecretsManager, old: AccessToken) -> FakeSecretsManager:
    """Secrets Manager with credentials, and with the old token."""
    secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=old.to_json())
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
        # botocore tries a failed call twice, and does not notice that an answer was cut off.
        once = 1 if row.fault.code.startswith("cut") else 2
        times = float("inf") if lasting else once
        secrets_manager.faults.append(replace(row.fault, times=times))
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
        for lasting in ([False] if row.requests_while_it_lasts is None else [False, True])
    ],
)
def test_fault(
    row: Row,
    lasting: bool,  # noqa: FBT001 (a parameter of the test)
    invoke: Invoke,
    endpoint: FakeSmartcar,
    elsewhere: Elsewhere,
    secrets_manager: FakeSecretsManager,
    old: AccessToken,
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
        assert (token != old) == row.publishes
    else:
        assert error is None
        assert token.expires_at > time.time() + 3500
    requests = row.requests_while_it_lasts if lasting else row.requests
    assert len(endpoint.requests) == requests
    assert output.out.count('"AttemptFailed":[1.0]') == row.failed_attempts
    assert elsewhere.requests == 0
    assert context.get_remaining_time_in_millis() > 5000
    assert leaked(visible, SECRET, old.access_token, token.access_token, TOKEN) == set()


@pytest.mark.xdist_group("package")
@pytest.mark.parametrize("row", OF_ARTIFACT, ids=lambda row: row.name)
def test_artifact(
    row: Row,
    package: Path,
    environment: dict[str, str],
    endpoint: FakeSmartcar,
    elsewhere: Elsewhere,
    secrets_manager: FakeSecretsManager,
    old: AccessToken,
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

    secrets_manager.faults.clear()
    token = AccessToken.from_json(secrets_manager.published())
    assert error == (row.error.__name__ if row.error and row.fails(lasting=False) else "")
    assert (token == old) == bool(error)
    assert len(endpoint.requests) == row.requests
    assert elsewhere.requests == 0
    assert leaked(visible, SECRET, old.access_token, token.access_token, TOKEN) == set()
