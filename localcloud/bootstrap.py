#!/usr/bin/env python3
"""Starts AWS's own runtime client for the stage "local", and sends its output to the emulator's CloudWatch Logs.

Lambda writes a function's log lines while the function runs. The emulator writes them after the invocation, which is
too late for a client that follows a run. Therefore this program sends them at once.

It runs with the Python of an environment that contains only this client. The local cloud puts this environment first on
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
    """Become the runtime client, and leave a process that forwards its output."""
    source, sink = os.pipe()
    if os.fork() == 0:
        # A grandchild, so that it is not one of the function's own child processes.
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
    """Forward each line until the function and the processes that it started have ended."""
    name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
    where = {
        "logGroupName": f"/aws/lambda/{name}",
        "logStreamName": time.strftime("%Y/%m/%d/[$LATEST]") + os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
    }
    _call("CreateLogStream", where)
    rest = b""
    while chunk := os.read(source, _CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line.decode(errors="replace")} for line in lines if line]
        if events and not _call("PutLogEvents", {**where, "logEvents": events}):
            # The emulator writes these lines. An error here must not end the function.
            with contextlib.suppress(OSError):
                os.write(1, b"".join(line + b"\n" for line in lines))


def _call(operation: str, content: Mapping[str, object]) -> bool:
    """Call CloudWatch Logs and return whether it succeeded. boto3 is not in this environment."""
    emulator = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
    scope = f"{os.environ['AWS_ACCESS_KEY_ID']}/{time.strftime('%Y%m%d')}/{os.environ['AWS_REGION']}/logs/aws4_request"
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": f"Logs_20140328.{operation}",
        # The emulator reads key, account and region from this header, and checks no signature.
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none",
    }
    connection = http.client.HTTPConnection(emulator.hostname or "", emulator.port, timeout=_SECONDS)
    try:
        connection.request("POST", "/", json.dumps(content), headers)
        return connection.getresponse().status == _OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
