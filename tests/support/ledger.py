"""A tree whose revisions each leave a trace, and checks of the database from another session."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import MigrationError
from tests.support.bystander import execute, query
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from localcloud.postgres import Database
    from localcloud.runtime_api import Answer

CONTRACT_ERRORS = frozenset(error.__name__ for error in MigrationError.__subclasses__())


def write_ledger(folder: Path, revisions: int, *, instead: Mapping[int, str] | None = None, **options: str) -> Path:
    """A tree of revisions r01, r02, ... that each make a table and write their number into a ledger.

    The ledger has no unique constraint, so it shows a revision that is applied twice. ``instead`` replaces what the
    revision of that number does beside writing into the ledger.
    """
    written = []
    for number in range(1, revisions + 1):
        does = (instead or {}).get(number, sql(f"CREATE TABLE t{number:02} (id int)"))
        # The ledger last: what comes before an autocommit block is committed before it.
        wrote = sql(*["CREATE TABLE ledger (number int)"][number - 1 :], f"INSERT INTO ledger VALUES ({number})")  # noqa: S608
        undone = sql(f"DELETE FROM ledger WHERE number = {number}", f"DROP TABLE IF EXISTS t{number:02}")  # noqa: S608
        written.append(Rev(f"r{number:02}", f"{does}\n{wrote}", undone, description=f"Step {number}"))
    return write_tree(folder, written, **options)


def concurrent_index(name: str, table: str) -> str:
    """The body of a revision that builds an index as Alembic's manual says."""
    return (
        "with op.get_context().autocommit_block():\n"
        f"    op.create_index({name!r}, {table!r}, ['id'], postgresql_concurrently=True, if_not_exists=True)"
    )


def reached(database: Database) -> int:
    """Return the number of the database's revision. Each revision's work must be complete or absent."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        # One snapshot for all that is compared.
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT to_regclass('alembic_version') IS NOT NULL, to_regclass('ledger') IS NOT NULL")
        has_version, has_ledger = cursor.fetchall()[0]
        heads, numbers = [], []
        if has_version:
            cursor.execute("SELECT version_num FROM alembic_version")
            heads = [row[0] for row in cursor.fetchall()]
        if has_ledger:
            cursor.execute("SELECT number FROM ledger ORDER BY 1")
            numbers = [row[0] for row in cursor.fetchall()]
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename ~ '^t[0-9]+$'")
        tables = {int(row[0][1:]) for row in cursor.fetchall()}
    at = int(heads[0][1:]) if heads else 0
    assert numbers == list(range(1, at + 1)), f"the version table says {heads}, but applied were {numbers}"
    assert tables <= set(range(1, at + 1)), f"the version table says {heads}, but there are tables {sorted(tables)}"
    return at


def empty(database: Database) -> None:
    """Empty the database."""
    execute(database, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def applied_ids(answer: Answer) -> list[str]:
    """Return the revisions that an answer reports as applied."""
    return [applied["revision"] for applied in answer.payload["applied"]]


def sessions(database: Database, request_id: str) -> list[tuple[int, str, str]]:
    """The sessions of an invocation: pid, state and statement."""
    return query(
        database,
        "SELECT pid, state, query FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s",
        (database.name, f"%/{request_id}"),
    )


def lock_holders(database: Database) -> list[str]:
    """Return the application names of the sessions that hold a migration lock in this database."""
    rows = query(
        database,
        "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'"
        " AND l.granted AND l.classid = %s AND a.datname = %s",
        (0x4D494752, database.name),
    )
    return [row[0] for row in rows]


def is_running(database: Database, words: str) -> bool:
    """Return whether the database is executing a statement with these words."""
    rows = query(
        database,
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state = 'active' AND query LIKE %s",
        (f"%{words}%",),
    )
    return bool(rows)
