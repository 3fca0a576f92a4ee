"""The checks before a change is merged and the monthly update, as far as no runner is needed."""

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from samcli.yamlhelper import yaml_parse
from werkzeug import Request, Response

from local.fakes.loopback import LoopbackServer
from tests.package import PROGRAMS
from tests.programs import make, need
from tests.samples import PROJECT

MAKE = """\
#!/bin/sh
echo made
[ "$2" != "FAULTS=503 429 timeout" ]
"""
UPDATE = yaml_parse((PROJECT / ".github/workflows/update.yml").read_text(encoding="utf-8"))["jobs"]
REQUIREMENTS = [
    "functions/requirements.txt",
    "requirements-aws.txt",
    "requirements-dev.txt",
    "requirements-runtime.txt",
]


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

    lines = ended.stdout.splitlines()
    assert lines[:4] == ["Running: make check", "made", "Running: make test", "made"]
    assert "Running: make run" in lines
    assert lines[-2:] == ["made", r"Failed: make run FAULTS=503\ 429\ timeout"]
    assert ended.returncode == 1


def test_saved_first() -> None:
    """The new versions are saved before code of any of them runs."""
    steps = [step.get("run") or step["uses"].split("@")[0] for step in UPDATE["lock"]["steps"]]

    assert steps[-3:] == ["make lock", "actions/upload-artifact", ".ci/run"]


@Request.application
def package_index(request: Request) -> Response:
    """An index with a package that has an old release, a young one, and one that must be built."""
    if request.path.endswith(".metadata"):
        return Response(f"Metadata-Version: 2.1\nName: p\nVersion: {request.path[3]}\n")
    files = [
        {
            "filename": name,
            "url": f"/{name}",
            "hashes": {"sha256": "0" * 64},
            "core-metadata": True,
            "upload-time": (datetime.now(UTC) - timedelta(days=days)).isoformat(),
        }
        for name, days in (
            ("p-1-py3-none-any.whl", 8),
            ("p-2-py3-none-any.whl", 6),
            ("p-3.tar.gz", 8),
        )
    ]
    document = json.dumps({"meta": {"api-version": "1.1"}, "name": "p", "files": files})
    return Response(document, content_type="application/vnd.pypi.simple.v1+json")


def test_left_out(tmp_path: Path) -> None:
    """The update leaves out releases that are younger than seven days, or whose code would run."""
    (variables,) = [step["env"] for step in UPDATE["lock"]["steps"] if "env" in step]
    groups = "".join(f'{name} = ["p"]\n' for name in ("function", "dev", "runtime", "aws"))
    (tmp_path / "pyproject.toml").write_text(f"[dependency-groups]\n{groups}", encoding="utf-8")
    (tmp_path / "functions").mkdir()
    _, commands = make("-n", "lock")

    with LoopbackServer(package_index) as index:
        settings = {"UV_DEFAULT_INDEX": index.address, "UV_NO_CACHE": "1", "PATH": str(PROGRAMS)}
        subprocess.run(
            [str(shutil.which("sh")), "-e", "-c", "\n".join(commands)],
            cwd=tmp_path,
            env=os.environ | variables | settings,
            check=True,
        )

    assert all("p==1 " in (tmp_path / name).read_text("utf-8") for name in REQUIREMENTS)


def test_proposal(tmp_path: Path) -> None:
    """The pull request changes the requirement files alone, and nothing in the artifact runs."""
    need("git")
    *_, download, propose = UPDATE["propose"]["steps"]
    checkout, origin, temporary = (tmp_path / name for name in ("checkout", "origin", "temporary"))
    path = download["with"].get("path", str(checkout))
    artifact = Path(path.replace("${{ runner.temp }}", str(temporary)))
    environment = {
        **propose["env"],
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "RUNNER_TEMP": str(temporary),
    }

    def run(script: str) -> str:
        command = ["bash", "-e", "-c", script]
        return subprocess.check_output(command, cwd=checkout, env=environment, text=True)

    def write(folder: Path, text: str) -> None:
        for name in [*REQUIREMENTS, "Makefile", ".git/config"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")

    (tmp_path / "gh").symlink_to(str(shutil.which("true")))
    write(checkout, "")
    run(
        f"git init --quiet && git init --quiet --bare {origin} && git remote add origin {origin} &&"
        "git add . && git -c user.name=x -c user.email=x commit --quiet --message Start"
    )
    write(artifact, f'[core]\nfsmonitor = touch ran #\n[remote "origin"]\nurl = {origin}\n')
    run(propose["run"])

    changed = run(f"git -C {origin} show --format= --name-only update").splitlines()
    assert changed == REQUIREMENTS
    assert not (checkout / "ran").exists()
