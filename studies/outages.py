"""
How long an outage leaves consumers without a valid token: `make simulate`.

With ``WRITE=1``, the tables and the charts in ``docs/`` are updated.
"""

from __future__ import annotations

import signal
from itertools import product
from multiprocessing import Pool
from statistics import mean
from typing import NamedTuple

from rich.progress import track

from studies import report
from studies.world import PERIOD_SECONDS, POLICIES, Scenario, play

MINUTE, HOUR = 60.0, 3600.0

DEFAULT_MINUTES = int(PERIOD_SECONDS / MINUTE)
PERIODS_MINUTES = (15, 30, 40, 50)
OUTAGES_MINUTES = (8, 15, 30, 60, 120)
CHART_MINUTES = (1, 3, 5, 8, 10, 15, 20, 25, 28, 35, 49, 55, 60, 80, 100, 105, 120)
PHASES = 12
"""Outages of each length begin at so many moments of the schedule, first just before a run."""


class Case(NamedTuple):
    """A length of outages, a schedule and a policy."""

    minutes: int
    period_minutes: int = DEFAULT_MINUTES
    policy: str = "this project"


Gaps = dict[Case, list[float]]
"""The minutes without a valid token after each outage of a case."""


def main() -> None:
    """Simulate all cases, and report."""
    distinct = {
        *(Case(minutes, period) for minutes, period in product(OUTAGES_MINUTES, PERIODS_MINUTES)),
        *(Case(minutes, policy=policy) for minutes, policy in product(CHART_MINUTES, POLICIES)),
    }
    # The longest first, so that all processes finish at about the same time.
    cases = sorted(distinct, reverse=True)
    # Ctrl-C ends this process, which then ends the pool.
    with Pool(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        results = track(
            pool.imap(play_case, cases), "Simulating outages", len(cases), transient=True
        )
        gaps = dict(zip(cases, results, strict=True))
    head = "**Minutes without a valid token** after an outage at the worst moment, by schedule:"
    report.write("outages.md", f"{head}\n\n{compare_schedules(gaps)}")
    draw_outage()
    draw_policies(gaps)


def play_case(case: Case) -> list[float]:
    """Simulate the outages of a case, and return the minutes without a valid token after each."""
    gaps = []
    for phase in range(PHASES):
        begin = (2 + phase / PHASES) * case.period_minutes * MINUTE
        end = begin + case.minutes * MINUTE
        scenario = Scenario(end + 2 * HOUR, case.period_minutes * MINUTE, outages=((begin, end),))
        gaps.append(play(scenario, phase, POLICIES[case.policy]).gap_seconds / MINUTE)
    return gaps


def compare_schedules(gaps: Gaps) -> str:
    """Make the table of the longest gaps."""
    rows = []
    for period in PERIODS_MINUTES:
        longest = [max(gaps[Case(minutes, period)]) for minutes in OUTAGES_MINUTES]
        rows.append((f"{period} min", *(f"{of:.1f}" for of in longest)))
    return report.table(("schedule", *(f"{minutes} min" for minutes in OUTAGES_MINUTES)), rows)


def draw_outage() -> None:
    """Draw one outage: its requests, the old token, the new one, and the gap."""
    due = 3 * PERIOD_SECONDS
    begin, end = due - 2 * MINUTE, due + 26 * MINUTE
    outcome = play(Scenario(due + PERIOD_SECONDS, outages=((begin, end),)), seed=1)
    (old_at, old), (new_at, new) = outcome.writes[2:4]
    requests = [(moment - due) / MINUTE for moment in outcome.requests if old_at < moment <= new_at]
    gap = f"{(new_at - old.expires_at) / MINUTE:.0f} min"
    with report.chart("outage.svg", 7.6, 2.9) as axes:
        for name, first, last, color in (
            ("no valid token", old.expires_at, new_at, report.RED),
            ("new token", new_at, new.expires_at, report.GREEN),
            ("old token", old_at, old.expires_at, report.BLUE),
            ("outage", begin, end, report.ORANGE),
        ):
            left = (first - due) / MINUTE
            axes.barh(name, (last - first) / MINUTE, left=left, color=color, height=0.55)
        axes.plot(requests, ["requests"] * len(requests), "|", color=report.GREY, markersize=11)
        axes.annotate(gap, ((new_at - due) / MINUTE + 1, 0), va="center")
        for moment in (0, DEFAULT_MINUTES):
            axes.axvline(moment, color=report.GREY, linewidth=0.8, linestyle=":")
            axes.text(moment, 4.6, "scheduled run", ha="center")
        axes.set_xlim(-20, DEFAULT_MINUTES + 10)
        axes.set_ylim(-0.5, 5)
        axes.set_xlabel("minutes after the scheduled run")


def draw_policies(gaps: Gaps) -> None:
    """Draw the gap by the length of the outage, for each policy."""
    with report.chart("policies.svg", 7.6, 3.4) as axes:
        for policy, color in zip(POLICIES, (report.BLUE, report.ORANGE), strict=True):
            of_length = [gaps[Case(minutes, policy=policy)] for minutes in CHART_MINUTES]
            worst, average = [max(of) for of in of_length], [mean(of) for of in of_length]
            axes.plot(CHART_MINUTES, worst, color=color, linewidth=2, label=policy)
            axes.plot(CHART_MINUTES, average, ":", color=color)
        axes.set_xlabel("length of the outage, minutes")
        axes.set_ylabel("minutes without a valid token")
        axes.set_title("solid: at the worst moment; dotted: at an average moment")
        axes.legend()


if __name__ == "__main__":
    main()
