"""Loads the database's content before the first revision from a schema dump of pg_dump."""

from __future__ import annotations

import io
import re
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2

from migrate_review.errors import ReviewError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database

# The file is also found in the folder of alembic.ini.
FILE = "baseline.sql"
_MAKE = "pg_dump --schema-only --no-owner --no-privileges"

_COPY = re.compile(r"COPY .* FROM stdin;", re.IGNORECASE)


def load(database: Database, file: Path) -> None:
    """Run the file in a database.

    Raises:
        ReviewError: the file cannot be read, or the server refuses it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReviewError(f"the baseline {file} cannot be read: {error}. It must be SQL text: {_MAKE}") from None
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        try:
            for statements, rows in _parts(text):
                if rows is None:
                    cursor.execute(statements)
                else:
                    cursor.copy_expert(statements, io.StringIO(rows))
        except psycopg2.Error as error:
            message = " ".join((error.diag.message_primary or str(error)).split())
            raise ReviewError(f"the baseline {file} cannot be loaded: {message}. Make it with {_MAKE}") from None


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield SQL to run, and for each COPY the rows that follow it. psql's own commands are left out."""
    sql: list[str] = []
    lines = iter(text.split("\n"))
    for line in lines:
        if _COPY.fullmatch(line.strip()):
            yield from _run(sql)
            sql = []
            rows: list[str] = []
            for row in lines:
                if row == "\\.":
                    break
                rows.append(f"{row}\n")
            yield line, "".join(rows)
        elif not line.startswith("\\"):
            sql.append(line)
    yield from _run(sql)


def _run(lines: list[str]) -> Iterator[tuple[str, None]]:
    text = "\n".join(lines)
    if text.strip():
        yield text, None
