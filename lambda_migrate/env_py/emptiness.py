"""Determines whether a database is empty, and whether a checkpoint has the same result there as its revisions.

It looks at one schema. Other schemas may have any content, unless the checkpoint fills them, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import literal, qualified

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lambda_migrate.revisions.checkpoint import Checkpoint

_UTC = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT", "UCT", "Etc/UCT", "Universal", "Zulu"})
# A schema's name is put between quotes of several kinds.
_UNPLACEABLE = re.compile(r"['\\$]")

# Anything but a privilege that depends on a schema is an object in it; what an extension brought is the extension's.
_HOLDS = (
    "EXISTS (SELECT FROM pg_depend AS held WHERE (held.refclassid = pg_namespace.tableoid)"
    " AND (held.refobjid = pg_namespace.oid) AND (held.deptype = 'n')"
    " AND (held.classid <> (SELECT oid FROM pg_class AS x WHERE (x.relname = 'pg_extension')"
    " AND (x.relnamespace = 11)))"
    " AND NOT EXISTS (SELECT FROM pg_depend AS member WHERE (member.classid = held.classid)"
    " AND (member.objid = held.objid) AND (member.deptype = 'e')))"
)


@dataclass(frozen=True)
class Found:
    """The facts of a session that decide about a checkpoint.

    ``schemas`` are the other existing schemas, and whether each has an object.
    """

    schema: str | None
    quoted_schema: str | None
    holds_objects: bool
    public_may_create: bool
    version_table_exists: bool
    role: str
    quoted_role: str
    server_version: int
    time_zone: str
    extensions: dict[str, str]
    roles: list[str]
    schemas: dict[str, bool]


def query(checkpoint: Checkpoint, schema: str | None, table: str) -> str:
    """Return the query for the fields of `Found`. ``schema`` and ``table`` are the version table's, as configured."""
    is_there = "pg_table_is_visible(c.oid)"
    if schema is not None:
        is_there = f"(n.nspname = {literal(schema)})"
    # One value, as JSON, because each driver has its own types.
    return qualified(
        "SELECT json_build_object("  # noqa: S608 - literals
        "'schema', current_schema(), 'quoted_schema', quote_ident(current_schema()),"
        f" 'holds_objects', coalesce((SELECT {_HOLDS} FROM pg_namespace"
        " WHERE (pg_namespace.nspname = current_schema())), false),"
        " 'public_may_create', coalesce((SELECT has_schema_privilege('public', pg_namespace.oid, 'CREATE')"
        " FROM pg_namespace WHERE (pg_namespace.nspname = current_schema())), false),"
        " 'version_table_exists', EXISTS (SELECT FROM pg_class AS c, pg_namespace AS n"
        f" WHERE (n.oid = c.relnamespace) AND (c.relname = {literal(table)}) AND {is_there}),"
        " 'role', current_user, 'quoted_role', quote_ident(current_user::text),"
        " 'server_version', current_setting('server_version_num')::int, 'time_zone', current_setting('TimeZone'),"
        " 'extensions', (SELECT coalesce(json_object_agg(e.extname, n.nspname), '{}'::json)"
        " FROM pg_extension AS e, pg_namespace AS n WHERE (n.oid = e.extnamespace)),"
        " 'roles', (SELECT coalesce(json_agg(r.rolname), '[]'::json) FROM pg_roles AS r"
        f" WHERE (r.rolname::text = ANY ({_array(checkpoint.roles)}))),"
        f" 'schemas', (SELECT coalesce(json_object_agg(nspname, {_HOLDS}), '{{}}'::json) FROM pg_namespace"
        f" WHERE (nspname::text = ANY ({_array((*checkpoint.schemas, *checkpoint.schemas_before))})))"
        ")::text"
    )


def reasons(checkpoint: Checkpoint, found: Found) -> Iterator[str]:
    """Yield why the revisions must run, for each reason."""
    if found.schema is None or found.quoted_schema is None:
        yield "the schema does not exist yet"
        return
    if found.holds_objects:
        yield f"the schema {found.schema} holds objects"
    if found.public_may_create and checkpoint.revokes:
        yield f"every role may create in the schema {found.schema}, and a revision may take that away"
    if found.schema != checkpoint.home and not checkpoint.any_schema:
        yield f"it is for the schema {checkpoint.home} only"
    if _UNPLACEABLE.search(found.schema):
        yield "the name of the schema has a quote, a backslash or a dollar sign"
    if found.server_version // 10000 < min(checkpoint.postgresql):
        yield f"it was verified on PostgreSQL {min(checkpoint.postgresql)} and later"
    if checkpoint.time_zone is not None and found.time_zone not in _UTC:
        yield f"the session's time zone is {found.time_zone}, and the checkpoint needs {checkpoint.time_zone}"
    yield from _what_is_in_the_way(checkpoint, found)


def _what_is_in_the_way(checkpoint: Checkpoint, found: Found) -> Iterator[str]:
    for schema, holds_objects in found.schemas.items():
        if holds_objects:
            yield f"the schema {schema} holds objects"
        elif schema in checkpoint.schemas and schema != "public":
            yield f"the schema {schema} exists already"
    yield from (
        f"the schema {schema} does not exist" for schema in checkpoint.schemas_before if schema not in found.schemas
    )
    missing = [role for role in checkpoint.roles if role not in found.roles]
    if missing:
        yield f"the role {missing[0]} does not exist"
    for extension, schema in checkpoint.extensions.items():
        there = found.extensions.get(extension)
        if there is not None and there != (schema or found.schema):
            yield f"the extension {extension} is in the schema {there}"


def _array(names: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(literal, names))}]::text[]"
