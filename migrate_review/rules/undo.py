"""Writes the operations that a downgrade lacks, from the schema after it and the former schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.names import Identifier, Relation, op_execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog, Column, Constraint, Index, Table

_OF_TABLES = ("trigger", "rule", "policy")
# In an order in which PostgreSQL can drop them.
_DROPPED = ("view", "materialized view", "function", "procedure", "sequence", "type", "domain", "extension", "schema")


def undo(before: Catalog, left: Catalog) -> str:
    """Return the code of a downgrade from the schema ``left`` to ``before``, as far as it follows from the two."""
    code = list(dict.fromkeys([*_others_gone_first(before, left), *_tables(before, left), *_others(before, left)]))
    if all(line.startswith("#") for line in code):
        code = [*code, "pass  # the opposite of upgrade(), last step first"]
    return "\n".join(f"    {line}" for line in code)


def _tables(before: Catalog, left: Catalog) -> Iterator[str]:
    was, now = ({table.name: table for table in catalog.tables} for catalog in (before, left))
    renamed = {table.name: before.table(table.oid) for table in left.tables if table.name not in was}
    for name, old in renamed.items():
        if old is not None and old.name not in now:
            yield op_execute(f"ALTER TABLE {name} RENAME TO {Relation(old.name).own.sql}")
    new = [name for name, old in renamed.items() if old is None or old.name in now]
    if new:
        yield op_execute(f"DROP TABLE {', '.join(new)}")  # in one statement: they may refer to each other
    restored = {old.name for old in renamed.values() if old is not None}
    for name, old in was.items():
        if name in now:
            yield from _table(old, now[name])
        elif name not in restored:
            yield op_execute(f"CREATE TABLE {name} ({', '.join(_parts(old))})")
            yield from (op_execute(index.definition) for index in old.indexes if not index.constraint)


def _parts(table: Table) -> Iterator[str]:
    yield from (_column(column) for column in table.columns)
    yield from (f"CONSTRAINT {Identifier(each.name).sql} {each.definition}" for each in table.constraints)


def _table(old: Table, now: Table) -> Iterator[str]:
    yield from _parts_gone(old.constraints, now.constraints, f"ALTER TABLE {now.name} DROP CONSTRAINT {{}}")
    own = {constraint.name for constraint in now.constraints}
    schema = Relation(now.name).parts[0]
    prefix = f"{Identifier(schema).sql}." if schema else ""
    indexes = [index for index in now.indexes if index.name not in own]
    yield from _parts_gone(old.indexes, indexes, f"DROP INDEX {prefix}{{}}")
    yield from _columns(old, now)
    held = {each.name: each.definition for each in now.constraints}
    for constraint in old.constraints:
        if held.get(constraint.name) != constraint.definition:
            name = Identifier(constraint.name).sql
            yield op_execute(f"ALTER TABLE {now.name} ADD CONSTRAINT {name} {constraint.definition}")
    built = {each.name: each.definition for each in now.indexes}
    for index in old.indexes:
        if not index.constraint and built.get(index.name) != index.definition:
            yield op_execute(index.definition)


def _parts_gone(
    old: tuple[Constraint, ...] | tuple[Index, ...], now: tuple[Constraint, ...] | list[Index], statement: str
) -> Iterator[str]:
    """Yield the statement that drops each part that is new or different."""
    was = {each.name: each.definition for each in old}
    for part in now:
        if was.get(part.name) != part.definition:
            yield op_execute(statement.format(Identifier(part.name).sql))


def _columns(old: Table, now: Table) -> Iterator[str]:
    was, is_now = ({column.name: column for column in table.columns} for table in (old, now))
    numbers = {column.number: column for column in old.columns}
    for name, column in is_now.items():
        renamed = numbers.get(column.number)
        if name not in was and renamed is not None and renamed.name not in is_now:
            new, own = Identifier(renamed.name).sql, Identifier(name).sql
            yield op_execute(f"ALTER TABLE {now.name} RENAME COLUMN {own} TO {new}")
        elif name not in was:
            yield op_execute(f"ALTER TABLE {now.name} DROP COLUMN {Identifier(name).sql}")
    kept = {column.number for column in now.columns}
    for name, column in was.items():
        if name in is_now:
            yield from _changed(now.name, column, is_now[name])
        elif column.number not in kept:
            yield op_execute(f"ALTER TABLE {now.name} ADD COLUMN {_column(column)}")


def _changed(table: str, old: Column, now: Column) -> Iterator[str]:
    alter = f"ALTER TABLE {table} ALTER COLUMN {Identifier(old.name).sql}"
    if old.type != now.type:
        yield op_execute(f"{alter} TYPE {old.type} USING {Identifier(old.name).sql}::{old.type}")
    if old.default != now.default and not (old.generated or now.generated):
        yield op_execute(f"{alter} {f'SET DEFAULT {old.default}' if old.default is not None else 'DROP DEFAULT'}")
    if old.not_null != now.not_null:
        yield op_execute(f"{alter} {'SET' if old.not_null else 'DROP'} NOT NULL")


def _column(column: Column) -> str:
    words = [Identifier(column.name).sql, column.type]
    if column.generated:
        words.append(f"GENERATED ALWAYS AS ({column.default}) STORED")
    elif column.identity:
        words.append("GENERATED BY DEFAULT AS IDENTITY")
    elif column.default is not None:
        words.append(f"DEFAULT {column.default}")
    if column.not_null:
        words.append("NOT NULL")
    return " ".join(words)


def _others_gone_first(before: Catalog, left: Catalog) -> Iterator[str]:
    """Yield the statements that drop objects on tables: views, and triggers, rules and policies of kept tables."""
    gone = sorted(left.others.keys() - before.others.keys())
    for kind in ("materialized view", "view"):
        if names := [own for each, _, own in map(_kind, gone) if each == kind]:
            yield op_execute(f"DROP {kind.upper()} {', '.join(names)}")
    kept = {table.name for table in before.tables}
    for kind, _, own in map(_kind, gone):
        if kind in _OF_TABLES and own.partition(" on ")[2] in kept:
            yield op_execute(f"DROP {kind.upper()} {own.replace(' on ', ' ON ', 1)}")


def _others(before: Catalog, left: Catalog) -> Iterator[str]:
    identities = {f"{table.name}_{column.name}_seq" for table in left.tables for column in table.columns}
    known = {kind: position for position, kind in enumerate(_DROPPED)}
    gone = sorted(left.others.keys() - before.others.keys(), key=lambda name: (known.get(_kind(name)[0], 0), name))
    for name in gone:
        kind, _, own = _kind(name)
        if kind == "sequence" and (own in identities or "owned by" in left.others[name]):
            continue  # it is dropped with its column
        if kind in _DROPPED and kind not in ("view", "materialized view"):
            yield op_execute(f"DROP {kind.upper()} {own}")
    for name in sorted(before.others.keys() - left.others.keys()):
        kind, _, own = _kind(name)
        if kind == "view":
            yield f"# recreate the view {own} with its previous definition"
        elif kind in _DROPPED and kind != "sequence":
            yield f"# recreate the {kind} {own} with its previous definition"
    for enum, labels in before.enums.items():
        now = left.enums.get(enum)
        if now is not None and [label for _, label in now] != [label for _, label in labels]:
            yield f"# recreate the type {enum} with the labels {', '.join(label for _, label in labels)}"


def _kind(name: str) -> tuple[str, str, str]:
    if name.startswith("materialized view "):
        return "materialized view", " ", name.removeprefix("materialized view ")
    return name.partition(" ")
