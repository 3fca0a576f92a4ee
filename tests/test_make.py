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


def make_python(program: Path, statement: str) -> None:
    """Make a Python that runs a statement before the code of its option `-c`."""
    code = f"import sys; {statement}; exec(sys.argv[2])"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make` needs to set up `.venv`."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "requirements-dev.txt"):
        shutil.copy(PROJECT / name, folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run faults=503", "unknown setting: faults; choose from PYTHON FAULTS "),
        ("example EXAMPLE=", "unknown example: ; choose from python lambda node shell."),
        ("example EXAMPLE=perl", "unknown example: perl; choose from python lambda node shell."),
        ("example EXAMPLE=node", "missing for EXAMPLE=node: Node.js 20 or newer, with npm."),
        ("example EXAMPLE=shell", "missing for EXAMPLE=shell: jq curl."),
        ("run PYTHON=python9", "PYTHON=python9 does not run; choose one of Python 3.11 to 3.14."),
        ("run PYTHON=python3.10", "but 3.11 to 3.14 is required; specify another one, "),
        ("run PYTHON=python3.15", "but 3.11 to 3.14 is required; specify another one, "),
        ("run PYTHON=python3.13", "on Debian and Ubuntu: apt install python3.13-venv"),
    ],
)
def test_mistakes(arguments: str, message: str, checkout: Path, tmp_path: Path) -> None:
    """What would end a command is said in one line, before anything is set up."""
    for name in ("sh", "sed", "cat", "uname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    make_python(tmp_path / "python3.10", "sys.version_info = (3, 10, 9)")
    make_python(tmp_path / "python3.15", "sys.version_info = (3, 15, 0)")
    make_python(tmp_path / "python3.13", 'sys.modules["ensurepip"] = None')

    status, (line,) = make(*arguments.split(" "), folder=checkout, PATH=str(tmp_path))

    assert status == 2
    assert message in line
    assert not (checkout / ".venv").exists()


def test_node() -> None:
    """With Node.js and npm, the Node.js example is checked and runs."""
    need("node", "npm")

    assert "cd examples/node && npm run --silent check" in make("-n", "check")[1]
    assert make("-n", "example", "EXAMPLE=node")[0] == 0


def test_venv(checkout: Path, tmp_path: Path) -> None:
    """`.venv` is set up again in another folder, without its Python, and for another PYTHON."""
    venv = checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stamp = venv / "installed"

    def is_set_up(folder: Path, **environment: str) -> bool:
        return "Setting up" not in "".join(make("-n", "run", folder=folder, **environment)[1])

    stamp.write_text(f"{venv}/lib/python3.10/site-packages\n", encoding="utf-8")
    assert not is_set_up(checkout)
    stamp.write_text(f"{venv}/lib/{version}/site-packages\n", encoding="utf-8")
    assert is_set_up(checkout)

    make_python(tmp_path / "python3", "sys.version_info = (3, 99, 0)")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert is_set_up(checkout, PATH=path)
    _, another = make("-n", "run", folder=checkout, PATH=path, PYTHON="python3")
    assert f'"{tmp_path}/python3" -m venv --clear .venv' in another
    assert is_set_up(checkout, PATH=path, PYTHON=sys.executable)

    moved = shutil.copytree(checkout, tmp_path / "renamed, moved", symlinks=True)
    assert not is_set_up(moved)
    (venv / "bin" / "python").unlink()
    assert not is_set_up(checkout)
