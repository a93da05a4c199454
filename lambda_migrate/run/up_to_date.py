"""Sees from the manifest and the version table that there is nothing to do: without Alembic, env.py and the lock.

Most runs find nothing to do, and this is all that they cost beside connecting. It says yes only where Alembic could
come to no other answer: the builder has seen that env.py keeps the version where Alembic does by itself, there is no
second table of that name in the database, and it holds exactly the packaged heads. In any other case env.py is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2.errors

from lambda_migrate.invocation.errors import DatabaseUnavailable
from lambda_migrate.invocation.result import joined
from lambda_migrate.revisions import manifest

if TYPE_CHECKING:
    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.invocation import Invocation, Progress
    from lambda_migrate.invocation.request import Request
    from lambda_migrate.revisions.manifest import Manifest

_ACTIONS = frozenset({"upgrade", "status", "plan"})


def is_current(invocation: Invocation, session: Session, progress: Progress) -> bool:
    """Whether the database is at the packaged heads and those are all that is asked for; `progress` then says so.

    Raises:
        ConfigurationError: the manifest does not belong to the tree beside it.
    """
    packaged = manifest.for_settings(invocation.settings)
    # After an attempt only env.py's word counts.
    if progress.attempts or packaged is None or not _asks_for_heads(invocation.request, packaged):
        return False
    progress.database = session.server.database
    heads = _heads(session, packaged)
    if heads != packaged.heads:
        return False
    progress.previous = progress.revisions = heads
    progress.attempts = 1
    return True


def _heads(session: Session, packaged: Manifest) -> tuple[str, ...] | None:
    """What the version table holds, None where it does not tell."""
    if packaged.version_table is None:
        return None
    table = psycopg2.extensions.quote_ident(packaged.version_table, session.connection)
    try:
        rows = session.rows(
            f"SELECT version_num, (SELECT count(*) FROM pg_class WHERE relname = %s) FROM {table}",  # noqa: S608 - quoted
            (packaged.version_table,),
        )
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn, psycopg2.errors.InsufficientPrivilege):
        return None
    except DatabaseUnavailable:
        # Whoever goes on with this session sees the same, and knows how often to try again.
        return None
    return tuple(sorted(version for version, _ in rows)) if all(tables == 1 for _, tables in rows) else None


def _asks_for_heads(request: Request, packaged: Manifest) -> bool:
    # A target's schema may be one of many in the database, each with a version table of its own.
    if request.action not in _ACTIONS or request.target.schema is not None:
        return False
    wanted = request.revision
    return wanted == "heads" or wanted == joined(packaged.heads) or (wanted == "head" and len(packaged.heads) == 1)
