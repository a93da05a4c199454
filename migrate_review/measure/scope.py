"""Selects the tables to fill before a revision runs: all tables of a small schema, or those that the revision touches.

The names in the revision's text give a first guess. The measurements show which tables the guess missed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg2.extensions import connection

    from migrate_review.observation import Observation

# Filling this many tables takes less than half a second.
_FEW_TABLES = 20

# Maps each table and view to the tables that hold its rows. For a partition, that is the partitioned table.
_RELATIONS = """
WITH RECURSIVE reads (view, relation) AS (
    SELECT DISTINCT w.ev_class, d.refobjid FROM pg_rewrite w
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
    WHERE w.ev_class >= 16384 AND d.refobjid <> w.ev_class
    UNION
    SELECT reads.view, d.refobjid FROM reads
    JOIN pg_rewrite w ON w.ev_class = reads.relation
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
    WHERE d.refobjid <> w.ev_class
)
SELECT c.relname, c.oid::bigint, coalesce(pg_partition_root(c.oid), c.oid)::oid::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'
UNION ALL
SELECT v.relname, c.oid::bigint, coalesce(pg_partition_root(c.oid), c.oid)::oid::bigint
FROM reads JOIN pg_class v ON v.oid = reads.view JOIN pg_class c ON c.oid = reads.relation AND c.relkind IN ('r', 'p')
"""


@dataclass(frozen=True)
class Scope:
    """The tables of a schema that get rows. ``tables`` is None if all do; ``roots`` maps each table to its root."""

    tables: frozenset[int] | None
    roots: Mapping[int, int]

    def missed(self, observation: Observation) -> frozenset[str]:
        """Return the names of the tables that the revision touched and that were not filled."""
        if self.tables is None:
            return frozenset()
        executions = (observation.upgrade, observation.downgrade, observation.upgrade_again)
        statements = [statement for each in executions if each is not None for statement in each.statements]
        names = {lock.table for statement in statements for lock in statement.locks}
        names.update(table for statement in statements for table in statement.scanned)
        empty = {name for name in names if not observation.rows.get(name)}
        touched = {table.oid: table.name for table in observation.before.tables if table.name in empty}
        return frozenset(name for oid, name in touched.items() if self.roots.get(oid, oid) not in self.tables)


def guess(opened: connection, text: str, more: Iterable[str] = ()) -> Scope:
    """Return the scope of a revision: the tables that its text names, and ``more`` tables with the catalog's names.

    Its ids are valid only for this database. In a new database the tables have other ids.
    """
    with opened.cursor() as cursor:
        cursor.execute(_RELATIONS)
        found = cursor.fetchall()
    roots = {oid: root for _, oid, root in found}
    if len(set(roots.values())) <= _FEW_TABLES:
        return Scope(None, roots)
    words = set(re.findall(r"\w+", text))
    mentioned = {root for name, _, root in found if name in words or (not name.isidentifier() and name in text)}
    with opened.cursor() as cursor:
        cursor.execute("SELECT to_regclass(name)::oid::bigint FROM unnest(%s::text[]) AS name", (list(more),))
        mentioned.update(roots.get(oid, oid) for (oid,) in cursor.fetchall() if oid is not None)
    return Scope(frozenset(mentioned), roots)
