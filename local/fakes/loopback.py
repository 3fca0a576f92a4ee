"""A WSGI application on a free loopback port."""

import logging
import threading
from collections.abc import Iterator
from typing import Self
from wsgiref.types import WSGIApplication

from werkzeug.serving import make_server

# Otherwise, the server logs a line for each request.
logging.getLogger("werkzeug").setLevel(logging.WARNING)


class LoopbackServer:
    """
    Serves an application, as a context manager that starts and stops it.

    Args:
        application: The application to serve.
        certificate: The files of a certificate for ``localhost`` and its key, to serve over TLS.

    Attributes:
        address: Its URL, such as ``http://127.0.0.1:43329``.
        stopping: Set when the server stops, to end responses that hang.
    """

    def __init__(
        self, application: WSGIApplication, certificate: tuple[str, str] | None = None
    ) -> None:
        self._server = make_server(
            "127.0.0.1", 0, application, threaded=True, ssl_context=certificate
        )
        origin = "https://localhost" if certificate else "http://127.0.0.1"
        self.address = f"{origin}:{self._server.server_port}"
        self.stopping = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def drip(self) -> Iterator[bytes]:
        """Yield a byte every 10 ms, until the server stops."""
        while not self.stopping.wait(0.01):
            yield b" "
