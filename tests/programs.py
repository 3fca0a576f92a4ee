"""The programs of this machine that some tests run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.samples import PROJECT


def need(*names: str) -> None:
    """Skip a test on a machine where a program or a folder is missing or too old; fail it in CI."""
    problems = [problem for name in names if (problem := find_problem(name))]
    if problems:
        stop = pytest.fail if "CI" in os.environ else pytest.skip
        stop(", ".join(problems))


@cache
def find_problem(name: str) -> str:
    """Say what is wrong with a program or a folder, if something is."""
    if not shutil.which(name) and not Path(name).is_dir():
        return f"{name} is missing"
    if name == "node":
        package = json.loads((PROJECT / "examples/node/package.json").read_text())
        oldest = package["engines"]["node"].removeprefix(">=")
        version = subprocess.check_output(["node", "--version"], text=True).strip()
        if int(re.findall(r"\d+", version)[0]) < int(oldest):
            return f"Node.js {version} is too old: the example needs {oldest} or newer"
    return ""
