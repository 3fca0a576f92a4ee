"""
How long may Smartcar, or AWS, be away before consumers notice: what `make simulate` starts.

The tables go to the terminal and into ``docs/outages.md``, the charts beside it.
"""

from __future__ import annotations

import logging
import statistics
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from studies import report
from studies.benchmark import US_DOLLARS_PER_GB_SECOND
from studies.world import (
    SLACK_SECONDS,
    STACK,
    Outcome,
    Scenario,
    plain_script,
    simulate,
    this_project,
    three_quick_retries,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from studies.world import Policy

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
YEAR = 365 * DAY

POLICIES: dict[str, Policy] = {
    "this project": this_project,
    "three quick retries": three_quick_retries,
    "plain script": plain_script,
}
PERIODS_MINUTES = (10, 15, 30, 45, 50, 55)
INCIDENTS_MINUTES = (25, 28, 49, 116)
"""How long the public incidents of a hosted identity provider lasted."""
OUTAGES_MINUTES = (5, 10, *INCIDENTS_MINUTES, 240)
CHART_MINUTES = (1, 3, 5, 8, 10, 15, 20, 30, 40, 50, 60, 80, 100, 120)
SAFE_MINUTES = int(SLACK_SECONDS / MINUTE)
"""How long an outage may last without a gap, in whole minutes."""
PHASES = 10
"""At how many moments of the cycle an outage begins, one after the other."""

SCENARIOS = (
    Scenario("no faults"),
    Scenario("5 % of requests fail", failing=0.05),
    Scenario("20 % of requests fail", failing=0.2),
    Scenario("50 % of requests fail", failing=0.5),
    Scenario("answers take 1 to 20 s", answers_in=(1, 20)),
    Scenario("20 % fail, and one request a minute is allowed", failing=0.2, at_most_every=60),
    *(
        Scenario(
            f"one outage of {minutes} minutes", outages=((5 * DAY, 5 * DAY + minutes * MINUTE),)
        )
        for minutes in INCIDENTS_MINUTES
    ),
    Scenario(
        "flapping for 4 hours, 5 minutes away and 5 there",
        outages=tuple((5 * DAY + n * 600, 5 * DAY + n * 600 + 300) for n in range(24)),
    ),
    Scenario("20 % of calls of Secrets Manager are throttled", throttled=0.2),
    Scenario("Secrets Manager is away for 28 minutes", aws_away=(5 * DAY, 5 * DAY + 28 * MINUTE)),
    Scenario("20 % of ticks twice, 20 % up to 5 minutes late", repeated=0.2, late=0.2),
    Scenario("a wrong client secret for an hour", wrong_secret=(5 * DAY, 5 * DAY + HOUR)),
    Scenario(
        "… and the one before it is revoked",
        wrong_secret=(5 * DAY, 5 * DAY + HOUR),
        revoked=True,
    ),
)

DOCUMENT = Path("docs", "outages.md")

Task = tuple[Scenario, int, str]


def main() -> None:
    """Simulate everything, write it down and draw it."""
    with ProcessPoolExecutor(initializer=logging.disable) as pool:
        year = pool.submit(play, (Scenario("a year", seconds=YEAR), 0, "this project"))
        tasks = [(scenario, 0, policy) for scenario, policy in product(SCENARIOS, POLICIES)]
        stories = list(pool.map(play, tasks))
        by_period = {
            period: list(pool.map(play, single_outages(OUTAGES_MINUTES, period * MINUTE)))
            for period in PERIODS_MINUTES
        }
        by_policy = {
            policy: list(pool.map(play, single_outages(CHART_MINUTES, STACK.period, policy)))
            for policy in POLICIES
        }
        short = list(
            pool.map(play, single_outages([SAFE_MINUTES], STACK.period, phases=10 * PHASES))
        )
        days = list(
            pool.map(
                play,
                [
                    (Scenario("a day", seconds=DAY, period=period * MINUTE), 0, "this project")
                    for period in PERIODS_MINUTES
                ],
            )
        )
    gaps = {
        period: gaps_by_length(OUTAGES_MINUTES, outcomes) for period, outcomes in by_period.items()
    }
    dollars = [30 * dollars_of(day) for day in days]
    shares = [availability(gaps[period]) for period in PERIODS_MINUTES]
    paragraphs = [
        promise(year.result(), short, by_period[int(STACK.period / MINUTE)]),
        "**The worst gap**, in minutes, by schedule and by the length of an outage",
        report.table(
            ("schedule", *(f"{minutes} min" for minutes in OUTAGES_MINUTES)), worst_gaps(gaps)
        ),
        f"**A year with incidents of {listed(INCIDENTS_MINUTES)} minutes**, at an average moment",
        report.table(
            ("schedule", "time with a valid token", "Lambda, US$ a month"),
            (
                (f"{period} min", f"{share:.4%}", f"{price:.3f}")
                for period, share, price in zip(PERIODS_MINUTES, shares, dollars, strict=True)
            ),
        ),
        "**Thirty days of each scenario**, at the default schedule",
        report.table(
            (
                "scenario",
                "policy",
                "valid",
                "longest gap, min",
                "valid again after, s",
                "requests",
                "writes",
                "Lambda, s",
                "US$",
            ),
            map(describe, tasks, stories),
        ),
    ]
    report.write(DOCUMENT, "\n\n".join(paragraphs))
    draw_timeline(Path("docs", "outage.svg"))
    draw_policies(by_policy, Path("docs", "policies.svg"))
    draw_schedules(shares, dollars, Path("docs", "schedules.svg"))


def play(task: Task) -> Outcome:
    """Simulate one scenario, in a process of the pool."""
    scenario, seed, policy = task
    return simulate(scenario, seed, POLICIES[policy])


def single_outages(
    lengths: Iterable[float],
    period: float,
    policy: str = "this project",
    phases: int = PHASES,
) -> Iterator[Task]:
    """Let an outage of each length begin at each phase of the cycle."""
    for minutes, phase in product(lengths, range(phases)):
        begin = 2 * HOUR + phase * period / phases
        end = begin + minutes * MINUTE
        scenario = Scenario("", seconds=end + 2 * HOUR, period=period, outages=((begin, end),))
        yield scenario, phase, policy


def gaps_by_length(lengths: Iterable[int], outcomes: list[Outcome]) -> dict[int, list[float]]:
    """Sort the gaps of `single_outages` by the outages' length, in seconds."""
    gaps = iter([outcome.longest_gap for outcome in outcomes])
    return {length: [next(gaps) for _ in range(PHASES)] for length in lengths}


def availability(gaps: dict[int, list[float]]) -> float:
    """Return the share of a year with a valid token, if each incident comes once."""
    return 1 - sum(statistics.mean(gaps[minutes]) for minutes in INCIDENTS_MINUTES) / YEAR


def dollars_of(outcome: Outcome) -> float:
    """Return what Lambda's time costs."""
    return outcome.lambda_seconds * STACK.memory_mb / 1024 * US_DOLLARS_PER_GB_SECOND


def listed(numbers: Iterable[int]) -> str:
    """Write numbers as a list."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}"


def promise(year: Outcome, short: list[Outcome], outcomes: list[Outcome]) -> str:
    """Say what holds at the default schedule."""
    ends = [
        scenario.outages[0][1] for scenario, _, _ in single_outages(OUTAGES_MINUTES, STACK.period)
    ]
    waits: dict[bool, list[float]] = {True: [], False: []}
    for outcome, end in zip(outcomes, ends, strict=True):
        waits[outcome.seconds_alive_at(end) > 0].append(outcome.seconds_without_token_after(end))
    return (
        f"- A year without faults: a valid token for {year.valid_share:.4%} of the time, "
        f"{len(year.requests):,} requests, {len(year.writes):,} writes, "
        f"{year.lambda_seconds / HOUR:.1f} hours of Lambda.\n"
        f"- Of {len(short)} outages of {SAFE_MINUTES} minutes, at as many moments of the cycle, "
        f"{sum(bool(outcome.gaps) for outcome in short)} were noticed.\n"
        f"- After a longer one, consumers waited for {max(waits[True]):.0f} s at most where a run "
        f"was alive, and for {max(waits[False]) / MINUTE:.1f} minutes at most where none was."
    )


def worst_gaps(gaps: dict[int, dict[int, list[float]]]) -> Iterator[tuple[str, ...]]:
    """List the worst gaps, a row for each schedule."""
    for period, by_length in gaps.items():
        yield f"{period} min", *(f"{max(of) / MINUTE:.1f}" for of in by_length.values())


def describe(task: Task, outcome: Outcome) -> tuple[str, ...]:
    """Describe what came of a scenario."""
    scenario, _, policy = task
    *_, (_, end) = scenario.outages or [scenario.aws_away]
    return (
        scenario.name if policy == next(iter(POLICIES)) else "",
        policy,
        f"{outcome.valid_share:.3%}",
        f"{outcome.longest_gap / MINUTE:.1f}",
        f"{outcome.seconds_without_token_after(end):.0f}" if end else "",
        f"{len(outcome.requests):,}",
        f"{len(outcome.writes):,}",
        f"{outcome.lambda_seconds:,.0f}",
        f"{dollars_of(outcome):.3f}",
    )


def draw_timeline(path: Path) -> None:
    """Draw one outage: ticks, attempts, the old token and the new, and the gap."""
    begin = 3 * STACK.period - 2 * MINUTE
    end = begin + 28 * MINUTE
    outcome = simulate(Scenario("", seconds=4 * STACK.period, outages=((begin, end),)), seed=1)
    tick = 3 * STACK.period

    def minutes(moment: float) -> float:
        return (moment - tick) / MINUTE

    figure, axes = report.make_chart(7.6, 2.9)
    rows = {"provider away": 4, "requests": 3, "old token": 2, "new token": 1, "no valid token": 0}

    def bar(row: str, first: float, last: float, color: str) -> None:
        width = minutes(last) - minutes(first)
        axes.barh(rows[row], width, left=minutes(first), color=color, height=0.55)

    (written, expires), (renewed, renewed_until) = [
        write for write in outcome.writes if write[1] > begin
    ][:2]
    bar("provider away", begin, end, report.ORANGE)
    requests = [minutes(moment) for moment in outcome.requests if written < moment <= renewed]
    axes.plot(requests, [rows["requests"]] * len(requests), "|", color=report.GREY, markersize=11)
    bar("old token", written, expires, report.BLUE)
    bar("new token", renewed, renewed_until, report.GREEN)
    bar("no valid token", expires, renewed, report.RED)
    axes.annotate(f"{(renewed - expires) / MINUTE:.0f} min", (minutes(renewed) + 1, 0), va="center")
    for moment in (0, minutes(tick + STACK.period)):
        axes.axvline(moment, color=report.GREY, linewidth=0.8, linestyle=":")
        axes.text(moment, 4.6, "tick", ha="center")
    axes.set_yticks(list(rows.values()), list(rows))
    axes.set_xlim(-20, minutes(tick + STACK.period) + 5)
    axes.set_ylim(-0.5, 5)
    axes.set_xlabel("minutes after the tick")
    report.save(figure, path)


def draw_policies(by_policy: dict[str, list[Outcome]], path: Path) -> None:
    """Draw the gap against the length of the outage: worst and average phase."""
    figure, axes = report.make_chart(7.6, 3.4)
    colors = (report.GREEN, report.BLUE, report.ORANGE)
    widths = (2, 2, 6)  # where two lines are the same, both show
    for (policy, outcomes), color, width in reversed(
        list(zip(by_policy.items(), colors, widths, strict=True))
    ):
        gaps = gaps_by_length(CHART_MINUTES, outcomes)
        worst = [max(of_length) / MINUTE for of_length in gaps.values()]
        average = [statistics.mean(of_length) / MINUTE for of_length in gaps.values()]
        axes.plot(CHART_MINUTES, worst, color=color, linewidth=width, label=policy)
        axes.plot(CHART_MINUTES, average, ":", color=color, linewidth=width / 2)
    axes.set_xlabel("outage, minutes")
    axes.set_ylabel("without a valid token, minutes")
    axes.set_title("at the worst moment of the cycle, and dotted on average")
    axes.legend()
    report.save(figure, path)


def draw_schedules(availabilities: list[float], dollars: list[float], path: Path) -> None:
    """Draw what a shorter schedule brings, and what Lambda costs with it."""
    figure, axes = report.make_chart(7.6, 3.2)
    missing = [(1 - share) * YEAR / MINUTE for share in availabilities]
    axes.plot(PERIODS_MINUTES, missing, "o-", color=report.BLUE)
    for period, minutes, price in zip(PERIODS_MINUTES, missing, dollars, strict=True):
        axes.annotate(
            f"{price:.3f}", (period, minutes), (0, 8), textcoords="offset points", ha="center"
        )
    axes.set_xlabel("schedule's period, minutes")
    axes.set_ylabel("minutes a year without a valid token")
    axes.set_title(
        f"incidents of {listed(INCIDENTS_MINUTES)} minutes; at the points: Lambda, US$ a month"
    )
    axes.set_ylim(0, max(missing) * 1.2)
    report.save(figure, path)


if __name__ == "__main__":
    main()
