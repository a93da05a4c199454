"""Executes a statement within the transaction that fills tables, and undoes it if the server refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2

if TYPE_CHECKING:
    from psycopg2.extensions import cursor


@dataclass(frozen=True)
class Outcome:
    """The number of changed rows and the result of a statement, or the server's message if it was undone."""

    changed: int = 0
    found: tuple[Any, ...] = ()
    problem: str | None = None


def tried(cursor: cursor, statement: str, arguments: Any = None) -> Outcome:  # noqa: ANN401
    """Execute a statement. Return its result."""
    cursor.execute("SAVEPOINT tried")
    try:
        cursor.execute(statement, arguments)
        outcome = Outcome(max(0, cursor.rowcount), tuple(cursor.fetchall()) if cursor.description else ())
    except psycopg2.Error as error:
        cursor.execute("ROLLBACK TO tried; RELEASE tried")
        return Outcome(problem=error.diag.message_primary or str(error).strip())
    cursor.execute("RELEASE tried")
    return outcome
