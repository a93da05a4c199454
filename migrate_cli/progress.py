"""What a person sees of a run while it works: a bar in a terminal, lines everywhere else."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from migrate_cli.presentation import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from typing_extensions import Self

# Build servers end a job that is silent for long.
SIGN_OF_LIFE_S = 60

# Columns: of the bar, and of a terminal that has room for it.
BAR, NARROW_BAR, ORDINARY = 24, 8, 80

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
            # The description last: what a narrow terminal cuts off is in the table at the end.
            took = f"{int(line.get('duration_ms', 0)):,} ms"
            return f"{self._position(self.done)} committed {_name(line, f'in {took}')}"
        return message if event in _TOLD else None

    def _position(self, number: int) -> str:
        return f"{number} of {self.total}:" if self.total else f"{number}:"


def _name(line: Mapping[str, Any], *more: str) -> str:
    description = line.get("description")
    return " ".join([str(line.get("revision")), *more, *([f"({description})"] if description else [])])


class Bar(Progress):
    """A progress bar that leaves no half of itself behind."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Its line, which never fills the terminal's."""
        return (_Narrower(shown) for shown in super().get_renderables())


@dataclass(frozen=True)
class _Narrower:
    """Leaves room for the ^C that a terminal echoes: on a line of its own it would keep the bar from going away."""

    shown: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return console.render(self.shown, options.update_width(options.max_width - 3))


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
            self._bar = Bar(
                SpinnerColumn(),
                BarColumn(BAR if console.width >= ORDINARY else NARROW_BAR, complete_style="green"),
                TextColumn("{task.fields[position]}", markup=False),
                TimeElapsedColumn(),
                # Takes the room that is left, so that nothing else moves or is cut off.
                TextColumn(
                    "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
                ),
                console=console,
                transient=True,
                expand=True,
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
        if self._bar is not None and self._account.done:
            # Apart from the result.
            self._console.print()

    def say(self, text: str, *, whole: bool = True) -> None:
        """Say something that stays; not as a whole, it is one line of a terminal."""
        self._console.print(Text(plain(text), style="dim"), no_wrap=not whole, overflow="fold" if whole else "ellipsis")
        self._spoke = time.monotonic()

    def show(self, lines: list[Mapping[str, Any]]) -> None:
        """Take the run's new lines in, maybe none."""
        for line in lines:
            said = self._account.take(line)
            self._move()
            # The bar shows what is running; what is done stays above it.
            if said is not None and (self._bar is None or line["event"] != "revision.started"):
                self.say(said, whole=line["event"] in _TOLD)
        if self._bar is None and time.monotonic() - self._spoke > SIGN_OF_LIFE_S:
            current = self._account.current
            running = f", at {current}" if current else ""
            self.say(f"still working after {time.monotonic() - self._started:.0f} s{running}")

    def _move(self) -> None:
        """Let the bar say what the account says."""
        account = self._account
        if self._bar is None:
            return
        position = (
            f"{account.done} of {account.total}" if account.total else f"{account.done} done" * bool(account.done)
        )
        self._bar.update(
            self._task,
            description=plain(account.current or self._what),
            completed=account.done,
            total=account.total,
            position=position,
            refresh=True,
        )
