"""The rows of a database, each with the transaction that wrote it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localcloud.postgres import Database

# The server itself keeps these up to date, without a transaction.
_STATISTICS = "'{relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid}'::text[]"


def fingerprint(database: Database) -> dict[str, list[str]]:
    """Every row of every catalog and table of this database, and the settings and roles that are named after it.

    ``database`` is reached as the superuser. Catalogs that all databases share have rows of other tests.
    """
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(
            "SELECT c.oid::regclass::text, c.relkind = 'S' FROM pg_class c WHERE c.relkind IN ('r', 'm', 'S')"
            " AND NOT c.relisshared AND c.relname !~ '^pg_statistic' AND c.relnamespace <> 'pg_toast'::regnamespace"
        )
        selects = {
            name: f"SELECT last_value, is_called FROM {name}"  # noqa: S608 - from the catalog
            if is_sequence
            else f"SELECT xmin, to_jsonb(t) - {_STATISTICS} FROM {name} AS t"  # noqa: S608 - from the catalog
            for name, is_sequence in cursor.fetchall()
        }
        of_this = f"LIKE '{database.name}%'"
        selects["its settings"] = (
            "SELECT s.xmin, to_jsonb(s) FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = setrole"  # noqa: S608 - ours
            f" LEFT JOIN pg_database d ON d.oid = setdatabase WHERE datname {of_this} OR rolname {of_this}"
        )
        selects["its roles"] = f"SELECT xmin, to_jsonb(r) FROM pg_authid r WHERE rolname {of_this}"  # noqa: S608 - ours
        found = {}
        for name, select in selects.items():
            cursor.execute(f"SELECT row::text FROM ({select}) AS row ORDER BY 1")  # noqa: S608 - ours
            found[name] = [row[0] for row in cursor.fetchall()]
    return found
