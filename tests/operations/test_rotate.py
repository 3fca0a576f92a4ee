"""`make rotate`, against a loopback server in place of AWS Lambda."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from freezegun import freeze_time

from local.fakes.loopback import LoopbackServer
from operations import rotate
from tests.samples import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment


class FakeLambda(LoopbackServer):
    """
    A fake of Lambda's operations GetFunction and Invoke.

    Attributes:
        answers: The status of each answer to Invoke, what the function returned, and whether that
            is an error; after the last one, the fake does not answer.
        runs: The number of runs so far.
    """

    def __init__(self) -> None:
        super().__init__(self._serve)
        self.answers: list[tuple[str, dict[str, Any], bool]] = []
        self.runs = 0

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            assert "/2015-03-31/functions/f" == environ["PATH_INFO"]
            start_response("200 OK", [])
            return [b'{"Configuration": {"LastModified": "2026-01-15T09:50:00.000+0000"}}']
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        assert {"force": True} == json.loads(body)
        assert "/2015-03-31/functions/f/invocations" == environ["PATH_INFO"]
        self.runs += 1
        if not self.answers:
            self.stopping.wait()
            return []
        status, result, is_error = self.answers.pop(0)
        start_response(status, [("X-Amz-Function-Error", "Unhandled")] if is_error else [])
        return [json.dumps(result).encode()]


ROTATED = ("200 OK", {"status": "rotated", "credentials": "current"}, False)
FALLBACK = ("200 OK", {"status": "rotated", "credentials": "previous"}, False)


def failed(error_type: str) -> tuple[str, dict[str, Any], bool]:
    """Make the answer of a run that failed."""
    return "200 OK", {"errorType": error_type, "errorMessage": "no", "stackTrace": []}, True


@pytest.fixture
def function(stack: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLambda]:
    """The function of a stack, in a folder with the project's events and a samconfig.toml."""
    (stack / "events").symlink_to(PROJECT / "events")
    with FakeLambda() as function:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", function.address)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
        yield function


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits so far; none takes time."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


@pytest.mark.parametrize("after_deployment", [False, True])
def test_result(
    function: FakeLambda, capsys: pytest.CaptureFixture[str], *, after_deployment: bool
) -> None:
    """The age of the function and the result of the run are printed; one event is sent."""
    function.answers = [ROTATED]

    with freeze_time("2026-01-15 09:55"):
        rotate.main("default", after_deployment=after_deployment)

    assert [
        "f was last modified 5 min ago",
        '{"status": "rotated", "credentials": "current"}',
    ] == capsys.readouterr().out.splitlines()
    assert 1 == function.runs


NEXT_STEPS = {
    "CredentialsError": "--secret-string file://credentials.json` .*`make rotate ENV=default`",
    "SecretsManagerError": "KmsKeyArn; then run `make rotate ENV=default`",
    "ConfigurationError": "`make configure ENV=default`",
    "TokenRequestError": "docs/operations.md; then run `make rotate ENV=default`",
    "Runtime.ImportModuleError": "run `make deploy ENV=default`",
}


@pytest.mark.parametrize("error_type", NEXT_STEPS)
def test_failed_run(function: FakeLambda, error_type: str) -> None:
    """A run that fails ends the command with its error and the next command; it is not repeated."""
    function.answers = [failed(error_type)]

    with pytest.raises(
        SystemExit, match=f"^The run failed: {error_type}: no; .*{NEXT_STEPS[error_type]}$"
    ):
        rotate.main("default", after_deployment=False)

    assert 1 == function.runs


@pytest.mark.parametrize("error_type", ["CredentialsError", "SecretsManagerError"])
def test_new_deployment(
    function: FakeLambda, waits: list[float], capsys: pytest.CaptureFixture[str], error_type: str
) -> None:
    """After a deployment, a run that fails for what AWS may not know yet is repeated."""
    function.answers = [failed(error_type), failed(error_type), ROTATED]

    rotate.main("default", after_deployment=True)

    assert [20, 20] == waits
    assert (
        f"Trying again in 20 s, since the run failed: {error_type}: no"
        == capsys.readouterr().out.splitlines()[1]
    )


def test_wrong_credentials(function: FakeLambda, waits: list[float]) -> None:
    """The repetition ends after a minute; the command says what to store, and what to run then."""
    function.answers = [failed("CredentialsError")] * 4

    with pytest.raises(
        SystemExit,
        match="^The stack is deployed, but the run failed: CredentialsError: no; .*`make rotate",
    ):
        rotate.main("default", after_deployment=True)

    assert 60 == sum(waits)
    assert 4 == function.runs


@pytest.mark.parametrize(
    "error_type", ["ConfigurationError", "TokenRequestError", "Runtime.ImportModuleError"]
)
def test_broken_deployment(function: FakeLambda, error_type: str) -> None:
    """After a deployment, any other failure ends the command at once."""
    function.answers = [failed(error_type)]

    with pytest.raises(SystemExit, match=f"^The stack is deployed, but .*: {error_type}: no; .*`$"):
        rotate.main("default", after_deployment=True)

    assert 1 == function.runs


AFTER_DEPLOYMENT = pytest.mark.parametrize(
    ("after_deployment", "before"),
    [(False, "[OT]"), (True, "The stack is deployed, but [ot]")],
)


@AFTER_DEPLOYMENT
def test_previous_credentials(function: FakeLambda, before: str, *, after_deployment: bool) -> None:
    """A run that had to use the previous credentials is a failure, although it has a result."""
    function.answers = [FALLBACK]

    with pytest.raises(
        SystemExit,
        match=f'^{before}nly the previous .*"previous"}}; .*file://credentials.json`; .*`make',
    ):
        rotate.main("default", after_deployment=after_deployment)

    assert 1 == function.runs


@AFTER_DEPLOYMENT
def test_no_answer(
    function: FakeLambda, monkeypatch: pytest.MonkeyPatch, before: str, *, after_deployment: bool
) -> None:
    """A result that does not arrive in time is a failure; one event is sent."""
    monkeypatch.setattr(rotate, "ANSWER_SECONDS", 0.2)

    with pytest.raises(
        SystemExit, match=f"^{before}here is no result .*`make status ENV=default`$"
    ):
        rotate.main("default", after_deployment=after_deployment)

    assert 1 == function.runs


def test_no_concurrency(function: FakeLambda) -> None:
    """A function that may not run at all is a failure that says how it may run again."""
    reason = {"Type": "User", "message": "Rate Exceeded.", "__type": "TooManyRequestsException"}
    function.answers = [("429 Too Many Requests", reason, False)]

    with pytest.raises(
        SystemExit,
        match="^Lambda started no run: .* if .* reserved concurrency is 0, .*"
        "`aws lambda delete-function-concurrency --region us-east-1 --function-name f`; then run "
        "`make rotate ENV=default`$",
    ):
        rotate.main("default", after_deployment=False)

    assert 1 == function.runs


def test_unreachable(function: FakeLambda) -> None:
    """After a deployment, an error of AWS says that the stack is deployed, and what to run."""
    function.answers = [("403 Forbidden", {"Message": "no lambda:InvokeFunction"}, False)]

    with pytest.raises(
        SystemExit,
        match="^The stack is deployed, but .* no lambda:InvokeFunction; then run `make rotate ENV",
    ):
        rotate.main("default", after_deployment=True)
