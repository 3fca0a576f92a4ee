"""A WSGI application on a free loopback port."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

from werkzeug.serving import make_server

if TYPE_CHECKING:
    import ssl
    from wsgiref.types import WSGIApplication

# The server would write a line for each request.
logging.getLogger("werkzeug").setLevel(logging.WARNING)


class LoopbackServer:
    """
    Serves an application, as a context manager that starts and stops it.

    Args:
        application: What is served.
        ssl_context: With which it is served over TLS, as ``localhost``; otherwise it is not.

    Attributes:
        address: Where it is served, such as ``http://127.0.0.1:43329``.
        stopping: Set when it stops, for what would wait for ever.
    """

    def __init__(
        self, application: WSGIApplication, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._server = make_server(
            "127.0.0.1", 0, application, threaded=True, ssl_context=ssl_context
        )
        origin = "https://localhost" if ssl_context else "http://127.0.0.1"
        self.address = f"{origin}:{self._server.server_port}"
        self.stopping = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
