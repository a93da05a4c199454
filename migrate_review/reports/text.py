"""A review in a terminal, 80 columns wide or wider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.control import strip_control_codes
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from migrate_review.reports import summary

if TYPE_CHECKING:
    from rich.console import Console

    from migrate_review.review import Review, Reviewed
    from migrate_review.rules.findings import Finding

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
_INDENT = 2


def show(review: Review, console: Console) -> None:
    """Print the verdict, the next steps, each revision with its measurements and findings, and the counts."""
    style = "bold green" if review.passed else "bold red"
    console.print(_text((summary.verdict(review), style)))
    for line in summary.to_do(review):
        _print(console, _text(line))
    console.print()
    for one in review.revisions:
        _show_revision(one, console)
    for found in review.beside:
        console.print(_text((found.revision, "bold")))
        _show_finding(found, console)
    console.print(_text((summary.outcome(review), style)))


def _show_revision(one: Reviewed, console: Console) -> None:
    worst = min((list(_STYLES).index(found.severity.value) for found in one.result.standing), default=None)
    kind = None if worst is None else list(_STYLES)[worst]
    well = ("✓", "green") if one.observation is not None else ("?", "dim")
    mark = (summary.MARKS[kind], _STYLES[kind]) if kind else well
    console.print(_text(mark, (f" {one.revision.id} ", "bold"), one.revision.description))
    if one.observation is not None:
        seen = one.observation
        _print(console, _text((f"{summary.durations(seen)}; {summary.filled(seen)}", "dim")))
        for lock in summary.locks(seen):
            _print(console, _text((lock, "dim")))
    else:
        _print(console, _text(("not measured: Alembic cannot load the tree", "dim")))
    for found in one.result.standing:
        _show_finding(found, console)
    for found, reason in one.result.acknowledged:
        _print(console, _text(("acknowledged ", "dim"), (found.rule, "dim bold"), (f": {reason}", "dim")))


def _show_finding(found: Finding, console: Console) -> None:
    console.print()
    _print(console, _text((summary.heading(found), _STYLES[found.severity.value])))
    _print(console, _text(found.message))
    if found.evidence:
        _print(console, _text(("measured: ", "dim"), found.evidence))
    code = strip_control_codes(found.fix)
    if console.is_terminal:
        block = Syntax(code, "python", background_color="default", word_wrap=True)
        console.print(Padding(block, (0, 0, 0, 2 * _INDENT)))
    else:
        for line in code.splitlines():
            console.print(f"{' ' * 2 * _INDENT}{line}", markup=False, soft_wrap=True)
    console.print()


def _print(console: Console, text: Text) -> None:
    # With `expand`, padding fills each line up to the console's width, which is a million columns in a pipe.
    console.print(Padding(text, (0, 0, 0, _INDENT), expand=False))


def _text(*parts: str | tuple[str, str]) -> Text:
    """Return text in which markup is literal and a terminal's control codes are removed."""
    return Text.assemble(
        *(
            strip_control_codes(part) if isinstance(part, str) else (strip_control_codes(part[0]), part[1])
            for part in parts
        )
    )
