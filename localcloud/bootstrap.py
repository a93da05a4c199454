#!/usr/bin/env python3
"""What Lambda runs for the stage "local": AWS's own runtime client, with its output on the way to CloudWatch Logs.

The emulator writes a function's lines down when the invocation has ended; Lambda does while it works, and whoever
follows a run counts on that. So the lines go to the emulator's CloudWatch Logs from here, as they come.

It runs under the interpreter of an environment that holds nothing but that client, which the local cloud puts first on
the PATH.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = 5
_CHUNK = 65536
_OK = 200


def main() -> None:
    """Become the runtime client, and leave behind a process that forwards what it says."""
    source, sink = os.pipe()
    if os.fork() == 0:
        # By a child's child: whatever the function does with processes of its own, this is none of them.
        if os.fork() == 0:
            os.close(sink)
            forward(source)
        os._exit(0)
    os.wait()
    os.close(source)
    for stream in (1, 2):
        os.dup2(sink, stream)
    os.close(sink)
    os.chdir(os.environ["LAMBDA_TASK_ROOT"])
    os.execvp("python3", ["python3", "-m", "awslambdaric", os.environ["_HANDLER"]])  # noqa: S606, S607 - as above


def forward(source: int) -> None:
    """Hand on each line until the function and whatever it started have ended."""
    name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
    where = {
        "logGroupName": f"/aws/lambda/{name}",
        "logStreamName": time.strftime("%Y/%m/%d/[$LATEST]") + os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
    }
    _ask("CreateLogStream", where)
    rest = b""
    while chunk := os.read(source, _CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line.decode(errors="replace")} for line in lines if line]
        if events and not _ask("PutLogEvents", {**where, "logEvents": events}):
            # Then the emulator's own way. A line is never worth the function's life.
            with contextlib.suppress(OSError):
                os.write(1, b"".join(line + b"\n" for line in lines))


def _ask(operation: str, content: Mapping[str, object]) -> bool:
    """Ask CloudWatch Logs, and tell whether it has done it. Without boto3: this is no part of the function."""
    emulator = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
    scope = f"{os.environ['AWS_ACCESS_KEY_ID']}/{time.strftime('%Y%m%d')}/{os.environ['AWS_REGION']}/logs/aws4_request"
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": f"Logs_20140328.{operation}",
        # The emulator reads its key, account and region from it, and checks no signature.
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none",
    }
    asked = http.client.HTTPConnection(emulator.hostname or "", emulator.port, timeout=_SECONDS)
    try:
        asked.request("POST", "/", json.dumps(content), headers)
        return asked.getresponse().status == _OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


if __name__ == "__main__":
    main()
