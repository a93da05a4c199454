"""CodeBuild for the emulator: a build is a process on this machine, and `startBuild.sync` waits for it.

MiniStack only stores builds, or runs them in Docker, and its Step Functions lack this integration. This module runs the
builds of `infra.long_runs`: a buildspec over an asset of the CDK. `localcloud.access` installs it in the emulator's
process, under the emulator's Python, so it imports nothing of this project.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.request
import zipfile
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

_STARTED_WITH: ContextVar[Mapping[str, str]] = ContextVar("variables of StartBuild")
_POLL_S = 0.1
_EXPORTED = ".exported.json"
# The watcher ends the build's process group when the emulator closes the pipe, or dies.
_SCRIPT = """
( read -r _ <&{lifeline} || kill -9 0 ) >/dev/null 2>&1 &
trap 'kill $! 2>/dev/null' EXIT
{commands}
python3 -c '
import json, os, sys
json.dump({{name: os.environ.get(name, "") for name in sys.argv[2:]}}, open(sys.argv[1], "w"))
' {exported} {names}
"""


@dataclass
class _Running:
    """A build's process, in place of MiniStack's container."""

    lifeline: int

    def remove(self, **_: object) -> None:
        """Kill the process and its children. `StopBuild` calls this."""
        lifeline, self.lifeline = self.lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)


class _Builds:
    def __init__(self, builds: Any, machines: Any, is_asset: Callable[[Mapping[str, Any]], bool]) -> None:  # noqa: ANN401
        self._builds = builds
        self._machines = machines
        self._is_asset = is_asset
        self._start = builds._start_build  # noqa: SLF001
        self._invoke = machines._invoke_resource  # noqa: SLF001
        self._running: dict[str, _Running] = {}

    def install(self) -> None:
        """Replace MiniStack's functions."""
        self._builds.EXECUTE_BUILDS = True
        self._builds._execute_build = self._execute  # noqa: SLF001
        self._builds._container_for_build = self._running.get  # noqa: SLF001
        self._builds._start_build = self._started  # noqa: SLF001
        self._machines._invoke_resource = self._invoked  # noqa: SLF001

    def _started(self, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        project = self._builds._projects.get(data.get("projectName", ""))  # noqa: SLF001
        source = (project or {}).get("source", {})
        bucket, _, key = str(source.get("location", "")).partition("/")
        if project and ("buildspecOverride" in data or not self._is_asset({"S3Bucket": bucket, "S3Key": key})):
            message = "the local cloud only builds assets of the CDK"
            return self._builds.error_response_json("AccessDeniedException", message, 403)
        overrides = data.get("environmentVariablesOverride") or []
        # The build's thread runs in a copy of this context.
        token = _STARTED_WITH.set({each["name"]: each["value"] for each in overrides})
        try:
            return self._start(data)
        finally:
            _STARTED_WITH.reset(token)

    def _execute(self, build_id: str, project: Mapping[str, Any]) -> None:
        """Run a build to its end; `StartBuild` calls this in a thread."""
        build = self._builds._builds[build_id]  # noqa: SLF001
        listed = project["environment"].get("environmentVariables", [])
        variables = {each["name"]: each["value"] for each in listed} | dict(_STARTED_WITH.get())
        if "LONG_RUN_FUNCTION" in variables:
            # MiniStack does not keep the project's log group.
            group = f"/aws/lambda/{variables['LONG_RUN_FUNCTION']}"
            build["logs"] = {"groupName": group, "streamName": f"long-runs/{build_id.rpartition(':')[2]}"}
        try:
            with tempfile.TemporaryDirectory() as folder:
                status = self._run(build, project, Path(folder), variables)
        except Exception:
            self._builds.logger.exception("build %s", build_id)
            status = "FAULT"
        finally:
            self._running.pop(build_id, None)
        if self._builds._stop_requested(build_id):  # noqa: SLF001
            status = "STOPPED"
        self._builds._finish_build(build, status)  # noqa: SLF001

    def _run(
        self, build: MutableMapping[str, Any], project: Mapping[str, Any], folder: Path, variables: Mapping[str, str]
    ) -> str:
        _unpack(str(project["source"]["location"]), folder)
        spec = json.loads(project["source"]["buildspec"])
        exported = spec.get("env", {}).get("exported-variables", [])
        read, write = os.pipe()
        running = self._running[build["id"]] = _Running(write)
        script = _SCRIPT.format(
            lifeline=read,
            commands="\n".join(spec["phases"]["build"]["commands"]),
            exported=_EXPORTED,
            names=" ".join(exported),
        )
        try:
            process = subprocess.Popen(
                ["/bin/bash", "-e", "-c", script],
                cwd=folder,
                env={
                    **os.environ,
                    **variables,
                    "AWS_REGION": self._builds.get_region(),
                    "AWS_DEFAULT_REGION": self._builds.get_region(),
                    "CODEBUILD_BUILD_ID": build["id"],
                    "CODEBUILD_BUILD_ARN": build["arn"],
                    "CODEBUILD_SRC_DIR": str(folder),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[read],
                start_new_session=True,
            )
        finally:
            os.close(read)
        late = threading.Event()

        def end() -> None:
            late.set()
            running.remove()

        timer = threading.Timer(60 * project["timeoutInMinutes"], end)
        timer.daemon = True
        timer.start()
        emit = self._builds._log_sink(build)  # noqa: SLF001
        with process:
            for line in cast("Any", process.stdout):
                emit(line.decode(errors="replace").rstrip("\n"))
        timer.cancel()
        running.remove()
        if process.returncode == 0:
            values = json.loads((folder / _EXPORTED).read_text(encoding="utf-8"))
            build["exportedEnvironmentVariables"] = [{"name": name, "value": values[name]} for name in exported]
        return "TIMED_OUT" if late.is_set() else "FAILED" if process.returncode else "SUCCEEDED"

    def _invoked(self, resource: str, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Run a task of a state machine: a build to its end, or a task that MiniStack supports."""
        if not resource.endswith(":states:::codebuild:startBuild.sync"):
            return self._invoke(resource, parameters)
        code, _, body = self._builds._start_build(_spelled(parameters, str.lower))  # noqa: SLF001
        answer = json.loads(body)
        if code >= 400:  # noqa: PLR2004
            kind = str(answer.get("__type", "CodeBuildException")).rpartition("#")[2]
            raise self._machines._ExecutionError(f"CodeBuild.{kind}", answer.get("message", ""))  # noqa: SLF001
        build = self._builds._builds[answer["build"]["id"]]  # noqa: SLF001
        while "endTime" not in build:
            time.sleep(_POLL_S)
        result = {"Build": _spelled(build, str.upper)}
        if build["buildStatus"] != "SUCCEEDED":
            raise self._machines._ExecutionError("States.TaskFailed", json.dumps(result))  # noqa: SLF001
        return result


def _unpack(location: str, folder: Path) -> None:
    """Unpack an object of the emulator's S3."""
    scope = f"{os.environ['AWS_ACCESS_KEY_ID']}/{time.strftime('%Y%m%d')}/us-east-1/s3/aws4_request"
    # The emulator reads its key from this header, and checks no signature.
    headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"}
    request = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/{location}", headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        zipfile.ZipFile(io.BytesIO(response.read())).extractall(folder)


def _spelled(value: Any, first: Callable[[str], str]) -> Any:  # noqa: ANN401
    """Return JSON with the first letter of each key changed. CodeBuild and Step Functions spell it differently."""
    if isinstance(value, list):
        return [_spelled(each, first) for each in value]
    if not isinstance(value, dict):
        return value
    return {re.sub("^.", lambda found: first(found[0]), key): _spelled(each, first) for key, each in value.items()}


def install(is_asset: Callable[[Mapping[str, Any]], bool]) -> None:
    """Let the emulator run builds of code that `is_asset` accepts."""
    builds = import_module("ministack.services.codebuild")
    _Builds(builds, import_module("ministack.services.stepfunctions"), is_asset).install()
