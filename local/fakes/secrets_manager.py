"""A fake AWS Secrets Manager: moto on a free loopback port, with scripted faults."""

import io
import json
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug import Response
from werkzeug.test import Client

from local.fakes.loopback import LoopbackServer
from rotate_token.access_token import AccessToken

CREDENTIALS_SECRET_ID = "smartcar/client-credentials"  # noqa: S105 (a name)
TOKEN_SECRET_ID = "smartcar-token/access-token"  # noqa: S105 (a name)

ACCESS_KEY_ID = secrets.token_hex()
"""What requests are signed with; no other user of this machine and no page in a browser has it."""


@dataclass
class Fault:
    """
    A fault in calls of an operation on a secret.

    Attributes:
        operation: Such as ``GetSecretValue``.
        secret_id: The secret's name.
        code: An AWS error code, such as ``ThrottlingException``; ``hang`` for no answer; ``drip``
            for one that arrives byte by byte and does not end; ``cut`` or ``cut-error`` for an
            answer or an error that ends in the middle of its body.
        times: How many calls fail; all of them by default.
    """

    operation: str
    secret_id: str
    code: str
    times: float = float("inf")


class FakeSecretsManager(LoopbackServer):
    """
    The service, as a context manager that starts and stops its server.

    It answers only requests that are signed with `ACCESS_KEY_ID`.

    Attributes:
        environment: The environment variables with which a function uses this service.
        client: A client of the service.
        faults: The current faults; may be changed at any time.
        calls: The operation and the secret of each call so far.
    """

    def __init__(self) -> None:
        super().__init__(self._serve)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self.environment = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",  # for the SDK for JavaScript
            "AWS_ENDPOINT_URL": self.address,
            "CREDENTIALS_SECRET_ID": CREDENTIALS_SECRET_ID,
            "TOKEN_SECRET_ID": TOKEN_SECRET_ID,
        }
        self.client = boto3.client(
            "secretsmanager",
            endpoint_url=self.address,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key="testing",  # noqa: S106 (made up)
        )
        self.faults: list[Fault] = []
        self.calls: list[tuple[str, str]] = []

    def reset(self, client_id: str, client_secret: str) -> None:
        """Reset to two secrets: these client credentials, and a token secret without a value."""
        self.faults.clear()
        Client(self._answer).post("/moto-api/reset")
        credentials = {"client_id": client_id, "client_secret": client_secret}
        self.client.create_secret(Name=CREDENTIALS_SECRET_ID, SecretString=json.dumps(credentials))
        self.client.create_secret(Name=TOKEN_SECRET_ID)
        self.calls.clear()

    def publish(self, access_token: str) -> None:
        """Publish a token that was just issued, as the function does."""
        token = AccessToken(access_token, expires_in=3600, issued_at=int(time.time()))
        self.client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=token.to_json())

    def published(self) -> str:
        """Return what a consumer reads: the value of the token secret."""
        return self.client.get_secret_value(SecretId=TOKEN_SECRET_ID)["SecretString"]

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if f"Credential={ACCESS_KEY_ID}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return Response(status=403)(environ, start_response)
        if operation:
            call = operation, json.loads(body).get("SecretId", "")
            self.calls.append(call)
            for fault in self.faults:
                if call == (fault.operation, fault.secret_id) and fault.times > 0:
                    fault.times -= 1
                    return self._fail(fault, environ, start_response)
        return self._answer(environ, start_response)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        # AWS changes a secret atomically; moto does it in several steps.
        with self._one_at_a_time:
            return list(self._moto(environ, start_response))

    def _fail(
        self, fault: Fault, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        if fault.code == "cut":
            # The headers announce the complete body.
            body = b"".join(self._answer(environ, start_response))
            return [body[: len(body) // 2]]
        if fault.code == "drip":
            start_response("200 OK", [])
            return self.drip()
        if fault.code == "hang":
            self.stopping.wait()
        status = "500 No" if fault.code == "InternalServiceError" else "400 No"
        body = json.dumps({"__type": fault.code, "message": "As scripted."}).encode()
        start_response(status, [("Content-Length", str(len(body)))])
        return [body[:20] if fault.code == "cut-error" else body]
