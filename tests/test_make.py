"""What `make` does before it runs a command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.programs import need
from tests.samples import PROJECT

if TYPE_CHECKING:
    from pathlib import Path


def make(
    *arguments: str, folder: Path = PROJECT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `make` as in a terminal, not as a part of `make test`."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        [str(shutil.which("make")), "--no-print-directory", *arguments],
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help() -> None:
    """The list of the targets fits a terminal of 80 columns."""
    lines = make("help").stdout.splitlines()

    assert "  make run       run one rotation on this machine" in lines
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run faults=503", "unknown: faults; choose from PYTHON FAULTS "),
        ("example EXAMPLE=", "unknown: EXAMPLE=; choose from python lambda node shell."),
        ("example EXAMPLE=perl", "unknown: EXAMPLE=perl; choose from python lambda node shell."),
        ("example EXAMPLE=node", "missing for EXAMPLE=node: Node.js 20 or newer, with npm."),
        ("example EXAMPLE=shell", "missing for EXAMPLE=shell: jq curl."),
    ],
)
def test_mistakes(arguments: str, message: str, tmp_path: Path) -> None:
    """What would end a command is said in one line, before anything is set up."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sed", "cat", "uname"):
        (programs / name).symlink_to(str(shutil.which(name)))

    made = make(*arguments.split(" "), folder=tmp_path, PATH=str(programs))

    assert made.returncode == 2
    assert message in made.stderr
    assert made.stdout + made.stderr.partition("\n")[2] == ""
    assert sorted(tmp_path.iterdir()) == [tmp_path / "Makefile", programs]


def test_node() -> None:
    """With Node.js and npm, the Node.js example is checked and runs."""
    need("node", "npm")

    assert "npm run --silent check\n" in make("-n", "check").stdout
    assert make("-n", "example", "EXAMPLE=node").returncode == 0


def test_venv(tmp_path: Path) -> None:
    """`.venv` is set up again in another folder, and when its Python is another one or gone."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "requirements-dev.txt"):
        shutil.copy(PROJECT / name, folder)
    venv = folder / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stamp = venv / "installed"

    def is_set_up(folder: Path) -> bool:
        return "Setting up" not in make("-n", "run", folder=folder).stdout

    stamp.write_text(f"{venv}/lib/python3.10/site-packages\n")
    assert not is_set_up(folder)
    stamp.write_text(f"{venv}/lib/{version}/site-packages\n")
    assert is_set_up(folder)

    moved = folder.rename(tmp_path / "renamed, moved")
    assert not is_set_up(moved)
    moved.rename(folder)
    assert is_set_up(folder)

    (venv / "bin" / "python").unlink()
    assert not is_set_up(folder)
