"""What a person sees of a run while it works: a bar in a terminal, lines everywhere else."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from migrate_cli.presentation import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import Console
    from typing_extensions import Self

# Build servers end a job that is silent for long.
_SIGN_OF_LIFE_S = 60

# Told as they are, beside the revisions themselves.
_TOLD = frozenset(
    {"connection.retried", "index.dropped", "lock.waiting", "migration.ahead", "revision.retried", "backend.output"}
)


@dataclass
class Account:
    """How far the run is, as far as its lines tell. ``total`` is known only if they say what is left."""

    done: int = 0
    total: int | None = None
    current: str = ""

    def take(self, line: Mapping[str, Any]) -> str | None:
        """Take a line in, and give what to say of it to somebody who reads along."""
        event, message = line["event"], str(line.get("message", ""))
        if event == "revision.started":
            self.current = _name(line)
            if isinstance(line.get("step"), int) and isinstance(line.get("steps"), int):
                # Counted anew in each attempt; what was done before it stays done.
                self.total = self.done + line["steps"] - line["step"] + 1
            return f"{self._position(self.done + 1)} running {self.current}"
        if event == "revision.applied":
            self.done += 1
            self.current = ""
            return f"{self._position(self.done)} committed {_name(line)} in {int(line.get('duration_ms', 0)):,} ms"
        return message if event in _TOLD else None

    def _position(self, number: int) -> str:
        return f"{number} of {self.total}:" if self.total else f"{number}:"


def _name(line: Mapping[str, Any]) -> str:
    description = line.get("description")
    return f"{line.get('revision')} ({description})" if description else str(line.get("revision"))


class Display:
    """Shows an `Account` from the beginning of a ``with`` block to its end."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._account = Account()
        self._spoke = time.monotonic()
        self._started = self._spoke
        self._bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[position]}", markup=False),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(what, total=None, position="")
        self._shown: AbstractContextManager[object] = self._bar or nullcontext()

    def __enter__(self) -> Self:
        self._shown.__enter__()
        if self._bar is None:
            self.say(f"{self._what} ...")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        """Say something that stays."""
        self._console.print(Text(plain(text), style="dim"), soft_wrap=True)
        self._spoke = time.monotonic()

    def show(self, lines: list[Mapping[str, Any]]) -> None:
        """Take the run's new lines in, maybe none."""
        for line in lines:
            said = self._account.take(line)
            # The bar shows what is running; what is done stays above it.
            if said is not None and (self._bar is None or line["event"] != "revision.started"):
                self.say(said)
        account = self._account
        if self._bar is not None:
            position = (
                f"{account.done} of {account.total}" if account.total else f"{account.done} done" * bool(account.done)
            )
            self._bar.update(
                self._task,
                description=plain(account.current or self._what),
                completed=account.done,
                total=account.total,
                position=position,
            )
        elif time.monotonic() - self._spoke > _SIGN_OF_LIFE_S:
            running = f", at {account.current}" if account.current else ""
            self.say(f"still working after {time.monotonic() - self._started:.0f} s{running}")
