"""Starts the driver in the backend's own interpreter, sends it commands and returns its answers.

A review starts one driver, and another one if a revision ends it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from migrate_review.driver.interpreters import packages_advice
from migrate_review.errors import EnvPyError, ReviewError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = Path(__file__).resolve().parents[2]

# The checkout is in sys.path only while the driver is imported. Otherwise the backend could import other files of the
# checkout, such as app.py.
_START = (
    "import sys; root = sys.argv.pop(1); sys.path[:] = [each for each in sys.path if each]; sys.path.append(root);"
    " from migrate_review.driver import program; sys.path.remove(root); program.main()"
)

_TAIL_CHARACTERS = 500
_LOOK_AGAIN_S = 0.001


class Outside(Protocol):
    """Watches, from other connections, the locks of a statement that cannot run in a transaction."""

    def begin(self, pid: int) -> None:
        """Prepare to watch the server process with this id, which is about to run the statement."""

    def look(self) -> None:
        """Read the locks once. The driver's process calls this repeatedly while the statement may be running."""

    def end(self) -> list[tuple[int, str]]:
        """Return the locks that were seen, by table and mode, after the statement has ended."""

    def sessions(self) -> int:
        """Return the number of sessions that the database has had, without those of this object."""


class DiedError(Exception):
    """The process ended, or was killed at its time limit. The message is one line with the reason."""


def backend_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a backend: these variables, and those of this process, which take precedence."""
    # A developer's PG* settings are for their own servers.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**variables, **inherited}


class Process:
    """A driver's process. It imports Alembic at once, and begins its work with `start`.

    ``variables`` are the backend's environment variables, in addition to those of this process.
    """

    def __init__(self, python: Path, variables: Mapping[str, str]) -> None:
        self._python = python
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        environment = backend_variables(variables)
        environment["PGSSLCERTMODE"] = "disable"  # a certificate in the developer's home folder is for other servers
        try:
            self._process = subprocess.Popen(
                [python, "-c", _START, str(_ROOT), str(commands), str(answers)],
                pass_fds=(commands, answers),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us, and the process ends with us
            )
        except OSError as error:
            for descriptor in (self._commands, self._answers):
                os.close(descriptor)
            self._output.close()
            raise ReviewError(f"the backend's interpreter {python} cannot be started: {error}") from None
        finally:
            os.close(commands)
            os.close(answers)
        # The revisions that the driver began since the last command. If it dies, the last one is the cause.
        self.began: list[str | None] = []
        # Whether env.py has run in this process. Not every env.py can run twice in one process.
        self.used = False
        self.started = False
        self._rest = b""
        self._answered = False
        self._closed = False

    def start(self, message: Mapping[str, Any]) -> None:
        """Send the start message, which contains the tree and the database."""
        self.started = True
        self._write(message)

    def execute(self, command: Mapping[str, Any], timeout_s: float, outside: Outside | None = None) -> dict[str, Any]:
        """Send a command and return the answer. ``outside`` reads the locks of statements that must run alone.

        Raises:
            DiedError: the process ended, or did not answer in time and was killed.
            EnvPyError: env.py failed before any revision began.
            ReviewError: the driver refused, for the reason in the message.
        """
        deadline = time.monotonic() + timeout_s
        self._write(command)
        looking: Outside | None = None
        self.began.clear()
        while True:
            answer = self._read(deadline, timeout_s, looking)
            if outside is not None and "look_at" in answer:
                if answer["look_at"] is None:
                    self._write({"locks": outside.end()})
                    looking = None
                else:
                    outside.begin(answer["look_at"])
                    looking = outside
                    self._write({"locks": []})
            elif outside is not None and "count_sessions" in answer:
                self._write({"sessions": outside.sessions()})
            elif "began" in answer:
                self.began.append(answer["began"])
            elif "refused" in answer:
                raise ReviewError(answer["refused"])
            elif "env_py" in answer:
                raise EnvPyError(answer["env_py"])
            else:
                self.used = True
                done: dict[str, Any] = answer["done"]
                return done

    def close(self) -> None:
        """Kill the process, unless it is already closed."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            os.close(self._commands)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._answers)
        self._output.close()

    def _write(self, message: Mapping[str, Any]) -> None:
        data = (json.dumps(message) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._commands, data) :]
        except BrokenPipeError:
            raise DiedError(self._exit_reason()) from None

    def _read(self, deadline: float, timeout_s: float, looking: Outside | None) -> dict[str, Any]:
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise DiedError(f"it did not end within {timeout_s:.0f} s and was killed")
            if not select.select([self._answers], [], [], left if looking is None else min(left, _LOOK_AGAIN_S))[0]:
                if looking is not None:
                    looking.look()
                continue
            data = os.read(self._answers, 65536)
            if not data:
                raise DiedError(self._exit_reason())
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        self._answered = True
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _exit_reason(self) -> str:
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if self._answered:
            return f"the backend's process {how}"
        # The driver did not start: the backend may lack Alembic or SQLAlchemy. The last line of output is the reason.
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1][-_TAIL_CHARACTERS:].strip() if lines else "it wrote nothing"
        missing = f" ({packages_advice(self._python)})" if "ModuleNotFoundError" in reason else ""
        return f"the backend's process {how}: {reason}{missing}"
