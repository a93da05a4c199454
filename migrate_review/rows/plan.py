"""Plans rows that a revision accepts: those that satisfy the constraints of the schema after it, too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog, Table


_DEFERRABLE = re.compile(r" DEFERRABLE(?: INITIALLY DEFERRED)?")


@dataclass(frozen=True)
class Plan:
    """Further constraints that rows must satisfy. They are added before the filling, and dropped after it."""

    put_on: tuple[str, ...]
    take_off: tuple[str, ...]


def plan_rows(before: Catalog, after: Catalog) -> Plan:
    """Return the constraints of the schema after a revision, for the tables and columns that both schemas have."""
    statements = [each for old in before.tables for each in _demands(old, after)]
    return Plan(tuple(put for put, _ in statements), tuple(take for _, take in statements))


def _demands(old: Table, after: Catalog) -> Iterator[tuple[str, str]]:
    """Yield a statement that adds each constraint, with the statement that drops it."""
    new = after.table(old.oid)
    if new is not None:
        yield from _of_columns(old, new, after)
        yield from _of_constraints(old, new)
        yield from _of_indexes(old, new)


def _of_columns(old: Table, new: Table, after: Catalog) -> Iterator[tuple[str, str]]:
    was = {column.number: column for column in old.columns}
    is_now = {column.number: column for column in new.columns if column.number in was}
    for number, column in is_now.items():
        name = identifier(was[number].name)
        if column.not_null and not was[number].not_null:
            yield (
                f"ALTER TABLE {old.name} ALTER {name} SET NOT NULL",
                f"ALTER TABLE {old.name} ALTER {name} DROP NOT NULL",
            )
        if column.type != was[number].type:
            label = f"review_type_{number}"
            if column.type in after.enums:
                labels = ", ".join(literal(label) for _, label in after.enums[column.type])
                check = f"{name}::text IN ({labels})"
            else:
                # The type may not exist yet, because the revision creates it.
                valid = f"pg_input_is_valid({name}::text, {literal(column.type)})"
                check = f"CASE WHEN to_regtype({literal(column.type)}) IS NULL THEN true ELSE {valid} END"
            yield (
                f"ALTER TABLE {old.name} ADD CONSTRAINT {label} CHECK ({check})",
                f"ALTER TABLE {old.name} DROP CONSTRAINT {label}",
            )


def _of_constraints(old: Table, new: Table) -> Iterator[tuple[str, str]]:
    was = {column.number: column.name for column in old.columns}
    # Definitions contain column names, so a constraint on a renamed column cannot be added before the rename.
    names = {column.name for column in new.columns if was.get(column.number) == column.name}
    definitions = {constraint.definition for constraint in old.constraints}
    for at, constraint in enumerate(new.constraints):
        if constraint.kind in "cpufx" and constraint.definition not in definitions and names >= {*constraint.columns}:
            definition = constraint.definition.removesuffix(" NOT VALID").replace("PRIMARY KEY", "UNIQUE", 1)
            # A deferred constraint would refuse rows only at the COMMIT, which would undo the insert of all rows.
            definition = _DEFERRABLE.sub("", definition)
            yield (
                f"ALTER TABLE {old.name} ADD CONSTRAINT review_{at} {definition}",
                f"ALTER TABLE {old.name} DROP CONSTRAINT review_{at}",
            )


def _of_indexes(old: Table, new: Table) -> Iterator[tuple[str, str]]:
    indexes = {index.definition for index in old.indexes}
    schema = f"{old.name.rpartition('.')[0]}." if "." in old.name else ""
    for at, index in enumerate(new.indexes):
        if index.unique and not index.constraint and index.definition not in indexes:
            made = re.sub(
                r"^CREATE UNIQUE INDEX .*? ON ", f"CREATE UNIQUE INDEX review_unique_{at} ON ", index.definition
            )
            yield made, f"DROP INDEX {schema}review_unique_{at}"
