"""The rule ``result-type-changed``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="result-type-changed",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="The running application gets {new} instead of {old} from {thing} after this revision.",
    fix="""\
# Give the new result another name. Remove the old one when no release reads it.""",
    measured="The column types of each view and the result type of each function, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id::text AS id, customer_id, total FROM orders WHERE state = 'open'")
""",
    good="""\
def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS"
        " SELECT id, customer_id, total, id::text AS shown_id FROM orders WHERE state = 'open'"
    )
""",
)

# Types whose values an application reads as the same type, or as one that works in nearly all code.
_FAMILIES = (
    {"text", "character varying", "character", "name", "citext"},
    {"smallint", "integer", "bigint", "numeric", "real", "double precision"},
    {"json", "jsonb"},
)
_RESULT = re.compile(r"^ RETURNS (?P<type>.+)$", re.MULTILINE)
_TRIGGERS = {"trigger", "event_trigger"}
_LENGTH = re.compile(r"\([\d,]+\)")


def check(case: Case) -> Iterator[Finding]:
    """Yield the columns of views, and the functions, that return another type."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    altered = _types_of_altered_columns(before, after)
    for name, was in before.views.items():
        now = after.views.get(name, was).columns
        for column, old in was.columns.items():
            new = now.get(column, old)
            # A new type of a table's column has its own finding.
            if not _is_alike(old, new) and (column, new) not in altered:
                evidence = f"the column {column} of the view {name} was {old} and is {new}"
                yield case.found(RULE, evidence, thing=f"{name}.{column}", old=old, new=new)
    for name, text in before.others.items():
        was_type, now_type = _result(text), _result(after.others.get(name, ""))
        if name.startswith("function ") and was_type and now_type and not _gives_the_same(was_type, now_type):
            evidence = f"{name} returned {was_type} and returns {now_type}"
            yield case.found(RULE, evidence, thing=name, old=was_type, new=now_type)


def _result(definition: str) -> str | None:
    found = _RESULT.search(definition)
    return found["type"] if found is not None and found["type"] not in _TRIGGERS else None


def _gives_the_same(old: str, new: str) -> bool:
    """Return whether a function returns everything that it returned before. A further column is harmless."""
    return _is_alike(old, new) or set() < _columns(old) <= _columns(new)


def _columns(result: str) -> set[str]:
    """Return the columns of a function that returns rows, each with its type."""
    return set(result[len("TABLE(") : -1].split(", ")) if result.startswith("TABLE(") else set()


def _is_alike(old: str, new: str) -> bool:
    old, new = _LENGTH.sub("", old), _LENGTH.sub("", new)
    return old == new or any({old, new} <= family for family in _FAMILIES)


def _types_of_altered_columns(before: Catalog, after: Catalog) -> set[tuple[str, str]]:
    """Return the names and new types of the tables' columns whose type changes."""
    were = {(table.oid, column.number): column.type for table in before.tables for column in table.columns}
    return {
        (column.name, _LENGTH.sub("", column.type))
        for table in after.tables
        for column in table.columns
        if were.get((table.oid, column.number), column.type) != column.type
    }
