"""The alarms: what they say, and when they fire."""

import operator
from itertools import zip_longest
from typing import Any

import pytest

from studies.simulation import Failure, Scenario, simulate
from tests.samples import PROJECT
from tests.stack import Stack

Series = dict[str, dict[int, float]]
DAY = 1440


def test_notifications() -> None:
    """Each alarm notifies the topic when it fires and clears, with its minutes and runbook."""
    runbook = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    alarms = Stack({"OverdueMinutes": "35"}).of_type("AWS::CloudWatch::Alarm")
    overdue, failing, *_ = (alarm["AlarmDescription"] for alarm in alarms.values())

    assert overdue.startswith("No token was published in the last 35 minutes:")
    assert failing.startswith("In 2 of the last 10 minutes, ")
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == ["AlarmTopic"]
        assert alarm["AlarmDescription"].endswith(
            f". Runbook: smartcar-token-rotation, docs/operations.md, {name}."
        )
        assert f"\n### {name}\n" in runbook


def test_statistics() -> None:
    """Of several rotations in a minute, the one with the longest gap counts."""
    alarms = Stack({}).of_type("AWS::CloudWatch::Alarm").values()
    statistics = [alarm["Metrics"][1]["MetricStat"]["Stat"] for alarm in alarms]

    assert statistics == ["Sum", "Sum", "Minimum", "Sum"]


def ones(*minutes: int) -> dict[int, float]:
    """Make a metric that is 1 in these minutes."""
    return dict.fromkeys(minutes, 1.0)


def states(alarm: dict[str, Any], series: Series, minutes: int = DAY) -> list[tuple[int, int]]:
    """Return the intervals, in minutes, in which an alarm is in the state ALARM."""
    expression, metric = alarm["Metrics"]
    assert expression["Expression"] == "FILL(metric, 0)"
    assert (metric["Id"], metric["ReturnData"]) == ("metric", False)
    assert metric["MetricStat"]["Period"] == 60
    known = series.get(metric["MetricStat"]["Metric"]["MetricName"], {})
    compare = {
        "LessThanThreshold": operator.lt,
        "GreaterThanOrEqualToThreshold": operator.ge,
    }[alarm["ComparisonOperator"]]
    periods = int(alarm["EvaluationPeriods"])
    if_missing = alarm["TreatMissingData"] == "breaching"
    # Before minute 0, values are missing; after it, only if there are none at all: FILL needs one.
    breaching = [if_missing] * periods + [
        compare(known.get(minute, 0.0), alarm["Threshold"]) if known else if_missing
        for minute in range(minutes)
    ]
    datapoints = alarm.get("DatapointsToAlarm", periods)
    state = [sum(breaching[now : now + periods]) >= datapoints for now in range(minutes)]
    changes = [now for now in range(1, minutes) if state[now] != (now > 1 and state[now - 1])]
    return list(zip_longest(changes[::2], changes[1::2], fillvalue=minutes))


ROTATED = ones(*range(0, DAY, 50))
# The endpoint is down from minute 49 to 89. The scheduled run at minute 50 and two retries last 14
# minutes each; Lambda waits 1 and 2 minutes between them. The second retry gets a token.
OUTAGE = {
    "TokenRotated": ones(0, *range(89, DAY, 50)),
    "AttemptFailed": ones(*range(50, 65), *range(66, 80), *range(82, 89)),
    "SecondsLeftOnOldToken": {89: -1740.0, **dict.fromkeys(range(139, DAY, 50), 600.0)},
}


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param(
            OUTAGE,
            {
                "AttemptsFailingAlarm": [(52, 98)],
                "TokenOverdueAlarm": [(56, 90)],
                "TokenGapAlarm": [(90, 150)],
            },
            id="outage",
        ),
        pytest.param({}, {"TokenOverdueAlarm": [(1, DAY)]}, id="schedule never starts"),
        pytest.param(
            {
                "TokenRotated": ROTATED,
                "AttemptFailed": ones(*range(300, 600, 50)),
                "CredentialsFallback": ones(*range(300, 600, 50)),
            },
            {"CredentialsFallbackAlarm": [(301, 611)]},
            id="fallback",
        ),
        pytest.param(
            {
                "TokenRotated": ROTATED,
                "SecondsLeftOnOldToken": dict.fromkeys(range(50, DAY, 50), -1200.0),
            },
            {"TokenGapAlarm": [(51, DAY)]},
            id="short lifetime",
        ),
    ],
)
def test_firing(series: Series, expected: dict[str, list[tuple[int, int]]]) -> None:
    """Alarms fire and clear in time: within minutes in an outage, and not for a single failure."""
    alarms = Stack({}).of_type("AWS::CloudWatch::Alarm")
    fired = {name: states(alarm, series) for name, alarm in alarms.items()}

    assert {name: intervals for name, intervals in fired.items() if intervals} == expected


def test_lasting_failure() -> None:
    """AttemptsFailingAlarm fires once, and stays in ALARM between the runs of a lasting failure."""
    minutes = 2 * DAY
    # The answers take so differently long that runs end at all moments at which they may.
    scenario = Scenario(
        60 * minutes,
        failure=Failure.ANSWERS_404,
        outages=((0, 60 * minutes),),
        answers_in=(0.1, 14),
    )
    failed = {int(at // 60) for at in simulate(scenario, seed=1).failed_attempts}
    alarm = Stack({}).properties("AttemptsFailingAlarm")
    intervals = states(alarm, {"AttemptFailed": ones(*failed)}, minutes)

    assert [end for _, end in intervals] == [minutes]
