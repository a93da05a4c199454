"""The rule ``lock-timeout-off``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="lock-timeout-off",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="{who} waits for its locks indefinitely; later queries queue behind it.",
    fix="""\
# Do not set lock_timeout: the function sets it and retries. Or set it for this transaction only:
op.execute("SET LOCAL lock_timeout = '5s'")""",
    measured="The statements that set lock_timeout.",
    bad="""\
def upgrade() -> None:
    op.execute("SET lock_timeout = 0")
    op.execute("ALTER TABLE orders ADD COLUMN channel text")
""",
    good="""\
def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("ALTER TABLE orders ADD COLUMN channel text")
""",
)

_SET = re.compile(
    r"""\bset\s+(?:session\s+|local\s+)?lock_timeout\s*(?:=|\bto\b)\s*(?P<set>'[^']*'|\w+)"""
    r"""|\bset_config\s*\(\s*'lock_timeout'\s*,\s*(?P<configured>'[^']*'|\w+)"""
    r"""|\b(?P<reset>reset\s+(?:lock_timeout|all)|discard\s+all)\b""",
    re.IGNORECASE,
)
_LOCAL = re.compile(r"set\s+local\b", re.IGNORECASE)
_SETTING = re.compile(r"\s*(set|reset)\s", re.IGNORECASE)
_VALUE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>us|ms|s|min|h|d|)", re.IGNORECASE)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}
_LONGEST_S = 60


def check(case: Case) -> Iterator[Finding]:
    """Yield the first statement that disables lock_timeout, or sets it to more than a minute."""
    statements = case.observation.upgrade.statements
    for place, statement in enumerate(statements):
        last = all(_SETTING.match(each.sql) for each in statements[place + 1 :])
        for found in _SET.finditer(statement.sql):
            value = (found["set"] or found["configured"] or "default").strip("'")
            number = _VALUE.fullmatch(value.strip())
            seconds = float(number["number"]) * _SECONDS[number["unit"].lower()] if number else 0.0
            if (seconds == 0 or seconds > _LONGEST_S) and not (last and _LOCAL.match(found[0])):
                # All revisions of a run share one session and its settings.
                who = "A later revision of the same run" if last else "The revision"
                yield case.found(RULE, " ".join(found[0].split()), who=who)
                return
