"""Reads the possible rows of each table: columns, types, constraints, references and partitions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from migrate_review.rows.values import Type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import cursor


@dataclass(frozen=True)
class ColumnShape:
    """A column. ``generated`` and ``default`` are SQL expressions."""

    name: str
    type: Type
    not_null: bool
    generated: str | None
    identity: bool
    default: str | None

    @property
    def counts(self) -> bool:
        """Return whether a sequence gives the column its values."""
        return self.identity or (self.default or "").startswith("nextval(")


@dataclass(frozen=True)
class Reference:
    """A foreign key: its columns, and the table and columns that they refer to."""

    columns: tuple[str, ...]
    table: int
    target: tuple[str, ...]


@dataclass(frozen=True)
class TableShape:
    """A table. ``checks`` and ``bounds`` are SQL expressions; ``bounds`` are those of its partitions.

    ``stores_rows`` is False for a partitioned table without partitions.
    """

    oid: int
    name: str
    columns: tuple[ColumnShape, ...]
    checks: tuple[str, ...]
    unique: tuple[frozenset[str], ...]
    references: tuple[Reference, ...]
    bounds: tuple[str, ...]
    deferrable: bool
    stores_rows: bool

    def column(self, name: str) -> ColumnShape:
        """Return the column of this name."""
        return next(column for column in self.columns if column.name == name)


def read_shape(cursor: cursor, version_table: tuple[str | None, str]) -> tuple[dict[int, Type], list[TableShape]]:
    """Return the types without modifiers by their oid, and all tables but Alembic's own."""
    schema, name = version_table
    cursor.execute(_SHAPE, {"schema": schema or "public", "name": name})
    [(shape,)] = cursor.fetchall()
    return _described(json.loads(shape))


# The tables with their constraints, and the types of their columns with the types that these consist of.
_SHAPE = """
WITH RECURSIVE tables AS MATERIALIZED (
    SELECT c.oid, c.relkind, (CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END)
        || quote_ident(c.relname) AS shown
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
    AND (n.nspname, c.relname) <> (%(schema)s, %(name)s)
    AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
), columns AS MATERIALIZED (
    SELECT a.* FROM pg_attribute a JOIN tables t ON t.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped
), used (oid, modifier) AS (
    SELECT DISTINCT atttypid, atttypmod FROM columns
    UNION
    SELECT inner_type.oid, inner_type.modifier
    FROM used JOIN pg_type t ON t.oid = used.oid, LATERAL (
        SELECT t.typbasetype AS oid, t.typtypmod AS modifier WHERE t.typtype = 'd'
        UNION ALL SELECT t.typelem, used.modifier WHERE t.typcategory = 'A'
        UNION ALL SELECT atttypid, atttypmod FROM pg_attribute
            WHERE t.typtype = 'c' AND attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT rngsubtype, -1 FROM pg_range WHERE rngtypid = t.oid
        UNION ALL SELECT rngtypid, -1 FROM pg_range WHERE rngmultitypid = t.oid
    ) AS inner_type
)
SELECT json_build_object(
    'types', (
        SELECT coalesce(json_agg(json_build_object(
            'oid', t.oid::bigint, 'name', t.typname, 'kind', t.typtype, 'shown', format_type(t.oid, used.modifier),
            'modifier', used.modifier, 'not_null', t.typnotnull,
            'element', CASE WHEN t.typcategory = 'A' THEN t.typelem::bigint ELSE 0 END,
            'base', t.typbasetype::bigint, 'base_modifier', t.typtypmod,
            'subtype', coalesce((SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid),
                (SELECT rngtypid FROM pg_range WHERE rngmultitypid = t.oid), 0)::bigint,
            'labels', (SELECT coalesce(json_agg(enumlabel ORDER BY enumsortorder), '[]') FROM pg_enum
                WHERE enumtypid = t.oid),
            'fields', (SELECT coalesce(json_agg(json_build_array(atttypid::bigint, atttypmod) ORDER BY attnum), '[]')
                FROM pg_attribute WHERE t.typtype = 'c' AND attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped),
            'checks', (SELECT coalesce(json_agg(pg_get_constraintdef(oid)), '[]') FROM pg_constraint
                WHERE contypid = t.oid AND contype = 'c'))), '[]')
        FROM used JOIN pg_type t ON t.oid = used.oid),
    'tables', (
        SELECT coalesce(json_agg(json_build_object(
            'oid', t.oid::bigint, 'name', t.shown,
            'columns', (
                SELECT coalesce(json_agg(json_build_array(
                    c.attname, c.atttypid::bigint, c.atttypmod, c.attnotnull,
                    CASE WHEN c.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END, c.attidentity <> '',
                    CASE WHEN c.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END) ORDER BY c.attnum), '[]')
                FROM columns c LEFT JOIN pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
                WHERE c.attrelid = t.oid),
            'checks', (SELECT coalesce(json_agg(pg_get_expr(conbin, conrelid) ORDER BY conname), '[]')
                FROM pg_constraint WHERE conrelid = t.oid AND contype = 'c'),
            'unique', (
                SELECT coalesce(json_agg((
                    SELECT coalesce(json_agg(DISTINCT a.attname), '[]') FROM pg_attribute a
                    WHERE a.attrelid = i.indrelid AND (a.attnum = ANY (i.indkey) OR EXISTS (
                        SELECT FROM pg_depend p WHERE p.classid = 'pg_class'::regclass AND p.objid = i.indexrelid
                        AND p.refobjid = i.indrelid AND p.refobjsubid = a.attnum)))), '[]')
                FROM pg_index i WHERE i.indrelid = t.oid AND (i.indisunique OR i.indisexclusion)),
            'deferrable', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND NOT i.indimmediate),
            'references', (
                SELECT coalesce(json_agg(json_build_array(
                    (SELECT json_agg(a.attname ORDER BY place) FROM unnest(k.conkey) WITH ORDINALITY AS key (n, place)
                     JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.n),
                    k.confrelid::bigint,
                    (SELECT json_agg(a.attname ORDER BY place) FROM unnest(k.confkey) WITH ORDINALITY AS key (n, place)
                     JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = key.n)) ORDER BY k.conname), '[]')
                FROM pg_constraint k WHERE k.conrelid = t.oid AND k.contype = 'f' AND k.conparentid = 0
                -- Partitions are not filled by themselves.
                AND k.confrelid IN (SELECT oid FROM tables)),
            'bounds', (
                SELECT coalesce(json_agg(pg_get_partition_constraintdef(leaf.relid)), '[]')
                FROM pg_partition_tree(t.oid) AS leaf WHERE t.relkind = 'p' AND leaf.isleaf AND leaf.level > 0),
            'partitioned', t.relkind = 'p'
        ) ORDER BY t.shown), '[]') FROM tables t)
)::text
"""


def _described(shape: Mapping[str, Any]) -> tuple[dict[int, Type], list[TableShape]]:
    """Return the types without modifiers by their oid, and the tables."""
    described = {(each["oid"], each["modifier"]): each for each in shape["types"]}
    types: dict[int, Type] = {}

    def made(oid: int, modifier: int) -> Type:
        each = described[oid, modifier]
        if each["base"]:
            types[each["base"]] = made(each["base"], each["base_modifier"])
        for inner in (each["element"], each["subtype"]):
            if inner and inner not in types:
                types[inner] = made(inner, modifier if each["element"] else -1)
        return Type(
            oid,
            each["name"],
            each["kind"],
            each["shown"],
            each["modifier"],
            each["element"],
            each["base"],
            each["subtype"],
            tuple(each["labels"]),
            tuple(made(*inner) for inner in each["fields"]),
            tuple(each["checks"]),
            each["not_null"],
        )

    tables = []
    for table in shape["tables"]:
        columns = []
        for name, oid, modifier, not_null, generated, identity, default in table["columns"]:
            kind = made(oid, modifier)
            columns.append(ColumnShape(name, kind, not_null or kind.not_null, generated, identity, default))
        tables.append(
            TableShape(
                table["oid"],
                table["name"],
                tuple(columns),
                tuple(check for check in table["checks"]),
                tuple(frozenset(columns) for columns in table["unique"]),
                tuple(Reference(tuple(own), oid, tuple(target)) for own, oid, target in table["references"]),
                tuple(bound or "true" for bound in table["bounds"]),
                table["deferrable"],
                not table["partitioned"] or bool(table["bounds"]),
            )
        )
    return types, tables
