"""Reports squawk's remarks on a revision that could not run. No measurement confirms or refutes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.case import attempted, short
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme
from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding


def squawk_remarks(case: Case) -> Iterator[Finding]:
    """Yield each remark of squawk's in its own words, with the severity of our rule of the same name."""
    statements = attempted(case.observation)
    for remark in case.remarks:
        ours = RULES.get(remark.rule)
        rule = Rule(
            name=remark.rule,
            severity=ours.severity if ours else Severity.NOTE,
            theme=ours.theme if ours else Theme.LOCKS,
            hazard="{message}",
            fix="# Not measured. The rule: " + (f"migrate review --explain {remark.rule}" if ours else _PAGE),
        )
        evidence = f"not measured, by the SQL alone: {short(statements[remark.statement].sql)}"
        yield case.found(rule, evidence, message=remark.message, rule=remark.rule)


_PAGE = "https://squawkhq.com/docs/{rule}"
