"""The rule ``foreign-key-action-changed``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog, Constraint, Table
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="foreign-key-action-changed",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="The running application can no longer delete a row of {other} to which {table} refers: {constraint} no"
    " longer has {action}, or has an action that the columns refuse.",
    fix="""\
# Keep {action}, or first release code that deals with the rows of {table} itself, and acknowledge the finding:
# -- reviewed: foreign-key-action-changed the release before deletes the rows of {table} first""",
    measured="The foreign keys of each table, before and after.",
    bad="""\
def upgrade() -> None:
    op.drop_constraint("fk_items_order_id_orders", "items")
    op.create_foreign_key(
        "fk_items_order_id_orders", "items", "orders", ["order_id"], ["id"], postgresql_not_valid=True
    )
""",
    good="""\
def upgrade() -> None:
    op.drop_constraint("fk_items_order_id_orders", "items")
    op.create_foreign_key(
        "fk_items_order_id_orders", "items", "orders", ["order_id"], ["id"], ondelete="CASCADE",
        postgresql_not_valid=True,
    )
""",
)

_ACTION = re.compile(r"\bON DELETE (?:CASCADE|SET (?:NULL|DEFAULT)(?: \((?P<some>[^)]*)\))?)")


def check(case: Case) -> Iterator[Finding]:
    """Yield the foreign keys that allow the deletion of a referenced row before the upgrade, and not after it."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for table in before.tables:
        now = after.table(table.oid)
        for constraint in table.constraints:
            action = _ACTION.search(constraint.definition) if constraint.kind == "f" else None
            if now is None or action is None:
                continue
            successors = _successors(constraint, table, now, before, after)
            if successors and not any(_lets_delete(each, now) for each in successors):
                successor = successors[0]
                yield case.found(
                    RULE,
                    f"before: {constraint.definition}; after: {successor.definition}",
                    table=now.name,
                    other=successor.references or "",
                    constraint=successor.name,
                    action=action[0],
                )


def _lets_delete(constraint: Constraint, table: Table) -> bool:
    """Return whether a row to which the table refers can be deleted: SET NULL fails for a column that is NOT NULL."""
    action = _ACTION.search(constraint.definition)
    if action is None or "SET NULL" not in action[0]:
        return action is not None
    some = action["some"]
    set_to_null = {name.strip().strip('"') for name in some.split(",")} if some else set(constraint.columns)
    return not any(column.not_null for column in table.columns if column.name in set_to_null)


def _successors(constraint: Constraint, table: Table, now: Table, before: Catalog, after: Catalog) -> list[Constraint]:
    """Return the foreign keys after the upgrade on the same columns, to the same table. Each may have another name."""
    numbers = _numbers(table, constraint)
    was = before.table_named(constraint.references or "")
    return [
        each
        for each in now.constraints
        if each.kind == "f"
        and _numbers(now, each) == numbers
        and was is not None
        and (found := after.table_named(each.references or "")) is not None
        and found.oid == was.oid
    ]


def _numbers(table: Table, constraint: Constraint) -> frozenset[int]:
    return frozenset(column.number for column in table.columns if column.name in constraint.columns)
