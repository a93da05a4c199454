"""Runs queries and statements over a new connection, separate from the function's."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localcloud.postgres import Database, Server


def query(database: Database, statement: str, parameters: tuple[object, ...] | None = None) -> list[tuple[Any, ...]]:
    """The rows of a statement, on a connection of its own."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def execute(database: Database, *statements: str) -> None:
    """Execute statements, each in its own transaction."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def begin_at(database: Database, revision: str, schema: str = "public") -> None:
    """Create the version table of a tree that is at a revision, without a run that brings it there."""
    execute(
        database,
        f"CREATE TABLE {schema}.alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY)",
        f"INSERT INTO {schema}.alembic_version VALUES ('{revision}')",  # noqa: S608 - a test's own names
    )


def administer(server: Server, *statements: str) -> None:
    """Execute statements as the superuser."""
    execute(server.database("postgres"), *statements)
