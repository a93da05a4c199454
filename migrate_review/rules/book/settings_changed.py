"""The rule ``settings-changed``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules.case import short
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="settings-changed",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="Every new session of {whose} gets {setting} after this revision. It may break queries of the application.",
    fix="""\
# Set it in the sessions that need it, or only in this transaction, as in: SET LOCAL {setting}""",
    measured="The settings of roles and of the database, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 60000', current_database()); END $$"
    )


def downgrade() -> None:
    op.execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET statement_timeout', current_database()); END $$")
""",
    good="""\
def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = '60s'")
""",
)

_SYSTEM = re.compile(r"\s*ALTER\s+SYSTEM\s+SET\s+(?P<setting>(?P<name>[\w.]+).*)", re.IGNORECASE | re.DOTALL)
# Settings that change only the speed of queries.
_SPEED = re.compile(
    r"(\w*_mem|jit\w*|\w+_cost|max_parallel\w*|effective_\w+|\w+_collapse_limit|log_\w+|application_name"
    r"|default_statistics_target|plan_cache_mode|track_\w+|auto_explain\.\w+|pg_stat_statements\.\w+)=",
    re.IGNORECASE,
)


def check(case: Case) -> Iterator[Finding]:
    """Yield each new setting of a role or the database. A RESET is not reported."""
    for statement in case.observation.upgrade.statements:
        system = _SYSTEM.match(statement.sql)
        if system is not None and not _SPEED.match(f"{system['name']}="):
            yield case.found(
                RULE, short(statement.sql), whose="the server", setting=" ".join(system["setting"].split())
            )
    before, after = case.observation.access_before, case.observation.access_after
    if before is None or after is None:
        return
    made = {f"the role {role}" for role in after.roles.keys() - before.roles.keys()}
    for whose, setting in sorted(after.settings - before.settings):
        if whose.partition(" in ")[0] not in made and not _SPEED.match(setting):
            shown = setting.replace("=", " = ", 1)
            yield case.found(RULE, f"the upgrade sets {shown}", whose=whose, setting=shown)
