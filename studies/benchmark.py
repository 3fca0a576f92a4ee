"""
Compare the cost of a cold rotation with that of two scripts: `make bench`.

Each rotation runs in a new process under the real runtime client, with the token endpoint behind
TLS. With ``WRITE=1``, the table and the chart in ``docs/`` are updated.
"""

import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from operator import truediv
from pathlib import Path

import certifi
from rich.progress import track
from werkzeug.serving import make_ssl_devcert

from local.fakes import isolate_environment
from local.fakes.lambda_runtime import HANDLER, RUNTIME_PYTHON, LambdaRuntime
from local.fakes.secrets_manager import FakeSecretsManager
from local.fakes.smartcar import FakeSmartcar
from studies import docs

Samples = dict[str, dict[str, list[float]]]
"""By side and figure: the values in the order of the rounds."""

BASELINES = Path("studies", "baselines")
FUNCTION = "this function"
CPU, MEMORY = "CPU time, ms", "peak memory, MiB"


def main(rounds: str) -> None:
    """Measure each side once in each round; print or write the table and the chart."""
    if not re.fullmatch(r"[2-9]|[1-9][0-9]+", rounds):
        sys.exit(f"ROUNDS must be 2 or more, not {rounds!r}")
    if not (RUNTIME_PYTHON.parents[1] / "lib" / "python3.13").exists():
        sys.exit(
            "make bench needs Linux and Python 3.13, the version that Lambda runs: "
            "install python3.13, delete .venv/runtime and run make bench again"
        )
    isolate_environment()
    with tempfile.TemporaryDirectory() as name, FakeSecretsManager() as secrets_manager:
        folder = Path(name)
        sides = package_sides(folder)
        certificate, key = make_ssl_devcert(str(folder / "localhost"), host="localhost")
        # Every side loads as many trusted certificates as it would in Lambda.
        trusted = folder / "trusted"
        trusted.write_text(
            certifi.contents() + Path(certificate).read_text(encoding="utf-8"), encoding="utf-8"
        )
        with FakeSmartcar(certificate=(certificate, key)) as endpoint:
            secrets_manager.reset(endpoint.client_id, endpoint.client_secret)
            environment = {
                **secrets_manager.environment,
                "POWERTOOLS_SERVICE_NAME": "bench",
                "SSL_CERT_FILE": str(trusted),
                "TOKEN_URL": endpoint.url,
            }
            # So that all files are in the cache.
            for package, handler in sides.values():
                measure(secrets_manager, environment, package, handler)
            samples: Samples = {side: defaultdict(list) for side in sides}
            for number in track(range(int(rounds)), "Cold rotations", transient=True):
                for side in sorted(sides, reverse=number % 2 == 1):
                    figures = measure(secrets_manager, environment, *sides[side])
                    for figure, value in figures.items():
                        samples[side][figure].append(value)
    machine = f"Python 3.13 on {platform.machine()} with {os.cpu_count()} CPUs, {rounds} rounds:"
    docs.write("benchmark.md", f"{machine}\n\n{compare(samples)}")
    draw(samples)


def package_sides(folder: Path) -> dict[str, tuple[Path, str]]:
    """Package each side; return its package and its handler."""
    sam = Path(sys.executable).with_name("sam")
    if subprocess.run([sam, "build", "--build-dir", folder], check=False).returncode:
        sys.exit("make bench: the function could not be packaged")
    package = folder / "RotateTokenFunction"
    ignore = shutil.ignore_patterns
    shutil.copytree(package, folder / "uncompiled", ignore=ignore("__pycache__"))
    shutil.copytree(package, folder / "tutorial", ignore=ignore("__pycache__", "rotate_token"))
    shutil.copy(BASELINES / "tutorial" / "handler.py", folder / "tutorial")
    return {
        FUNCTION: (package, HANDLER),
        "bare script": (BASELINES / "bare", "handler.lambda_handler"),
        "tutorial script": (folder / "tutorial", "handler.lambda_handler"),
        "this function without bytecode": (folder / "uncompiled", HANDLER),
    }


def measure(
    secrets_manager: FakeSecretsManager, environment: dict[str, str], package: Path, handler: str
) -> dict[str, float]:
    """Rotate once in a new process, and return its figures."""
    secrets_manager.calls.clear()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_at = time.perf_counter()
    with LambdaRuntime(package, environment, handler=handler) as function:
        function.invoke({"force": True})
        wall_seconds = time.perf_counter() - began_at
        peak_memory_bytes = function.peak_memory_bytes
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall time, ms": wall_seconds * 1000,
        CPU: cpu_seconds * 1000,
        MEMORY: peak_memory_bytes / 2**20,
        "calls to Secrets Manager": len(secrets_manager.calls),
    }


def compare(samples: Samples) -> str:
    """Make the table: the figures of each side, and the ratios within each round."""
    own = samples[FUNCTION]
    rows = []
    for side, figures in samples.items():
        ratios = [map(truediv, own[figure], figures[figure]) for figure in (CPU, MEMORY)]
        rows.append((side, *map(spread, figures.values()), *(spread(of, 2) for of in ratios)))
    return docs.table(("", *own, "CPU ratio", "memory ratio"), rows)


def spread(values: Iterable[float], digits: int = 0) -> str:
    """Write the median and, if they differ, the quartiles."""
    quartiles = statistics.quantiles(values, method="inclusive")
    low, middle, high = (f"{value:.{digits}f}" for value in quartiles)
    return middle if low == high else f"{middle} ({low} to {high})"


def draw(samples: Samples) -> None:
    """Draw the CPU time of each side."""
    with docs.chart("benchmark.svg", 7.2, 2.4) as axes:
        for side, figures in samples.items():
            color = docs.BLUE if side == FUNCTION else docs.ORANGE
            bar = axes.barh(side, statistics.median(figures[CPU]), color=color)
            axes.bar_label(bar, fmt="%.0f", padding=4)
        axes.invert_yaxis()
        axes.set_xlabel("CPU time of a cold rotation, ms (median)")


if __name__ == "__main__":
    main(sys.argv[1])
