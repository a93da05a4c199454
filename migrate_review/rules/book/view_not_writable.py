"""The rule ``view-not-writable``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import View
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="view-not-writable",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="The view {view} refuses {refused} after this revision. The running application may write through it.",
    fix="""\
# Give the new query another view, or keep {view} writable with an INSTEAD OF trigger.
# If no release writes through it, acknowledge the finding:
# -- reviewed: view-not-writable no release writes through it""",
    measured="The commands and the columns that each view accepts, with its triggers and rules, according to"
    " PostgreSQL before and after.",
    bad="""\
def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT DISTINCT id, customer_id, total FROM orders WHERE state = 'open'"
    )
""",
    good="""\
def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS"
        " SELECT id, customer_id, total FROM orders WHERE state IN ('open', 'paid')"
    )
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the views that refuse a command, or values for a column, that they accepted before."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for view, was in before.views.items():
        now = after.views.get(view)
        if now is None or f"view {view}" not in after.others:
            continue  # it is gone, or another kind of object has its name: other rules report it
        refused = sorted(was.writes - now.writes) or _columns_refused(was, now)
        if refused:
            evidence = f"{view} accepted {_listed(was)} before, and accepts {_listed(now)} after"
            yield case.found(RULE, evidence, view=view, refused=", ".join(refused))


def _columns_refused(was: View, now: View) -> list[str]:
    """Return the columns that no longer accept values. A column with another type has its own rule."""
    return [
        f"values for {column}"
        for column, type_ in was.columns.items()
        if column in was.written - now.written and now.columns.get(column) == type_
    ]


def _listed(view: View) -> str:
    commands = ", ".join(sorted(view.writes)) or "no writes"
    columns = [column for column in view.columns if column in view.written]
    return f"{commands} ({', '.join(columns)})" if columns else commands
