"""`make rotate`, against a loopback server in place of AWS Lambda."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local.fakes.loopback import LoopbackServer
from operations import rotate
from tests.samples import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tests.operations.conftest import CreateStack, Save


class FakeLambda(LoopbackServer):
    """
    A fake of Lambda's operation Invoke.

    Attributes:
        result: What the function returns, as JSON; without one, it does not answer.
        function_error: Whether the result is an error.
        events: What was sent so far.
    """

    def __init__(self) -> None:
        super().__init__(self._invoke)
        self.result = ""
        self.function_error = False
        self.events: list[tuple[str, object]] = []

    def _invoke(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        self.events.append((environ["PATH_INFO"], json.loads(body)))
        if not self.result:
            self.stopping.wait()
        headers = [("X-Amz-Function-Error", "Unhandled")] if self.function_error else []
        start_response("200 OK", headers)
        return [self.result.encode()]


@pytest.fixture
def function(
    create_stack: CreateStack, save: Save, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeLambda]:
    """The function of a stack, in a folder with the project's events and a samconfig.toml."""
    save('[default.global.parameters]\nstack_name = "token"\nregion = "us-east-1"')
    create_stack("token", "us-east-1")
    Path("events").symlink_to(PROJECT / "events")
    with FakeLambda() as function:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", function.address)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
        yield function
    assert [("/2015-03-31/functions/f/invocations", {"force": True})] == function.events


def test_result(function: FakeLambda, capsys: pytest.CaptureFixture[str]) -> None:
    """The result of the run is printed; one event is sent."""
    function.result = '{"status": "rotated"}'

    rotate.main("default")

    assert '{"status": "rotated"}\n' == capsys.readouterr().out


def test_failed_run(function: FakeLambda) -> None:
    """A run that fails ends the command with its error; one event is sent."""
    function.result = '{"errorType": "CredentialsError", "errorMessage": "no", "stackTrace": []}'
    function.function_error = True

    with pytest.raises(SystemExit, match="^The run failed: CredentialsError: no$"):
        rotate.main("default")


@pytest.mark.usefixtures("function")
def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the result does not arrive in time, the command says what to do; one event is sent."""
    monkeypatch.setattr(rotate, "ANSWER_SECONDS", 0.2)

    with pytest.raises(SystemExit, match="^No result yet: the run may continue .*`make status"):
        rotate.main("default")
