"""What a person sees of a rollout: how far it is while it runs, and its report."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Column, Table
from rich.text import Text

from migrate_cli.presentation import plain
from migrate_cli.progress import BAR, NARROW_BAR, ORDINARY, SIGN_OF_LIFE_S, Bar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import Console
    from typing_extensions import Self

    from migrate_cli.rollout.machine import Progress

_LINE_EVERY_S = 10
_FAILURES = 10
_REVISIONS = 10
_MINUTE, _HOUR = 60, 3600
_CENT = 0.01

_STYLES = {"succeeded": "bold green", "failed": "bold red", "stopped": "bold yellow", "running": "bold"}
_WORDS = {"succeeded": "Rolled out", "failed": "Failed", "stopped": "Stopped", "running": "Running"}


class Display:
    """Shows how far a rollout is, from the beginning of a ``with`` block to its end: a bar, or now and then a line."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._spoke = time.monotonic()
        self._known: object = None
        self._failures = 0
        self._bar: RichProgress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Bar(
                SpinnerColumn(),
                BarColumn(BAR if console.width >= ORDINARY else NARROW_BAR, complete_style="green"),
                TextColumn("{task.fields[position]}", markup=False),
                TimeElapsedColumn(),
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

    def say(self, text: str) -> None:
        """Say something that stays."""
        self._console.print(Text(plain(text), style="dim"), soft_wrap=True)
        self._spoke = time.monotonic()

    def failed(self, target: str, kind: str, message: str) -> bool:
        """Tell of a target that failed, unless enough were told of; whether a further one would be."""
        self._failures += 1
        if self._failures <= _FAILURES:
            self.say(f"failed: {target}: {kind}: {message}")
        if self._failures == _FAILURES:
            self.say("more failures are in the report only")
        return self._failures < _FAILURES

    def show(self, progress: Progress) -> None:
        """Show how far it is now."""
        words = "listing its targets" if progress.targets is None else told(progress)
        known = (progress.targets, progress.wave, progress.done, progress.failed)
        if self._bar is not None:
            position = "" if progress.targets is None else f"{progress.done} of {progress.targets}"
            self._bar.update(
                self._task, description=words, completed=progress.done, total=progress.targets, position=position
            )
            return
        since = time.monotonic() - self._spoke
        if (known != self._known and since > _LINE_EVERY_S) or since > SIGN_OF_LIFE_S:
            done = "" if progress.targets is None else f"{progress.done} of {progress.targets} done, "
            self.say(f"{done}{words}")
            self._known = known


def told(progress: Progress) -> str:
    """How far it is, beside the number that is done."""
    parts = [f"{progress.failed} failed"] if progress.failed else []
    # What a narrow terminal cuts off is at the end.
    if progress.to_go_s is not None:
        parts.append(f"about {duration(progress.to_go_s)} to go")
    if progress.running is not None:
        parts.append(f"{progress.running} running")
    parts.append(f"{progress.left} left")
    if progress.waves > 1:
        parts.append(f"wave {max(progress.wave, 1)} of {progress.waves}")
    return ", ".join(parts)


def show_report(report: Mapping[str, Any], console: Console, *, whole: bool = True) -> None:
    """The waves, where the fleet is, the first failures, and the outcome unless that is told otherwise."""
    columns = [
        what
        for what in ("migrated", "current", "behind", "failed", "left")
        if what in {"failed", "left"} or report["counts"][what]
    ]
    table = _table("Wave", *(name.capitalize() for name in ("targets", *columns)))
    for wave in report["waves"]:
        name = f"{wave['wave']}, canaries" if wave["canary"] else str(wave["wave"])
        table.add_row(name, *(f"{wave[what]:,}" for what in ("targets", *columns)))
    console.print(table)
    if report["revisions"]:
        console.print()
        spread = _table("Revision", "Targets")
        for revision, count in list(report["revisions"].items())[:_REVISIONS]:
            spread.add_row(Text(plain(revision)), f"{count:,}")
        console.print(spread)
        _cut(console, len(report["revisions"]) - _REVISIONS, "revisions")
    if report["failures"]:
        console.print()
        failures = Table("Failed", "Error", "Message", box=None, pad_edge=False, header_style="dim")
        for failure in report["failures"][:_FAILURES]:
            failures.add_row(*(Text(plain(failure[name])) for name in ("name", "error_type", "message")))
        console.print(failures)
        _cut(console, report["counts"]["failed"] - _FAILURES, "failures")
    console.print()
    if whole:
        word = "Plan" if report["plan"] and report["status"] == "succeeded" else _WORDS[report["status"]]
        _say(console, (f"{word}: ", _STYLES[report["status"]]), f"{report['message']}, {_took(report)}.")
    if "estimate" in report:
        _show_estimate(report["estimate"], console)
    if "report" in report:
        _say(console, (f"Report: {report['report']}", "dim"))


def _show_estimate(estimate: Mapping[str, Any], console: Console) -> None:
    if not estimate["behind"]:
        _say(console, "Nothing is pending anywhere.")
        return
    each = f"{estimate['migrating_ms'] / 1000:.1f} s"
    reckoned = (
        f"{each} for each that is behind, as said"
        if estimate["migrating_ms"] != estimate["looking_ms"]
        else f"the {each} that looking at one took: revisions take their own time beyond that, see --per-target"
    )
    _say(
        console,
        ("A rollout: ", "bold"),
        f"{estimate['behind']:,} of {estimate['targets']:,} targets to migrate, about {duration(estimate['seconds'])}"
        f" and {_usd(estimate['usd'])}, reckoned with {reckoned}.",
    )


def _usd(amount: float) -> str:
    return f"{amount:.2f} USD" if amount >= _CENT else "less than 0.01 USD"


def duration(seconds: float) -> str:
    """A duration as people say it, no finer than it is known."""
    if seconds < _MINUTE:
        return f"{max(round(seconds), 1)} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    return f"{seconds / _HOUR:.1f} h"


def _took(report: Mapping[str, Any]) -> str:
    seconds = report["duration_ms"] / 1000
    return f"in {seconds:.1f} s" if seconds < _MINUTE else f"in {duration(seconds)}"


def _cut(console: Console, more: int, what: str) -> None:
    if more > 0:
        _say(console, (f"and {more:,} more {what}", "dim"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=True, justify="right" if number else "left")
    return table


def _say(console: Console, *parts: str | tuple[str, str]) -> None:
    cleaned = (plain(part) if isinstance(part, str) else (plain(part[0]), part[1]) for part in parts)
    console.print(Text.assemble(*cleaned), soft_wrap=True)
