"""The rule ``rows-not-shown``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.book.row_security_without_policy import denied
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="rows-not-shown",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="The running application finds no row in {relation} after this revision.",
    fix="""\
# Correct the condition of the view or of the policy. If no release reads these rows, acknowledge the finding:
# -- reviewed: rows-not-shown no release reads them""",
    measured="The rows of each view, and the rows of each table with row-level security that a role without special"
    " rights sees, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER POLICY everything ON items USING (order_id < 0)")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER POLICY everything ON items USING (order_id > 0)")
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the views and tables that no longer show any row."""
    seen = case.observation
    if seen.after is None:
        return
    changed = {name for name in seen.before.others if seen.before.others[name] != seen.after.others.get(name)}
    changed |= seen.after.others.keys() - seen.before.others.keys()
    for relation, had in seen.shown_before.items():
        has = seen.shown_after.get(relation)
        is_view = relation in seen.before.views
        there = relation in seen.after.views or seen.after.table_named(relation) is not None
        if is_view:
            is_about = f"view {relation}" in changed
        else:  # that no policy allows to read the rows has its own rule
            is_about = "read" not in denied(seen.after, relation) and any(
                name.startswith("policy ") and name.endswith(f" on {relation}") for name in changed
            )
        # A table or a materialized view in the place of a view is not counted.
        counted = has is not None or not is_view or _is_plain_view(seen.after, relation)
        if had and not has and there and is_about and counted:
            which = "are in it" if is_view else "were visible to a role with SELECT"
            now = "none is" if has == 0 else "a query fails"
            yield case.found(RULE, f"{had} rows {which} before the upgrade, and {now} after it", relation=relation)


def _is_plain_view(catalog: Catalog, relation: str) -> bool:
    return relation in catalog.views and f"materialized view {relation}" not in catalog.others
