"""The rule ``materialized-view-not-populated``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="materialized-view-not-populated",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query on {view} fails until it is refreshed: it is not populated.",
    fix="""\
op.execute("REFRESH MATERIALIZED VIEW {view}")""",
    measured="Whether each materialized view can be queried, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("REFRESH MATERIALIZED VIEW totals WITH NO DATA")
""",
    good="""\
def upgrade() -> None:
    op.execute("CREATE MATERIALIZED VIEW totals_by_day AS SELECT placed_at::date, sum(total) FROM orders GROUP BY 1")
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the materialized views that are no longer populated."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    could = {view.name for view in before.materialized if view.populated}
    for view in after.materialized:
        if view.name in could and not view.populated:
            evidence = f"{view.name} had rows, and is not populated after the upgrade"
            yield case.found(RULE, evidence, view=view.name)
