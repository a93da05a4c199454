"""The rule ``time-zone-assumed``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.observation import TIME_ZONE
from migrate_review.rules import difference
from migrate_review.rules.case import short
from migrate_review.rules.findings import Severity
from migrate_review.rules.names import Identifier, escaped, literal
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="time-zone-assumed",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="The values of {table}.{column} depend on the session's time zone, and the revision does not set it.",
    fix="""\
op.alter_column(
    "{table}", "{column}", type_=sa.DateTime(timezone={aware}){table_schema},
    postgresql_using="{column} AT TIME ZONE 'UTC'",  # the time zone of the values
)""",
    measured="The type of each column before and after, the session's time zone at each statement, and new columns with"
    " the values of another column in that zone.",
    bad="""\
def upgrade() -> None:
    op.alter_column("orders", "placed_at", type_=sa.DateTime(), existing_type=sa.DateTime(timezone=True))
""",
    good="""\
def upgrade() -> None:
    op.execute("SET LOCAL TIME ZONE 'UTC'")
    op.alter_column("orders", "placed_at", type_=sa.DateTime(), existing_type=sa.DateTime(timezone=True))
""",
)

_NAMES_A_ZONE = re.compile(r"\bat\s+time\s+zone\b|\btimezone\s*\(", re.IGNORECASE)
_KINDS = {"timestamp with time zone": True, "timestamp without time zone": False}


def check(case: Case) -> Iterator[Finding]:
    """Yield the columns that the session's time zone converted, and the new columns with values converted by it."""
    for each in case.observation.zoned:
        name, source = Identifier(each.column).sql, Identifier(each.source).sql
        code = f"UPDATE {each.table} SET {name} = {source} AT TIME ZONE 'UTC'"  # noqa: S608 - it is shown
        fix = f"op.execute({literal(escaped(code))})  # the time zone of the values; use batches for many rows"
        evidence = f"each value of {each.column} is that of {each.source} in the zone of the session"
        yield case.found(RULE, evidence, table=each.table, column=each.column, fix=fix)
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for was, now in difference.kept_tables(before, after):
        for old, new in difference.kept_columns(was, now):
            aware = _KINDS.get(re.sub(r"\(\d\)", "", new.type))
            if aware is None or _KINDS.get(re.sub(r"\(\d\)", "", old.type)) is not (not aware):
                continue
            for statement in case.observation.upgrade.statements:
                about = re.search(rf"\b{re.escape(new.name)}\b", statement.sql) and "timestamp" in statement.sql.lower()
                if about and statement.time_zone == TIME_ZONE and not _NAMES_A_ZONE.search(statement.sql):
                    evidence = f"{old.type} became {new.type} by: {short(statement.sql)}"
                    yield case.found(RULE, evidence, table=now.name, column=new.name, aware=str(aware))
                    break
