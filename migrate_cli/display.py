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

# Build servers end a job that prints nothing for long.
SIGN_OF_LIFE_S = 60

# Columns: of the bar, and of a terminal that has room for it.
_BAR, _NARROW_BAR, _ORDINARY_TERMINAL = 24, 8, 80


class Display:
    """Shows progress for the duration of a ``with`` block. The bar goes away at its end; printed lines stay."""

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
                # Takes the room that is left, so that nothing else moves or is cut off.
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
        """Whether the progress is shown as a bar. Otherwise it must be printed."""
        return self._bar is not None

    @property
    def silent_s(self) -> float:
        """The seconds since the last printed line."""
        return time.monotonic() - self._printed

    def print(self, text: str, **options: Any) -> None:  # noqa: ANN401 - those of Rich's Console.print
        """Print a line that stays. By default the terminal wraps a long one, so that it is copied as one line."""
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
    """A progress bar that leaves no half of itself behind."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar's line, which never fills the terminal's."""
        return (_Narrower(shown) for shown in super().get_renderables())


@dataclass(frozen=True)
class _Narrower:
    """Leaves room for the ^C that a terminal echoes: on a line of its own it would keep the bar from going away."""

    shown: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return console.render(self.shown, options.update_width(options.max_width - 3))
