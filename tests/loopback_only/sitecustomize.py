"""
Lets Python reach loopback addresses only; Python imports this module when it starts.

An audit hook would be shorter, but Python 3.11 cannot trace two new threads at the same time if
there is one, and the coverage of the tests traces each thread.
"""

import re
import socket
from collections.abc import Callable
from typing import Any


def refuse_other_hosts(function: Callable[..., Any], position: int) -> Callable[..., Any]:
    """Make a function raise an error if its argument at a position is not loopback."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        target = args[position]
        host = target[0] if isinstance(target, tuple) else target
        # The functions encode a name in this way first, so that a malformed one is their own error.
        name = (
            host if isinstance(host, bytes) else str(host or "localhost").encode("idna")
        ).decode()
        if not re.fullmatch(r"localhost|::1|127(\.\d+){3}|/.+", name):
            raise RuntimeError(f"tests reach loopback addresses only, not {name}")
        return function(*args, **kwargs)

    return guarded


socket.getaddrinfo = refuse_other_hosts(socket.getaddrinfo, 0)
socket.gethostbyname = refuse_other_hosts(socket.gethostbyname, 0)
socket.socket.connect = refuse_other_hosts(socket.socket.connect, 1)  # type: ignore[method-assign]
socket.socket.connect_ex = refuse_other_hosts(socket.socket.connect_ex, 1)  # type: ignore[method-assign]
socket.socket.sendto = refuse_other_hosts(socket.socket.sendto, -1)  # type: ignore[method-assign]
