"""Counts rows that the running application sees: in views, and through the policies of row-level security."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg2.extensions import connection

    from migrate_review.observation import Catalog, Statement

# A role with every privilege on tables and no right besides. It exists only in the transaction that counts.
_READER = "migrate_review_reader"

# Counts the rows of each given relation as the reader, or as the present role. A query that fails counts nothing.
_COUNT = """
DO $review$
DECLARE relation text; count bigint; found jsonb := '{}';
BEGIN
    FOR relation IN SELECT jsonb_array_elements_text(current_setting('review.relations')::jsonb) LOOP
        BEGIN
            EXECUTE 'SELECT count(*) FROM ' || relation INTO count;
            found := found || jsonb_build_object(relation, count);
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
    PERFORM set_config('review.shown', found::text, true);
END $review$
"""
_MAY_CREATE_ROLES = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"

# Foreign keys that PostgreSQL considers valid, each with a query that counts the rows that violate it.
_FOREIGN_KEYS = """
SELECT r.shown, o.shown, (
    SELECT format('SELECT count(*) FROM %%s c WHERE %%s AND NOT EXISTS (SELECT FROM %%s p WHERE %%s)',
        k.conrelid::regclass, string_agg(format('c.%%I IS NOT NULL', own.attname), ' AND '), k.confrelid::regclass,
        string_agg(format('p.%%I = c.%%I', their.attname, own.attname), ' AND '))
    FROM unnest(k.conkey, k.confkey) AS pair (own, their)
    JOIN pg_attribute own ON own.attrelid = k.conrelid AND own.attnum = pair.own
    JOIN pg_attribute their ON their.attrelid = k.confrelid AND their.attnum = pair.their)
FROM pg_constraint k, LATERAL (SELECT CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END
        || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = k.conrelid) AS r (shown),
    LATERAL (SELECT CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END
        || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = k.confrelid) AS o (shown)
WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0
AND (r.shown = ANY (%(names)s) OR o.shown = ANY (%(names)s))
"""


def read(opened: connection, catalog: Catalog, others: Iterable[str] = ()) -> Mapping[str, int]:
    """Return the rows of each view, of each table with row-level security, and of the ``others``, by name."""
    views = [name for name in catalog.views if f"materialized view {name}" not in catalog.others]
    secured = [table.name for table in catalog.tables if "row level security" in catalog.table_settings(table.name)]
    found = _counted(opened, [*views, *others])
    with opened.cursor() as cursor:
        cursor.execute(_MAY_CREATE_ROLES)
        if secured and cursor.fetchone() == (True,):
            found |= _counted(opened, secured, as_reader=True)
    return found


def _counted(opened: connection, relations: list[str], *, as_reader: bool = False) -> dict[str, int]:
    if not relations:
        return {}
    with opened.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            if as_reader:
                cursor.execute(f"CREATE ROLE {_READER}; GRANT SELECT ON {', '.join(relations)} TO {_READER}")
                cursor.execute(_SCHEMAS.format(role=_READER))
                cursor.execute(f"SET LOCAL ROLE {_READER}")
            cursor.execute(f"SET LOCAL review.relations = {literal(json.dumps(relations))}")
            cursor.execute(_COUNT)
            cursor.execute("SELECT current_setting('review.shown')")
            [(counts,)] = cursor.fetchall()
        finally:
            cursor.execute("ROLLBACK")
    found: dict[str, int] = json.loads(counts)
    return found


_SCHEMAS = """
DO $review$ BEGIN
    EXECUTE (SELECT string_agg(format('GRANT USAGE ON SCHEMA %I TO {role}', nspname), '; ') FROM pg_namespace
             WHERE nspname !~ '^pg_' AND nspname <> 'information_schema');
END $review$
"""


def orphans(opened: connection, statements: Iterable[Statement]) -> Mapping[tuple[str, str], int]:
    """Return the rows that violate a valid foreign key of a table that the statements write to."""
    written = {lock.table for each in statements for lock in each.locks if lock.mode in _WRITES}
    found: dict[tuple[str, str], int] = {}
    if not written:
        return found
    with opened.cursor() as cursor:
        cursor.execute(_FOREIGN_KEYS, {"names": sorted(written)})
        for table, other, query in cursor.fetchall():
            cursor.execute(query)
            [(count,)] = cursor.fetchall()
            if count:
                found[table, other] = found.get((table, other), 0) + count
    return found


_WRITES = {"RowExclusiveLock", "ShareRowExclusiveLock", "AccessExclusiveLock"}
