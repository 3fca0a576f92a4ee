"""
How long an outage leaves consumers without a valid token: what `make simulate` starts.

With ``WRITE=1`` the tables go into ``docs/outages.md``, and the charts beside it.
"""

from __future__ import annotations

import signal
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from rotate_token.retrying import LONGEST_BACKOFF_SECONDS, RESERVED_SECONDS
from rotate_token.rotation import FRESH_SECONDS
from rotate_token.token_endpoint import ATTEMPT_SECONDS
from studies import report
from studies.prices import us_dollars
from studies.world import (
    LIFETIME_SECONDS,
    MEMORY_MB,
    PERIOD_SECONDS,
    POLICIES,
    RETRY_WAITS_SECONDS,
    SCHEDULER_PRECISION_SECONDS,
    TIMEOUT_SECONDS,
    Scenario,
    play,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
YEAR = 365 * DAY

RECOVERY_SECONDS = LONGEST_BACKOFF_SECONDS + ATTEMPT_SECONDS
"""An active run has a token this long after the end of an outage."""
SLACK_SECONDS = LIFETIME_SECONDS - PERIOD_SECONDS - SCHEDULER_PRECISION_SECONDS - RECOVERY_SECONDS
"""An outage of this length leaves no gap, whenever it starts."""
PAUSE_SECONDS = (
    PERIOD_SECONDS
    + SCHEDULER_PRECISION_SECONDS
    - sum(RETRY_WAITS_SECONDS)
    - (1 + len(RETRY_WAITS_SECONDS)) * (TIMEOUT_SECONDS - RESERVED_SECONDS)
)
"""The longest time from the last attempt of Lambda's last retry to the next scheduled run."""

DEFAULT_MINUTES = int(PERIOD_SECONDS / MINUTE)
SAFE_MINUTES = int(SLACK_SECONDS / MINUTE)
PERIODS_MINUTES = (10, 15, 30, 40, 50)
INCIDENTS_MINUTES = (25, 28, 49, 116)
"""The lengths of the public incidents of a hosted identity provider."""
OUTAGES_MINUTES = (5, 10, 15, *INCIDENTS_MINUTES)
CHART_MINUTES = sorted({1, 3, 5, 8, 10, 15, 20, 35, 60, 80, 100, *INCIDENTS_MINUTES})

DOCS = Path("docs")


class Case(NamedTuple):
    """
    A policy, a schedule, and outages of one length.

    One outage begins in each phase of the schedule, the first one just before a scheduled run.
    """

    minutes: int
    period_minutes: int = DEFAULT_MINUTES
    policy: str = "this project"
    phases: int = 12


SAFE_CASE = Case(SAFE_MINUTES, phases=100)


def main() -> None:
    """Simulate all cases, and report."""
    distinct = {
        SAFE_CASE,
        *(Case(minutes, period) for minutes, period in product(OUTAGES_MINUTES, PERIODS_MINUTES)),
        *(Case(minutes, policy=policy) for minutes, policy in product(CHART_MINUTES, POLICIES)),
    }
    # The longest first, so that all processes finish at about the same time.
    cases = sorted(distinct, reverse=True)
    # Ctrl-C ends this process, which then ends the pool.
    with Pool(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        results = report.track(pool.imap(play_case, cases), "Simulating outages", len(cases))
        gaps = dict(zip(cases, results, strict=True))
    paragraphs = (
        describe_promise(gaps[SAFE_CASE]),
        "**Minutes without a valid token** after an outage at the worst moment, by schedule:",
        report.table(
            ("schedule", *(f"{minutes} min" for minutes in OUTAGES_MINUTES)), worst_gaps(gaps)
        ),
        "**Minutes without a valid token in a year** with these outages, at average moments:",
        report.table(
            ("policy", *(f"{minutes} min" for minutes in INCIDENTS_MINUTES), "total", "available"),
            average_gaps(gaps),
        ),
    )
    report.write(DOCS / "outages.md", "\n\n".join(paragraphs))
    draw_outage()
    draw_policies(gaps)
    draw_schedules(gaps)


def play_case(case: Case) -> list[float]:
    """Simulate the outages of a case, and return the minutes without a valid token after each."""
    period = case.period_minutes * MINUTE
    gaps = []
    for phase in range(case.phases):
        begin = (2 + phase / case.phases) * period
        end = begin + case.minutes * MINUTE
        scenario = Scenario(seconds=end + 2 * HOUR, period=period, outages=((begin, end),))
        gaps.append(play(scenario, phase, POLICIES[case.policy]).gap_seconds / MINUTE)
    return gaps


def describe_promise(gaps: list[float]) -> str:
    """Say what holds at the default schedule; the tests prove it."""
    return (
        f"- **An outage of up to {SAFE_MINUTES} minutes** leaves no gap, whenever it starts. "
        f"Simulated: {len(gaps)} outages, {sum(gap > 0 for gap in gaps)} gaps.\n"
        f"- **Within {FRESH_SECONDS / MINUTE:.0f} minutes after a rotation**, manual or late, a "
        "scheduled run skips. Until the next one, an outage of up to "
        f"{(SLACK_SECONDS - FRESH_SECONDS) // MINUTE:.0f} minutes leaves no gap.\n"
        f"- **After a longer outage** an active run publishes a token within "
        f"{RECOVERY_SECONDS:.0f} s: one backoff and one attempt.\n"
        "- **No run is active** while Lambda waits before a retry, and for up to "
        f"{PAUSE_SECONDS / MINUTE:.0f} minutes before a scheduled run. After an outage that ends "
        f"then, a token is published within {(PAUSE_SECONDS + RECOVERY_SECONDS) / MINUTE:.0f} "
        "minutes."
    )


def worst_gaps(gaps: dict[Case, list[float]]) -> Iterator[tuple[str, ...]]:
    """Make a row for each schedule."""
    for period in PERIODS_MINUTES:
        yield (
            f"{period} min",
            *(f"{max(gaps[Case(minutes, period)]):.1f}" for minutes in OUTAGES_MINUTES),
        )


def average_gaps(gaps: dict[Case, list[float]]) -> Iterator[tuple[str, ...]]:
    """Make a row for each policy."""
    for policy in POLICIES:
        means = [mean(gaps[Case(minutes, policy=policy)]) for minutes in INCIDENTS_MINUTES]
        available = 1 - sum(means) * MINUTE / YEAR
        yield policy, *(f"{of:.1f}" for of in (*means, sum(means))), f"{available:.3%}"


def draw_outage() -> None:
    """Draw one outage: its requests, the old token, the new one, and the gap."""
    due = 3 * PERIOD_SECONDS
    begin, end = due - 2 * MINUTE, due + 26 * MINUTE
    outcome = play(Scenario(seconds=due + PERIOD_SECONDS, outages=((begin, end),)), seed=1)
    old, new = outcome.writes[2:4]
    figure, axes = report.make_chart(7.6, 2.9)
    bars = (
        ("no valid token", old.expires_at, new.at, report.RED),
        ("new token", new.at, new.expires_at, report.GREEN),
        ("old token", old.at, old.expires_at, report.BLUE),
        ("provider unavailable", begin, end, report.ORANGE),
    )
    for name, first, last, color in bars:
        axes.barh(
            name, (last - first) / MINUTE, left=(first - due) / MINUTE, color=color, height=0.55
        )
    requests = [(moment - due) / MINUTE for moment in outcome.requests if old.at < moment <= new.at]
    axes.plot(requests, ["requests"] * len(requests), "|", color=report.GREY, markersize=11)
    axes.annotate(
        f"{(new.at - old.expires_at) / MINUTE:.0f} min",
        ((new.at - due) / MINUTE + 1, 0),
        va="center",
    )
    for moment in (0, DEFAULT_MINUTES):
        axes.axvline(moment, color=report.GREY, linewidth=0.8, linestyle=":")
        axes.text(moment, 4.6, "scheduled run", ha="center")
    axes.set_xlim(-20, DEFAULT_MINUTES + 10)
    axes.set_ylim(-0.5, 5)
    axes.set_xlabel("minutes after the scheduled run")
    report.save(figure, DOCS / "outage.svg")


def draw_policies(gaps: dict[Case, list[float]]) -> None:
    """Draw the gap by the length of the outage, for each policy."""
    figure, axes = report.make_chart(7.6, 3.4)
    # The widest first: it stays visible where two lines coincide.
    styles = ((report.ORANGE, 6), (report.BLUE, 2), (report.GREEN, 2))
    for policy, (color, width) in zip(reversed(POLICIES), styles, strict=True):
        of_length = [gaps[Case(minutes, policy=policy)] for minutes in CHART_MINUTES]
        axes.plot(
            CHART_MINUTES, list(map(max, of_length)), color=color, linewidth=width, label=policy
        )
        axes.plot(CHART_MINUTES, list(map(mean, of_length)), ":", color=color, linewidth=width / 2)
    axes.set_xlabel("length of the outage, minutes")
    axes.set_ylabel("minutes without a valid token")
    axes.set_title("solid: at the worst moment; dotted: at an average moment")
    axes.legend()
    report.save(figure, DOCS / "policies.svg")


def draw_schedules(gaps: dict[Case, list[float]]) -> None:
    """Draw what a shorter schedule brings, and what Lambda charges for it."""
    figure, axes = report.make_chart(7.6, 3.2)
    minutes = [
        sum(mean(gaps[Case(minutes, period)]) for minutes in INCIDENTS_MINUTES)
        for period in PERIODS_MINUTES
    ]
    axes.plot(PERIODS_MINUTES, minutes, "o-", color=report.BLUE)
    for period, of_period in zip(PERIODS_MINUTES, minutes, strict=True):
        day = play(Scenario(seconds=DAY, period=period * MINUTE), seed=0)
        price = us_dollars(30 * sum(run.ended_at - run.began_at for run in day.runs), MEMORY_MB)
        axes.annotate(
            f"{price:.3f}", (period, of_period), (0, 8), textcoords="offset points", ha="center"
        )
    axes.set_xlabel("schedule, minutes between runs")
    axes.set_ylabel("minutes without a valid token")
    *first, last = INCIDENTS_MINUTES
    axes.set_title(
        f"a year with outages of {', '.join(map(str, first))} and {last} minutes;\n"
        "at the points: the price of Lambda's time, US$ a month"
    )
    axes.set_ylim(0, max(minutes) * 1.2)
    report.save(figure, DOCS / "schedules.svg")


if __name__ == "__main__":
    main()
