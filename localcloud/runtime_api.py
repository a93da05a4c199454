"""One execution environment of Lambda: AWS's own runtime client, served by a minimal Runtime API on this machine.

The emulator runs functions for clients of the AWS API. Tests and benchmarks use this module instead, because they look
at the process itself: its log, its memory, its exit.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "/2018-06-01/runtime"
_EXIT = "exit"


@dataclass(frozen=True)
class Answer:
    """The result of an invocation: a payload, or an error in the form that Lambda gives it."""

    payload: Any
    error_type: str | None
    request_id: str
    duration_s: float

    @property
    def message(self) -> str:
        """The error's message, empty when there is none."""
        return str(self.payload.get("errorMessage", "")) if self.error_type else ""


class Function:
    """A function's process with its Runtime API. The process starts at once, before the first invocation.

    Args:
        package: the function's code directory.
        environment: its variables, as the stack would set them.
        python: the interpreter in place of Lambda's runtime; only `awslambdaric` is installed beside it.
    """

    def __init__(
        self,
        package: Path,
        environment: Mapping[str, str],
        python: Path,
        *,
        name: str = "template-saas-api-migrate-lambda-test",
        handler: str = "lambda_migrate.handler.handler",
        timeout_s: float = 60,
    ) -> None:
        self.timeout_s = timeout_s
        self.sent: list[str] = []  # the body of every answer and error
        self._arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
        self._requests: queue.Queue[tuple[str, bytes, float]] = queue.Queue()
        self._answers: queue.Queue[tuple[str, str, bytes]] = queue.Queue()
        self._server = _Server(("127.0.0.1", 0), _handler_class(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        # A file, because a full pipe would block the function.
        self._log_folder = tempfile.TemporaryDirectory()
        self._log = Path(self._log_folder.name) / "log"
        self._lines: list[str] = []
        log = self._log.open("ab")
        self._process = subprocess.Popen(
            [str(python), "-m", "awslambdaric", handler],
            cwd=package,
            env={
                "PATH": os.defpath,
                "LANG": "C.UTF-8",
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_address[1]}",
                "AWS_LAMBDA_FUNCTION_NAME": name,
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
                "AWS_LAMBDA_LOG_STREAM_NAME": "local",
                "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
                "LAMBDA_TASK_ROOT": str(package),
                "_HANDLER": handler,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        threading.Thread(target=self._wait, daemon=True).start()

    def __enter__(self) -> Function:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the runtime client."""
        return self._process.pid

    def start(self, event: object = None) -> str:
        """Send an event and return the invocation's request id, without waiting for the answer."""
        request_id = str(uuid.uuid4())
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        self._requests.put((request_id, body, time.time() + self.timeout_s))
        return request_id

    def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer to the last event. Kill the function at its timeout, as Lambda does."""
        started = time.monotonic()
        try:
            request_id, kind, body = self._answers.get(timeout=self.timeout_s if timeout_s is None else timeout_s)
        except queue.Empty:
            self.kill()
            return Answer({"errorMessage": "Task timed out"}, "Sandbox.Timedout", "", time.monotonic() - started)
        duration = time.monotonic() - started
        if kind == _EXIT:
            return Answer({"errorMessage": body.decode()}, "Runtime.ExitError", "", duration)
        payload = json.loads(body)
        error_type = payload.get("errorType", "Unhandled") if kind == "error" else None
        return Answer(payload, error_type, request_id, duration)

    def invoke(self, event: object = None) -> Answer:
        """Send an event and wait for the answer. Its duration starts here."""
        started = time.monotonic()
        self.start(event)
        answer = self.result()
        return Answer(answer.payload, answer.error_type, answer.request_id, time.monotonic() - started)

    def kill(self) -> None:
        """Kill the runtime client, but not the processes that it started, as a crash does."""
        self._process.kill()
        self._process.wait()

    def log(self) -> list[str]:
        """The lines written so far to standard output and standard error, also after `close`."""
        if self._log.exists():
            self._lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return self._lines

    def close(self) -> None:
        """End the process, whatever it started, and the Runtime API."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._server.shutdown()
        self._server.server_close()
        self.log()
        self._log_folder.cleanup()

    def _wait(self) -> None:
        code = self._process.wait()
        self._answers.put(("", _EXIT, f"Runtime exited with {code}".encode()))

    def _next(self) -> tuple[str, bytes, float]:
        return self._requests.get()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the broken connection that a killed function leaves."""


def _handler_class(function: Function) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are written separately. With Nagle's algorithm the body would wait for an acknowledgement.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            request_id, body, deadline = function._next()  # noqa: SLF001 - the other half of one class
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Lambda-Runtime-Aws-Request-Id", request_id)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int(deadline * 1000)))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", function._arn)  # noqa: SLF001
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            *_, request_id, kind = self.path.removeprefix(_PREFIX).split("/")
            function.sent.append(body.decode(errors="replace"))
            function._answers.put((request_id, kind, body))  # noqa: SLF001
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it
            """Log nothing."""

    return cast("type[http.server.BaseHTTPRequestHandler]", Handler)
