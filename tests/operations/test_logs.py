"""`make logs`, against CloudWatch Logs in this process."""

import time
from typing import Any

import pytest

from operations import logs


@pytest.mark.usefixtures("stack")
def test_follow(
    aws: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events of the last three hours, and later each new one once, are printed as one line each."""
    client = aws("logs")
    for stream in ("first", "second"):
        client.create_log_stream(logGroupName="log", logStreamName=stream)

    def log(stream: str, seconds_ago: float, message: str) -> None:
        event = {"timestamp": int(1000 * (time.time() - seconds_ago)), "message": message}
        client.put_log_events(logGroupName="log", logStreamName=stream, logEvents=[event])

    log("first", 4 * 3600, "four hours ago")
    log("first", 2 * 3600, '{"two":\n  "hours ago"}\n')
    log("second", 10, "before")
    polls: list[float] = []

    def sleep(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 3:
            raise KeyboardInterrupt
        log("second", 0, f"poll {len(polls)}")
        log("first", 15, f"late {len(polls)}")

    monkeypatch.setattr("time.sleep", sleep)

    with pytest.raises(SystemExit, match="^130$"):
        logs.main("default")

    lines = capsys.readouterr().out.splitlines()
    assert lines == ['{"two": "hours ago"}', "before", "late 1", "poll 1", "late 2", "poll 2"]
