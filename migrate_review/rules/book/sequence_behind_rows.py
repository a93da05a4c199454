"""The rule ``sequence-behind-rows``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Numbering
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="sequence-behind-rows",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Inserts into {table} fail on the unique {column}: a row already has the next number of {sequence}.",
    fix="""\
op.execute("SELECT setval('{sequence}', (SELECT max({column}) FROM {table}))")""",
    measured="The next number of each sequence and the highest number in its table, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE orders ALTER COLUMN id RESTART WITH 1")
""",
    good="""\
def upgrade() -> None:
    op.execute("SELECT setval(pg_get_serial_sequence('orders', 'id'), (SELECT max(id) FROM orders))")
""",
)

# A constant number is correct only in the author's database.
_CONSTANT = re.compile(r"\brestart\s+(?:with\s+)?\d+|\bsetval\s*\([^,()]+(?:\([^()]*\))?\s*,\s*\d+", re.IGNORECASE)


def check(case: Case) -> Iterator[Finding]:
    """Yield the sequences whose next number a row already has, here or possibly in production."""
    seen = case.observation
    if seen.access_before is None or seen.access_after is None or seen.after is None:
        return
    were = {(each.table, each.column): each for each in seen.access_before.numberings}
    constants = [found[0] for one in seen.upgrade.statements if (found := _CONSTANT.search(one.sql))]
    for each in seen.access_after.numberings:
        table = seen.after.table_named(each.table)
        if table is None or not any(index.unique and index.columns == (each.column,) for index in table.indexes):
            continue
        was = were.get((each.table, each.column))
        evidence = f"the next number of {each.sequence} is {each.next}, and the highest {each.column} {each.highest}"
        names = {"table": each.table, "column": each.column, "sequence": each.sequence}
        if _is_behind(each) and (was is None or not _is_behind(was)):
            yield case.found(RULE, evidence, **names)
        elif constants and was is not None and each.highest is not None and was.next != each.next:
            yield case.found(RULE, f"{evidence}; {constants[0]} is a number of this database alone", **names)


def _is_behind(numbering: Numbering) -> bool:
    return numbering.highest is not None and numbering.next <= numbering.highest
