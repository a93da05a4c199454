"""A stub of AWS with one state machine and a test's own executions: CloudFormation, Step Functions and S3 over HTTP."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support import http_stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MACHINE = "arn:aws:states:eu-central-1:123456789012:stateMachine:template-saas-api-migrate-dev"
BUCKET = "rollouts"


@dataclass
class RolloutStub:
    """``ends`` returns Step Functions' nth description of an execution; ``objects`` are those in S3.

    Each call in ``refused`` is refused once."""

    endpoint: str = ""
    outputs: Mapping[str, str] = field(default_factory=lambda: {"StateMachineArn": MACHINE, "RolloutBucket": BUCKET})
    ends: Callable[[int], Mapping[str, Any]] = lambda _: {"status": "SUCCEEDED"}
    objects: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    started: list[tuple[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answered: list[tuple[str, str]] = field(default_factory=list)
    on_start: Callable[[str], None] = lambda _: None

    def put(self, rollout: str, name: str, content: object) -> None:
        """Write an object of a rollout."""
        self.objects[f"rollouts/{rollout}/{name}"] = json.dumps(content).encode()

    def leaves(self, content: Mapping[str, Any], **others: object) -> None:
        """Make each execution that starts leave this report, these other objects, and a page."""

        def leave(name: str) -> None:
            self.put(name, "report.json", {**content, "rollout": name})
            for file, other in others.items():
                self.put(name, f"{file}.json", other)
            self.objects[f"rollouts/{name}/report.html"] = b"<!doctype html>"

        self.on_start = leave

    def environment(self) -> dict[str, str]:
        """Return the environment with which boto3 uses this stub."""
        return http_stub.aws_settings(self.endpoint)

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
        if action.startswith("SendTask"):
            self.answered.append((action, body["taskToken"]))
            return {}
        answers: dict[str, dict[str, Any]] = {"ListMapRuns": {"mapRuns": []}, "StopExecution": {"stopDate": 0}}
        return answers[action]


@contextmanager
def serve() -> Iterator[RolloutStub]:  # noqa: C901 - a handler of several small methods
    """Run a stub until the end of the context."""
    stub = RolloutStub()

    class Handler(http_stub.Handler):
        def do_POST(self) -> None:  # noqa: N802 - http.server calls it by this name
            body = self.body()
            target = self.headers.get("X-Amz-Target", "")
            if not target:
                self._cloudformation()
                return
            action = target.rpartition(".")[2]
            if self._refuses(action):
                return
            self.send(200, json.dumps(stub.states(action, json.loads(body))).encode())

        def do_GET(self) -> None:  # noqa: N802 - http.server calls it by this name
            address = urlsplit(self.path)
            if "list-type" in address.query:
                query = parse_qs(address.query)
                self._list(query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
                return
            key = unquote(address.path).removeprefix(f"/{BUCKET}/")
            if self._refuses("GetObject"):
                return
            if key in stub.objects:
                self.send(200, stub.objects[key])
            else:
                self.send(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")

        def do_PUT(self) -> None:  # noqa: N802 - http.server calls it by this name
            stub.objects[unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")] = self.body()
            self.send(200, b"")

        def _list(self, prefix: str, delimiter: str) -> None:
            found = [key for key in sorted(stub.objects) if key.startswith(prefix)]
            if delimiter:
                folders = {
                    key[: key.index(delimiter, len(prefix)) + 1] for key in found if delimiter in key[len(prefix) :]
                }
                keys = "".join(f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in sorted(folders))
            else:
                keys = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in found)
            self.send(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>".encode())

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
            self.send(
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
                self.send(status, json.dumps({"__type": code, "message": "says AWS"}).encode())
            else:
                error = f"<Error><Code>{code}</Code><Message>says AWS</Message></Error>"
                self.send(status, (error if action == "GetObject" else f"<R>{error}</R>").encode())
            return True

    with http_stub.serve(Handler) as stub.endpoint:
        yield stub
