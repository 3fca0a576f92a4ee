"""The checks before a change is merged, with programs that do nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.samples import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

MAKE = """\
#!/bin/sh
echo made
[ "$2" != "FAULTS=503 429 timeout" ]
"""


def test_names(tmp_path: Path) -> None:
    """`.ci/run` names each command before it runs, and ends with the one that failed."""
    (tmp_path / ".ci").mkdir()
    run = shutil.copy(PROJECT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "git").symlink_to(str(shutil.which("true")))
    (tmp_path / "make").write_text(MAKE, encoding="utf-8")
    (tmp_path / "make").chmod(0o755)

    ended = subprocess.run(
        [run],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert ended.stdout.splitlines() == [
        "Running: make check",
        "made",
        "Running: make test",
        "made",
        "Running: make run",
        "made",
        r"Running: make run FAULTS=503\ 429\ timeout",
        "made",
        r"Failed: make run FAULTS=503\ 429\ timeout",
    ]
    assert ended.returncode == 1
