"""Operators, functions and aggregates that a role has planted where a stronger login's session resolves names.

PostgreSQL prefers an exact match in any schema of the search_path over one in pg_catalog that needs a cast. So every
combination of types is planted that pg_catalog has no exact match for, and for a path that puts the schema before
pg_catalog, every exact match, too. Each of them writes to the server's log which statement called it, as which role.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.bystander import execute
from tests.support.functions import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localcloud.postgres import Database, Server

# Types of the catalogs' columns, of functions' results, and of parameters as drivers send them.
_TYPES = (
    *("oid", "int2", "int4", "int8", "text", "varchar", "name", "bool", '"char"', "regclass", "regnamespace", "xid"),
    *("timestamptz", "int4[]", "int8[]", "oid[]", "text[]", "name[]"),
)
# Further operands that the function's statements have, or that a statement without a cast would have.
_OPERANDS = ("float4, int4", "float4, int8", "numeric, int4", "int4, interval", "int2[], int2[]")
_OPERATORS = ("=", "<>", "<", ">", "<=", ">=", "||", "&", "-", "+", "*", "/", "~", "->>")
# Alembic's and SQLAlchemy's own statements, which cannot be qualified.
_NOT_OURS = re.compile(
    r"\s*(SELECT pg_catalog\.pg_\w+\."
    r"|(SELECT|DELETE FROM|UPDATE|INSERT INTO) (public\.)?alembic_version"
    r"|select (pg_catalog\.version|current_schema)\(\)|SELECT t\.oid, typarray\n)"
)

_PLANT = """
DO $plant$
DECLARE
    one record;
BEGIN
    SET LOCAL check_function_bodies = off;
    FOR one IN
        SELECT l, r, 'trojan_' || row_number() OVER () AS f FROM (
            SELECT l, r FROM unnest({types}) AS l, unnest({types}) AS r
            UNION ALL SELECT split_part(pair, ', ', 1), split_part(pair, ', ', 2) FROM unnest({operands}) AS pair
        ) AS pairs
    LOOP
        EXECUTE format('CREATE FUNCTION {schema}.%s(a %s, b %s) RETURNS bool LANGUAGE plpgsql AS %L', one.f, one.l,
            one.r, {body_of_operator});
        FOR i IN 1 .. array_length({operators}, 1) LOOP
            EXECUTE format('CREATE OPERATOR {schema}.%s (FUNCTION = {schema}.%s, LEFTARG = %s, RIGHTARG = %s)',
                ({operators})[i], one.f, one.l, one.r);
        END LOOP;
    END LOOP;
    FOR one IN WITH theirs AS (
        SELECT * FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ({names}) AND prokind = 'f'
    ) {functions} LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION {schema}.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', one.name, one.arguments,
                one.result, {body_of_function});
        EXCEPTION WHEN duplicate_function OR invalid_function_definition OR feature_not_supported THEN NULL;
        END;
    END LOOP;
    FOR one IN SELECT unnest({types}) AS t LOOP
        EXECUTE format('CREATE FUNCTION {schema}.counted(state int8, value %s) RETURNS int8 LANGUAGE plpgsql AS %L',
            one.t, {body_of_aggregate});
        EXECUTE format('CREATE AGGREGATE {schema}.count(%s) (SFUNC = {schema}.counted, STYPE = int8, INITCOND = ''0'')',
            one.t);
    END LOOP;
END $plant$
"""


def plant(database: Database, schema: str, role: str) -> None:
    """Let a role plant, in a schema where it may create, every object that our statements could resolve to."""
    statement = _PLANT
    for placeholder, text in {
        "{operators}": _array(_OPERATORS),
        "{operands}": _array(_OPERANDS),
        "{functions}": _FUNCTIONS,
        "{names}": _array(sorted(_names())),
        "{body_of_operator}": _body(
            "one.l || ' ? ' || one.r", "a::pg_catalog.text OPERATOR(pg_catalog.=) b::pg_catalog.text"
        ),
        "{body_of_function}": _body("one.name || '(' || one.arguments || ')'", "NULL"),
        "{body_of_aggregate}": _body("'count(' || one.t || ')'", "state OPERATOR(pg_catalog.+) 1"),
        "{types}": _array(_TYPES),
        "{schema}": schema,
    }.items():
        statement = statement.replace(placeholder, text)
    execute(database, f'SET search_path = pg_catalog; SET ROLE "{role}"; {statement}')


def _body(name: str, result: str) -> str:
    """SQL for the body of a function that writes its call to the server's log."""
    return (
        "format('BEGIN RAISE LOG ''planted %%'', pg_catalog.json_build_array(%L, CURRENT_USER,"
        f" pg_catalog.current_query()); RETURN {result}; END', {name})"
    )


_FUNCTIONS = """
    SELECT DISTINCT name, arguments, result FROM (
        SELECT proname::text AS name, pg_get_function_identity_arguments(oid) AS arguments,
            pg_get_function_result(oid) AS result, prorettype FROM theirs
        UNION SELECT proname::text, t, CASE WHEN prorettype::regtype::text ~ 'any' THEN 'text'
            ELSE prorettype::regtype::text END, 0 FROM theirs, unnest({types}) AS t WHERE pronargs = 1
        UNION SELECT proname::text, t || ', ' || u, prorettype::regtype::text, prorettype
            FROM theirs, unnest({types}) AS t, unnest({types}) AS u WHERE pronargs = 2
    ) AS every_one WHERE prorettype::regtype::text !~ 'any'"""


def _names() -> set[str]:
    """Return the words in the function's code that could name a SQL function."""
    return {
        name
        for file in (ROOT / "lambda_migrate").rglob("*.py")
        for name in re.findall(r"\b([a-z_]+)\(", file.read_text(encoding="utf-8"))
    }


def _array(texts: tuple[str, ...] | list[str]) -> str:
    quoted = ", ".join("'{}'".format(text.replace("'", "''")) for text in texts)
    return f"ARRAY[{quoted}]"


@dataclass(frozen=True)
class Call:
    """One call of a planted object: its name, the role and the statement."""

    planted: str
    role: str
    statement: str


def calls(server: Server, database: Database) -> list[Call]:
    """Return the calls so far of the objects planted in a database."""
    return [Call(*found) for found in _logged(server, database.name)]


def calls_of_ours(server: Server, database: Database) -> list[Call]:
    """Return the calls by the function's statements, without Alembic's and SQLAlchemy's."""
    return [call for call in calls(server, database) if not _NOT_OURS.match(call.statement)]


def _logged(server: Server, name: str) -> Iterator[list[Any]]:
    log = (server.directory / "server.log").read_text(encoding="utf-8", errors="replace")
    for line in log.splitlines():
        found = re.search(rf"@{re.escape(name)} LOG:  planted (\[.*\])$", line)
        if found:
            yield json.loads(found[1])
