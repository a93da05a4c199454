"""Finds out from the manifest and the version table whether there is nothing to do.

Most runs find nothing to do, and this check and a connection are all that they cost: no Alembic, no env.py, no lock.
The answer is yes only if Alembic could give no other. The builder has seen that env.py uses Alembic's default version
table, the database has exactly one table of that name, and the table holds exactly the packaged heads. In any other
case env.py runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2.errors

from lambda_migrate.invocation.errors import DatabaseUnavailable
from lambda_migrate.invocation.result import RunState, joined
from lambda_migrate.revisions import manifest

if TYPE_CHECKING:
    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.request import Request
    from lambda_migrate.revisions.manifest import Manifest

_ACTIONS = frozenset({"upgrade", "status", "plan"})


def look(invocation: Invocation, session: Session) -> RunState | None:
    """Return the state of a database at the packaged heads if those are requested, and None otherwise.

    Raises:
        ConfigurationError: the manifest does not match the tree beside it.
    """
    packaged = manifest.for_settings(invocation.settings)
    # env.py may work in another schema for each -x argument.
    if packaged is None or invocation.settings.x_arguments or not _wants_heads(invocation.request, packaged):
        return None
    heads = _heads(session, packaged)
    if heads != packaged.heads:
        return None
    return RunState(session.server.database, previous=heads, revisions=heads, attempts=1)


def _heads(session: Session, packaged: Manifest) -> tuple[str, ...] | None:
    """Return the revisions in the version table, or None if only env.py can read them."""
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
        # The run finds this session lost, too, and connects again as often as its limit allows.
        return None
    return tuple(sorted(version for version, _ in rows)) if all(tables == 1 for _, tables in rows) else None


def _wants_heads(request: Request, packaged: Manifest) -> bool:
    # A target's schema may be one of many in the database, each with a version table of its own.
    if request.action not in _ACTIONS or request.target.schema is not None:
        return False
    wanted = request.revision
    return wanted == "heads" or wanted == joined(packaged.heads) or (wanted == "head" and len(packaged.heads) == 1)
