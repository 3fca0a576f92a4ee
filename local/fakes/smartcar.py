"""
A fake Smartcar: a token endpoint as its documentation describes it, with scripted faults.

It serves ``POST /oauth2/token`` on a free loopback port. Each request gets the next fault of the
script, if there is one. A fault is an `Answer`, or one of these words:

- ``503``, or any other status: answers with it; 429 has ``Retry-After: 1``, and 400, 401, 429
  and 503 have the OAuth error code that belongs to them
- ``timeout``: accepts the request and never answers
- ``reset``: resets the connection
- ``html``: answers 200 with a page labeled as JSON
- ``truncated``: answers 200 and ends in the middle of the body
- ``slow``: answers 200 and sends the body byte by byte, without end
- ``slow-headers``: does the same with the headers
- ``flood``: answers 200 with an endless body
- ``redirect``: answers 307 with another address

It also serves ``GET /v3/connections``, which represents Smartcar's API: it accepts the tokens that
were issued, until they are revoked, and answers 401 to all others.
"""

import itertools
import json
import re
import secrets
import socket
import struct
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from werkzeug import Request, Response

from local.fakes.loopback import LoopbackServer

FAULTS = ("timeout", "reset", "html", "truncated", "slow", "slow-headers", "flood", "redirect")

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
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


_ANSWERS = {
    "html": Answer(200, b"<html><h1>Sign in</h1></html>", {"Content-Type": "application/json"}),
    "truncated": Answer(200, [b'{"access_token": "eyJ'], {"Content-Length": "900"}),
    "flood": Answer(200, itertools.repeat(b" " * 65536)),
    "redirect": Answer(307, headers={"Location": "/elsewhere"}),
}


class FakeSmartcar(LoopbackServer):
    """
    The server, as a context manager that starts and stops it.

    Args:
        faults: The script, as described in the module.
        certificate: The files of a certificate for ``localhost`` and its key, to serve over TLS.

    Attributes:
        url: The URL of the token endpoint.
        api_url: The base URL of the API.
        client_id: The only client ID that is accepted.
        client_secret: The client secret that is accepted.
        faults: The rest of the script; more may be added.
        requests: The form of each token request so far.
        api_statuses: The status of each response of the API so far.
        tokens: The tokens that the API accepts.

    Raises:
        ValueError: The script has an unknown word.
    """

    client_id = "client_8f3b1c6e"
    client_secret = "kYz7Q2vXw9Lr4TnB/5+ %&="  # noqa: S105 (made up, with what a form has to encode)

    def __init__(
        self, faults: Iterable[str | Answer] = (), certificate: tuple[str, str] | None = None
    ) -> None:
        super().__init__(Request.application(self._serve), certificate)
        self.url = f"{self.address}/oauth2/token"
        self.api_url = f"{self.address}/v3"
        self.requests: list[Mapping[str, str]] = []
        self.api_statuses: list[int] = []
        self.tokens: set[str] = set()
        self.faults = deque(faults)
        for fault in self.faults:
            if isinstance(fault, str) and not re.fullmatch(rf"\d{{3}}|{'|'.join(FAULTS)}", fault):
                words = f"a status such as 503, or one of {', '.join(FAULTS)}"
                raise ValueError(f"unknown fault {fault!r}; choose {words}")

    def issue_token(self) -> str:
        """Make a token that the API accepts; it looks like a JSON Web Token of the usual size."""
        token = "eyJhbGciOiJSUzI1NiJ9." + secrets.token_urlsafe(632)
        self.tokens.add(token)
        return token

    def revoke(self, access_token: str) -> None:
        """Make the API reject a token from now on."""
        self.tokens.remove(access_token)

    def _serve(self, request: Request) -> Response:
        if request.path == "/v3/connections":
            return self._list_connections(request)
        # At any other path: a client that follows a redirect gets a token, which a test notices.
        self.requests.append(request.form)
        fault = self.faults.popleft() if self.faults else None
        if fault is None:
            return self._answer(request.form)
        if isinstance(fault, str):
            fault = _ANSWERS.get(fault, fault)
        if isinstance(fault, Answer):
            return Response(fault.body, fault.status, fault.headers)
        if fault in _ERROR_CODES:
            return _error(int(fault), _ERROR_CODES[fault])
        if fault.isdigit():
            return Response(status=int(fault))
        return self._fail(fault, request.environ["werkzeug.socket"])

    def _list_connections(self, request: Request) -> Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        response = _json({"data": []}) if token in self.tokens else _error(401, "invalid_token")
        self.api_statuses.append(response.status_code)
        return response

    def _answer(self, form: Mapping[str, str]) -> Response:
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type")
        credentials = form.get("client_id"), form.get("client_secret")
        if credentials != (self.client_id, self.client_secret):
            return _error(401, "invalid_client")
        token = self.issue_token()
        return _json({"access_token": token, "token_type": "bearer", "expires_in": 3600})

    def _fail(self, fault: str, connection: socket.socket) -> Response:
        if fault == "slow":
            return Response(self.drip())
        if fault == "reset":
            # A socket that is closed with a linger time of 0 sends RST instead of FIN. Its end for
            # reading is shut down, so that the server does not wait for another request.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RD)
            connection.close()
            raise ConnectionResetError
        if fault == "slow-headers":
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drips: ")
            for byte in self.drip():
                connection.sendall(byte)
        self.stopping.wait()  # all that ``timeout`` does
        return Response(status=504)


def _json(document: object, status: int = 200) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")


def _error(status: int, code: str) -> Response:
    """Make an error response (RFC 6749 section 5.2)."""
    response = _json({"error": code}, status)
    if status == 429:
        response.headers["Retry-After"] = "1"
    return response
