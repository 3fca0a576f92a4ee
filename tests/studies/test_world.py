"""The world in which outages are simulated."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.samples import PROJECT


def test_locale() -> None:
    """It reads the template as UTF-8, whatever the encoding of the locale is."""
    subprocess.run(
        [sys.executable, "-c", "import studies.world"],
        cwd=PROJECT,
        env={
            **os.environ,
            "PYTHONPATH": "functions",
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
        check=True,
    )
