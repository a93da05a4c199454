"""Checks the keys, indexes, names and types that the revision creates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules import difference, wording
from migrate_review.rules.case import quoted
from migrate_review.rules.names import Identifier, Relation, escaped, literal
from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog, Column, Constraint, Index, Table
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

_WITHOUT_NULLS = re.compile(r"WHERE \(+\"?(\w+)\"? IS NOT NULL\)+$")
_NAME_IN_DEFINITION = re.compile(r"^CREATE (UNIQUE )?INDEX \S+ ON ")


def foreign_keys_without_index(case: Case) -> Iterator[Finding]:
    """Yield the new foreign keys that have no index that begins with their columns."""
    observation = case.observation
    if observation.after is None:
        return
    for table, constraint in difference.new_constraints(observation.before, observation.after):
        if constraint.kind == "f" and not any(_serves(index, constraint) for index in table.indexes):
            has = ", ".join(index.name for index in table.indexes) or "none"
            columns = constraint.columns
            index = f"ix_{Relation(table.name).bare}_{'_'.join(columns)}"
            names = {"table": table.name, "other": constraint.references or "the other", "columns": quoted(columns)}
            evidence = f"{constraint.definition}; indexes of {table.name}: {has}"
            names |= wording.index_on(table.name, index, columns, observation.after)
            yield case.found(RULES["foreign-key-without-index"], evidence, index=index, **names)
    yield from _indexes_of_foreign_keys_gone(case, observation.before, observation.after)


def _indexes_of_foreign_keys_gone(case: Case, before: Catalog, after: Catalog) -> Iterator[Finding]:
    """Yield the existing foreign keys whose index was dropped."""
    for was, now in difference.kept_tables(before, after):
        keys = {constraint.name for constraint in was.constraints if constraint.kind == "f"}
        for constraint in now.constraints:
            if constraint.name not in keys or any(_serves(index, constraint) for index in now.indexes):
                continue
            served = [index.name for index in was.indexes if _serves(index, constraint)]
            if served:
                names = {"table": now.name, "other": constraint.references or "the other", "index": served[0]}
                evidence = f"{constraint.definition}; the upgrade drops {', '.join(served)}"
                rule = RULES["foreign-key-without-index"]
                yield case.found(rule, evidence, columns=quoted(constraint.columns), **names)


def _serves(index: Index, constraint: Constraint) -> bool:
    wanted = constraint.columns
    if not index.valid or set(index.columns[: len(wanted)]) != set(wanted):
        return False
    without_nulls = _WITHOUT_NULLS.search(index.definition)
    return not index.partial or (without_nulls is not None and without_nulls.group(1) in wanted)


def duplicate_indexes(case: Case) -> Iterator[Finding]:
    """Yield the new indexes that duplicate another one."""
    observation = case.observation
    if observation.after is None:
        return
    new = list(difference.new_indexes(observation.before, observation.after))
    for place, (table, index) in enumerate(new):
        # If both are new, the second one is the duplicate.
        later = [other for owner, other in new[place:] if owner is table and not other.constraint]
        other = next((other for other in table.indexes if other not in later and _covers(other, index)), None)
        if other is not None and not index.constraint:
            evidence = f"{index.definition}; {other.definition}"
            yield case.found(RULES["duplicate-index"], evidence, table=table.name, name=index.name, other=other.name)


def _covers(other: Index, index: Index) -> bool:
    """Return whether ``other`` makes ``index`` superfluous."""
    its, own = (_NAME_IN_DEFINITION.sub("", one.definition) for one in (other, index))
    return its == own and (other.unique or not index.unique)


def names(case: Case) -> Iterator[Finding]:
    """Yield the new constraints whose name the server chose."""
    observation = case.observation
    if observation.after is None:
        return
    sql = "\n".join(statement.sql for statement in observation.upgrade.statements)
    inherited = {constraint.name for table in observation.before.tables for constraint in table.constraints}
    partitions = difference.partitions(observation.after)
    for table, constraint in difference.new_constraints(observation.before, observation.after):
        # Alembic compares neither primary keys nor the constraints of triggers. A partition has the constraint of its
        # table, unless the statement names the partition.
        alone = table.name not in partitions or Relation(table.name).bare in sql
        if constraint.kind in "fucx" and alone and constraint.name not in sql and constraint.name not in inherited:
            evidence = f"{constraint.name} of {table.name}: {constraint.definition}"
            yield case.found(
                RULES["unnamed-constraint"], evidence, name=constraint.name, named=_with_name(table, constraint)
            )


_PREFIXES = {"f": "fk", "u": "uq", "c": "ck", "x": "ex"}
_LONGEST_NAME = 63


def _with_name(table: Table, constraint: Constraint) -> str:
    """Return code for the same constraint with a name, by SQLAlchemy's usual convention."""
    other = [Relation(constraint.references).bare] if constraint.references else []
    words = [_PREFIXES[constraint.kind], Relation(table.name).bare, *(constraint.columns or ("rule",)), *other]
    name = Identifier("_".join(words)[:_LONGEST_NAME])
    statement = f"ALTER TABLE {table.name} ADD CONSTRAINT {name.sql} {constraint.definition}"
    return f"op.execute({literal(escaped(statement))})"


def new_tables_and_columns(case: Case) -> Iterator[Finding]:
    """Yield choices that are cheap to change now, and expensive later."""
    observation = case.observation
    if observation.after is None:
        return
    for table in difference.new_tables(observation.before, observation.after):
        yield from _primary_key(case, table)
    for table, column in difference.new_columns(observation.before, observation.after):
        evidence = f"{table.name}.{column.name} is {column.type}"
        if re.fullmatch(r"timestamp(\(\d\))? without time zone(\[\])?", column.type):
            yield case.found(RULES["prefer-timestamp-tz"], evidence, table=table.name, column=column.name)
        if re.fullmatch(r"(character\(\d+\)|bpchar)(\[\])?", column.type):
            yield case.found(RULES["ban-char-field"], evidence, table=table.name, column=column.name)


def keys_made_wider(case: Case) -> Iterator[Finding]:
    """Yield the sequences of, and the foreign keys to, a key that became a bigint, if they are still narrower."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    rule = RULES["prefer-bigint-over-int"]
    for was, now in difference.kept_tables(before, after):
        for old, new in difference.kept_columns(was, now):
            if (old.type, new.type) not in {("integer", "bigint"), ("smallint", "bigint")}:
                continue
            for name, definition in after.others.items():
                # A sequence's definition begins with its type and ends with the column that owns it.
                if name.startswith("sequence ") and definition.endswith(
                    f" owned by {now.name}.{Identifier(new.name).sql}"
                ):
                    sequence, kind = name.removeprefix("sequence "), definition.partition(" ")[0]
                    if kind != "bigint":
                        code = f"op.execute({literal(escaped(f'ALTER SEQUENCE {sequence} AS bigint'))})"
                        names = {"table": now.name, "column": new.name, "fix": code}
                        yield case.found(rule, f"{new.name} is bigint, and its sequence {sequence} is {kind}", **names)
            for table, column in _references(after, now.name, new.name):
                evidence = f"it refers to the bigint {now.name}.{new.name}, and is {column.type}"
                code = f"# Make {table.name}.{column.name} a bigint, too, before the numbers exceed its range."
                yield case.found(rule, evidence, table=table.name, column=column.name, fix=code)


def _references(catalog: Catalog, table: str, column: str) -> Iterator[tuple[Table, Column]]:
    """Yield each column that refers to this column and is narrower than bigint."""
    for other in catalog.tables:
        types = {each.name: each for each in other.columns}
        for constraint in other.constraints:
            if constraint.kind != "f" or constraint.references != table or len(constraint.columns) != 1:
                continue
            own = types[constraint.columns[0]]
            if own.type in {"integer", "smallint"} and f"({Identifier(column).sql})" in constraint.definition:
                yield other, own


def _key_of(table: Table, case: Case) -> dict[str, str]:
    """Return the ``fix`` for a table with a column ``id``, or whose key must contain the partition columns."""
    after = case.observation.after
    settings = after.table_settings(table.name) if after else ""
    split_by = re.search(r"partitioned by \w+ \(([^()]*)\)", settings)
    there = any(column.name == "id" for column in table.columns)
    if not there and split_by is None:
        return {}
    columns = ", ".join(dict.fromkeys(["id", *(split_by.group(1).split(", ") if split_by else ())]))
    added = "" if there else "ADD COLUMN id bigint GENERATED BY DEFAULT AS IDENTITY, "
    statement = f"ALTER TABLE {table.name} {added}ADD PRIMARY KEY ({columns})"
    return {"fix": f"op.execute({literal(escaped(statement))})"}


def _primary_key(case: Case, table: Table) -> Iterator[Finding]:
    keys = [constraint.columns for constraint in table.constraints if constraint.kind == "p"]
    if not keys:
        names = {"table": table.name, **_key_of(table, case)}
        yield case.found(RULES["table-without-primary-key"], f"{table.name} has no primary key", **names)
    types = {column.name: column.type for column in table.columns}
    pointing = {column for one in table.constraints if one.kind == "f" for column in one.columns}
    for key in keys:
        # A key that refers to another table has the width of that table's key.
        if len(key) == 1 and types[key[0]] in ("integer", "smallint") and key[0] not in pointing:
            evidence = f"{table.name}.{key[0]} is {types[key[0]]}"
            yield case.found(RULES["prefer-bigint-over-int"], evidence, table=table.name, column=key[0])
