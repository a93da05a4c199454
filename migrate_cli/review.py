"""The options of `review`; the work is `reviewer`'s. Needs no AWS."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from migrate_cli.errors import UsageError


class Format(str, Enum):
    """For whom a review is written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"
    MARKDOWN = "markdown"


def command(
    revisions: Annotated[
        list[str] | None, typer.Argument(help="Ids, their beginnings, or head; without any, all.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="GITREF", help="Those that are new since this branch, such as origin/main.")
    ] = None,
    backend: Annotated[Path, typer.Option(help="The backend, which has the Alembic tree.")] = Path("back"),
    config: Annotated[str, typer.Option(help="alembic.ini or pyproject.toml, from the backend.")] = "alembic.ini",
    shape: Annotated[Format, typer.Option("--format", help="For a terminal, a program, or GitHub.")] = Format.TEXT,
    rows: Annotated[int, typer.Option(min=1, help="How many rows each table gets.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Note in reviewed.json of the tree what has passed.")
    ] = False,
    python: Annotated[
        Path | None, typer.Option(help="The backend's interpreter; without it, that of its .venv, or this one.")
    ] = None,
) -> int:
    """Review revisions by running them on a PostgreSQL with rows in it. Exits with 1 if there is an error."""
    # Alembic, SQLAlchemy and the servers: no other command is to wait for them.
    from migrate_cli import reviewer  # noqa: PLC0415

    if as_json and shape not in (Format.TEXT, Format.JSON):
        raise UsageError(f"--json and --format {shape.value} are two forms of one answer", advice="Say one of them.")
    wanted = reviewer.Wanted(tuple(revisions or ()), since, backend, config, rows, python, record=record)
    return reviewer.run(wanted, (Format.JSON if as_json else shape).value)
