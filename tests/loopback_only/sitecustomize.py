"""Lets Python reach loopback addresses only; Python imports this module when it starts."""

from __future__ import annotations

import re
import sys


def refuse_other_hosts(event: str, args: tuple[object, ...]) -> None:
    """Raise an error before a name is resolved, or an address is used, that is not loopback."""
    host: object = None
    if event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = args[0]
    elif event in {"socket.connect", "socket.sendto"} and isinstance(args[1], tuple):
        host = args[1][0]
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    if not re.fullmatch(r"localhost|::1|127(\.\d+){3}", name):
        raise RuntimeError(f"tests reach loopback addresses only, not {name}")


sys.addaudithook(refuse_other_hosts)
