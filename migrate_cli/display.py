"""The base of the live displays: a progress bar in a terminal, lines of text everywhere else."""

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
    from collections.abc import Iterable
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from typing_extensions import Self

# CI servers cancel a job that prints nothing for some minutes.
KEEPALIVE_S = 60

# The columns of the bar, of a narrow bar, and of an ordinary terminal.
_BAR, _NARROW_BAR, _ORDINARY_TERMINAL = 24, 8, 80


class Display:
    """Shows progress during a ``with`` block. At its end the bar disappears, and printed lines stay."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._printed = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = _Bar(
                SpinnerColumn(),
                BarColumn(_BAR if console.width >= _ORDINARY_TERMINAL else _NARROW_BAR, complete_style="green"),
                TextColumn("{task.fields[position]}", markup=False),
                TimeElapsedColumn(),
                # Takes the remaining columns, so that the other columns neither move nor get cut off.
                TextColumn(
                    "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
                ),
                console=console,
                transient=True,
                expand=True,
            )
            self._task = self._bar.add_task(title, total=None, position="")
        self._live: AbstractContextManager[object] = self._bar or nullcontext()

    def __enter__(self) -> Self:
        self._live.__enter__()
        if self._bar is None:
            self.print(f"{self._title} ...")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    @property
    def has_bar(self) -> bool:
        """Return whether the progress has a bar. Otherwise the caller must print it."""
        return self._bar is not None

    @property
    def silent_s(self) -> float:
        """Return the seconds since the last printed line."""
        return time.monotonic() - self._printed

    def print(self, text: str, **options: Any) -> None:  # noqa: ANN401 - those of Rich's Console.print
        """Print a line that stays. By default the terminal wraps a long line, so that it can be copied as one line."""
        self._console.print(Text(plain(text), style="dim"), **(options or {"soft_wrap": True}))
        self._printed = time.monotonic()

    def _move_bar(
        self, description: str, *, done: int, total: int | None, position: str, refresh: bool = False
    ) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, description=description, completed=done, total=total, position=position, refresh=refresh
            )


class _Bar(Progress):
    """A progress bar that disappears completely."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar's line, which is always shorter than the terminal's width."""
        return (_Narrower(shown) for shown in super().get_renderables())


@dataclass(frozen=True)
class _Narrower:
    """Leaves room for the ^C that a terminal echoes. Otherwise the bar would wrap and not disappear."""

    shown: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return console.render(self.shown, options.update_width(options.max_width - 3))
