"""The rule ``materialized-view-without-unique-index``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="materialized-view-without-unique-index",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard=(
        "REFRESH MATERIALIZED VIEW CONCURRENTLY {view} fails after this revision: it needs a unique index on columns."
    ),
    fix="""\
# Create a unique index on the same columns of {view} in this revision.""",
    measured="The unique indexes of each materialized view, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP INDEX ux_totals")
""",
    good="""\
def upgrade() -> None:
    op.execute("CREATE UNIQUE INDEX ux_totals_customer ON totals (customer_id)")
    op.execute("DROP INDEX ux_totals")
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the materialized views that can no longer be refreshed concurrently."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    could = {view.name for view in before.materialized if view.concurrent}
    for view in after.materialized:
        if view.name in could and not view.concurrent:
            evidence = f"{view.name} loses its unique index on columns"
            yield case.found(RULE, evidence, view=view.name)
