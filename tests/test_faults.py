"""
The fault table, `faults.toml`: what each fault does to a run, and what no fault does.

Every row is run through the handler: with the fault passing and, where that differs, lasting; over
real sockets and, for what the token endpoint does, over a transport without a socket as well. After
each run hold

- the secret has the document that it had, or a whole new one,
- the run has ended in its time,
- nothing that the run left to see has 8 characters in a row of a secret.
"""

from __future__ import annotations

import logging
import time
import tomllib
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import httpx
import pytest

from local.fakes.lambda_runtime import FunctionError, LambdaRuntime, LocalContext
from local.fakes.loopback import LoopbackServer
from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID, Fault
from local.fakes.smartcar import Answer, FakeSmartcar
from rotate_token import errors, token_endpoint
from rotate_token.access_token import LONGEST_TOKEN, AccessToken
from rotate_token.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from local.fakes.secrets_manager import FakeSecretsManager
    from rotate_token.rotation import Result

    Invoke = Callable[..., Result]
    Row = dict[str, Any]

TABLE: list[Row] = tomllib.loads(Path(__file__).with_name("faults.toml").read_text())["fault"]
OF_ENDPOINT = [row for row in TABLE if "secrets_manager" not in row]
OF_SECRETS_MANAGER = [row for row in TABLE if "secrets_manager" in row]

OLD = AccessToken("eyJvbGQi.k3Jd8sLq0ZxVbNm2", expires_in=3600, issued_at=int(time.time()) - 3000)
NEW_TOKEN = "eyJuZXci.p7Wc5tRf1YhGuKa9"
BRIEF = 10
"""A run with so many seconds left makes one attempt only."""


def cases(table: list[Row]) -> pytest.MarkDecorator:
    """Parametrize a test by rows: each fault passing and, where that differs, lasting."""
    return pytest.mark.parametrize(
        ("row", "lasting"),
        [
            pytest.param(row, lasting, id=f"{row['name']}{' for good' if lasting else ''}")
            for row in table
            for lasting in ([False, True] if row.get("retried") else [False])
        ],
    )


class Elsewhere(LoopbackServer):
    """Another host, that sees what it should not."""

    def __init__(self) -> None:
        super().__init__(self._serve)
        self.requests = 0

    def _serve(self, _: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        self.requests += 1
        start_response("200 OK", [])
        return []


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    """Where redirects lead."""
    with Elsewhere() as server:
        yield server


@pytest.fixture(autouse=True)
def _short_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that hangs does not take long; a loaded machine can answer in that time."""
    monkeypatch.setattr(token_endpoint, "ATTEMPT_SECONDS", 1.5)


@contextmanager
def all_loggers_at_debug() -> Iterator[None]:
    """Let every logger pass everything on, as far as its level goes."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def secrets_manager(secrets_manager: FakeSecretsManager) -> FakeSecretsManager:
    """Secrets Manager with credentials, and with a token that is due."""
    secrets_manager.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=OLD.to_json())
    return secrets_manager


def answer(row: Row, elsewhere: str) -> Answer:
    """Make the answer of a row."""
    described = row["answer"]
    if "hex" in described:
        body = bytes.fromhex(described["hex"])
    else:
        text = described.get("body", "") * described.get("repeat", 1)
        body = (
            text.replace("$TOKEN", NEW_TOKEN)
            .replace("$LONG", "x" * (LONGEST_TOKEN + 1))
            .replace("$SECRET", FakeSmartcar.client_secret)
            .encode()
        )
    headers = described.get("headers", {})
    return Answer(
        described["status"],
        body,
        {name: value.replace("$OTHER", elsewhere) for name, value in headers.items()},
    )


class Visible:
    """What a run left to see."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        self._capsys, self._caplog = capsys, caplog
        self.outcome = ""

    def text(self) -> str:
        """Return all of it."""
        written = self._capsys.readouterr()
        return f"{written.out}\n{written.err}\n{self._caplog.text}\n{self.outcome}"

    def add_error(self, error: Exception) -> None:
        """Add an error in every form that it can be shown in."""
        rendered = traceback.TracebackException.from_exception(error, capture_locals=True)
        chain = [error, error.__context__, error.__cause__]
        self.outcome += "".join(
            [*rendered.format(), repr(chain), str([vars(e) for e in chain if e])]
        )


@pytest.fixture
def visible(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Visible:
    """What the run of this test leaves to see."""
    return Visible(capsys, caplog)


def leaked(text: str, *secrets: str) -> set[str]:
    """Return what there is to see of secrets, in any form that they are written in."""
    forms = {
        form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret))
    }
    pieces = {form[i : i + 8] for form in forms for i in range(len(form) - 7)}
    return {piece for piece in pieces if piece in text}


def run(
    invoke: Invoke, visible: Visible, context: LocalContext, endpoint: TokenEndpoint | None = None
) -> Exception | None:
    """Run the job, and return the error that it ended with."""
    with all_loggers_at_debug():
        try:
            visible.outcome = repr(invoke(None, context, endpoint))
        except errors.RotationError as error:
            visible.add_error(error)
            return error
    return None


def check(
    row: Row,
    error: Exception | None,
    *,
    fails: bool,
    context: LocalContext,
    visible: Visible,
    secrets_manager: FakeSecretsManager,
) -> None:
    """Hold the end of a run against its row, and against what holds for every row."""
    secrets_manager.faults.clear()
    token = AccessToken.from_json(secrets_manager.published())
    text = visible.text()

    if fails:
        assert type(error).__name__ == row["error"]
        assert token == OLD
    else:
        assert error is None
        assert token.issued_at >= OLD.issued_at + 3000
        assert token.expires_at > time.time()
    assert context.get_remaining_time_in_millis() > 5000
    assert text
    assert set() == leaked(
        text, FakeSmartcar.client_secret, OLD.access_token, token.access_token, NEW_TOKEN
    )


@cases(OF_ENDPOINT)
def test_socket(
    row: Row,
    lasting: bool,  # noqa: FBT001 (a parameter of the test)
    invoke: Invoke,
    endpoint: FakeSmartcar,
    elsewhere: Elsewhere,
    secrets_manager: FakeSecretsManager,
    visible: Visible,
) -> None:
    """A fault of the token endpoint, on a real socket."""
    context = LocalContext(BRIEF if lasting else 900)
    misbehaviour = row.get("misbehaviour", {}).get("socket")
    endpoint.faults.append(misbehaviour or answer(row, elsewhere.address))

    error = run(invoke, visible, context)

    fails = "error" in row and (lasting or not row["retried"])
    assert len(endpoint.requests) == (1 if lasting else row["asked"])
    assert elsewhere.requests == 0
    check(
        row, error, fails=fails, context=context, visible=visible, secrets_manager=secrets_manager
    )


@cases(OF_ENDPOINT)
def test_transport(
    row: Row,
    lasting: bool,  # noqa: FBT001 (a parameter of the test)
    invoke: Invoke,
    secrets_manager: FakeSecretsManager,
    visible: Visible,
) -> None:
    """The same fault, over a transport without a socket."""
    context = LocalContext(BRIEF if lasting else 900)
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if len(requests) > 1:
            body = {"access_token": NEW_TOKEN, "token_type": "Bearer", "expires_in": 3600}
            return httpx.Response(200, json=body)
        if failure := row.get("misbehaviour", {}).get("httpx"):
            raise getattr(httpx, failure)(FakeSmartcar.client_secret)
        given = answer(row, "https://elsewhere.example.com/")
        return httpx.Response(
            given.status, headers=given.headers, stream=httpx.ByteStream(given.body)
        )

    url = "https://iam.smartcar.com/oauth2/token"
    error = run(invoke, visible, context, TokenEndpoint(url, transport=httpx.MockTransport(handle)))

    fails = "error" in row and (lasting or not row["retried"])
    assert len(requests) == (1 if lasting else row["asked"])
    assert {request.url.host for request in requests} == {"iam.smartcar.com"}
    check(
        row, error, fails=fails, context=context, visible=visible, secrets_manager=secrets_manager
    )


def secrets_manager_fault(row: Row, times: float) -> Fault:
    """Make the fault of a row."""
    described = row["secrets_manager"]
    ids = {"token": TOKEN_SECRET_ID, "credentials": CREDENTIALS_SECRET_ID}
    return Fault(described["operation"], ids[described["secret"]], described["code"], times)


@cases(OF_SECRETS_MANAGER)
def test_secrets_manager(
    row: Row,
    lasting: bool,  # noqa: FBT001 (a parameter of the test)
    invoke: Invoke,
    endpoint: FakeSmartcar,
    secrets_manager: FakeSecretsManager,
    visible: Visible,
) -> None:
    """A fault of Secrets Manager, for good or for one call."""
    context = LocalContext(BRIEF if lasting else 900)
    secrets_manager.faults.append(secrets_manager_fault(row, float("inf") if lasting else 1))

    error = run(invoke, visible, context)

    before = row["secrets_manager"]["operation"] == "GetSecretValue"
    fails = "error" in row and (lasting or not row["retried"])
    assert len(endpoint.requests) == (0 if fails and before else row["asked"])
    check(
        row, error, fails=fails, context=context, visible=visible, secrets_manager=secrets_manager
    )


@pytest.mark.xdist_group("package")
@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.get("artifact")], ids=lambda row: row["name"]
)
def test_artifact(
    row: Row,
    package: Path,
    environment: dict[str, str],
    endpoint: FakeSmartcar,
    elsewhere: Elsewhere,
    secrets_manager: FakeSecretsManager,
) -> None:
    """A chosen dozen of the faults, each passing, against what `sam build` makes."""
    if "secrets_manager" in row:
        secrets_manager.faults.append(secrets_manager_fault(row, times=1))
    else:
        misbehaviour = row.get("misbehaviour", {}).get("socket")
        endpoint.faults.append(misbehaviour or answer(row, elsewhere.address))
    error = ""

    with LambdaRuntime(package, environment) as function:
        try:
            outcome = repr(function.invoke({}))
        except FunctionError as failure:
            outcome = str(failure)
            error = outcome.partition(":")[0]
        visible = f"{function.output}\n{outcome}"

    token = AccessToken.from_json(secrets_manager.published())
    assert error == ("" if row.get("retried", True) else row["error"])
    assert (token == OLD) == bool(error)
    assert len(endpoint.requests) == row["asked"]
    assert elsewhere.requests == 0
    secrets = (FakeSmartcar.client_secret, OLD.access_token, token.access_token, NEW_TOKEN)
    assert set() == leaked(visible, *secrets)
