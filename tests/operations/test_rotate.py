"""`make rotate`, against a loopback server in place of AWS Lambda."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from freezegun import freeze_time
from werkzeug import Request, Response

from local.fakes.loopback import LoopbackServer
from operations import rotate
from tests.samples import PROJECT


class FakeLambda(LoopbackServer):
    """
    A fake of Lambda's operations GetFunction and Invoke.

    Attributes:
        responses: The responses to Invoke; if it is None, the connection is closed, and after the
            last one, there is no response.
        runs: The number of runs so far.
    """

    def __init__(self) -> None:
        super().__init__(Request.application(self._respond))
        self.responses: list[Response | None] = []
        self.runs = 0

    def _respond(self, request: Request) -> Response:
        if request.method == "GET":
            assert request.path == "/2015-03-31/functions/f"
            return Response('{"Configuration": {"LastModified": "2026-01-15T09:50:00.000+0000"}}')
        assert request.path == "/2015-03-31/functions/f/invocations"
        assert request.get_json(force=True) == {"force": True}
        self.runs += 1
        if not self.responses:
            self.stopping.wait()
        elif response := self.responses.pop(0):
            return response
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError


ROTATED = Response('{"status": "rotated", "credentials": "current"}')
FALLBACK = Response('{"status": "rotated", "credentials": "previous"}')
THROTTLED = Response('{"message": "Rate Exceeded.", "__type": "TooManyRequestsException"}', 429)
ALLOW = "`aws lambda delete-function-concurrency --function-name f --region us-east-1`"


def failed(**error: str) -> Response:
    """Make the response of a run that failed."""
    return Response(json.dumps(error), headers={"X-Amz-Function-Error": "Unhandled"})


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


def end(function: FakeLambda, *responses: Response | None) -> tuple[str, list[int]]:
    """Fail by hand and after a deployment; return the last line, and how many runs each made."""
    lines, runs = [], []
    for after_deployment in (False, True):
        function.responses, function.runs = [*responses], 0
        with pytest.raises(SystemExit) as ended:
            rotate.main("default", after_deployment=after_deployment)
        lines.append(str(ended.value.code))
        runs.append(function.runs)
    line = lines[0]
    assert lines[1] == f"The stack is deployed, but {line[0].lower()}{line[1:]}"
    return line, runs


@pytest.mark.parametrize("after_deployment", [False, True])
def test_result(
    function: FakeLambda, capsys: pytest.CaptureFixture[str], *, after_deployment: bool
) -> None:
    """The age of the function and the result of the run are printed; one event is sent."""
    function.responses = [ROTATED]

    with freeze_time("2026-01-15 09:55"):
        rotate.main("default", after_deployment=after_deployment)

    assert capsys.readouterr().out.splitlines() == [
        "f was last modified 5 min ago",
        '{"status": "rotated", "credentials": "current"}',
    ]
    assert function.runs == 1


@pytest.mark.parametrize(
    ("error_type", "repetitions", "step"),
    [
        ("CredentialsError", 3, "--secret-string file://credentials.json .*`make rotate ENV=.+`"),
        ("SecretsManagerError", 3, "set KmsKeyArn; then run `make rotate ENV=default`"),
        ("ConfigurationError", 0, "`make configure ENV=default`"),
        ("TokenRequestError", 0, "docs/operations.md; then run `make rotate ENV=default`"),
        ("Runtime.ImportModuleError", 0, "previous version, and run `make deploy ENV=default`"),
    ],
)
def test_failed_run(
    function: FakeLambda, waits: list[float], error_type: str, repetitions: int, step: str
) -> None:
    """A failed run ends the command; after a deployment, it may be repeated for a minute."""
    line, runs = end(function, *[failed(errorType=error_type, errorMessage="no")] * 5)

    assert re.fullmatch(f"The run failed: {error_type}: no; .*{step}", line)
    assert runs == [1, 1 + repetitions]
    assert waits == [20] * repetitions


def test_new_deployment(
    function: FakeLambda, waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """After a deployment, a run that fails for what AWS may not know yet is repeated."""
    function.responses = [failed(errorType="SecretsManagerError", errorMessage="no"), ROTATED]

    rotate.main("default", after_deployment=True)

    _, repetition, result = capsys.readouterr().out.splitlines()
    assert repetition == "Trying again in 20 s, since the run failed: SecretsManagerError: no"
    assert json.loads(result) == {"status": "rotated", "credentials": "current"}
    assert waits == [20]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (FALLBACK, 'Only the previous .*"previous"}; .*file://credentials.json .*`make rotate .*`'),
        (failed(errorMessage="no"), "The run failed: Error: no; .* docs/operations.md; .*"),
        (THROTTLED, f"No run was started: .* Rate Exceeded.; if .* 0, .* {ALLOW}; then run .*"),
        (None, "No result arrived, .*`make status ENV=default`"),
    ],
    ids=["previous credentials", "failure without a type", "no concurrency", "connection closed"],
)
def test_failure(function: FakeLambda, response: Response | None, expected: str) -> None:
    """What else is not a success ends the command with the next step; one event is sent."""
    line, runs = end(function, response)

    assert re.fullmatch(expected, line)
    assert runs == [1, 1]


def test_no_response(function: FakeLambda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that does not arrive in time is a failure; one event is sent."""
    monkeypatch.setattr(rotate, "RESPONSE_SECONDS", 0.2)

    line, runs = end(function)

    assert line.startswith("No result arrived, ")
    assert runs == [1, 1]


def test_unreachable(function: FakeLambda) -> None:
    """After a deployment, an error of AWS says that the stack is deployed, and what to run."""
    function.responses = [Response('{"Message": "no lambda:InvokeFunction"}', status=403)]

    with pytest.raises(
        SystemExit,
        match="^The stack is deployed, but no run was started: .* no lambda:InvokeFunction; then "
        "run `make rotate ENV=default`$",
    ):
        rotate.main("default", after_deployment=True)
