"""
A fake AWS Lambda: the Runtime API on a loopback port, and the context of an invocation.

The real runtime client, ``awslambdaric``, polls the API for events, calls the handler and posts
its result. Its process can import only the function's package and what the Lambda runtime provides,
so a dependency that is missing from the package is missing here as well.
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aws_lambda_powertools.utilities.typing import LambdaContext

if TYPE_CHECKING:
    from collections.abc import Mapping

HANDLER = "rotate_token.handler.lambda_handler"
FUNCTION_NAME = "RotateTokenFunction"
FUNCTION_ARN = f"arn:aws:lambda:us-east-1:123456789012:function:{FUNCTION_NAME}"
MEMORY_MB = 512

RUNTIME_PYTHON = Path(__file__).parents[2] / ".venv" / "runtime" / "bin" / "python"
"""A virtual environment with the packages of the Lambda runtime for Python; `make` creates it."""


class LocalContext(LambdaContext):
    """The context of an invocation in this process, which ends in `timeout_seconds`."""

    def __init__(self, timeout_seconds: float) -> None:
        self._deadline = time.time() + timeout_seconds
        self._aws_request_id = str(uuid.uuid4())
        self._function_name = FUNCTION_NAME
        self._invoked_function_arn = FUNCTION_ARN
        self._memory_limit_in_mb = MEMORY_MB

    def get_remaining_time_in_millis(self) -> int:  # type: ignore[override]
        """Return the milliseconds that are left."""
        return int((self._deadline - time.time()) * 1000)


class FunctionError(Exception):
    """The function raised, did not start, or timed out; the message is that of Lambda."""


class LambdaRuntime:
    """
    One execution environment, as a context manager that starts and ends its process.

    Args:
        package: The folder that `sam build` created for the function.
        environment: The function's environment variables.
        timeout_seconds: The function's timeout.
        handler: The function's handler.
    """

    def __init__(
        self,
        package: Path,
        environment: Mapping[str, str],
        timeout_seconds: float = 900,
        handler: str = HANDLER,
    ) -> None:
        self._package = package
        self._environment = environment
        self._timeout_seconds = timeout_seconds
        self._handler = handler
        self._api = _RuntimeApi(timeout_seconds)
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115 (closed when the process is)

    def __enter__(self) -> Self:
        threading.Thread(target=self._api.serve_forever, args=(0.05,), daemon=True).start()
        self._process = subprocess.Popen(
            [RUNTIME_PYTHON, "-m", "awslambdaric", self._handler],
            cwd=self._package,
            env={
                "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
                "AWS_LAMBDA_FUNCTION_NAME": FUNCTION_NAME,
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_LOG_FORMAT": "JSON",
                "AWS_LAMBDA_LOG_LEVEL": "INFO",
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}",
                "LAMBDA_TASK_ROOT": str(self._package),
                # The code folder is read-only in Lambda.
                "PYTHONDONTWRITEBYTECODE": "1",
                **self._environment,
            },
            stdout=self._output,
            stderr=self._output,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        self._api.shutdown()
        self._api.server_close()
        self._output.close()

    @property
    def output(self) -> str:
        """Everything that the function has written so far: log lines and metrics."""
        return Path(self._output.name).read_text()

    def wait_until_ready(self) -> None:
        """Wait until the function has started, and requests its first event."""
        if not self._api.ready.wait(60):
            raise FunctionError("Runtime did not start within 60 seconds")

    @property
    def pid(self) -> int:
        """The ID of the process."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that the process has used so far, in all its threads."""
        return time.clock_gettime(~self.pid << 3 | 2)  # as clock_getcpuclockid(3) does

    @property
    def peak_memory_bytes(self) -> int:
        """The peak of the resident memory of the process so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (kibibytes,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
        return int(kibibytes) * 1024

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def invoke(self, event: object) -> Any:  # noqa: ANN401 (JSON)
        """
        Invoke the function, and return its result.

        Raises:
            FunctionError: The function failed.
        """
        deadline = time.monotonic() + self._timeout_seconds
        self._api.events.put(event)
        while True:
            try:
                ending, document = self._api.endings.get(timeout=0.1)
            except queue.Empty:
                if self._process.poll() is not None:
                    raise FunctionError(
                        f"Runtime exited with status {self._process.returncode}"
                    ) from None
                if time.monotonic() > deadline:
                    self.kill()
                    raise FunctionError(
                        f"Task timed out after {self._timeout_seconds:.2f} seconds"
                    ) from None
            else:
                break
        if ending == "error":
            raise FunctionError(f"{document['errorType']}: {document['errorMessage']}")
        return document


class _RuntimeApi(ThreadingHTTPServer):
    """The calls of the runtime client: next event, response, error, and initialization error."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeApiHandler)
        self.timeout_seconds = timeout_seconds
        self.ready = threading.Event()
        self.events: queue.Queue[object] = queue.Queue()
        self.endings: queue.Queue[tuple[str, Any]] = queue.Queue()


class _RuntimeApiHandler(BaseHTTPRequestHandler):
    server: _RuntimeApi

    def do_GET(self) -> None:
        """Answer ``/invocation/next`` as soon as there is an event."""
        self.server.ready.set()
        event = json.dumps(self.server.events.get()).encode()
        deadline_ms = int((time.time() + self.server.timeout_seconds) * 1000)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(event)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", str(uuid.uuid4()))
        self.send_header("Lambda-Runtime-Deadline-Ms", str(deadline_ms))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", FUNCTION_ARN)
        self.send_header(
            "Lambda-Runtime-Trace-Id",
            f"Root=1-{int(time.time()):x}-{uuid.uuid4().hex[:24]};Sampled=0",
        )
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        """Accept ``/invocation/{id}/response``, ``/invocation/{id}/error`` or ``/init/error``."""
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.endings.put((self.path.rsplit("/", 1)[1], document))

    def log_message(self, *_: object) -> None:
        pass
