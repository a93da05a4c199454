"""Finds the version table if it can be trusted, and reads it, with the role that env.py set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2.errors
import psycopg2.extensions

from lambda_migrate.database.untrusted import DATABASE_OWNER
from lambda_migrate.invocation.heads import COLUMN, LIMIT, check_kind, heads_of

if TYPE_CHECKING:
    from lambda_migrate.database.session import Session

# The places of a version table. Without a schema, env.py's session finds it by its name alone, so it must be the only
# relation of this name. In a request's schema, env.py's version table is the one of that schema, whatever others have.
PLACE_IN_PATH = (
    "n.nspname = ANY({path}) AND NOT EXISTS"
    " (SELECT FROM pg_class other WHERE other.relname = c.relname AND other.oid <> c.oid)"
)
PLACE_IN_SCHEMA = "c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s::name)"

# The schema of the version table, if it is at its `place` and only trusted roles may act as its owner and as the owner
# of its schema. Others could replace the table by a view, or hang functions on it that a read runs.
_VERSION_TABLE = f"""
    SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = %(table)s::name AND c.relkind = 'r' AND {{place}}
    AND NOT EXISTS (
        SELECT FROM unnest(ARRAY[c.relowner, CASE WHEN n.nspowner <> {DATABASE_OWNER} THEN n.nspowner ELSE (
            SELECT datdba FROM pg_database WHERE datname = current_database()) END]) AS owner
        JOIN pg_roles r ON (r.oid = owner AND r.rolcanlogin)
            OR EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = owner AND m.member = r.oid)
        WHERE r.rolname <> session_user AND NOT r.rolsuper AND NOT pg_has_role(r.oid, session_user, 'MEMBER')
    )"""  # noqa: S608 - ours

# The same for a table that belongs to the login itself, and whose schema belongs to it or to the database's owner that
# it is. It costs a tenth, and is a part of the statement that opens each session.
OWN_VERSION_TABLE = f"""
    SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = %(table)s::name AND c.relkind = 'r' AND {{place}}
    AND pg_get_userbyid(c.relowner) = session_user AND (
        pg_get_userbyid(n.nspowner) = session_user OR (n.nspowner = {DATABASE_OWNER} AND EXISTS (
            SELECT FROM pg_database WHERE datname = current_database() AND pg_get_userbyid(datdba) = session_user)))
    """  # noqa: S608 - ours


def find_version_table(session: Session, name: str, schema: str | None) -> str | None:
    """Return what `Session.version_table` would be if the session was opened now, for a request with this schema."""
    in_path = PLACE_IN_PATH.format(path="%(path)s::name[]")
    sql = _VERSION_TABLE.format(place=in_path if schema is None else PLACE_IN_SCHEMA)
    found = session.rows(sql, {"table": name, "path": list(session.path), "schema": schema})
    return next((table for (table,) in found), None)


def versions(session: Session, schema: str, table: str, role: str | None) -> tuple[str, ...]:
    """Return the committed revisions in a version table, sorted; none if there is no such table.

    ``role`` is the role that env.py set, if any. The read does SET ROLE to it, because the login may not inherit its
    rights.

    Raises:
        ConfigurationError: the table holds something else.
    """

    def quoted(name: str) -> str:
        return str(psycopg2.extensions.quote_ident(name, session.connection))

    qualified = f"{quoted(schema)}.{quoted(table)}"

    def read(acting: str) -> tuple[str, ...]:
        doubled = acting.replace("%", "%%")
        kind = session.rows(
            f"{doubled}SELECT (SELECT relkind FROM pg_class WHERE oid = to_regclass(%s))",  # noqa: S608 - ours
            (qualified,),
        )
        if kind[0][0] is None:
            return ()
        check_kind(kind[0][0], qualified)
        rows = session.rows(f"{acting}SELECT {COLUMN} FROM {qualified} {LIMIT}")  # noqa: S608 - quoted
        return heads_of((row[0] for row in rows), f"{schema}.{table}")

    try:
        return read(f"SET LOCAL ROLE {quoted(role)}; " if role else "")
    except (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.InvalidParameterValue):
        # If env.py logs in with another role, this login may not be a member of the role. A role that env.py created in
        # a read-only action does not exist.
        if role is None:
            raise
        return read("")
