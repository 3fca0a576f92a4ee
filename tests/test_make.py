"""What `make` does before it runs a command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import make, need
from tests.samples import PROJECT


def test_help() -> None:
    """The list of the targets fits a terminal of 80 columns."""
    _, lines = make("help")

    assert "  make run       run one rotation on this machine" in lines
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run faults=503", "unknown setting: faults; choose from PYTHON FAULTS "),
        ("example EXAMPLE=", "unknown example: ; choose from python lambda node shell."),
        ("example EXAMPLE=perl", "unknown example: perl; choose from python lambda node shell."),
        ("example EXAMPLE=node", "missing for EXAMPLE=node: Node.js 20 or newer, with npm."),
        ("example EXAMPLE=shell", "missing for EXAMPLE=shell: jq curl."),
        ("run PYTHON=python9", "PYTHON=python9 does not run; choose one of Python 3.11 to 3.14."),
    ],
)
def test_mistakes(arguments: str, message: str, tmp_path: Path) -> None:
    """What would end a command is said in one line, before anything is set up."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sed", "cat", "uname"):
        (programs / name).symlink_to(str(shutil.which(name)))

    status, (line,) = make(*arguments.split(" "), folder=tmp_path, PATH=str(programs))

    assert status == 2
    assert message in line
    assert sorted(tmp_path.iterdir()) == [tmp_path / "Makefile", programs]


def make_python(program: Path, statement: str) -> None:
    """Make a Python that runs a statement before the code of its option `-c`."""
    code = f"import sys; {statement}; exec(sys.argv[2])"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "statement", "message"),
    [
        ("python3", "sys.version_info = (3, 10, 9)", "but 3.11 to 3.14 is required; specify"),
        ("python3", "sys.version_info = (3, 15, 0)", "but 3.11 to 3.14 is required; specify"),
        ("python3", 'sys.modules["ensurepip"] = None', ": apt install python3-venv"),
        ("python3.13", 'sys.modules["ensurepip"] = None', ": apt install python3.13-venv"),
    ],
)
def test_python(name: str, statement: str, message: str, tmp_path: Path) -> None:
    """A Python that does not work is said in one line, before anything is installed."""
    for file in ("Makefile", "requirements-dev.txt"):
        shutil.copy(PROJECT / file, tmp_path)
    make_python(tmp_path / name, statement)

    status, (line,) = make("run", folder=tmp_path, PYTHON=str(tmp_path / name))

    assert status == 2
    assert message in line
    assert not (tmp_path / ".venv").exists()


def test_node() -> None:
    """With Node.js and npm, the Node.js example is checked and runs."""
    need("node", "npm")

    assert "cd examples/node && npm run --silent check" in make("-n", "check")[1]
    assert make("-n", "example", "EXAMPLE=node")[0] == 0


def test_venv(tmp_path: Path) -> None:
    """`.venv` is set up again in another folder, without its Python, and for another PYTHON."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "requirements-dev.txt"):
        shutil.copy(PROJECT / name, folder)
    venv = folder / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stamp = venv / "installed"

    def is_set_up(folder: Path, **environment: str) -> bool:
        return "Setting up" not in "".join(make("-n", "run", folder=folder, **environment)[1])

    stamp.write_text(f"{venv}/lib/python3.10/site-packages\n", encoding="utf-8")
    assert not is_set_up(folder)
    stamp.write_text(f"{venv}/lib/{version}/site-packages\n", encoding="utf-8")
    assert is_set_up(folder)

    make_python(tmp_path / "python3", "sys.version_info = (3, 99, 0)")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert is_set_up(folder, PATH=path)
    _, another = make("-n", "run", folder=folder, PATH=path, PYTHON="python3")
    assert f'"{tmp_path}/python3" -m venv --clear .venv' in another
    assert is_set_up(folder, PATH=path, PYTHON=sys.executable)

    moved = folder.rename(tmp_path / "renamed, moved")
    assert not is_set_up(moved)
    moved.rename(folder)
    assert is_set_up(folder)

    (venv / "bin" / "python").unlink()
    assert not is_set_up(folder)
