"""The progress of a run, computed from its log lines, and its display."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from migrate_cli.display import KEEPALIVE_S, Display
from migrate_cli.presentation import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import Console

# Events whose message is printed unchanged.
_PRINTED = frozenset(
    {
        "checkpoint.applied",
        "checkpoint.skipped",
        "connection.retried",
        "index.dropped",
        "lock.waiting",
        "migration.ahead",
        "revision.retried",
        "statement.skipped",
        "backend.output",
    }
)


@dataclass
class RunProgress:
    """The progress of a run. ``total`` is known only if the lines contain the number of remaining revisions."""

    done: int = 0
    total: int | None = None
    current: str = ""

    def take(self, line: Mapping[str, Any]) -> str | None:
        """Count a log line, and return the text to print for it, if any."""
        event, message = line["event"], str(line.get("message", ""))
        if event == "revision.started":
            self.current = _revision(line)
            if isinstance(line.get("step"), int) and isinstance(line.get("steps"), int):
                # The steps of each attempt count from 1; `done` counts the steps of all attempts.
                self.total = self.done + line["steps"] - line["step"] + 1
            return f"{self._position(self.done + 1)} running {self.current}"
        if event == "revision.applied":
            self.done += 1
            self.current = ""
            # The description is last: if a narrow terminal cuts it, the table at the end still has it.
            took = f"{int(line.get('duration_ms', 0)):,} ms"
            return f"{self._position(self.done)} committed {_revision(line, f'in {took}')}"
        return message if event in _PRINTED else None

    def _position(self, number: int) -> str:
        return f"{number} of {self.total}:" if self.total else f"{number}:"


def _revision(line: Mapping[str, Any], *more: str) -> str:
    description = line.get("description")
    return " ".join([str(line.get("revision")), *more, *([f"({description})"] if description else [])])


class RunDisplay(Display):
    """Shows the revisions of a run, and prints a line if nothing else was printed for a minute."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._progress = RunProgress()
        self._started = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self.has_bar and self._progress.done:
            # An empty line between the revisions and the result.
            self._console.print()

    def show(self, lines: list[Mapping[str, Any]]) -> None:
        """Show the run's new log lines, if there are any."""
        for line in lines:
            text = self._progress.take(line)
            self._update_bar()
            # The bar shows the running revision; the applied ones stay above it.
            if text is None or (self.has_bar and line["event"] == "revision.started"):
                continue
            if line["event"] in _PRINTED:
                self.print_folded(text)
            else:
                self.print(text, no_wrap=True, overflow="ellipsis")
        if not self.has_bar and self.silent_s > KEEPALIVE_S:
            current = self._progress.current
            running = f", at {current}" if current else ""
            self.print_folded(f"still working after {time.monotonic() - self._started:.0f} s{running}")

    def print_folded(self, text: str) -> None:
        """Print a message in full, over several lines of the terminal if it is long."""
        self.print(text, no_wrap=False, overflow="fold")

    def _update_bar(self) -> None:
        progress = self._progress
        position = (
            f"{progress.done} of {progress.total}" if progress.total else f"{progress.done} done" * bool(progress.done)
        )
        self._move_bar(
            plain(progress.current or self._title),
            done=progress.done,
            total=progress.total,
            position=position,
            refresh=True,
        )
