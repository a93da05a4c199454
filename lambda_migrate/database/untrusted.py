"""Finds the roles that could run code with the rights of the login, by what they put in its search_path.

The statements of Alembic, SQLAlchemy and the backend cannot be qualified. So before env.py runs, this module looks for
roles that may create in a schema in which its session resolves names, or that have created there, or that own the
database and so may set its search_path. `qualified` protects the function's own statements in any case.

A role counts if it may log in and is not trusted. The login itself, the roles that may act as it, superusers, and
before PostgreSQL 16 the roles with CREATEROLE are trusted: they have these rights anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.qualified import literal
from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lambda_migrate.invocation.settings import Settings

# Enough for a message. Each finding that is mended may uncover another one.
_FINDINGS = 10
# `pg_database_owner`, which owns the schema public from PostgreSQL 15 on. Its one member is the database's owner.
DATABASE_OWNER = 6171

# Roles that need not plant anything: the login, the roles that may act as it, and those that may act as a superuser.
# "me" is the login, also after SET ROLE. Before PostgreSQL 16, CREATEROLE includes every role but superusers.
_TRUSTED = """
    me AS (SELECT oid, rolname, rolsuper FROM pg_roles WHERE rolname = session_user),
    trusted AS (
        SELECT r.oid FROM pg_roles r, me WHERE r.oid = me.oid OR r.rolsuper
            OR (r.rolcreaterole AND NOT me.rolsuper AND current_setting('server_version_num')::int < 160000)
        UNION SELECT m.member FROM pg_auth_members m JOIN trusted ON m.roleid = trusted.oid
    )"""

# The roles that may act as a role: its members, and their members. `via` is the role that was granted to the last one.
_ACTING = """
    acting AS (
        SELECT DISTINCT root, root AS role, 0::oid AS via FROM roots
        UNION SELECT acting.root, m.member, m.roleid FROM acting JOIN pg_auth_members m ON m.roleid = acting.role
    )"""

_STRANGERS = "r.rolcanlogin AND NOT EXISTS (SELECT FROM trusted WHERE trusted.oid = r.oid)"

# One row for each way in which a role has an influence. `root` is the role that has it, 0 for PUBLIC.
_QUERY = f"""
    WITH RECURSIVE {_TRUSTED},
    path AS (
        SELECT oid, nspname AS schema, nspowner, coalesce(nspacl, acldefault('n', nspowner)) AS acl
        FROM pg_namespace WHERE nspname = ANY(ARRAY[{{schemas}}]::name[])
    ),
    database AS (
        SELECT oid, datdba, coalesce(datacl, acldefault('d', datdba)) AS acl
        FROM pg_database WHERE datname = current_database()
    ),
    ways AS (
        SELECT 'database' AS way, NULL::text AS schema, datdba AS root, NULL::text AS object FROM database
        UNION ALL
        SELECT 'new schema', NULL, a.grantee, NULL FROM database, aclexplode(database.acl) AS a
            WHERE {{missing}} AND a.privilege_type = 'CREATE' AND a.grantee <> database.datdba
        UNION ALL
        SELECT 'schema', path.schema, path.nspowner, NULL FROM path WHERE path.nspowner <> {DATABASE_OWNER}
        UNION ALL
        SELECT 'create', path.schema, a.grantee, NULL FROM path, aclexplode(path.acl) AS a
            WHERE a.privilege_type = 'CREATE' AND a.grantee <> path.nspowner AND a.grantee <> {DATABASE_OWNER}
        UNION ALL
        SELECT 'routine', path.schema, p.proowner, min(
                {{place}} || quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')')
            FROM path JOIN pg_proc p ON p.pronamespace = path.oid
            WHERE path.schema <> 'pg_catalog' GROUP BY path.schema, p.proowner
        UNION ALL
        SELECT 'operator', path.schema, o.oprowner, min({{place}} || o.oprname || ' ('
            || CASE WHEN o.oprleft = 0 THEN 'NONE' ELSE o.oprleft::regtype::text END || ', '
            || o.oprright::regtype::text || ')')
            FROM path JOIN pg_operator o ON o.oprnamespace = path.oid
            WHERE path.schema <> 'pg_catalog' GROUP BY path.schema, o.oprowner
        UNION ALL
        SELECT 'table', path.schema, c.relowner, {{place}} || quote_ident(c.relname)
            FROM path JOIN pg_class c ON c.relnamespace = path.oid WHERE c.relname = 'alembic_version'
    ),
    roots AS (SELECT root FROM ways WHERE root <> 0),
    {_ACTING},
    found AS (
        SELECT ways.*, r.rolname AS role, acting.via
        FROM ways JOIN acting ON acting.root = ways.root JOIN pg_roles r ON r.oid = acting.role
        WHERE {_STRANGERS}
        UNION ALL
        SELECT ways.*, 'PUBLIC', 0::oid FROM ways WHERE root = 0
    )
    SELECT found.way, found.schema, found.object, found.role::text,
        CASE WHEN found.via <> 0 THEN quote_ident(pg_get_userbyid(found.via)) END,
        CASE WHEN found.root = 0 THEN 'PUBLIC' ELSE quote_ident(found.role) END,
        quote_ident(found.schema), quote_ident(me.rolname), quote_ident(current_database()), me.rolname::text,
        EXISTS (SELECT FROM pg_roles s WHERE s.rolsuper AND pg_has_role(me.oid, s.oid, 'MEMBER'))
    FROM found, me ORDER BY found.way, found.schema, found.role LIMIT {_FINDINGS}
"""  # noqa: S608 - ours


@dataclass(frozen=True)
class Finding:
    """A role that is not trusted, its privileges or objects, and SQL that fixes it."""

    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.mend}"


@dataclass(frozen=True)
class Findings:
    """The findings, and whether the login is a superuser or may act as one. It is true if there are findings."""

    found: tuple[Finding, ...] = ()
    login: str = ""
    is_superuser: bool = False

    def __bool__(self) -> bool:
        return bool(self.found)

    def __str__(self) -> str:
        return (
            f"others could run code with the rights of {self.login}"
            f"{', a superuser' if self.is_superuser else ''}: {' '.join(map(str, self.found))}"
            " (see docs/security.md; UNTRUSTED_SCHEMA sets the reaction)"
        )


def query(schemas: Iterable[str], *, missing: bool) -> str:
    """Return SQL, to be qualified in env.py's session, for what `findings` reads.

    ``schemas`` are those of the search_path that exist, ``missing`` is True if it names others.
    """
    return _QUERY.format(
        schemas=", ".join(literal(schema) for schema in schemas),
        missing="true" if missing else "false",
        place="quote_ident(path.schema) || '.'",
    )


def findings(rows: Iterable[Iterable[Any]]) -> Findings:
    """Return the findings in the rows of `query`."""
    found = []
    login, superuser = "", False
    for way, schema, obj, role, via, quoted_role, quoted_schema, quoted_login, database, login, superuser in rows:  # noqa: B007
        verb, mend = {
            "database": (
                "owns the database, and so may set its search_path",
                (
                    f"ALTER DATABASE {database} OWNER TO {quoted_login}; GRANT CONNECT ON DATABASE {database} TO"
                    f" {quoted_role}"
                ),
            ),
            "new schema": (
                "may create the schemas that the search_path names and that do not exist",
                f"REVOKE CREATE ON DATABASE {database} FROM {quoted_role}",
            ),
            "schema": (
                f"owns schema {schema}",
                (
                    f"ALTER SCHEMA {quoted_schema} OWNER TO {quoted_login}; GRANT USAGE ON SCHEMA {quoted_schema} TO"
                    f" {quoted_role}"
                ),
            ),
            "create": (
                f"may create in schema {schema}",
                f"REVOKE CREATE ON SCHEMA {quoted_schema} FROM {quoted_role}",
            ),
            "routine": (f"has made functions in schema {schema}", f"DROP ROUTINE {obj} (read it first)"),
            "operator": (f"has made operators in schema {schema}", f"DROP OPERATOR {obj} (read its function first)"),
            "table": (f"owns the version table in schema {schema}", f"ALTER TABLE {obj} OWNER TO {quoted_login}"),
        }[way]
        who = "every role" if quoted_role == "PUBLIC" else f"role {role}"
        if via:
            who, mend = f"{who}, as a member of {via},", f"REVOKE {via} FROM {quoted_role}"
        found.append(Finding(f"{who} {verb}", f"{mend};"))
    return Findings(tuple(found), login, superuser)


def refuse(found: Findings, settings: Settings) -> bool:
    """Raise an error if the run must stop, and return whether it must warn.

    Raises:
        ConfigurationError: UNTRUSTED_SCHEMA requires it, or the default for a superuser's login.
    """
    mode = settings.untrusted_schema or ("refuse" if found.is_superuser else "warn")
    if found and mode == "refuse":
        raise ConfigurationError(str(found))
    return bool(found) and mode == "warn"
