"""The rule ``unique-dropped``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules import difference
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Index, Table
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

# The columns of an index beside its key, at the end of its definition.
_INCLUDED = re.compile(r" INCLUDE \([^)]*\)")
_CAST = re.compile(r"::[a-z_ ]+(\(\d+\))?")


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
        arbiters = [index for index in now.indexes if index.name not in _deferrable(now)]
        for index in was.indexes:
            known = index.unique and index.name not in _deferrable(was)
            kept = all(column in names for column in index.columns)
            if known and kept and not any(_stands_in(other, index, names) for other in arbiters):
                columns = ", ".join(index.columns) or "..."
                evidence = f"the upgrade drops {index.definition}, and no unique index of {now.name} replaces it"
                yield case.found(RULE, evidence, table=now.name, name=index.name, columns=columns)


def _deferrable(table: Table) -> set[str]:
    """Return the deferrable keys of a table, which ON CONFLICT cannot use."""
    return {each.name for each in table.constraints if each.kind in "pu" and " DEFERRABLE" in each.definition}


def _stands_in(other: Index, index: Index, names: dict[str, str]) -> bool:
    """Return whether a unique index replaces another one, whose columns may have new ``names``."""
    if not other.unique or not other.valid:
        return False
    same_name = other.name == index.name and other.partial == index.partial
    if (
        (other.oid and other.oid == index.oid)
        or _keys(other) == _keys(index)
        or (same_name and _bare(other) == _bare(index))
    ):
        return True
    plain = bool(index.columns) and _keys(index).count("(") == _keys(other).count("(") == 1
    return plain and not other.partial and {names[column] for column in index.columns} == set(other.columns)


def _keys(index: Index) -> str:
    return _INCLUDED.sub("", index.definition.partition(" USING ")[2])


def _bare(index: Index) -> str:
    """Return the keys without casts, which a change of a column's type adds or removes."""
    return _CAST.sub("", _keys(index)).replace("(", "").replace(")", "")
