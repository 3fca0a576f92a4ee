"""The package that `sam build` creates."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(sys.executable).parent


def build_package(project: Path, folder: Path, programs: Path = PROGRAMS, umask: int = -1) -> Path:
    """Build the function of a project, with the Python in `programs`; return its package."""
    # Without the guard of the tests: pip downloads the dependencies.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    build = subprocess.run(
        [PROGRAMS / "sam", "build", "--build-dir", folder],
        cwd=project,
        env={
            **environment,
            "PATH": f"{programs}{os.pathsep}{environment['PATH']}",
            "SAM_CLI_TELEMETRY": "0",
        },
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder / "RotateTokenFunction"
