"""A run's result, or its error, as a person reads it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


def show_result(result: Mapping[str, Any], console: Console) -> None:
    """From where to where, and each revision on the way with its duration."""
    at = _at(result["revision"])
    if not result["applied"]:
        console.print(Text.assemble(("Nothing to apply: ", "bold green"), f"{result['database']} is at {at}."))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("Revision", no_wrap=True)
    table.add_column("Description")
    table.add_column("Duration", justify="right", no_wrap=True)
    for applied in result["applied"]:
        table.add_row(Text(applied["revision"]), Text(applied["description"]), f"{applied['duration_ms']:,} ms")
    console.print(table)
    count = len(result["applied"])
    console.print(
        Text.assemble(
            (f"\nApplied {count} revision{'s' if count > 1 else ''}", "bold green"),
            f" to {result['database']} ({result['stage']}): from {_at(result['previous_revision'])} to {at}"
            f" in {result['duration_ms'] / 1000:.1f} s.",
        )
    )


def show_error(error: Mapping[str, Any], console: Console) -> None:
    """The error's name and its message, which says what to do."""
    console.print(
        Text.assemble((f"{error.get('errorType', 'Error')}: ", "bold red"), error.get("errorMessage", "")),
        soft_wrap=True,
    )


def _at(revision: str | None) -> str:
    return revision or "base (an empty database)"
