"""The rule ``table-replaced``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules import difference
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog, Column, Table
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="table-replaced",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Another table has the name {table} after this revision, and it lacks {lost}.",
    fix="""\
# Alter {table} itself. A new table needs the columns, defaults, keys, indexes, triggers and rows of the old one.""",
    measured="The definitions and rows of the tables of one name, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("CREATE TABLE products_new AS SELECT * FROM products")
    op.execute("DROP TABLE products")
    op.execute("ALTER TABLE products_new RENAME TO products")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE products ADD COLUMN maker text")
""",
)

_MOST = 5
_TRIGGER = re.compile(r"(?P<kind>trigger|rule|policy) (?P<name>.+) on (?P<table>.+)")


def check(case: Case) -> Iterator[Finding]:
    """Yield the tables that another table of the same name replaces, if it lacks a part of the old one."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    parts = difference.partitions(before)
    for was in before.tables:
        now = after.table_named(was.name)
        if now is None or now.oid == was.oid or was.name in parts:
            continue
        lost = [*_rows(case, was.name), *_columns(was, now), *_parts(was, now), *_attached(before, after, was.name)]
        if lost:
            more = [f"{len(lost) - _MOST} more"] if len(lost) > _MOST else []
            evidence = f"the upgrade gives the name {was.name} to another table"
            yield case.found(RULE, evidence, table=was.name, lost="; ".join([*lost[:_MOST], *more]))


def _rows(case: Case, table: str) -> Iterator[str]:
    had, has = case.observation.rows.get(table, 0), case.observation.shown_after.get(table)
    if has is not None and has < had:
        yield f"{had - has} of {had} rows"


def _columns(was: Table, now: Table) -> Iterator[str]:
    there = {column.name: column for column in now.columns}
    for column in was.columns:
        other = there.get(column.name)
        if other is None:
            yield f"the column {column.name}"
        elif column.not_null and not _gets_value(other) and _gets_value(column):
            yield f"the default of {column.name}"


def _gets_value(column: Column) -> bool:
    return column.default is not None or column.identity or column.generated


def _parts(was: Table, now: Table) -> Iterator[str]:
    """Yield constraints and indexes without an equal one. Their names do not matter."""
    there = {each.definition for each in now.constraints}
    for constraint in was.constraints:
        if constraint.definition not in there and constraint.kind != "n":
            yield f"{constraint.name} ({constraint.definition})"
    keys = {(each.unique, each.definition.partition(" USING ")[2]) for each in now.indexes}
    for index in was.indexes:
        if not index.constraint and (index.unique, index.definition.partition(" USING ")[2]) not in keys:
            yield f"the index {index.name}"


def _attached(before: Catalog, after: Catalog, table: str) -> Iterator[str]:
    for entry in before.others:
        found = _TRIGGER.fullmatch(entry)
        if found is not None and found["table"] == table and entry not in after.others:
            yield f"the {found['kind']} {found['name']}"
