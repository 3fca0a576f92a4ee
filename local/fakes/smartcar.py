"""
A fake Smartcar: a token endpoint as its documentation describes it, with scripted faults.

It serves ``POST /oauth2/token`` on a free loopback port. Each request gets the next fault of the
script, if there is one. A fault is an `Answer`, or one of these words:

- ``503``, or any other status: answers with it; 429 has ``Retry-After: 1``
- ``timeout``: accepts the request and never answers
- ``reset``: resets the connection
- ``html``: answers 200 with a page labeled as JSON
- ``truncated``: answers 200 and ends in the middle of the body
- ``slow``: answers 200 and sends a byte of the body each second, for a minute
- ``slow-headers``: does the same with the headers
- ``flood``: answers 200 with an endless body
- ``redirect``: answers 307 with another address
- ``ok``: answers normally

It also serves ``GET /v3/connections``, which represents Smartcar's API: it accepts the tokens that
were issued, until they expire or are revoked, and answers 401 to all others.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import secrets
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import Flask, Response, redirect, request

from local.fakes.loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from werkzeug.wrappers import Response as WerkzeugResponse

FAULTS = (
    *("timeout", "reset", "html", "truncated", "slow", "slow-headers", "flood", "redirect"),
    "ok",
)
LIFETIME_SECONDS = 3600
SLOW_SECONDS = 60

_ERROR_CODES = {
    "400": "invalid_request",
    "401": "invalid_client",
    "429": "temporarily_unavailable",
    "503": "temporarily_unavailable",
}


@dataclass(frozen=True)
class Answer:
    """A response to send instead of the normal one."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FakeSmartcar(LoopbackServer):
    """
    The server, as a context manager that starts and stops it.

    Args:
        faults: The script, as described in the module.
        certificate: A certificate, to serve over TLS.

    Attributes:
        url: The URL of the token endpoint.
        api_url: The base URL of the API.
        client_id: The only client ID that is accepted.
        client_secret: The client secret that is accepted.
        faults: The rest of the script; more may be added.
        requests: The headers and the form of each token request so far.
        api_statuses: The status of each response of the API so far.
        expiries: When each token that is not revoked expires, in Unix time.

    Raises:
        ValueError: The script has an unknown word.
    """

    client_id = "client_8f3b1c6e"
    client_secret = "kYz7Q2vXw9Lr4TnB/5+ %&="  # noqa: S105 (made up, with what a form has to encode)

    def __init__(
        self, faults: Iterable[str | Answer] = (), certificate: Path | None = None
    ) -> None:
        app = Flask(__name__)
        app.post("/oauth2/token")(self._token)
        app.get("/v3/connections")(self._connections)
        super().__init__(app, certificate)
        self.url = f"{self.address}/oauth2/token"
        self.api_url = f"{self.address}/v3"
        self.api_statuses: list[int] = []
        self.expiries: dict[str, float] = {}
        self.requests: list[tuple[dict[str, str], dict[str, str]]] = []
        self.faults = deque(faults)
        for fault in self.faults:
            if isinstance(fault, str) and not re.fullmatch(rf"\d{{3}}|{'|'.join(FAULTS)}", fault):
                words = f"a status such as 503, {', '.join(FAULTS)}"
                raise ValueError(f"unknown fault {fault!r}; choose from {words}")

    def revoke(self, access_token: str) -> None:
        """Make the API reject a token from now on."""
        del self.expiries[access_token]

    def _connections(self) -> WerkzeugResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        known = self.expiries.get(token, 0) > time.time()
        self.api_statuses.append(200 if known else 401)
        return _json(200, {"data": []}) if known else _error(401, "invalid_token")

    def _token(self) -> WerkzeugResponse:
        self.requests.append((dict(request.headers), request.form.to_dict()))
        fault = self.faults.popleft() if self.faults else "ok"
        if isinstance(fault, Answer):
            return Response(fault.body, fault.status, fault.headers)
        if fault == "ok":
            return self._answer_normally()
        if fault.isdigit():
            return _error(int(fault), _ERROR_CODES.get(fault, "server_error"))
        fail: Callable[[], WerkzeugResponse] = getattr(self, f"_{fault.replace('-', '_')}")
        return fail()

    def _answer_normally(self) -> WerkzeugResponse:
        if request.mimetype != "application/x-www-form-urlencoded":
            return _error(400, "invalid_request")
        form = request.form
        if not {"grant_type", "client_id", "client_secret"} <= form.keys():
            return _error(400, "invalid_request")
        if form["grant_type"] != "client_credentials":
            return _error(400, "unsupported_grant_type")
        if (form["client_id"], form["client_secret"]) != (self.client_id, self.client_secret):
            return _error(401, "invalid_client")
        issued = _token_response()
        self.expiries[str(issued["access_token"])] = time.time() + LIFETIME_SECONDS
        return _json(200, issued)

    def _timeout(self) -> WerkzeugResponse:
        self.stopping.wait()
        return Response(status=504)

    def _reset(self) -> WerkzeugResponse:
        connection: socket.socket = request.environ["werkzeug.socket"]

        def reset() -> Iterator[bytes]:
            # A socket that is closed with a linger time of 0 sends RST instead of FIN. The server
            # continues with one end of a socket pair in its place.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stand_in, other_end = socket.socketpair()
            with stand_in, other_end:
                os.dup2(stand_in.fileno(), connection.fileno())
            raise ConnectionResetError
            yield

        return Response(reset())

    def _html(self) -> WerkzeugResponse:
        return Response("<html><h1>Sign in</h1></html>", content_type="application/json")

    def _truncated(self) -> WerkzeugResponse:
        body = json.dumps(_token_response())
        response = Response(iter([body[: len(body) // 2]]), content_type="application/json")
        response.headers["Content-Length"] = str(len(body))
        return response

    def _slow(self) -> WerkzeugResponse:
        def drip() -> Iterator[bytes]:
            for _ in range(SLOW_SECONDS):
                if self.stopping.wait(1):
                    return
                yield b" "

        return Response(drip(), content_type="application/json")

    def _slow_headers(self) -> WerkzeugResponse:
        connection: socket.socket = request.environ["werkzeug.socket"]

        def drip() -> Iterator[bytes]:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drips: ")
            for _ in range(SLOW_SECONDS):
                if self.stopping.wait(1):
                    break
                connection.sendall(b"x")
            raise ConnectionAbortedError
            yield

        return Response(drip())

    def _flood(self) -> WerkzeugResponse:
        return Response(itertools.repeat(b" " * 65536), content_type="application/json")

    def _redirect(self) -> WerkzeugResponse:
        return redirect(f"{self.url}/elsewhere", code=307)


def _token_response() -> dict[str, str | int]:
    """Make a token response with a token that looks like a JSON Web Token of the usual size."""
    issued_at = int(time.time())
    claims = {
        "iss": "https://iam.smartcar.com",
        "sub": "client_local",
        "iat": issued_at,
        "exp": issued_at + LIFETIME_SECONDS,
        "jti": secrets.token_hex(128),
    }
    parts = (b'{"alg":"RS256","typ":"JWT"}', json.dumps(claims).encode(), secrets.token_bytes(256))
    return {
        "access_token": ".".join(
            base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts
        ),
        "token_type": "bearer",
        "expires_in": LIFETIME_SECONDS,
    }


def _json(status: int, document: Mapping[str, object]) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")


def _error(status: int, code: str) -> Response:
    """Make an error response (RFC 6749 section 5.2)."""
    response = _json(status, {"error": code, "error_description": f"Scripted: {code}"})
    if status == 429:
        response.headers["Retry-After"] = "1"
    return response
