"""A stub of AWS with the answers of a test: Lambda's Invoke and CloudWatch's FilterLogEvents over real HTTP."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.support import http_stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUEST_ID = "11111111-2222-3333-4444-555555555555"


_IDENTITY = (
    b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    b"<Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)


@dataclass(frozen=True)
class Reply:
    """An answer of AWS, with a delay and a condition. Without a body the stub closes the connection."""

    body: Any = None
    status: int = 200
    error: str | None = None
    function_error: bool = False
    after_s: float = 0
    until: Callable[[], object] = lambda: True


def refusal(status: int, code: str, message: str = "says AWS") -> Reply:
    """An answer of Lambda's own instead of the function's."""
    return Reply({"Message": message, "message": message}, status, error=code)


def failure(kind: str, message: str = "says the function") -> Reply:
    """An error that the function raised."""
    return Reply({"errorType": kind, "errorMessage": message}, function_error=True)


def result(action: str = "upgrade", **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """An answer of the function's, with some fields changed."""
    return {
        "status": "ok",
        "action": action,
        "stage": "dev",
        "database": "app",
        "schema": None,
        "previous_revision": "aaaa",
        "revision": "bbbb",
        "up_to_date": True,
        "applied": [{"revision": "bbbb", "description": "Add users", "duration_ms": 14}],
        "pending": [],
        "attempts": 1,
        "lock_wait_ms": 0,
        "duration_ms": 2345,
        "request_id": REQUEST_ID,
        **changes,
    }


@dataclass
class Stub:
    """``replies`` are given one after the other, the last one forever; ``lines`` returns the log's lines.

    By default, the log has the line of each failure that the function raised.
    """

    endpoint: str = ""
    replies: list[Reply] = field(default_factory=lambda: [Reply(result())])
    lines: Callable[[], list[dict[str, Any]]] | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)
    logs_refusal: Reply | None = None
    events: list[Any] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    log_requests: list[dict[str, Any]] = field(default_factory=list)
    # CodeBuild: what StartBuild was sent, and the answers of BatchGetBuilds, the last one forever.
    started: list[dict[str, Any]] = field(default_factory=list)
    builds: list[Reply] = field(default_factory=list)
    start_refusal: Reply | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment with which boto3 uses this stub."""
        return http_stub.aws_settings(self.endpoint)

    def invoked(self, path: str, event: Any) -> Reply:  # noqa: ANN401 - JSON
        """Answer an invocation."""
        self.functions.append(unquote(path.split("/")[3]))
        self.events.append(event)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply.function_error:
            failed = {"error_type": reply.body["errorType"]}
            self.failures.append(line("migration.failed", reply.body["errorMessage"], **failed))
        return reply

    def asked_for_build(self, operation: str, request: dict[str, Any]) -> Reply:
        """Start a build, or return its state."""
        if operation == "StartBuild":
            self.started.append(request)
            return self.start_refusal or Reply({"build": {"id": f"{request['projectName']}:{REQUEST_ID}"}})
        return self.builds.pop(0) if len(self.builds) > 1 else self.builds[0]

    def asked_for_logs(self, request: dict[str, Any]) -> Reply:
        """Return the log lines, all at once, as one page."""
        self.log_requests.append(request)
        if self.logs_refusal:
            return self.logs_refusal
        now = int(time.time() * 1000)
        lines = self.lines() if self.lines is not None else self.failures
        number = int(request.get("nextToken", 0))
        page = [{"eventId": f"{number}", "timestamp": now, "message": json.dumps(lines[number])}] if lines else []
        more = {"nextToken": str(number + 1)} if number + 1 < len(lines) else {}
        return Reply({"events": page, **more})


def build(status: str = "IN_PROGRESS", outcome: Any = None) -> Reply:  # noqa: ANN401 - JSON
    """A build as CodeBuild describes it, with what it has exported."""
    exported = [{"name": "OUTCOME", "value": json.dumps(outcome)}] if outcome is not None else []
    made = {"id": f"p:{REQUEST_ID}", "buildStatus": status, "exportedEnvironmentVariables": exported}
    return Reply({"builds": [made], "buildsNotFound": []})


def line(event: str, message: str = "", *, request_id: str = REQUEST_ID, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """A line of the function's log."""
    return {"event": event, "message": message, "function_request_id": request_id, "action": "upgrade", **fields}


@contextmanager
def serve() -> Iterator[Stub]:
    """Run a stub until the end of the context."""
    stub = Stub()

    class Handler(http_stub.Handler):
        def do_POST(self) -> None:  # noqa: N802 - http.server calls it by this name
            content = self.body()
            if content.startswith(b"Action=GetCallerIdentity"):
                self.send(200, _IDENTITY, {})
                return
            body = json.loads(content or b"null")
            target = self.headers.get("X-Amz-Target", "")
            service, _, operation = target.partition(".")
            if service.startswith("CodeBuild_"):
                reply = stub.asked_for_build(operation, body)
            else:
                reply = stub.asked_for_logs(body) if service.startswith("Logs_") else stub.invoked(self.path, body)
            time.sleep(reply.after_s)
            while not reply.until():
                time.sleep(0.02)
            if reply.body is None:
                return
            answer = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            headers = {"x-amzn-RequestId": REQUEST_ID}
            if reply.error:
                headers["x-amzn-ErrorType"] = reply.error
            if reply.function_error:
                headers["X-Amz-Function-Error"] = "Unhandled"
            self.send(reply.status, answer, headers)

    with http_stub.serve(Handler) as stub.endpoint:
        yield stub
