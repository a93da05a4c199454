"""Where the database is, where the code is, and bringing the one to the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import column, func, select, table

from app.revising import BACK

if TYPE_CHECKING:
    from sqlalchemy import Engine

# The advisory lock of whoever migrates the database: "MIGR" in ASCII, 0 for the default schema.
# Another program that migrates it takes turns with this one if it takes the same lock.
LOCK_KEY = (0x4D494752, 0)
_POLL_S = 0.5


def code_head() -> str:
    """Return the revision that this code needs; several heads are joined by a comma.

    Read anew each time: in development the tree changes under a running server.
    """
    return ",".join(sorted(ScriptDirectory(str(BACK / "alembic")).get_heads()))


def database_revision(engine: Engine) -> str | None:
    """Return the revision that the database is at, None before the first."""
    with engine.connect() as connection:
        # Alembic's own way to ask writes two lines into the log each time.
        if connection.scalar(select(func.to_regclass("alembic_version"))) is None:
            return None
        found = connection.scalars(
            select(column("version_num")).select_from(table("alembic_version"))
        )
        return ",".join(sorted(found)) or None


def upgrade_to_head(engine: Engine) -> None:
    """Apply what is missing; of several processes one does, and the others wait for it.

    The lock is polled for: a session that waits inside `pg_advisory_lock` has a snapshot, which
    CREATE INDEX CONCURRENTLY would wait for. It ends with its session, however that ends.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        said = False
        while not session.scalar(select(func.pg_try_advisory_lock(*LOCK_KEY))):
            if not said:
                print("Another process is migrating the database; waiting for it.", flush=True)
                said = True
            time.sleep(_POLL_S)
        command.upgrade(Config(str(BACK / "alembic.ini")), "head")
