"""The programs of this machine that some tests run, and how they run `make`."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.samples import PROJECT

MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")
OLDEST_NODE = int(re.findall(r"OLDEST_NODE := (\d+)", MAKEFILE)[0])


def need(*names: str) -> None:
    """Skip a test on a machine where a program or a folder is missing or too old; fail it in CI."""
    stop = pytest.fail if "CI" in os.environ else pytest.skip
    for name in names:
        if not shutil.which(name) and not Path(name).is_dir():
            stop(f"{name} is missing")
    if "node" in names:
        version = subprocess.check_output(["node", "--version"], text=True)
        if int(re.findall(r"\d+", version)[0]) < OLDEST_NODE:
            stop(f"Node.js {version.strip()} is older than {OLDEST_NODE}")


def make(*arguments: str, folder: Path = PROJECT, **environment: str) -> tuple[int, list[str]]:
    """Run `make` as in a terminal; return its status and the lines of the programs it runs."""
    inherited = dict(os.environ)
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # those of the `make` that runs the tests
        inherited.pop(name, None)
    ended = subprocess.run(
        [str(shutil.which("make")), *arguments],
        cwd=folder,
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = ended.stdout.splitlines()
    return ended.returncode, [line for line in lines if not line.startswith("make: ")]
