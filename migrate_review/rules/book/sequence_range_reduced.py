"""The rule ``sequence-range-reduced``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Access, Catalog
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="sequence-range-reduced",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="{sequence} has only {left} more numbers after this revision. Then every INSERT that needs one fails.",
    fix="""\
# Keep the range of the sequence:
op.execute("ALTER SEQUENCE {sequence} AS bigint NO MAXVALUE")""",
    measured="The type, the maximum and the next number of each sequence, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER SEQUENCE ticket_numbers MAXVALUE 10000")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER SEQUENCE ticket_numbers CACHE 10")
""",
)

_ENTRY = "sequence "
_HIGHEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}


def check(case: Case) -> Iterator[Finding]:
    """Yield the sequences that lose more than half of their numbers."""
    seen = case.observation
    if seen.after is None or seen.access_before is None or seen.access_after is None:
        return
    were, are = _left(seen.before, seen.access_before), _left(seen.after, seen.access_after)
    for sequence, was in were.items():
        now = are.get(sequence, was)
        if now < was / 2:
            evidence = f"it had {was} numbers before the upgrade, and has {max(now, 0)} after it"
            yield case.found(RULE, evidence, sequence=sequence, left=str(max(now, 0)))


def _left(catalog: Catalog, access: Access) -> Mapping[str, int]:
    """Return the remaining numbers of each ascending sequence, limited by the range of its column."""
    found: dict[str, int] = {}
    for entry, definition in catalog.others.items():
        if entry.startswith(_ENTRY):
            _, _, step, _, highest, _, cycle, *_ = definition.split()
            if int(step) > 0 and cycle == "f":
                found[entry.removeprefix(_ENTRY)] = int(highest)
    for each in access.numberings:
        table = catalog.table_named(each.table)
        types = [column.type for column in table.columns if column.name == each.column] if table is not None else []
        if types and each.sequence in found:
            found[each.sequence] = min(found[each.sequence], _HIGHEST.get(types[0], 2**63 - 1)) - each.next
    return found
