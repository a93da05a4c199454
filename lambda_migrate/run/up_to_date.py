"""Decides from the manifest and the version table whether there is nothing to do.

Most runs have nothing to do, and cost only this check and a connection: no Alembic, no env.py, no lock. The answer is
yes only if Alembic could give no other. The builder has seen that env.py uses Alembic's default version table, the
database has exactly one table of that name, and the table holds exactly the packaged heads. In any other case env.py
runs.

For a request with a schema, the table is the one in that schema: the hook into Alembic puts it there. So each tenant's
schema may have one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg2.errors

from lambda_migrate.database.version_table import find_version_table
from lambda_migrate.invocation.errors import ConfigurationError, DatabaseUnavailable
from lambda_migrate.invocation.heads import COLUMN, LIMIT, heads_of
from lambda_migrate.invocation.result import RunState, joined
from lambda_migrate.revisions import manifest

if TYPE_CHECKING:
    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.request import Request
    from lambda_migrate.revisions.manifest import Manifest

_ACTIONS = frozenset({"upgrade", "status", "plan"})


def manifest_of(invocation: Invocation) -> Manifest | None:
    """Return the manifest if it and the version table can show that there is nothing to do, and None otherwise.

    Raises:
        ConfigurationError: the manifest does not match the tree beside it.
    """
    packaged = manifest.for_settings(invocation.settings)
    # env.py may work in another schema for each -x argument.
    if packaged is None or invocation.settings.x_arguments or not _wants_heads(invocation.request, packaged):
        return None
    return packaged if packaged.version_table is not None else None


def state_at_heads(packaged: Manifest | None, session: Session, schema: str | None) -> RunState | None:
    """Return the state of a database, or a schema of it, at the packaged heads. None if only env.py can tell."""
    if packaged is None or packaged.version_table is None:
        return None
    try:
        # If the login is not the owner, a second query finds the owner.
        table = session.version_table or find_version_table(session, packaged.version_table, schema)
    except DatabaseUnavailable:
        return None
    if table is None:
        return None
    heads = _heads(session, table, packaged.version_table)
    if heads != packaged.heads:
        return None
    return RunState(session.server.database, previous=heads, revisions=heads, attempts=1)


def state_after_another_run(invocation: Invocation, session: Session) -> RunState | None:
    """Return the state as `state_at_heads` does, of a database that may have changed since the session was opened."""
    return state_at_heads(manifest_of(invocation), replace(session, version_table=None), invocation.schema)


def _heads(session: Session, *names: str) -> tuple[str, ...] | None:
    """Return the revisions in the table of this schema and name, or None if only env.py can read them."""
    schema, table = (psycopg2.extensions.quote_ident(name, session.connection) for name in names)
    try:
        rows = session.rows(f"SELECT {COLUMN} FROM {schema}.{table} {LIMIT}")  # noqa: S608 - quoted
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn, psycopg2.errors.InsufficientPrivilege):
        return None
    except ValueError:
        # The driver cannot represent a value, such as a date before Christ. Then the value is no revision.
        return None
    except DatabaseUnavailable:
        # The run finds this session lost, too, and connects again as often as its limit allows.
        return None
    try:
        return heads_of((version for (version,) in rows), ".".join(names))
    except ConfigurationError:
        # With env.py the same error names the table that Alembic really uses.
        return None


def _wants_heads(request: Request, packaged: Manifest) -> bool:
    if request.action not in _ACTIONS:
        return False
    wanted = request.revision
    return wanted == "heads" or wanted == joined(packaged.heads) or (wanted == "head" and len(packaged.heads) == 1)
