"""
How long an outage leaves consumers without a valid token: `make simulate`.

With ``WRITE=1``, the tables and the charts in ``docs/`` are updated.
"""

import signal
from itertools import product
from multiprocessing import Pool
from typing import NamedTuple

from rich.progress import track

from studies import docs
from studies.simulation import PERIOD_SECONDS, POLICIES, Failure, Scenario, simulate

MINUTE, HOUR = 60.0, 3600.0

DEFAULT_MINUTES = int(PERIOD_SECONDS / MINUTE)
PERIODS_MINUTES = (15, 20, 30, DEFAULT_MINUTES)
OUTAGES_MINUTES = (8, 15, 30, 60, 120)
CHART_PERIODS_MINUTES = (DEFAULT_MINUTES, 20)
CHART_MINUTES = (1, 3, 4, 8, 10, 15, 19, 24, 30, 38, 43, 45, 50, 54, 60)


class Case(NamedTuple):
    """A length of outages, a schedule and a policy."""

    minutes: int
    period_minutes: int
    policy: str = "this project"


Gaps = dict[Case, float]
"""The longest time without a valid token after an outage of each case, in minutes."""


def main() -> None:
    """Simulate all cases; print or write the table and the charts."""
    distinct = {
        *(Case(*of) for of in product(OUTAGES_MINUTES, PERIODS_MINUTES)),
        *(Case(*of) for of in product(CHART_MINUTES, CHART_PERIODS_MINUTES, POLICIES)),
    }
    # The longest first, so that all processes finish at about the same time.
    cases = sorted(distinct, reverse=True)
    # Ctrl-C ends this process, which then ends the pool.
    with Pool(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        results = track(
            pool.imap(find_longest_gap, cases), "Simulating outages", len(cases), transient=True
        )
        gaps = dict(zip(cases, results, strict=True))
    head = (
        "**Minutes without a valid token** after an outage of the worst kind at the worst moment:"
    )
    docs.write("outages.md", f"{head}\n\n{compare_schedules(gaps)}")
    draw_outage()
    draw_policies(gaps)


def find_longest_gap(case: Case) -> float:
    """Simulate an outage of each kind, and return the longest time without a valid token."""
    period = case.period_minutes * MINUTE
    # The worst moment is just before a run. An outage that begins earlier also ends earlier, while
    # the published token expires at the same time.
    begin = 3 * period
    end = begin + case.minutes * MINUTE
    gaps = []
    for seed, failure in enumerate(Failure):
        scenario = Scenario(end + HOUR, period, failure=failure, outages=((begin, end),))
        gaps.append(simulate(scenario, seed, POLICIES[case.policy]).gap_seconds / MINUTE)
    return max(gaps)


def compare_schedules(gaps: Gaps) -> str:
    """Make the table of the longest gaps."""
    rows = [
        (f"{period} min", *(f"{gaps[Case(minutes, period)]:.1f}" for minutes in OUTAGES_MINUTES))
        for period in PERIODS_MINUTES
    ]
    return docs.table(("schedule", *(f"{minutes} min" for minutes in OUTAGES_MINUTES)), rows)


def draw_outage() -> None:
    """Draw one outage: its requests, the old token, the new one, and the gap."""
    due = 3 * PERIOD_SECONDS
    begin, end = due - 2 * MINUTE, due + 26 * MINUTE
    outcome = simulate(Scenario(due + PERIOD_SECONDS, outages=((begin, end),)), seed=1)
    (old_at, old), (new_at, new) = outcome.writes[2:4]
    requests = [(moment - due) / MINUTE for moment in outcome.requests if old_at < moment <= new_at]
    gap = f"{(new_at - old.expires_at) / MINUTE:.0f} min"
    with docs.chart("outage.svg", 7.6, 2.9) as axes:
        for name, first, last, color in (
            ("no valid token", old.expires_at, new_at, docs.RED),
            ("new token", new_at, new.expires_at, docs.GREEN),
            ("old token", old_at, old.expires_at, docs.BLUE),
            ("outage", begin, end, docs.ORANGE),
        ):
            left = (first - due) / MINUTE
            axes.barh(name, (last - first) / MINUTE, left=left, color=color, height=0.55)
        axes.plot(requests, ["requests"] * len(requests), "|", color=docs.GREY, markersize=11)
        axes.annotate(gap, ((new_at - due) / MINUTE + 1, 0), va="center")
        for moment in (0, DEFAULT_MINUTES):
            axes.axvline(moment, color=docs.GREY, linewidth=0.8, linestyle=":")
            axes.text(moment, 4.6, "scheduled run", ha="center")
        axes.set_xlim(-20, DEFAULT_MINUTES + 10)
        axes.set_ylim(-0.5, 5)
        axes.set_xlabel("minutes after the scheduled run")


def draw_policies(gaps: Gaps) -> None:
    """Draw the longest gap by the length of the outage, for each policy and two schedules."""
    with docs.chart("policies.svg", 7.6, 3.4) as axes:
        for policy, color in zip(POLICIES, (docs.BLUE, docs.ORANGE), strict=True):
            for period, style in zip(CHART_PERIODS_MINUTES, ("-", "--"), strict=True):
                longest = [gaps[Case(minutes, period, policy)] for minutes in CHART_MINUTES]
                label = f"{policy}, every {period} minutes"
                axes.plot(CHART_MINUTES, longest, style, color=color, linewidth=2, label=label)
        axes.set_xlabel("length of the outage, minutes")
        axes.set_ylabel("minutes without a valid token")
        axes.legend()


if __name__ == "__main__":
    main()
