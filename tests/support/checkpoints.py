"""A tree with rows and objects of many kinds, its checkpoint, and comparisons with a replay."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_migrate.revisions.checkpoint import DESCRIPTION, SCRIPT, read_checkpoint, to_text
from lambda_migrate.revisions.manifest import digest_of
from migrate_review.checkpoint.making import make
from migrate_review.checkpoint.replaying import Backend
from migrate_review.measure.session import settings_of
from tests.support.bystander import query
from tests.support.plain_alembic import alembic, snapshot
from tests.support.trees import Rev, sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localcloud.postgres import Database
    from migrate_review.checkpoint.making import Made

SEEDED = (
    Rev(
        "a1",
        sql(
            "CREATE TYPE plan AS ENUM ('free', 'team')",
            "CREATE TABLE plans (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, kind plan,"
            " parent int REFERENCES plans, price numeric DEFAULT 0,"
            " twice numeric GENERATED ALWAYS AS (price * 2) STORED)",
            "INSERT INTO plans (name, kind, price) VALUES (E'two\\nlines;', 'team', 5),"
            " ('it''s \"100%\" \\:free', 'free', 0.1)",
            "UPDATE plans SET parent = 2 WHERE id = 1",
            "COMMENT ON TABLE plans IS 'What is sold; $$quoted$$'",
        ),
        description="Add plans",
    ),
    Rev(
        "b2",
        sql(
            "CREATE SEQUENCE numbers START 10",
            "CREATE TABLE notes (kind varchar(9) CHECK (kind IN ('a', 'it''s')), done varchar(3))",
            "CREATE INDEX open_notes ON notes (kind) WHERE done IN ('no', 'new')",
            "CREATE VIEW open_kinds AS SELECT kind FROM notes WHERE done IN ('no', 'new')",
            "SELECT nextval('numbers')",
            "CREATE TABLE events (at date NOT NULL, plan int) PARTITION BY RANGE (at)",
            "CREATE TABLE events_2001 PARTITION OF events FOR VALUES FROM ('2001-01-01') TO ('2002-01-01')",
            "INSERT INTO events VALUES ('2001-02-03', 1)",
            "CREATE VIEW sold AS SELECT name, count(*) FROM plans JOIN events ON plan = id GROUP BY name",
            "CREATE MATERIALIZED VIEW sums AS SELECT sum(price) AS total FROM plans",
            "CREATE FUNCTION cheapest() RETURNS text LANGUAGE sql STABLE"
            " AS 'SELECT name FROM plans ORDER BY price LIMIT 1'",
            "REVOKE EXECUTE ON FUNCTION cheapest() FROM PUBLIC",
        ),
        description="Add events",
    ),
    Rev(
        "c3",
        "import os\nop.execute(f\"CREATE TABLE third (id {os.environ.get('FLAG', 'int')})\")",
        down="a1",
        description="Another branch",
    ),
)


def checkpoint(
    folder: Path, *, at: str | None = None, allow: Sequence[str] = (), versions: Sequence[int] = (18,)
) -> Made:
    """Make and write the checkpoint of a backend."""
    backend = Backend(folder, settings_of(folder, "alembic.ini", {}), Path(sys.executable), {})
    made = make(backend, at=at, allow=allow, versions=versions)
    made.write()
    return made


def held(database: Database) -> dict[str, Any]:
    """Return the content of a database without its owner's name."""
    found = snapshot(database)
    return {**found, "tables": [(name, columns) for name, _, columns in found["tables"]]}


def replayed(folder: Path, database: Database) -> dict[str, Any]:
    """Return the content that Alembic's command leaves, and empty the database again."""
    assert alembic(folder, database, "upgrade", "heads").returncode == 0
    found = held(database)
    query(database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return found


def spoil(folder: Path, statement: str) -> None:
    """Append a statement to the script, and update its description."""
    tree = folder / "alembic"
    (tree / SCRIPT).write_text((tree / SCRIPT).read_text() + statement)
    describe_as(folder, script_sha256=digest_of(tree / SCRIPT))


def describe_as(folder: Path, **fields: Any) -> None:  # noqa: ANN401 - whatever a description has
    """Change the description of the checkpoint."""
    tree = folder / "alembic"
    found = read_checkpoint(tree)
    assert found is not None
    (tree / DESCRIPTION).write_text(to_text(replace(found, **fields)))
