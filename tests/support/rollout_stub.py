"""An AWS with one state machine whose executions go as a test says: CloudFormation, Step Functions and S3 over HTTP."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MACHINE = "arn:aws:states:eu-central-1:123456789012:stateMachine:template-saas-api-migrate-dev"
BUCKET = "rollouts"


@dataclass
class RolloutStub:
    """``ends`` gives what Step Functions says of an execution, at its nth question; ``objects`` are those in S3.

    What is in ``refused`` is refused once."""

    endpoint: str = ""
    outputs: Mapping[str, str] = field(default_factory=lambda: {"StateMachineArn": MACHINE, "RolloutBucket": BUCKET})
    ends: Callable[[int], Mapping[str, Any]] = lambda _: {"status": "SUCCEEDED"}
    objects: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    started: list[tuple[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    on_start: Callable[[str], None] = lambda _: None

    def put(self, rollout: str, name: str, content: object) -> None:
        """Let a rollout have left an object."""
        self.objects[f"rollouts/{rollout}/{name}"] = json.dumps(content).encode()

    def leaves(self, content: Mapping[str, Any], **others: object) -> None:
        """Let every execution that is begun leave this report, these other objects, and a page."""

        def leave(name: str) -> None:
            self.put(name, "report.json", {**content, "rollout": name})
            for file, said in others.items():
                self.put(name, f"{file}.json", said)
            self.objects[f"rollouts/{name}/report.html"] = b"<!doctype html>"

        self.on_start = leave

    def environment(self) -> dict[str, str]:
        """The settings by which boto3 finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-central-1",
            "NO_PROXY": "127.0.0.1",
        }

    def states(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer for Step Functions."""
        if action == "StartExecution":
            self.started.append((body["name"], json.loads(body["input"])))
            self.on_start(body["name"])
            return {"executionArn": f"{MACHINE}:{body['name']}", "startDate": 0}
        if action == "DescribeExecution":
            questions = self.asked.count(action)
            name = body["executionArn"].rpartition(":")[2]
            return {"executionArn": body["executionArn"], "name": name, "startDate": 0, **self.ends(questions)}
        return {"ListMapRuns": {"mapRuns": []}}[action]


@contextmanager
def serve() -> Iterator[RolloutStub]:  # noqa: C901 - a handler of several small methods
    """Run a stub until the end of the context."""
    stub = RolloutStub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            target = self.headers.get("X-Amz-Target", "")
            if not target:
                self._cloudformation()
                return
            action = target.rpartition(".")[2]
            if self._refuses(action):
                return
            self._send(200, json.dumps(stub.states(action, json.loads(body))).encode())

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if "list-type" in address.query:
                self._list(parse_qs(address.query).get("prefix", [""])[0])
                return
            key = unquote(address.path).removeprefix(f"/{BUCKET}/")
            if self._refuses("GetObject"):
                return
            if key in stub.objects:
                self._send(200, stub.objects[key])
            else:
                self._send(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            stub.objects[unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")] = content
            self._send(200, b"")

        def _list(self, prefix: str) -> None:
            keys = "".join(
                f"<Contents><Key>{escape(key)}</Key></Contents>"
                for key in sorted(stub.objects)
                if key.startswith(prefix)
            )
            self._send(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>".encode())

        def _cloudformation(self) -> None:
            if self._refuses("DescribeStacks"):
                return
            outputs = "".join(
                f"<member><OutputKey>{name}</OutputKey><OutputValue>{value}</OutputValue></member>"
                for name, value in stub.outputs.items()
            )
            stack = (
                "<member><StackName>s</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime>"
                f"<StackStatus>CREATE_COMPLETE</StackStatus><Outputs>{outputs}</Outputs></member>"
            )
            self._send(
                200,
                f"<DescribeStacksResponse><DescribeStacksResult><Stacks>{stack}</Stacks></DescribeStacksResult>"
                "</DescribeStacksResponse>".encode(),
            )

        def _refuses(self, action: str) -> bool:
            stub.asked.append(action)
            if action not in stub.refused:
                return False
            status, code = stub.refused.pop(action)
            if "X-Amz-Target" in self.headers:
                self._send(status, json.dumps({"__type": code, "message": "says AWS"}).encode())
            else:
                error = f"<Error><Code>{code}</Code><Message>says AWS</Message></Error>"
                self._send(status, (error if action == "GetObject" else f"<R>{error}</R>").encode())
            return True

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
