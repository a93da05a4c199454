"""Finds the end of a run whose answer did not arrive, in its log and in the database's status.

Networks drop connections that are idle for minutes, and a migration may run for a quarter of an hour.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from migrate_cli import invocation
from migrate_cli.errors import CommandError, of_function

if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrate_cli.errors import Commands, NoAnswer
    from migrate_cli.follower import Follower
    from migrate_cli.progress import RunDisplay
    from migrate_cli.stages import Function

# The seconds between two reads of the database's status, and of the log.
READ_EVERY_S = 10.0
_TICK_S = 0.2
# After this many reads with a free lock and pending revisions, the run has ended.
_IDLE_READS = 3
# After this many failures in a row, the function is unreachable.
_FAILED_READS = 12


@dataclass
class LostAnswer:
    """Reads the result of a run. ``event`` is its request."""

    function: Function
    event: Mapping[str, Any]
    commands: Commands
    follower: Follower
    _next: float = 0.0
    _idle: int = 0
    _failed: int = 0

    def wait(self, no_answer: NoAnswer, display: RunDisplay) -> dict[str, Any]:
        """Return the result of the run as soon as it is certain.

        Raises:
            CommandError: the run failed, according to its log; or ``no_answer``, if nothing runs and the result is
                unknown.
        """
        while self._idle < _IDLE_READS and self._failed < _FAILED_READS:
            self.follower.show(display)
            result = self.result_if_certain()
            if result is not None:
                return result
            time.sleep(_TICK_S)
        raise no_answer

    def result_if_certain(self) -> dict[str, Any] | None:
        """Return the result of the run if it is certain, else None. Reads the status at most every ten seconds.

        Raises:
            CommandError: the run failed, according to its log.
        """
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + READ_EVERY_S
        try:
            status = invocation.status(self.function, self.commands, self.event.get("target"))
        except CommandError:
            self._failed += 1
            return None
        self._failed = 0
        last = self.follower.log.last if self.follower.log else None
        if self._is_done(status, last):
            return self._result(status, last)
        self._idle = 0 if status.get("lock") else self._idle + 1
        if self._idle >= _IDLE_READS and last is not None and last["event"] == "migration.failed":
            kind, message = str(last.get("error_type")), str(last.get("message"))
            raise of_function(kind, message, str(last.get("function_request_id")), self.commands)
        return None

    def _is_done(self, status: Mapping[str, Any], last: Mapping[str, Any] | None) -> bool:
        """Return whether the request is fulfilled. The database decides, as the log may be of another caller's run."""
        # The line of a failure contains the revision that failed.
        ended = last is not None and last["event"] != "migration.failed" and last.get("revision") == status["revision"]
        ended = ended and self._is_of_this_request()
        if self.event["action"] != "upgrade":
            return ended
        wanted = self.event.get("revision", "head")
        if wanted in {"head", "heads"} or status.get("ahead"):
            return bool(status["up_to_date"])
        # An abbreviated id is not resolved here: it must be the database's own.
        return ended or any(each.startswith(wanted) for each in str(status["revision"] or "").split(","))

    def _is_of_this_request(self) -> bool:
        """Return whether the logged run has this request's action and revision. It may be another caller's run."""
        lines = self.follower.log.lines if self.follower.log else []
        wanted = f"{self.event['action']} to {self.event.get('revision', 'head')}"
        return bool(lines) and lines[0].get("message") == wanted

    def _result(self, status: Mapping[str, Any], last: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the result, without the fields that the log does not have."""
        lines = self.follower.log.lines if self.follower.log else []
        steps = [line for line in lines if line["event"] == "revision.applied"]
        done = [{name: step.get(name) for name in ("revision", "description", "duration_ms")} for step in steps]
        starts = [line for line in lines if line["event"] == "revision.started"]
        downwards = self.event["action"] == "downgrade"
        previous = starts[0].get("revision" if downwards else "down_revision") if starts else status["revision"]
        located = {name: status[name] for name in ("stage", "database", "schema", "revision", "up_to_date", "pending")}
        result = {
            "status": "ok",
            "action": self.event["action"],
            **located,
            "previous_revision": previous,
            "applied": [] if downwards else done,
            "attempts": 1 + sum(line["event"] == "revision.retried" for line in lines),
            "lock_wait_ms": 0,
            "duration_ms": int((last or {}).get("duration_ms", 0)),
            "request_id": (last or {}).get("function_request_id"),
        }
        for line in lines:
            if line["event"] == "checkpoint.applied":
                noted = {name: line.get(name) for name in ("revision", "revisions", "duration_ms")}
                result |= {"previous_revision": None, "checkpoint": noted}
        return {**result, "reverted": done} if downwards else result
