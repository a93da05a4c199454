"""The rule ``view-rights-changed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="view-rights-changed",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="The view {view} reads its tables with the rights of {whose} after this revision. {effect}",
    fix="""\
# CREATE OR REPLACE VIEW and CREATE VIEW reset each option that they do not name. Set it:
# ALTER VIEW {view} SET (security_invoker = {option})""",
    measured="The option security_invoker of each view, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER VIEW open_orders SET (security_invoker = true)")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER VIEW open_orders SET (security_invoker = false)")
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the views that read with other rights: those of the caller, or those of the owner."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for view, was in before.views.items():
        now = after.views.get(view, was)
        if was.as_caller and not now.as_caller:
            effect = "Row-level security no longer hides rows from the role that queries it."
            names = {"whose": "its owner", "effect": effect, "option": "true"}
            yield case.found(
                RULE, f"{view} had security_invoker before, and does not have it after", view=view, **names
            )
        elif now.as_caller and not was.as_caller:
            effect = (
                "A role that may read only the view, and not its tables, is refused. Row-level security hides rows."
            )
            names = {"whose": "the role that queries it", "effect": effect, "option": "false"}
            yield case.found(RULE, f"{view} has security_invoker after, and did not have it before", view=view, **names)
