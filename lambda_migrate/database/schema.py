"""Reads a database's schema as named objects, each with a digest, and the fingerprint of all of them.

The reviewer records fingerprints, and a database is compared with them. So the same schema has the same one on
PostgreSQL 13 to 18, whoever owns it and whatever rows it holds. Left out are owners, privileges, comments, storage
settings, the order of columns, Alembic's version table, and what extensions brought along.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import SEARCH_PATH, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg2.extensions import connection

# The version of the normal form. Fingerprints of another version cannot be compared.
FORM = 1

_DIGEST_CHARACTERS = 12
# The first version with functions whose body is SQL that was parsed when they were made.
_HAS_SQL_BODIES = 140000

# A view's text depends on the server's version: older ones name the table before each column. A statistics object has
# its schema before its name always.
_QUALIFIER = re.compile(r'(?:"(?:[^"]|"")*"|\b[a-zA-Z_]\w*)\.(?=["\w*])')
_SPACE = re.compile(r"[\s()]+")
# PostgreSQL writes `text IN ('a', 'b')` for a varchar with one cast of the whole array. What it makes of that text, it
# writes with a cast of each element. So a restored schema has the second form where the first one was dumped.
_ELEMENT = r"\('(?:[^']|'')*'::character varying\)::text"
_CAST_ELEMENTS = re.compile(rf"ARRAY\[({_ELEMENT}(?:, {_ELEMENT})*)\]")
_CAST_ELEMENT = re.compile(r"\(('(?:[^']|'')*'::character varying)\)::text")

_OF_EXTENSION = (
    "NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{catalog}'::regclass AND e.objid = {oid} AND deptype = 'e')"
)


def _ours(catalog: str, oid: str) -> str:
    """Return the condition that an object is neither the server's own nor an extension's."""
    return f"{oid} >= 16384 AND " + _OF_EXTENSION.format(catalog=catalog, oid=oid)


# Each yields a kind, a name and a definition. Kinds in `_TEXTS` hold SQL whose form depends on the server's version.
_PARTS = (
    "SELECT 'schema', shown, '' FROM spaces WHERE NOT home",
    "SELECT 'extension', quote_ident(extname), '' FROM pg_extension WHERE {everything} AND extname <> 'plpgsql'",
    """
    SELECT 'table', r.shown, concat_ws(' ', r.relkind, CASE r.relpersistence WHEN 'u' THEN 'unlogged' END,
        CASE WHEN r.relkind = 'p' THEN pg_get_partkeydef(r.oid) END, pg_get_expr(r.relpartbound, r.oid),
        (SELECT 'inherits ' || string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno)
         FROM pg_inherits WHERE inhrelid = r.oid),
        CASE WHEN r.relrowsecurity THEN 'row level security' END,
        CASE WHEN r.relforcerowsecurity THEN 'forced' END)
    FROM relations r WHERE r.relkind IN ('r', 'p', 'f')
    """,
    """
    SELECT 'column', r.shown || '.' || quote_ident(a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attnotnull THEN 'not null' END,
        (SELECT 'not valid' FROM pg_constraint k
         WHERE k.conrelid = r.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated),
        CASE WHEN a.attcollation <> y.typcollation THEN 'collate ' || a.attcollation::regcollation END,
        'identity ' || nullif(a.attidentity::text, ''), 'generated ' || nullif(a.attgenerated::text, ''),
        'default ' || pg_get_expr(d.adbin, d.adrelid))
    FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid JOIN pg_type y ON y.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE r.relkind IN ('r', 'p', 'f', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
    """,
    # A partition's copy of its table's constraint, index or trigger comes with it.
    """
    SELECT 'constraint', quote_ident(k.conname) || ' on ' || r.shown, pg_get_constraintdef(k.oid)
    FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid
    WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conparentid = 0 AND k.conislocal
    """,
    """
    SELECT 'index', quote_ident(x.relname) || ' on ' || r.shown,
        concat_ws(' ', regexp_replace(pg_get_indexdef(x.oid), '^.*? USING ', 'USING '),
            CASE WHEN i.indisunique THEN 'unique' END, CASE WHEN NOT i.indisvalid THEN 'invalid' END)
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN relations r ON r.oid = i.indrelid
    WHERE NOT x.relispartition AND NOT EXISTS (SELECT FROM pg_constraint k
        WHERE k.conindid = x.oid AND k.contype IN ('p', 'u', 'x'))
    """,
    """
    SELECT CASE r.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, r.shown,
        concat_ws(' ', array_to_string(r.reloptions, ','), pg_get_viewdef(r.oid))
    FROM relations r WHERE r.relkind IN ('v', 'm')
    """,
    """
    SELECT 'sequence', r.shown, concat_ws(' ', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin,
        s.seqmax, s.seqcycle, (SELECT min('of ' || d.refobjid::regclass || '.' || quote_ident(a.attname))
         FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i')))
    FROM relations r JOIN pg_sequence s ON s.seqrelid = r.oid
    """,
    f"""
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
        s.prefix || quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')',
        concat_ws(' ', l.lanname,
            -- Since version 14, the arguments of a procedure show their mode.
            regexp_replace(pg_get_function_arguments(p.oid), '(^|, )IN ', '\\1', 'g'),
            'returns', pg_get_function_result(p.oid), p.provolatile, p.proparallel,
            CASE WHEN p.proisstrict THEN 'strict' END,
            CASE WHEN p.prosecdef THEN 'security definer' END, array_to_string(p.proconfig, ','), p.prosrc, p.probin,
            {{sql_body}}, (SELECT concat_ws(' ', aggtransfn, aggfinalfn, aggtranstype::regtype, agginitval)
             FROM pg_aggregate WHERE aggfnoid = p.oid))
    FROM pg_proc p JOIN spaces s ON s.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE {_ours("pg_proc", "p.oid")} AND NOT EXISTS (
        -- A range type brings its own functions.
        SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
    """,  # noqa: S608 - all of it is here
    """
    SELECT 'trigger', quote_ident(g.tgname) || ' on ' || r.shown,
        pg_get_triggerdef(g.oid, true) || ' ' || g.tgenabled::text
    FROM pg_trigger g JOIN relations r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal AND g.tgparentid = 0
    """,
    """
    SELECT 'rule', quote_ident(w.rulename) || ' on ' || r.shown, pg_get_ruledef(w.oid) || ' ' || w.ev_enabled::text
    FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
    """,
    """
    SELECT 'policy', quote_ident(p.polname) || ' on ' || r.shown, concat_ws(' ', p.polcmd, p.polpermissive,
        pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
    """,
    f"""
    SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, s.prefix || quote_ident(t.typname), concat_ws(' ',
        t.typtype, (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
                    FROM pg_enum WHERE enumtypid = t.oid),
        CASE WHEN t.typtype = 'd' THEN concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typnotnull,
            t.typdefault, (SELECT string_agg(k.conname || ' ' || pg_get_constraintdef(k.oid), '; ' ORDER BY k.conname)
                           FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c')) END,
        (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
         FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND NOT a.attisdropped),
        (SELECT g.rngsubtype::regtype FROM pg_range g WHERE g.rngtypid = t.oid))
    FROM pg_type t JOIN spaces s ON s.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE {_ours("pg_type", "t.oid")} AND (t.typtype IN ('d', 'e', 'r') OR (t.typtype = 'c' AND c.relkind = 'c'))
    """,  # noqa: S608 - all of it is here
    """
    SELECT 'statistics', s.prefix || quote_ident(x.stxname), pg_get_statisticsobjdef(x.oid)
    FROM pg_statistic_ext x JOIN spaces s ON s.oid = x.stxnamespace
    """,
    "SELECT 'partition', shown, '' FROM relations WHERE relispartition AND relkind IN ('r', 'p', 'f')",
)
# Not a part of the fingerprint: the tables that are partitions.
_PARTITION = "partition"
_TEXTS = frozenset({"view", "materialized view", "rule", "statistics"})

_QUERY = f"""
WITH spaces AS MATERIALIZED (
    SELECT oid, nspname = current_schema() AS home, quote_ident(nspname) AS shown,
        CASE WHEN nspname = current_schema() THEN '' ELSE quote_ident(nspname) || '.' END AS prefix
    FROM pg_namespace
    WHERE (nspname = current_schema() OR {{everything}})
    AND nspname <> 'information_schema' AND nspname !~ '^pg_'
    AND {_OF_EXTENSION.format(catalog="pg_namespace", oid="pg_namespace.oid")}
), relations AS MATERIALIZED (
    SELECT c.*, s.prefix || quote_ident(c.relname) AS shown
    FROM pg_class c JOIN spaces s ON s.oid = c.relnamespace
    WHERE c.relname <> {{version_table}} AND {_ours("pg_class", "c.oid")}
)
SELECT coalesce(json_agg(json_build_array(kind, name, definition)), '[]')::text
FROM ({" UNION ALL ".join(f"SELECT * FROM ({part}) AS part (kind, name, definition)" for part in _PARTS)}) AS found
"""  # noqa: S608 - all of it is above


@dataclass(frozen=True)
class Schema:
    """The objects of a schema by name, such as ``column orders.note``, each with a digest of its definition.

    ``partitions`` are the names of the tables that are partitions.
    """

    objects: Mapping[str, str]
    partitions: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> str:
        """The hash of all objects."""
        return fingerprint(self.objects)


def fingerprint(objects: Mapping[str, str]) -> str:
    """Return the hash of objects with their digests, independent of their order."""
    lines = "".join(f"{name}\n{objects[name]}\n" for name in sorted(objects))
    return hashlib.sha256(f"{FORM}\n{lines}".encode()).hexdigest()


def read_schema(
    opened: connection, home: str = "public", *, version_table: str = "alembic_version", everything: bool = True
) -> Schema:
    """Return the schema as it is now.

    Args:
        opened: a connection that is in no transaction, or may lose its ``search_path`` in one.
        home: the schema whose name is left out, so that tenants in schemas of different names are alike.
        version_table: the name of Alembic's table.
        everything: whether other schemas than ``home``, and extensions, count.
    """
    has_sql_bodies = opened.server_version >= _HAS_SQL_BODIES
    query = _QUERY.format(
        everything="true" if everything else "false",
        version_table=literal(version_table),
        sql_body="pg_get_function_sqlbody(p.oid)" if has_sql_bodies else "NULL",
    )
    with opened.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.current_setting('search_path')")
        [(path,)] = cursor.fetchall()
        # The query's own functions and operators are resolved where the cursor is declared, so that none in the home
        # schema is called. It is run where the cursor is read: names in definitions are written out unless they are
        # found on the path of that time.
        cursor.execute(
            f"SET search_path = {SEARCH_PATH}; DECLARE objects_of_schema NO SCROLL CURSOR FOR {query};"
            f" SET search_path = {identifier(home)}; FETCH ALL FROM objects_of_schema"
        )
        [(found,)] = cursor.fetchall()
        # Without a transaction it is closed already, and then this closes nothing.
        cursor.execute("CLOSE ALL")
        cursor.execute("SELECT pg_catalog.set_config('search_path', %s, false)", (path,))
    rows = json.loads(found)
    partitions = frozenset(name for kind, name, _ in rows if kind == _PARTITION)
    return Schema(dict(_objects([row for row in rows if row[0] != _PARTITION])), partitions)


def same_form(text: str) -> str:
    """Return SQL that PostgreSQL has written in the form that it has before it is dumped and restored."""
    return _CAST_ELEMENTS.sub(_cast_as_a_whole, text)


def _cast_as_a_whole(array: re.Match[str]) -> str:
    elements = _CAST_ELEMENT.sub(r"\1", array[1])
    return f"(ARRAY[{elements}])::text[]"


def _objects(found: list[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    for kind, name, written in found:
        definition = same_form(written)
        text = _SPACE.sub("", _QUALIFIER.sub("", definition)) if kind in _TEXTS else definition
        yield f"{kind} {name}", hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
