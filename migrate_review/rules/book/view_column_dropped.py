"""The rule ``view-column-dropped``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="view-column-dropped",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application that names {column} of the view {view} fails after this revision.",
    fix="""\
# Keep {column} in the view until no release reads it. Then remove it and acknowledge the finding:
# -- reviewed: view-column-dropped no release reads it""",
    measured="The columns of each view, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id, total FROM orders WHERE state = 'open'")
""",
    good="""\
def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total, note FROM orders WHERE state = 'open'"
    )
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the columns that views lose."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for view, was in before.views.items():
        now = after.views.get(view, was).columns
        for column in was.columns:
            if column not in now:
                evidence = (
                    f"{view} has the columns {', '.join(now)} after the upgrade; before: {', '.join(was.columns)}"
                )
                yield case.found(RULE, evidence, view=view, column=column)
