"""
A fake AWS Lambda: the Runtime API on a loopback port, and the context of an invocation.

The real runtime client, ``awslambdaric``, polls the API for events, calls the handler and posts
its result. Its process can import only the function's package and what the Lambda runtime provides,
so a dependency that is missing from the package is missing here as well.
"""

import json
import queue
import re
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from aws_lambda_powertools.utilities.typing import LambdaContext
from werkzeug import Request, Response

from local.fakes.loopback import LoopbackServer

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


class LambdaRuntime(LoopbackServer):
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
        super().__init__(Request.application(self._serve))
        self._package = package
        self._environment = environment
        self._timeout_seconds = timeout_seconds
        self._handler = handler
        self._ready = threading.Event()
        self._events: queue.Queue[object] = queue.Queue()
        self._endings: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115 (closed when the process is)

    def __enter__(self) -> Self:
        super().__enter__()
        self._process = subprocess.Popen(
            [RUNTIME_PYTHON, "-m", "awslambdaric", self._handler],
            cwd=self._package,
            env={
                "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
                "AWS_LAMBDA_FUNCTION_NAME": FUNCTION_NAME,
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
                "AWS_LAMBDA_LOG_FORMAT": "JSON",
                "AWS_LAMBDA_LOG_LEVEL": "INFO",
                "AWS_LAMBDA_RUNTIME_API": self.address.removeprefix("http://"),
                # The code folder is read-only in Lambda.
                "PYTHONDONTWRITEBYTECODE": "1",
                **self._environment,
            },
            stdout=self._output,
            stderr=self._output,
        )
        threading.Thread(target=self._wait, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._process.wait()
        super().__exit__(*exception)
        self._output.close()

    @property
    def output(self) -> str:
        """Everything that the function has written so far: log lines and metrics."""
        return Path(self._output.name).read_text(encoding="utf-8")

    @property
    def peak_memory_bytes(self) -> int:
        """The peak of the resident memory of the process so far: ``VmHWM`` in proc(5)."""
        # Not ru_maxrss of wait4(2): exec keeps it, so it is at least the memory of this process.
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024

    def wait_until_ready(self) -> None:
        """Wait until the function has started, and requests its first event."""
        if not self._ready.wait(60):
            raise FunctionError("Runtime did not start within 60 seconds")

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def invoke(self, event: object) -> Any:  # noqa: ANN401 (JSON)
        """
        Invoke the function, and return its result.

        Raises:
            FunctionError: The function failed.
        """
        self._events.put(event)
        try:
            ending, document = self._endings.get(timeout=self._timeout_seconds)
        except queue.Empty:
            self.kill()
            message = f"Task timed out after {self._timeout_seconds:.2f} seconds"
            raise FunctionError(message) from None
        if ending == "exit":
            raise FunctionError(f"Runtime exited with status {document}")
        if ending == "error":
            raise FunctionError(f"{document['errorType']}: {document['errorMessage']}")
        return document

    def _wait(self) -> None:
        self._endings.put(("exit", self._process.wait()))

    def _serve(self, request: Request) -> Response:
        """Answer ``…/next`` when there is an event; accept ``…/response`` and ``…/error``."""
        if request.method == "POST":
            self._endings.put((request.path.rpartition("/")[2], json.loads(request.data)))
            return Response(status=202)
        self._ready.set()
        event = json.dumps(self._events.get())
        headers = {
            "Lambda-Runtime-Aws-Request-Id": str(uuid.uuid4()),
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + self._timeout_seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": FUNCTION_ARN,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):x}-{uuid.uuid4().hex[:24]}",
        }
        return Response(event, headers=headers, content_type="application/json")
