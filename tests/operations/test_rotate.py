"""`make rotate`, against a loopback server in place of AWS Lambda."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from local.fakes.loopback import LoopbackServer
from operations import rotate
from tests.samples import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment

TEMPLATE = {
    "Resources": {
        # In moto, a function needs a role and code; this test needs only its name.
        "RotateTokenFunction": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "f"}}
    }
}


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
def function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeLambda]:
    """The function of a stack, in a folder with the project's event and a samconfig.toml."""
    event = (PROJECT / "events" / "rotate_now.json").read_bytes()
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "rotate_now.json").write_bytes(event)
    (tmp_path / "samconfig.toml").write_text('[default.global.parameters]\nstack_name = "token"')
    monkeypatch.chdir(tmp_path)
    with mock_aws(), FakeLambda() as function:
        boto3.client("cloudformation").create_stack(
            StackName="token", TemplateBody=json.dumps(TEMPLATE)
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", function.address)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
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


def test_no_answer(function: FakeLambda, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the result does not arrive in time, the command says what to do; one event is sent."""
    monkeypatch.setattr(rotate, "ANSWER_SECONDS", 0.2)

    with pytest.raises(SystemExit, match="^No result yet: the run may continue .*`make status"):
        rotate.main("default")

    assert 1 == len(function.events)
