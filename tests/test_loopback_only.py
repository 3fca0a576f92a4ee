"""No test reaches anything but loopback addresses."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.programs import need

REFUSED = "tests reach loopback addresses only"
AWS = Path(sys.prefix, "aws", "bin", "aws")


def test_this_process() -> None:
    """In the process of the tests, names are not resolved, and other addresses not used."""
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.socket() as connection:
        for reach_out in (
            lambda: httpx.get("https://smartcar.invalid"),
            lambda: socket.gethostbyname("smartcar.invalid"),
            lambda: connection.connect(("192.0.2.1", 443)),
            lambda: connection.connect_ex(("192.0.2.1", 443)),
            lambda: datagrams.sendto(b"", ("192.0.2.1", 53)),
        ):
            with pytest.raises(RuntimeError, match=REFUSED):
                reach_out()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ([sys.executable, "-c", "import httpx; httpx.get('https://smartcar.invalid')"], REFUSED),
        ([AWS, "sts", "get-caller-identity"], REFUSED),
        (["node", "-e", "fetch('https://smartcar.invalid')"], REFUSED),
        (["curl", "--silent", "--show-error", "https://smartcar.invalid"], "127.0.0.1 port 9"),
    ],
    ids=["python", "aws", "node", "curl"],
)
def test_other_processes(command: list[str], error: str) -> None:
    """Programs that a test starts do not reach out either."""
    need(command[0])

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode != 0
    assert error in ended.stderr
