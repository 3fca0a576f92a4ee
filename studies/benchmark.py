"""
What a run costs, beside a bare script that does the least of it: what `make bench` starts.

Both run in turn, each time in a fresh process under the real runtime client. The tables go to the
terminal and, between its two marks, into ``docs/benchmark.md``; the chart stands beside that.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import certifi

from local.fakes.lambda_runtime import HANDLER, MEMORY_MB, RUNTIME_PYTHON, LambdaRuntime
from local.fakes.loopback import make_certificate
from local.fakes.secrets_manager import FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from studies import report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local.fakes.loopback import LoopbackServer

WARM_RUNS = 5
FORCED = {"force": True}

ARTIFACT = Path(".aws-sam", "build", "RotateTokenFunction")
SIDES = {
    "artifact": (ARTIFACT, HANDLER),
    "script": (Path("studies", "baselines", "bare"), "handler.lambda_handler"),
}

COLD, FIRST, BOTH, CPU, MEMORY, WARM = FIGURES = (
    "cold start, ms",
    "first run, ms",
    "cold start and first run, ms",
    "CPU time of both, ms",
    "peak memory, MiB",
    "warm run, ms",
)
GOALS = {BOTH: 1.00, CPU: 1.00, MEMORY: 1.05, WARM: 0.80}
ZIPPED_GOAL_BYTES = 2_500_000

RUNS_A_MONTH = 30 * 24 * 60 // 50
US_DOLLARS_PER_GB_SECOND = 0.0000133334
"""Lambda's list price on arm64 in us-east-1, as of 2025."""
MEMORY_MB_OF_ONE_CPU = 1769
"""Lambda gives a function CPU time in proportion to its memory: with this much, one whole CPU."""

DOCUMENT = Path("docs", "benchmark.md")
CHART = Path("docs", "benchmark.svg")

Sample = dict[str, float]
"""A value of each figure."""


def main(pairs: int) -> None:
    """Measure everything in so many pairs, and write it down."""
    version = subprocess.check_output([RUNTIME_PYTHON, "--version"], text=True).strip()
    if not version.startswith("Python 3.13."):
        sys.exit(
            f"Lambda runs Python 3.13, {RUNTIME_PYTHON} is {version}: install python3.13, "
            "remove .venv/runtime, and try again"
        )
    machine = f"{platform.machine()} with {os.cpu_count()} CPUs"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        secrets_manager = stack.enter_context(FakeSecretsManager())
        secrets_manager.reset(FakeSmartcar.client_id, FakeSmartcar.client_secret)
        certificate = folder / "certificate"
        make_certificate(certificate)
        # Both load as many trusted certificates as they would in Lambda.
        trusted = folder / "trusted"
        trusted.write_text(certifi.contents() + certificate.read_text())
        plain = stack.enter_context(FakeSmartcar())
        tls = stack.enter_context(FakeSmartcar(certificate=certificate))
        environment = {
            **secrets_manager.environment,
            "POWERTOOLS_SERVICE_NAME": "bench",
            "SSL_CERT_FILE": str(trusted),
        }
        over_tls = measure_pairs(pairs, {**environment, "TOKEN_URL": tls.url})
        without_tls = measure_pairs(pairs, {**environment, "TOKEN_URL": plain.url})
        profiles = {side: profile(side, {**environment, "TOKEN_URL": tls.url}) for side in SIDES}
        wire = list(measure_wire(environment, secrets_manager, tls))
        zipped = Path(shutil.make_archive(str(folder / "package"), "zip", ARTIFACT)).stat().st_size

    text = "\n\n".join(
        [
            f"{version}, {machine}, {pairs} pairs: medians, and quartiles in brackets.",
            "**With TLS at the token endpoint**",
            compare(over_tls),
            "**Without TLS**",
            compare(without_tls),
            "**Package, modules, calls**",
            report.table(("", "artifact", "script", "goal"), describe(zipped, profiles)),
            "**One run by phase**, over TLS: calls, bytes and ms, to the end of the answer",
            report.table(
                (
                    "",
                    "AWS calls",
                    "bytes, AWS",
                    "bytes, endpoint",
                    "goal",
                    "ms, AWS",
                    "ms, endpoint",
                    "ms, the rest",
                ),
                wire,
            ),
            "**Where a cold rotation imports**, ms of each package alone; being watched slows it",
            report.table(("package", "artifact", "script"), imports(profiles)),
            "**Memory sizes**, on paper, from the CPU time measured above",
            report.table(
                ("memory, MB", "share of a CPU", "cold run, s", "US$ a month"),
                memory_sizes(statistics.median(s[CPU] for s in over_tls["artifact"]) / 1000),
            ),
        ]
    )
    report.write(DOCUMENT, text)
    draw(over_tls)


def measure_pairs(pairs: int, environment: Mapping[str, str]) -> dict[str, list[Sample]]:
    """Measure the sides in turn; who is first takes turns too."""
    samples: dict[str, list[Sample]] = {side: [] for side in SIDES}
    for pair in range(pairs):
        for side in sorted(SIDES, reverse=pair % 2 == 1):
            samples[side].append(measure(side, environment))
    return samples


def measure(side: str, environment: Mapping[str, str]) -> Sample:
    """Start one process, let it rotate, then rotate again while it is warm."""
    package, handler = SIDES[side]
    began_at = time.perf_counter()
    with LambdaRuntime(package, environment, handler=handler) as function:
        function.wait_until_ready()
        ready_at = time.perf_counter()
        function.invoke(FORCED)
        ended_at = time.perf_counter()
        sample = {
            COLD: (ready_at - began_at) * 1000,
            FIRST: (ended_at - ready_at) * 1000,
            BOTH: (ended_at - began_at) * 1000,
            CPU: function.cpu_seconds * 1000,
            MEMORY: function.peak_memory_bytes / 2**20,
        }
        began_at = time.perf_counter()
        for _ in range(WARM_RUNS):
            function.invoke(FORCED)
        sample[WARM] = (time.perf_counter() - began_at) / WARM_RUNS * 1000
    return sample


def ratios(samples: dict[str, list[Sample]], figure: str) -> list[float]:
    """Return the artifact's share of the script's figure, pair by pair."""
    return [
        artifact[figure] / script[figure]
        for artifact, script in zip(samples["artifact"], samples["script"], strict=True)
    ]


def compare(samples: dict[str, list[Sample]]) -> str:
    """Make a table of the figures: medians, with the middle half of the values."""
    rows = []
    for figure in FIGURES:
        of_pairs = ratios(samples, figure)
        goal = GOALS.get(figure)
        excess = statistics.median(of_pairs) - goal if goal else 0
        rows.append(
            (
                figure,
                *(spread([sample[figure] for sample in samples[side]], 1) for side in SIDES),
                spread(of_pairs, 2),
                f"≤ {goal:.2f}: {verdict(excess)}" if goal else "",
            )
        )
    return report.table(("", "artifact", "script", "ratio", "goal"), rows)


def verdict(excess: float) -> str:
    """Say whether a goal is met, and if not by how much."""
    return f"missed by {excess:.2f}" if round(excess, 2) > 0 else "met"


def spread(values: list[float], digits: int) -> str:
    """Write the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def imported_modules(output: str) -> dict[str, int]:
    """Read what ``PYTHONPROFILEIMPORTTIME`` wrote: each module, and its own microseconds."""
    lines = re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", output, re.MULTILINE)
    return {module: int(microseconds) for microseconds, module in lines}


def profile(side: str, environment: Mapping[str, str]) -> dict[str, int]:
    """Watch the imports of one cold rotation."""
    package, handler = SIDES[side]
    watched = {**environment, "PYTHONPROFILEIMPORTTIME": "1"}
    with LambdaRuntime(package, watched, handler=handler) as function:
        function.invoke(FORCED)
        return imported_modules(function.output)


def imports(profiles: dict[str, dict[str, int]]) -> Iterator[tuple[str, ...]]:
    """Sum the imports up by package, the dearest first."""
    by_side = {side: Counter[str]() for side in SIDES}
    for side, modules in profiles.items():
        for module, microseconds in modules.items():
            by_side[side][module.partition(".")[0]] += microseconds
    packages = sorted(set().union(*by_side.values()), key=lambda p: -by_side["artifact"][p])
    dear = [p for p in packages if max(counter[p] for counter in by_side.values()) >= 4000]
    rest = {
        side: counter.total() - sum(counter[p] for p in dear) for side, counter in by_side.items()
    }
    for package in dear:
        yield package, *(f"{by_side[side][package] / 1000:.1f}" for side in SIDES)
    yield "all others", *(f"{rest[side] / 1000:.1f}" for side in SIDES)
    yield "all", *(f"{by_side[side].total() / 1000:.1f}" for side in SIDES)


def describe(zipped_bytes: int, profiles: dict[str, dict[str, int]]) -> Iterator[tuple[str, ...]]:
    """List what does not depend on the machine."""
    unzipped_bytes = sum(path.stat().st_size for path in ARTIFACT.rglob("*") if path.is_file())
    excess = (zipped_bytes - ZIPPED_GOAL_BYTES) / 1e6
    yield "package zipped, MB", f"{zipped_bytes / 1e6:.2f}", "", f"≤ 2.50: {verdict(excess)}"
    yield "package unzipped, MB", f"{unzipped_bytes / 1e6:.2f}", "", ""
    yield "modules imported", *(str(len(profiles[side])) for side in SIDES), ""


class Relay(socketserver.ThreadingTCPServer):
    """Passes connections on to a port, and counts their bytes in both directions and their time."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), RelayHandler)
        self.port = port
        self.reset()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def reset(self) -> None:
        """Begin to count anew."""
        self.bytes = 0
        self.seconds = 0.0

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class RelayHandler(socketserver.BaseRequestHandler):
    """One connection; its time ends with the last of the answer."""

    server: Relay

    def handle(self) -> None:
        """Pass on what comes, in both directions, until both have ended."""
        self._counted_until = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self.server.port)) as other:
            back = threading.Thread(target=self._pass_on, args=(other, self.request))
            back.start()
            self._pass_on(self.request, other)
            back.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(ConnectionError):
            while data := source.recv(65536):
                self.server.bytes += len(data)
                if sink is self.request:
                    now = time.perf_counter()
                    self.server.seconds += now - self._counted_until
                    self._counted_until = now
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def measure_wire(
    environment: Mapping[str, str],
    secrets_manager: FakeSecretsManager,
    token_endpoint: FakeSmartcar,
) -> Iterator[tuple[str, ...]]:
    """Count the calls and bytes of one run, and take the times of its phases, five times each."""
    for name, side, events, most_calls in (
        ("artifact, cold rotation", "artifact", [FORCED], 3),
        ("artifact, warm rotation", "artifact", [FORCED, FORCED], 3),
        ("artifact, warm skip", "artifact", [FORCED, {}], 1),
        ("script, cold rotation", "script", [FORCED], None),
        ("script, warm rotation", "script", [FORCED, FORCED], None),
    ):
        package, handler = SIDES[side]
        times = []
        for _ in range(5):
            with Relay(port(secrets_manager)) as aws, Relay(port(token_endpoint)) as tokens:
                relayed = {
                    **environment,
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws.server_address[1]}",
                    "TOKEN_URL": token_endpoint.url.replace(
                        str(port(token_endpoint)), str(tokens.server_address[1])
                    ),
                }
                with LambdaRuntime(package, relayed, handler=handler) as function:
                    for event in events:
                        secrets_manager.calls.clear()
                        aws.reset()
                        tokens.reset()
                        began_at = time.perf_counter()
                        function.invoke(event)
                        seconds = time.perf_counter() - began_at
                    counts = len(secrets_manager.calls), aws.bytes, tokens.bytes
                    times.append((aws.seconds, tokens.seconds, seconds))
        at_aws, at_endpoint, whole = map(statistics.median, zip(*times, strict=True))
        goal = f"≤ {most_calls} calls: {verdict(counts[0] - most_calls)}" if most_calls else ""
        yield (
            name,
            *(f"{count:,}" for count in counts),
            goal,
            *(f"{s * 1000:.1f}" for s in (at_aws, at_endpoint, whole - at_aws - at_endpoint)),
        )


def port(server: LoopbackServer) -> int:
    """Return the port that a server listens on."""
    return int(server.address.rpartition(":")[2])


def memory_sizes(cpu_seconds: float) -> Iterator[tuple[str, ...]]:
    """Put the cost of a month beside each size, as if a run did nothing but use the CPU."""
    for megabytes in (128, MEMORY_MB, 512, 1024, MEMORY_MB_OF_ONE_CPU):
        share = megabytes / MEMORY_MB_OF_ONE_CPU
        seconds = cpu_seconds / share
        dollars = RUNS_A_MONTH * seconds * megabytes / 1024 * US_DOLLARS_PER_GB_SECOND
        yield str(megabytes), f"{share:.2f}", f"{seconds:.1f}", f"{dollars:.3f}"


def draw(samples: dict[str, list[Sample]]) -> None:
    """Draw the artifact's share of each of the script's figures."""
    figure, axes = report.make_chart(7.2, 2.8)
    names = [name.partition(",")[0] for name in FIGURES]
    values = [statistics.median(ratios(samples, name)) for name in FIGURES]
    bars = axes.barh(names, values, color=report.BLUE, height=0.6)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], label_type="center", color="white")
    axes.axvline(1, color=report.ORANGE)
    axes.text(1.01, -0.75, "bare script", color=report.ORANGE)
    axes.invert_yaxis()
    axes.set_xlim(0, max(*values, 1) * 1.15)
    axes.set_xlabel("artifact / script")
    report.save(figure, CHART)


if __name__ == "__main__":
    main(int(sys.argv[1]))
