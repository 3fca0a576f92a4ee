"""
The fault table: the effect of each fault on a run.

Each row runs the handler over real sockets, with all loggers at DEBUG: with a fault that occurs
once, with a lasting one and, if it is not transient, in a forced run. Some rows also run the
package that `sam build` creates. After each run,

- the secret holds the old document, or a complete new one,
- the run has ended on time,
- each failed attempt has been counted, and
- no output, result or error contains 8 consecutive characters of a secret.
"""

import gzip
import json
import logging
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

import pytest

from local.fakes.lambda_runtime import FunctionError, LambdaRuntime, LocalContext
from local.fakes.secrets_manager import (
    CREDENTIALS_SECRET_ID,
    TOKEN_SECRET_ID,
    FakeSecretsManager,
    Fault,
)
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token import token_endpoint
from rotate_token.access_token import AccessToken
from rotate_token.errors import (
    CredentialsError,
    RotationError,
    SecretsManagerError,
    SecretsManagerUnavailableError,
    TokenEndpointUnavailableError as Unavailable,
    TokenRequestError as Refused,
    TransientError,
)
from tests.samples import Invoke

TOKEN = "eyJuZXci.p7Wc5tRf1YhGuKa9"
ISSUED = {"access_token": TOKEN, "token_type": "bearer", "expires_in": 3600}
SECRET = FakeSmartcar.client_secret
READ_TOKEN = ("GetSecretValue", TOKEN_SECRET_ID)
READ_CREDENTIALS = ("GetSecretValue", CREDENTIALS_SECRET_ID)
PUBLISH = ("PutSecretValue", TOKEN_SECRET_ID)
DENIED = "AccessDeniedException"
NOT_FOUND = "ResourceNotFoundException"
PASSING = ("ThrottlingException", "RequestTimeout", "InternalServiceError")
TRIED_TWICE = {*PASSING, "LimitExceededException"}
"""The errors after which botocore makes a call again."""


class Row(NamedTuple):
    """A fault, and what a run makes of it."""

    name: str
    fault: str | Answer | Fault  # of FakeSmartcar or, if it is a Fault, of FakeSecretsManager
    error: type[RotationError] | None = None  # of a run that the fault ends
    requests: int = 1  # for a token, in the first attempt
    failed_attempts: int = 1  # that are counted
    artifact: bool = False  # whether the built package is run against it too

    @property
    def is_refusal(self) -> bool:
        """Whether the fault ends a forced run at once."""
        return self.error is not None and not issubclass(self.error, TransientError)


def js(document: object) -> bytes:
    """Write JSON."""
    return json.dumps(document).encode()


def issued(**changes: object) -> Answer:
    """Make a token response with changes."""
    return Answer(200, js({**ISSUED, **changes}))


TABLE = [
    # No complete response
    Row("reset", "reset", Unavailable, artifact=True),
    Row("timeout", "timeout", Unavailable),
    Row("slow", "slow", Unavailable),
    Row("slow-headers", "slow-headers", Unavailable),
    Row("truncated", "truncated", Unavailable),
    # Statuses
    *(Row(str(status), Answer(status), Unavailable) for status in (408, 425, 429, 500, 599)),
    *(Row(str(status), Answer(status), Refused) for status in (400, 404, 499)),
    Row("401", Answer(401), CredentialsError),
    Row("201 with a token", Answer(201, js(ISSUED)), Refused),
    Row("503, Retry-After", Answer(503, headers={"Retry-After": "3600"}), Unavailable),
    # If it were followed, it would lead to a token.
    Row("307", Answer(307, headers={"Location": "/oauth2/token"}), Refused, artifact=True),
    # httpx would parse the address, although it does not follow it.
    Row("307 to no host", Answer(307, headers={"Location": "about:blank"}), Refused),
    Row("307 to a malformed host", Answer(307, headers={"Location": "http://xn--/"}), Refused),
    # OAuth errors
    *(
        Row(f"400 {code}", Answer(400, js({"error": code})), CredentialsError)
        for code in (
            "invalid_client",
            "invalid_grant",
            "invalid_request",
            "invalid_scope",
            "unauthorized_client",
            "unsupported_grant_type",
            "unsupported_response_type",
            "access_denied",
            "invalid_target",
            "use_dpop_nonce",
        )
    ),
    Row("200 invalid_client", issued(error="invalid_client"), CredentialsError),
    Row("400 server_error", Answer(400, js({"error": "server_error"})), Unavailable),
    Row("401 server_error", Answer(401, js({"error": "server_error"})), Unavailable),
    Row("200 temporarily_unavailable", issued(error="temporarily_unavailable"), Unavailable),
    Row("200 with an error that is an object", issued(error={"code": 7}), Refused),
    Row("200 with an empty error", issued(error=""), Refused),
    Row("200 with an error that is null", issued(error=None), Refused),
    Row("404 Not Found", Answer(404, js({"error": "Not Found"})), Refused),
    Row("403 with a message", Answer(403, js({"message": "Forbidden"})), Refused),
    Row("401 with the secret", Answer(401, js({"error": SECRET})), CredentialsError, artifact=True),
    # Bodies that are not a JSON object
    Row("empty", Answer(200), Unavailable),
    Row("HTML labeled as JSON", "html", Unavailable, artifact=True),
    Row("incomplete JSON", Answer(200, js(ISSUED)[:-1]), Unavailable),
    Row("a JSON array", Answer(200, js([TOKEN])), Unavailable),
    Row("invalid UTF-8", Answer(200, b'{"\xff\xfe"}'), Unavailable),
    Row("deeply nested", Answer(200, b"[" * 100_000), Unavailable),
    Row("a number of 5,000 digits", Answer(200, b"7" * 5000), Unavailable),
    Row("over 1 MiB", Answer(200, js(ISSUED) + b" " * 1_100_000), Unavailable),
    Row("flood", "flood", Unavailable),
    Row("broken gzip", Answer(200, b"\x1f\x8bnot gzip"), Unavailable),
    Row("half of gzip", Answer(200, gzip.compress(js(ISSUED))[:40]), Unavailable),
    Row("long gzip", Answer(200, gzip.compress(js(ISSUED) + b" " * 1_100_000)), Unavailable),
    Row("gzip in gzip", Answer(200, gzip.compress(gzip.compress(js(ISSUED)))), Unavailable),
    # An object without a usable token; test_access_token.py has the other shapes
    Row("an empty object", Answer(200, js({})), Refused),
    Row("token with a line break", issued(access_token=f"{TOKEN}\r\nX: 1"), Refused),
    # Unusual but valid
    Row("a key twice", Answer(200, b'{"expires_in": 1, ' + js(ISSUED)[1:]), failed_attempts=0),
    Row("called text", Answer(200, js(ISSUED), {"Content-Type": "text/plain"}), failed_attempts=0),
    Row("called gzip", Answer(200, js(ISSUED), {"Content-Encoding": "gzip"}), failed_attempts=0),
    Row("gzip that was not asked for", Answer(200, gzip.compress(js(ISSUED))), failed_attempts=0),
    Row("with a byte order mark", Answer(200, b"\xef\xbb\xbf" + js(ISSUED)), failed_attempts=0),
    # AWS Secrets Manager
    *(
        Row(
            f"{code} of {' '.join(call)}",
            Fault(*call, code),
            SecretsManagerUnavailableError,
            requests,
            artifact=code.startswith("cut"),
        )
        for code in (*PASSING, "cut", "cut-error")
        for call, requests in ((READ_TOKEN, 0), (READ_CREDENTIALS, 0), (PUBLISH, 1))
    ),
    Row("token denied", Fault(*READ_TOKEN, DENIED)),
    Row("no decryption", Fault(*READ_TOKEN, "DecryptionFailure")),
    Row("no token secret", Fault(*READ_TOKEN, NOT_FOUND), failed_attempts=0),
    Row("credentials denied", Fault(*READ_CREDENTIALS, DENIED), CredentialsError, requests=0),
    Row("no credentials", Fault(*READ_CREDENTIALS, NOT_FOUND), CredentialsError, requests=0),
    Row("publication denied", Fault(*PUBLISH, DENIED), SecretsManagerError),
    Row("no encryption", Fault(*PUBLISH, "EncryptionFailure"), SecretsManagerError),
    Row("too many versions", Fault(*PUBLISH, "LimitExceededException"), SecretsManagerError),
]


@pytest.fixture
def secrets_manager(secrets_manager: FakeSecretsManager, old: AccessToken) -> FakeSecretsManager:
    """Secrets Manager with credentials, and with the old token."""
    secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=old.to_json())
    return secrets_manager


def script(
    row: Row, endpoint: FakeSmartcar, secrets_manager: FakeSecretsManager, *, lasting: bool = False
) -> None:
    """Script the fault."""
    if not isinstance(row.fault, Fault):
        endpoint.faults.append(row.fault)
    elif lasting:
        secrets_manager.faults.append(row.fault)
    else:
        times = 2 if row.fault.code in TRIED_TWICE else 1
        secrets_manager.faults.append(replace(row.fault, times=times))


def call(invoke: Invoke, event: object, context: LocalContext) -> tuple[Exception | None, str]:
    """Call the handler; return its error, and everything that its result or error shows."""
    try:
        return None, repr(invoke(event, context))
    except RotationError as error:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        chain = [error, error.__context__, error.__cause__]
        attributes = [vars(link) for link in chain if link]
        return error, f"{''.join(trace.format())} {chain} {attributes}"


def leaked(text: str, *secrets: str) -> set[str]:
    """Return the pieces of secrets that a text contains, plain or percent-encoded."""
    forms = {
        form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret))
    }
    pieces = {form[i : i + 8] for form in forms for i in range(len(form) - 7)}
    return {piece for piece in pieces if piece in text}


@pytest.mark.parametrize(
    ("row", "how"),
    [
        pytest.param(row, how, id=f"{row.name}-{how}")
        for row in TABLE
        for how in ("once", "lasting", "forced")
        if how != "forced" or row.is_refusal
    ],
)
def test_fault(
    row: Row,
    how: str,
    invoke: Invoke,
    endpoint: FakeSmartcar,
    secrets_manager: FakeSecretsManager,
    old: AccessToken,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run recovers from a fault that ends, unless it is forced; it shows no secret."""
    if row.fault in ("timeout", "slow", "slow-headers"):
        # Short, so that the test is fast; long enough for a response from a loaded machine.
        monkeypatch.setattr(token_endpoint, "LONGEST_ATTEMPT_SECONDS", 3)
        monkeypatch.setattr(token_endpoint, "SHORTEST_ATTEMPT_SECONDS", 3)
    for name in ("", *logging.root.manager.loggerDict):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    script(row, endpoint, secrets_manager, lasting=how == "lasting")
    # With 10 seconds left, a run makes one attempt only.
    context = LocalContext(10 if how == "lasting" else 900)

    error, outcome = call(invoke, {"force": how == "forced"}, context)

    secrets_manager.faults.clear()
    token = AccessToken.from_json(secrets_manager.published())
    output = capsys.readouterr()
    visible = f"{output.out}\n{output.err}\n{caplog.text}\n{outcome}"
    recovers = row.error is not None and how == "once"
    if row.error is None or recovers:
        assert error is None
        assert token.expires_at > time.time() + 3500
    else:
        assert type(error) is row.error
        # If only its answer was cut off, a publication has taken effect.
        assert (token == old) == (row.fault != Fault(*PUBLISH, "cut"))
    assert len(endpoint.requests) == row.requests + recovers
    assert output.out.count('"AttemptFailed":[1.0]') == row.failed_attempts
    assert context.get_remaining_time_in_millis() > 5000
    assert leaked(visible, SECRET, TOKEN, old.access_token, *endpoint.tokens) == set()


@pytest.mark.xdist_group("package")
@pytest.mark.parametrize("row", [row for row in TABLE if row.artifact], ids=lambda row: row.name)
def test_artifact(
    row: Row,
    package: Path,
    environment: dict[str, str],
    endpoint: FakeSmartcar,
    secrets_manager: FakeSecretsManager,
    old: AccessToken,
) -> None:
    """The built package recovers or, if forced, fails with the error, and shows no secret."""
    script(row, endpoint, secrets_manager)
    error = ""

    with LambdaRuntime(package, {**environment, "POWERTOOLS_LOG_LEVEL": "DEBUG"}) as function:
        try:
            outcome = repr(function.invoke({"force": row.is_refusal}))
        except FunctionError as failure:
            outcome = str(failure)
            error = outcome.partition(":")[0]
        visible = f"{function.output}\n{outcome}"

    secrets_manager.faults.clear()
    token = AccessToken.from_json(secrets_manager.published())
    assert error == (row.error.__name__ if row.error and row.is_refusal else "")
    assert (token == old) == row.is_refusal
    assert len(endpoint.requests) == row.requests + (not row.is_refusal)
    assert leaked(visible, SECRET, TOKEN, old.access_token, *endpoint.tokens) == set()
