"""
Compare the cost of a cold rotation with that of two scripts: `make bench`.

Each rotation runs in a new process under the real runtime client, with the token endpoint behind
TLS. With ``WRITE=1``, the figures and the chart in ``docs/`` are updated.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from operator import truediv
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
from samcli.yamlhelper import yaml_parse

from local.fakes import isolate_environment
from local.fakes.lambda_runtime import HANDLER, RUNTIME_PYTHON, LambdaRuntime
from local.fakes.loopback import make_certificate
from local.fakes.secrets_manager import FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from rotate_token.retrying import RESERVED_SECONDS
from studies import report
from studies.prices import MEMORY_MB_OF_ONE_CPU, US_DOLLARS_PER_GB_SECOND, us_dollars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Side = tuple[Path, str]
    Rotate = Callable[..., dict[str, float]]
    Samples = dict[str, dict[str, list[float]]]

ARTIFACT = Path(".aws-sam", "build", "RotateTokenFunction")
BASELINES = Path("studies", "baselines")

FUNCTION, BARE, TUTORIAL, UNCOMPILED = (
    "this function",
    "bare script",
    "tutorial script",
    "this function without bytecode",
)
WALL, CPU, MEMORY, CALLS = FIGURES = (
    "wall time, ms",
    "CPU time, ms",
    "peak memory, MiB",
    "calls to Secrets Manager",
)
GOALS = {(CPU, BARE): 1.40, (CPU, TUTORIAL): 0.80, (MEMORY, BARE): 1.15}
GOAL_SECONDS = 2.50

TEMPLATE = yaml_parse(Path("template.yaml").read_text())
PROPERTIES = TEMPLATE["Resources"]["RotateTokenFunction"]["Properties"]
MEMORY_MB: int = PROPERTIES["MemorySize"]
MEMORY_SIZES_MB = sorted({256, 512, 1024, MEMORY_MB_OF_ONE_CPU, MEMORY_MB})
QUOTA_PERIOD_US = 20_000
"""Short, because a process may use its first quota immediately."""
RUNS_A_MONTH = 30 * 24 * 60 // 50


def main(pairs: int) -> None:
    """Measure the given number of pairs, and each memory size, and report."""
    if not (RUNTIME_PYTHON.parents[1] / "lib" / "python3.13").exists():
        sys.exit(
            "make bench needs Linux and Python 3.13, the version that Lambda runs: "
            "install python3.13, delete .venv/runtime and run make bench again"
        )
    isolate_environment()
    with tempfile.TemporaryDirectory() as name, FakeSecretsManager() as secrets_manager:
        folder = Path(name)
        secrets_manager.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
        certificate = folder / "certificate"
        make_certificate(certificate)
        # Every side loads as many trusted certificates as it would in Lambda.
        trusted = folder / "trusted"
        trusted.write_text(certifi.contents() + certificate.read_text())
        with FakeSmartcar(certificate=certificate) as endpoint:
            environment = {
                **secrets_manager.environment,
                "POWERTOOLS_SERVICE_NAME": "bench",
                "SSL_CERT_FILE": str(trusted),
                "TOKEN_URL": endpoint.url,
            }
            rotate = partial(measure, secrets_manager, environment)
            samples = measure_pairs(pairs, package_sides(folder), rotate)
            try:
                sizes = measure_sizes(min(pairs, 5), rotate)
            except OSError as error:
                sizes = f"Not measured: this machine allows no CPU quota ({error.strerror})."
    head = (
        f"Python 3.13 on {platform.machine()} with {os.cpu_count()} CPUs, {pairs} pairs: medians, "
        "with quartiles in parentheses. Ratios are this function's figure divided by the other's."
    )
    paragraphs = (
        head,
        compare(samples),
        "**A cold rotation by memory size**, with Lambda's share of a CPU:",
        sizes,
        "**A forgotten stack** whose `TokenUrl` does not resolve, for a month:",
        describe_forgotten_stack(),
    )
    report.write(Path("docs", "benchmark.md"), "\n\n".join(paragraphs))
    draw(samples)


def package_sides(folder: Path) -> dict[str, Side]:
    """Package each side; return its package and its handler."""
    ignore = shutil.ignore_patterns
    shutil.copytree(ARTIFACT, folder / "uncompiled", ignore=ignore("__pycache__"))
    shutil.copytree(ARTIFACT, folder / "tutorial", ignore=ignore("__pycache__", "rotate_token"))
    shutil.copy(BASELINES / "tutorial" / "handler.py", folder / "tutorial")
    return {
        FUNCTION: (ARTIFACT, HANDLER),
        BARE: (BASELINES / "bare", "handler.lambda_handler"),
        TUTORIAL: (folder / "tutorial", "handler.lambda_handler"),
        UNCOMPILED: (folder / "uncompiled", HANDLER),
    }


def measure(
    secrets_manager: FakeSecretsManager,
    environment: Mapping[str, str],
    side: Side = (ARTIFACT, HANDLER),
    processes: Path | None = None,
) -> dict[str, float]:
    """Rotate once in a new process, in a control group if one is given; return its figures."""
    package, handler = side
    secrets_manager.calls.clear()
    began_at = time.perf_counter()
    with LambdaRuntime(package, environment, handler=handler) as function:
        if processes:
            processes.write_text(str(function.pid))
        function.invoke({"force": True})
        return {
            WALL: (time.perf_counter() - began_at) * 1000,
            CPU: function.cpu_seconds * 1000,
            MEMORY: function.peak_memory_bytes / 2**20,
            CALLS: len(secrets_manager.calls),
        }


def measure_pairs(pairs: int, sides: dict[str, Side], rotate: Rotate) -> Samples:
    """Measure each side once per pair, in alternating order."""
    for package_and_handler in sides.values():
        rotate(package_and_handler)  # so that all files are in the cache
    samples: Samples = {side: defaultdict(list) for side in sides}
    turns = [side for pair in range(pairs) for side in sorted(sides, reverse=pair % 2 == 1)]
    for side in report.track(turns, "Cold rotations", len(turns)):
        for figure, value in rotate(sides[side]).items():
            samples[side][figure].append(value)
    return samples


def measure_sizes(runs: int, rotate: Rotate) -> str:
    """List the time and the price of a cold rotation at each memory size."""
    seconds = defaultdict[int, list[float]](list)
    turns = MEMORY_SIZES_MB * runs
    for megabytes in report.track(turns, "Memory sizes", len(turns)):
        with cpu_quota(megabytes / MEMORY_MB_OF_ONE_CPU) as processes:
            seconds[megabytes].append(rotate(processes=processes)[WALL] / 1000)
    lines = []
    for megabytes, values in seconds.items():
        median = statistics.median(values)
        dollars = us_dollars(RUNS_A_MONTH * median, megabytes)
        goal = verdict(median, GOAL_SECONDS) if megabytes == MEMORY_MB else ""
        lines.append(f"- {megabytes:,} MB: {median:.1f} s, US$ {dollars:.3f} a month{goal}")
    return "\n".join(lines)


@contextmanager
def cpu_quota(share: float) -> Iterator[Path]:
    """
    Make a control group with a share of one CPU; yield the file for its process IDs.

    Raises:
        OSError: This machine does not allow CPU quotas.
    """
    is_v1 = Path("/sys/fs/cgroup/cpu").exists()
    control_group = Path("/sys/fs/cgroup", "cpu" if is_v1 else "", f"bench-{os.getpid()}")
    quota = round(share * QUOTA_PERIOD_US)
    control_group.mkdir()
    try:
        if is_v1:
            (control_group / "cpu.cfs_period_us").write_text(str(QUOTA_PERIOD_US))
            (control_group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (control_group / "cpu.max").write_text(f"{quota} {QUOTA_PERIOD_US}")
        yield control_group / "cgroup.procs"
    finally:
        control_group.rmdir()


def compare(samples: Samples) -> str:
    """Make the table: the figures of each side, and the ratios with their goals."""
    rows = []
    for side, values in samples.items():
        row = [side, *(spread(values[figure]) for figure in FIGURES)]
        for figure in (CPU, MEMORY):
            ratios = list(map(truediv, samples[FUNCTION][figure], values[figure]))
            goal = GOALS.get((figure, side))
            row.append(
                spread(ratios, 2) + (verdict(statistics.median(ratios), goal) if goal else "")
            )
        rows.append(row)
    return report.table(("", *FIGURES, "CPU ratio", "memory ratio"), rows)


def quartiles(values: list[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    return statistics.quantiles(values, method="inclusive")


def spread(values: list[float], digits: int = 0) -> str:
    """Write the median and, if they differ, the quartiles."""
    low, middle, high = (f"{value:.{digits}f}" for value in quartiles(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def verdict(value: float, goal: float) -> str:
    """Describe whether a goal is met, and if not, by how much it is missed."""
    excess = round(value - goal, 2)
    return f"; goal ≤ {goal:.2f}: {f'missed by {excess:.2f}' if excess > 0 else 'met'}"


def describe_forgotten_stack() -> str:
    """Calculate the cost of a stack in which each run retries until the end of its time."""
    runs = 1 + PROPERTIES["EventInvokeConfig"]["MaximumRetryAttempts"]
    seconds = PROPERTIES["Timeout"] - RESERVED_SECONDS
    dollars = us_dollars(RUNS_A_MONTH * runs * seconds, MEMORY_MB)
    return (
        f"{RUNS_A_MONTH} events × {runs} runs × {seconds:.0f} s × {MEMORY_MB / 1024} GB × "  # noqa: RUF001
        f"US$ {US_DOLLARS_PER_GB_SECOND:.10f} = US$ {dollars:.2f}."
    )


def draw(samples: Samples) -> None:
    """Draw the CPU time of each side, with its quartiles."""
    figure, axes = report.make_chart(7.2, 2.4)
    for row, (side, values) in enumerate(samples.items()):
        low, middle, high = quartiles(values[CPU])
        axes.barh(row, middle, color=report.BLUE if side == FUNCTION else report.ORANGE)
        axes.plot([low, high], [row, row], color=report.GREY)
        axes.text(high, row, f"  {middle:.0f}", va="center")
    axes.set_yticks(range(len(samples)), list(samples))
    axes.invert_yaxis()
    axes.set_xlabel("CPU time of a cold rotation, ms")
    report.save(figure, Path("docs", "benchmark.svg"))


if __name__ == "__main__":
    main(max(2, int(sys.argv[1])))
