"""A WSGI application on a free loopback port."""

from __future__ import annotations

import logging
import ssl
import threading
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from werkzeug.serving import generate_adhoc_ssl_pair, make_server

if TYPE_CHECKING:
    from pathlib import Path
    from wsgiref.types import WSGIApplication

# Otherwise, the server logs a line for each request.
logging.getLogger("werkzeug").setLevel(logging.WARNING)


def make_certificate(path: Path) -> None:
    """Write a new certificate for ``localhost``, and its key, to one file."""
    certificate, key = generate_adhoc_ssl_pair("localhost")
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )


class LoopbackServer:
    """
    Serves an application, as a context manager that starts and stops it.

    Args:
        application: The application to serve.
        certificate: A certificate that `make_certificate` wrote, to serve over TLS.

    Attributes:
        address: Its URL, such as ``http://127.0.0.1:43329``.
        stopping: Set when the server stops, to end responses that hang.
    """

    def __init__(self, application: WSGIApplication, certificate: Path | None = None) -> None:
        ssl_context = None
        if certificate:
            ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            ssl_context.load_cert_chain(certificate)
        self._server = make_server(
            "127.0.0.1", 0, application, threaded=True, ssl_context=ssl_context
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
