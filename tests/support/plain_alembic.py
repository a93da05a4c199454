"""Runs Alembic's own command in a backend's folder, and reads its result, which the function must equal."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support.bystander import query
from tests.support.functions import RUNTIME

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database


def alembic(
    folder: Path, database: Database, *arguments: str, libraries: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the alembic command in the folder, with the libraries of a package if they are given."""
    more = {"PYTHONPATH": str(libraries), "PGSSLROOTCERT": str(database.ca)} if libraries is not None else {}
    return subprocess.run(
        [str(RUNTIME if libraries is not None else sys.executable), "-m", "alembic", *arguments],
        cwd=folder,
        env={**os.environ, "DATABASE_URL": database.url, "PYTHONDONTWRITEBYTECODE": "1", **more},
        capture_output=True,
        text=True,
        check=False,
    )


def snapshot(database: Database) -> dict[str, Any]:
    """Every table with its owner, columns and rows, without the oids that differ from run to run."""
    tables = query(
        database,
        "SELECT c.oid::regclass::text, c.relowner::regrole::text, array(SELECT attname::text FROM pg_attribute"
        " WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum), n.nspname, c.relname"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind = 'r' AND nspname !~ '^(pg_|information_schema)' ORDER BY 1",
    )
    indexes = query(database, "SELECT indexname FROM pg_indexes WHERE schemaname !~ '^pg_' ORDER BY 1")
    rows = {
        name: query(database, f'SELECT * FROM "{schema}"."{table}" ORDER BY 1')  # noqa: S608 - a test's own names
        for name, _, _, schema, table in tables
    }
    return {"tables": [row[:3] for row in tables], "indexes": indexes, "rows": rows}
