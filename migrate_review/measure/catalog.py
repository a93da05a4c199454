"""Reads a database's whole schema in one round trip, and compares two of them."""

from __future__ import annotations

import json
import re
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from migrate_review.observation import Catalog, Column, Constraint, Index, MaterializedView, Table, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg2.extensions import connection

# A finding shows the beginning of a line, so both texts of a change must fit into it.
_LONGEST_SHOWN = 40
# Schemas and their relations, without the server's own objects, whose oids are below 16384, and without those of
# extensions. Each query has a condition on the oid, so that an index skips thousands of the server's own objects.
_OURS = """
ours AS MATERIALIZED (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'
), of_extensions AS MATERIALIZED (
    SELECT classid, objid FROM pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND objid >= 16384
), relations AS MATERIALIZED (
    SELECT c.*, (CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END)
        || quote_ident(c.relname) AS shown
    FROM pg_class c JOIN ours n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND (n.nspname, c.relname) <> ($1, $2)
    AND NOT EXISTS (SELECT FROM of_extensions e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid)
), tables AS MATERIALIZED (
    SELECT * FROM relations WHERE relkind IN ('r', 'p')
)
"""

_TABLES = """
SELECT json_build_object(
    'oid', t.oid::bigint, 'name', t.shown,
    'partition_rows', CASE WHEN t.relispartition THEN pg_get_partition_constraintdef(t.oid) END,
    'columns', (
        SELECT coalesce(json_agg(json_build_array(
            a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
            a.attgenerated <> '', a.attidentity <> '',
            (SELECT nullif(a.attcollation, y.typcollation) FROM pg_type y WHERE y.oid = a.atttypid)::regcollation::text)
            ORDER BY a.attnum), '[]')
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'constraints', (
        SELECT coalesce(json_agg(json_build_array(
            k.conname, k.contype, pg_get_constraintdef(k.oid),
            (SELECT coalesce(json_agg(a.attname ORDER BY n), '[]')
             FROM unnest(k.conkey) WITH ORDINALITY AS key (attnum, n)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.attnum),
            k.convalidated,
            (SELECT r.shown FROM relations r WHERE r.oid = k.confrelid), k.oid::bigint) ORDER BY k.conname), '[]')
        FROM pg_constraint k
        -- A NOT NULL constraint that holds for all rows is a property of its column.
        WHERE k.conrelid = t.oid AND k.contype <> 't' AND (k.contype <> 'n' OR NOT k.convalidated)
        -- A foreign key to a partitioned table has one more for each partition, which alone need not hold.
        AND NOT (k.contype = 'f' AND k.conparentid <> 0
            AND (SELECT p.relispartition FROM pg_class p WHERE p.oid = k.confrelid))),
    'indexes', (
        SELECT coalesce(json_agg(json_build_array(
            x.relname, pg_get_indexdef(i.indexrelid),
            (SELECT coalesce(json_agg(a.attname ORDER BY n), '[]')
             FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS key (attnum, n)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.attnum
             WHERE n <= i.indnkeyatts AND n <= coalesce(array_position(i.indkey::smallint[], 0::smallint), 99)),
            i.indisunique, i.indisvalid,
            EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')),
            i.indpred IS NOT NULL, x.oid::bigint) ORDER BY x.relname), '[]')
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = t.oid))
FROM tables t ORDER BY t.shown
"""

_ENUMS = """
SELECT json_build_array(t.oid::regtype::text, json_agg(json_build_array(e.oid::bigint, e.enumlabel)
    ORDER BY e.enumsortorder))
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN ours n ON n.oid = t.typnamespace
WHERE t.oid >= 16384
AND NOT EXISTS (SELECT FROM of_extensions x WHERE x.classid = 'pg_type'::regclass AND x.objid = t.oid)
GROUP BY t.oid
"""

# CONCURRENTLY needs a unique index on columns alone, of all rows.
_MATERIALIZED = """
SELECT json_build_array(r.oid::bigint, r.shown, r.relispopulated, EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
    AND i.indpred IS NULL AND i.indexprs IS NULL))
FROM relations r WHERE r.relkind = 'm' ORDER BY r.shown
"""

_VIEWS = """
SELECT json_build_array(r.shown,
    (SELECT json_agg(json_build_array(a.attname, format_type(coalesce(nullif(y.typbasetype, 0), a.atttypid), NULL))
        ORDER BY a.attnum)
     FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
     WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped),
    -- The bits are those of PostgreSQL's commands.
    (SELECT coalesce(json_agg(command), '[]')
     FROM (VALUES ('UPDATE', 4), ('INSERT', 8), ('DELETE', 16)) AS c (command, bit)
     WHERE pg_relation_is_updatable(r.oid, true) & bit <> 0),
    (SELECT coalesce(json_agg(a.attname), '[]') FROM pg_attribute a
     WHERE a.attrelid = r.oid AND a.attnum > 0 AND pg_column_is_updatable(r.oid, a.attnum, true)),
    EXISTS (SELECT FROM pg_options_to_table(r.reloptions)
     WHERE option_name = 'security_invoker' AND option_value::boolean))
FROM relations r WHERE r.relkind IN ('v', 'm') ORDER BY r.shown
"""


def _privileges(acl: str, kind: str, owner: str) -> str:
    """Return SQL for privileges that differ from the default. After GRANT and REVOKE, an ACL can equal the default."""

    def sorted_(items: str) -> str:
        return f"(SELECT string_agg(item::text, ' ' ORDER BY item::text) FROM unnest({items}) AS item)"  # noqa: S608 - SQL's own words

    default = sorted_(f"acldefault({kind}, {owner})")
    return f"CASE WHEN {acl} IS NOT NULL THEN nullif(coalesce({sorted_(acl)}, 'none'), {default}) END"


_PRIVILEGES_ON_RELATION = _privileges(
    "r.relacl", "(CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END)::\"char\"", "r.relowner"
)
_PRIVILEGES_ON_FUNCTION = _privileges("p.proacl", "'f'", "p.proowner")
_PRIVILEGES_ON_SCHEMA = _privileges("nspacl", "'n'", "nspowner")
_PRIVILEGES_ON_TYPE = _privileges("t.typacl", "'T'", "t.typowner")

# Everything else: queries of two columns, a name and a definition.
_OTHERS = (
    f"""
    SELECT 'schema ' || quote_ident(nspname), concat_ws(' ', nspowner::regrole, {_PRIVILEGES_ON_SCHEMA})
    FROM pg_namespace JOIN ours USING (oid, nspname)
    """,  # noqa: S608 - all of it is here
    """
    SELECT 'extension ' || quote_ident(extname), concat_ws(' ', extversion, extnamespace::regnamespace)
    FROM pg_extension
    """,
    # Attributes of a table besides its columns, constraints and indexes, if they are not the defaults.
    """
    SELECT 'table settings ' || t.shown, concat_ws('; ',
        CASE t.relpersistence WHEN 'u' THEN 'unlogged' END,
        CASE WHEN t.relkind = 'p' THEN 'partitioned by ' || pg_get_partkeydef(t.oid) END,
        CASE WHEN t.relispartition THEN pg_get_expr(t.relpartbound, t.oid) END,
        (SELECT 'inherits ' || string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno)
         FROM pg_inherits WHERE inhrelid = t.oid),
        'with ' || array_to_string(t.reloptions, ', '),
        'toast ' || (SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = t.reltoastrelid),
        CASE WHEN t.relrowsecurity THEN 'row level security' END,
        CASE WHEN EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = t.oid AND g.tgisinternal AND g.tgenabled = 'D')
            THEN 'foreign keys not checked' END,
        CASE WHEN t.relforcerowsecurity THEN 'row level security forced' END,
        CASE WHEN t.relreplident <> 'd' THEN 'replica identity ' || t.relreplident::text END,
        'identified by ' || (SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index
                             WHERE indrelid = t.oid AND indisreplident),
        'clustered on ' || (SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index
                            WHERE indrelid = t.oid AND indisclustered),
        'of type ' || nullif(t.reloftype, 0)::regtype,
        'tablespace ' || (SELECT quote_ident(spcname) FROM pg_tablespace WHERE oid = t.reltablespace),
        CASE WHEN m.amname <> 'heap' THEN 'using ' || m.amname END)
    FROM tables t LEFT JOIN pg_am m ON m.oid = t.relam
    """,
    """
    SELECT 'column settings ' || t.shown || '.' || quote_ident(a.attname), concat_ws('; ',
        'identity ' || nullif(a.attidentity, '')::text, 'generated ' || nullif(a.attgenerated, '')::text,
        CASE WHEN a.attcollation <> y.typcollation THEN 'collation ' || a.attcollation::regcollation END,
        CASE WHEN a.attstorage <> y.typstorage THEN 'storage ' || a.attstorage::text END,
        'compression ' || nullif(a.attcompression, '')::text, 'with ' || array_to_string(a.attoptions, ', '),
        'statistics ' || nullif(a.attstattarget, -1),
        'privileges ' || a.attacl::text)
    FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid JOIN pg_type y ON y.oid = a.atttypid
    WHERE a.attnum > 0 AND NOT a.attisdropped
    """,
    f"""
    SELECT 'privileges on ' || r.shown, concat_ws(' ',
        'owner ' || nullif(r.relowner::regrole::text, quote_ident(current_user)),
        {_PRIVILEGES_ON_RELATION})
    FROM relations r
    WHERE r.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    """,  # noqa: S608 - all of it is here
    """
    SELECT CASE r.relkind WHEN 'v' THEN 'view ' ELSE 'materialized view ' END || r.shown,
        concat_ws(' ', pg_get_viewdef(r.oid), array_to_string(r.reloptions, ', '),
            CASE WHEN r.relkind = 'm' AND NOT r.relispopulated THEN 'not populated' END,
            (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
             FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0),
            (SELECT string_agg(pg_get_indexdef(indexrelid), '; ' ORDER BY pg_get_indexdef(indexrelid))
             FROM pg_index WHERE indrelid = r.oid))
    FROM relations r WHERE r.relkind IN ('v', 'm')
    """,
    """
    SELECT 'sequence ' || r.shown, concat_ws(' ', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin,
        s.seqmax, s.seqcache, s.seqcycle,
        (SELECT 'owned by ' || d.refobjid::regclass || '.' || quote_ident(a.attname) FROM pg_depend d
         JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i') LIMIT 1))
    FROM relations r JOIN pg_sequence s ON s.seqrelid = r.oid
    """,
    f"""
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure ' WHEN 'a' THEN 'aggregate ' ELSE 'function ' END
        || p.oid::regprocedure,
        concat_ws(' ', CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END,
            (SELECT row_to_json(g)::jsonb - 'aggfnoid' FROM pg_aggregate g WHERE g.aggfnoid = p.oid),
            p.proowner::regrole, {_PRIVILEGES_ON_FUNCTION})
    FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace
    WHERE p.oid >= 16384
    AND NOT EXISTS (SELECT FROM of_extensions x WHERE x.classid = 'pg_proc'::regclass AND x.objid = p.oid)
    """,  # noqa: S608 - all of it is here
    """
    SELECT 'trigger ' || quote_ident(g.tgname) || ' on ' || r.shown,
        pg_get_triggerdef(g.oid) || ' ' || g.tgenabled::text
    FROM pg_trigger g JOIN relations r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal
    """,
    """
    SELECT 'rule ' || quote_ident(w.rulename) || ' on ' || r.shown, pg_get_ruledef(w.oid) || ' ' || w.ev_enabled::text
    FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
    """,
    """
    SELECT 'policy ' || quote_ident(p.polname) || ' on ' || r.shown, concat_ws(' ', p.polcmd, p.polpermissive,
        (SELECT string_agg(CASE role WHEN 0 THEN 'public' ELSE role::regrole::text END, ', ')
         FROM unnest(p.polroles) AS role),
        pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
    """,
    f"""
    SELECT 'type ' || t.oid::regtype, concat_ws(' ', t.typtype, t.typowner::regrole,
        {_PRIVILEGES_ON_TYPE},
        CASE WHEN t.typtype = 'd' THEN concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typnotnull,
            t.typdefault, nullif(t.typcollation, 0)::regcollation,
            (SELECT string_agg(k.conname || ' ' || pg_get_constraintdef(k.oid), '; ' ORDER BY k.conname)
             FROM pg_constraint k WHERE k.contypid = t.oid)) END,
        (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
         FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND NOT a.attisdropped),
        (SELECT concat_ws(' ', g.rngsubtype::regtype, nullif(g.rngcollation, 0)::regcollation,
            g.rngcanonical, g.rngsubdiff, g.rngmultitypid::regtype)
         FROM pg_range g WHERE g.rngtypid = t.oid))
    FROM pg_type t JOIN ours n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.oid >= 16384 AND (t.typtype IN ('d', 'e', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')
        OR (t.typtype = 'b' AND t.typelem = 0))
    AND NOT EXISTS (SELECT FROM of_extensions x WHERE x.classid = 'pg_type'::regclass AND x.objid = t.oid)
    """,  # noqa: S608 - all of it is here
    """
    SELECT 'collation ' || c.oid::regcollation, to_jsonb(c)::text FROM pg_collation c JOIN ours n
    ON n.oid = c.collnamespace
    WHERE c.oid >= 16384
    AND NOT EXISTS (SELECT FROM of_extensions x WHERE x.classid = 'pg_collation'::regclass AND x.objid = c.oid)
    """,
    """
    SELECT 'statistics ' || pg_get_statisticsobjdef(s.oid), coalesce(s.stxstattarget, -1)::text
    FROM pg_statistic_ext s JOIN ours n ON n.oid = s.stxnamespace
    """,
    """
    SELECT 'comment on ' || i.type || ' ' || i.identity, description
    FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE d.objoid >= 16384
    AND NOT EXISTS (SELECT FROM of_extensions x WHERE x.classid = d.classoid AND x.objid = d.objoid)
    """,
    """
    SELECT concat_ws(' ', 'default privileges of', defaclrole::regrole,
        'in ' || nullif(defaclnamespace, 0)::regnamespace, 'on', defaclobjtype), defaclacl::text FROM pg_default_acl
    """,
    """
    SELECT 'event trigger ' || quote_ident(evtname), concat_ws(' ', evtevent, evtfoid::regproc, evtenabled, evttags)
    FROM pg_event_trigger
    """,
    """
    SELECT 'publication ' || quote_ident(p.pubname), concat_ws(' ', to_jsonb(p) - 'oid',
        (SELECT string_agg(prrelid::regclass::text, ', ' ORDER BY prrelid::regclass::text)
         FROM pg_publication_rel WHERE prpubid = p.oid))
    FROM pg_publication p
    """,
    """
    SELECT i.type || ' ' || i.identity, 'exists'
    FROM (
        SELECT 'pg_operator'::regclass AS class, oid FROM pg_operator WHERE oid >= 16384
        UNION ALL SELECT 'pg_cast'::regclass, oid FROM pg_cast WHERE oid >= 16384
        UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass WHERE oid >= 16384
        UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily WHERE oid >= 16384
        UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config WHERE oid >= 16384
        UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict WHERE oid >= 16384
        UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language WHERE oid >= 16384
        UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
        UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
        UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relkind = 'f'
    ) o, pg_identify_object(o.class, o.oid, 0) i
    WHERE NOT EXISTS (SELECT FROM of_extensions x WHERE x.classid = o.class AND x.objid = o.oid)
    """,
)

_ALL = f"""
WITH {_OURS}
SELECT json_build_array(
    (SELECT coalesce(json_agg(found), '[]') FROM ({_TABLES}) AS found (found)),
    (SELECT coalesce(json_agg(found), '[]') FROM ({_ENUMS}) AS found (found)),
    (SELECT coalesce(json_object_agg(name, definition), '{{}}') FROM (
        {" UNION ALL ".join(f"SELECT * FROM ({each}) AS part (name, definition)" for each in _OTHERS)}
    ) AS found (name, definition) WHERE definition <> ''),
    (SELECT coalesce(json_agg(found), '[]') FROM ({_MATERIALIZED}) AS found (found)),
    (SELECT coalesce(json_agg(found), '[]') FROM ({_VIEWS}) AS found (found))
)::text
"""  # noqa: S608 - all of it is above


def read(opened: connection, version_table: tuple[str | None, str]) -> Catalog:
    """Return the schema as it is now. ``version_table`` is Alembic's schema and name; None is the default schema."""
    schema, name = version_table
    with opened.cursor() as cursor:
        # Planning takes longer than running, so each connection prepares it once.
        cursor.execute("SET search_path = public; SELECT FROM pg_prepared_statements WHERE name = 'catalog'")
        if not cursor.rowcount:
            cursor.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE catalog (name, name) AS {_ALL}")
        cursor.execute("EXECUTE catalog (%s, %s)", (schema or "public", name))
        row = cursor.fetchone()
    assert row is not None  # noqa: S101 - it aggregates
    tables, enums, others, materialized, views = json.loads(row[0])
    return Catalog(
        tables=tuple(_table(each) for each in tables),
        enums={enum: tuple((oid, label) for oid, label in labels) for enum, labels in enums},
        others=dict(sorted(others.items())),
        materialized=tuple(MaterializedView(*each) for each in materialized),
        views={
            name: View(dict(columns or ()), frozenset(writes), frozenset(written), as_caller)
            for name, columns, writes, written, as_caller in views
        },
    )


def _table(found: dict[str, Any]) -> Table:
    return Table(
        oid=found["oid"],
        name=found["name"],
        columns=tuple(Column(*each) for each in found["columns"]),
        constraints=tuple(
            Constraint(name, kind, definition, tuple(columns), *more)
            for name, kind, definition, columns, *more in found["constraints"]
        ),
        indexes=tuple(
            Index(name, definition, tuple(columns), *more) for name, definition, columns, *more in found["indexes"]
        ),
        partition_rows=found["partition_rows"],
    )


def differences(before: Catalog, now: Catalog) -> tuple[str, ...]:
    """Return the differences from a former schema, one line each.

    Object ids and the positions of columns do not count: a dropped column comes back as the last one.
    """
    return (*_of_tables(before, now), *_of_enums(before, now), *_of_others(before, now))


def _of_tables(before: Catalog, now: Catalog) -> Iterator[str]:
    old, new = ({table.name: table for table in catalog.tables} for catalog in (before, now))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"table {name} is gone"
        elif name not in old:
            yield f"table {name} is left over"
        else:
            yield from _of_columns(old[name], new[name])
            yield from _of_parts("constraint", name, old[name].constraints, new[name].constraints)
            yield from _of_parts("index", name, old[name].indexes, new[name].indexes)


def _changed(shown: str, was: str, is_now: str) -> str:
    """Return the line about a changed object. Long texts begin with the word in which they differ."""
    if max(len(was), len(is_now)) > _LONGEST_SHOWN:
        words = zip(was.split(" ")[:-1], is_now.split(" ")[:-1], strict=False)
        same = sum(len(word) + 1 for word, _ in takewhile(lambda pair: pair[0] == pair[1], words))
        was, is_now = (_cut(f"…{text[same:]}" if same else text) for text in (was, is_now))
    return f"{shown} was {was!r} and is now {is_now!r}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def _of_columns(old: Table, new: Table) -> Iterator[str]:
    was, is_now = ({column.name: column for column in table.columns} for table in (old, new))
    for name in (*was, *(name for name in is_now if name not in was)):
        shown = f"column {old.name}.{name}"
        if name not in is_now:
            yield f"{shown} is gone"
        elif name not in was:
            yield f"{shown} is left over"
        else:
            before, now = _described(was[name]), _described(is_now[name])
            if before != now:
                yield _changed(shown, before, now)


# Alembic writes numbers and booleans of a server_default in quotes.
_QUOTED = re.compile(
    r"'(?P<value>-?[\d.]+|true|false)'::(smallint|integer|bigint|numeric|real|double precision|boolean)"
)


def _described(column: Column) -> str:
    words = [column.type]
    if column.not_null:
        words.append("NOT NULL")
    if column.default is not None:
        quoted = _QUOTED.fullmatch(column.default)
        default = quoted["value"] if quoted is not None else column.default
        words.append(f"GENERATED {default}" if column.generated else f"DEFAULT {default}")
    if column.identity:
        words.append("IDENTITY")
    return " ".join(words)


def _of_parts(
    kind: str, table: str, old: Sequence[Constraint] | Sequence[Index], new: Sequence[Constraint] | Sequence[Index]
) -> Iterator[str]:
    was, is_now = ({part.name: _state(part) for part in parts} for parts in (old, new))
    for name in sorted(was.keys() | is_now.keys()):
        shown = f"{kind} {name} of {table}"
        if name not in is_now:
            yield f"{shown} is gone: {was[name]}"
        elif name not in was:
            yield f"{shown} is left over: {is_now[name]}"
        elif was[name] != is_now[name]:
            yield _changed(shown, was[name], is_now[name])


def _state(part: Constraint | Index) -> str:
    invalid = isinstance(part, Index) and not part.valid
    return f"{part.definition}{' (invalid)' if invalid else ''}"


def _of_enums(before: Catalog, now: Catalog) -> Iterator[str]:
    was, is_now = (
        {name: tuple(label for _, label in labels) for name, labels in catalog.enums.items()}
        for catalog in (before, now)
    )
    for name in sorted(was.keys() & is_now.keys()):
        if was[name] != is_now[name]:
            yield f"type {name} had the labels {', '.join(was[name])} and now has {', '.join(is_now[name])}"


def _of_others(before: Catalog, now: Catalog) -> Iterator[str]:
    # The line about a table that came or went covers its settings, too.
    tables = {table.name for table in before.tables} ^ {table.name for table in now.tables}
    for name in sorted(before.others.keys() | now.others.keys()):
        was, is_now = before.others.get(name), now.others.get(name)
        if was == is_now or any(name.endswith((f" on {table}", f"settings {table}")) for table in tables):
            continue
        if is_now is None:
            yield f"{name} is gone: {was}"
        elif was is None:
            yield f"{name} is left over: {is_now}"
        else:
            yield _changed(name, was, is_now)
