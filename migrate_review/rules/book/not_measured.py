"""The rule ``not-measured``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.case import attempted
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="not-measured",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="Part of the revision was not measured: {reason}.",
    fix="""\
# Do what the message proposes. If that is not possible here, let the review pass without the measurement:
#   migrate review --allow-unmeasured""",
    measured="Whether the revision ran on the review's server, with rows in every table that it touches, and which"
    " branches of upgrade() and of its DO blocks ran.",
    bad="""\
def upgrade() -> None:
    op.execute("CREATE EXTENSION vector")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: not-measured it ran on a copy of production on 3 May
    op.execute("CREATE EXTENSION vector")
""",
)

_REQUIRED = "adding-required-field"
_NOT_NULL_VIOLATION = "23502"


def check(case: Case) -> Iterator[Finding]:
    """Yield each reason why part of the revision was not measured.

    A required column for which the rows have no value is reported as `adding-required-field`.
    """
    refused = case.observation.refused
    last = len(attempted(case.observation)) - 1
    if refused is not None and refused.sqlstate == _NOT_NULL_VIOLATION and _REQUIRED in case.squawk_on(last):
        return
    upgrade = case.observation.upgrade
    for reason in case.observation.unmeasured:
        how = "its SQL was rendered, not run" if upgrade.rendered else "it ran, but without these rows"
        if reason in upgrade.left_out:
            how = "it ran, but a part did not run or was not visible to the review"
        yield case.found(RULE, how, reason=reason)
