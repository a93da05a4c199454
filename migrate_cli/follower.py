"""Follows the log of a run, and reads the details of a failure from it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lambda_migrate.invocation import errors as contract_errors
from migrate_cli.failed_run import FailedRun, failed_run
from migrate_cli.run_log import RunLog, UnreadableError

if TYPE_CHECKING:
    from migrate_cli.errors import CommandError
    from migrate_cli.output import Output
    from migrate_cli.progress import RunDisplay
    from migrate_cli.stages import Function

# The actions that log one line for each revision.
FOLLOWED = frozenset({"upgrade", "downgrade"})

# If the log has ended for this many seconds and no answer came, the connection is lost.
_OVERDUE_S = 20.0
# The same from the beginning of the run, if the log cannot be read.
_OVERDUE_WITHOUT_LOG_S = 120.0
# Log lines arrive seconds after the answer.
_PATIENCE_S = 8.0
# If Lambda killed the function, there is no last line.
_PATIENCE_WITH_THE_KILLED_S = 2.0


class Follower:
    """Follows one run. ``log`` is None for an action without revisions, or if the log cannot be read."""

    def __init__(self, function: Function, action: str, output: Output) -> None:
        self._output = output
        self._began = time.monotonic()
        self._ended: float | None = None
        self.log: RunLog | None = None
        if action in FOLLOWED:
            try:
                self.log = RunLog(function, action)
            except UnreadableError as error:
                output.note(f"No progress will be shown, as the log cannot be read: {error}")

    @property
    def request_id(self) -> str | None:
        """Return the request id of the followed run, or None if the log does not have it."""
        return self.log.request_id if self.log else None

    def show(self, display: RunDisplay) -> None:
        """Show the new lines."""
        if self.log is None:
            display.show([])
            return
        try:
            display.show(self.log.poll())
        except UnreadableError as error:
            display.print_folded(f"No more progress will be shown, as the log cannot be read: {error}")
            self.log = None
        except Exception as error:  # noqa: BLE001 - an unknown line must not end the wait for the run
            display.print_folded(f"No more progress will be shown: {type(error).__name__}: {error}")
            self.log = None

    def is_overdue(self) -> bool:
        """Return whether the answer is overdue."""
        if self.log is None:
            return time.monotonic() - self._began > _OVERDUE_WITHOUT_LOG_S
        if self._ended is None and self.log.last is not None:
            self._ended = time.monotonic()
        return self._ended is not None and time.monotonic() - self._ended > _OVERDUE_S

    def failed_run(self, error: CommandError) -> FailedRun:
        """Return the facts about a failed run from its log."""
        if self.log is None or error.request_id is None:
            return FailedRun()
        known = hasattr(contract_errors, error.kind)
        try:
            patience_s = _PATIENCE_S if known else _PATIENCE_WITH_THE_KILLED_S
            self.log.read_failure(error.request_id, error.message, patience_s)
        except UnreadableError as problem:
            self._output.note(f"The log cannot be read: {problem}")
        return failed_run(self.log.lines)
