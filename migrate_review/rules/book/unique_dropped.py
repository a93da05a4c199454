"""The rule ``unique-dropped``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules import difference
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Index
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="unique-dropped",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard=(
        "Every INSERT into {table} with ON CONFLICT ({columns}) fails after this revision, and duplicates are possible."
    ),
    fix="""\
# Drop {name} when no release relies on it, and acknowledge the finding:
# -- reviewed: unique-dropped no release inserts with ON CONFLICT ({columns})""",
    measured="The unique indexes before and after, by their columns and conditions.",
    bad="""\
def upgrade() -> None:
    op.drop_constraint("uq_customers_email", "customers")
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "uq_customers_address", "customers", ["email"], unique=True,
            postgresql_concurrently=True, if_not_exists=True,
        )
    op.drop_constraint("uq_customers_email", "customers")
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the dropped unique indexes without a replacement."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    parts = difference.partitions(after)
    for was, now in difference.kept_tables(before, after):
        if now.name in parts:
            continue  # its parent has the same index
        names = {old.name: new.name for old, new in difference.kept_columns(was, now)}
        for index in was.indexes:
            kept = all(column in names for column in index.columns)
            if index.unique and kept and not any(_stands_in(other, index, names) for other in now.indexes):
                columns = ", ".join(index.columns) or "..."
                evidence = f"the upgrade drops {index.definition}, and no unique index of {now.name} replaces it"
                yield case.found(RULE, evidence, table=now.name, name=index.name, columns=columns)


def _stands_in(other: Index, index: Index, names: dict[str, str]) -> bool:
    """Return whether a unique index replaces another one, whose columns may have new ``names``."""
    if not other.unique or not other.valid:
        return False
    if other.name == index.name or other.definition.partition(" USING ")[2] == index.definition.partition(" USING ")[2]:
        return True
    plain = bool(index.columns) and index.definition.count("(") == other.definition.count("(") == 1
    return plain and not other.partial and {names[column] for column in index.columns} == set(other.columns)
