"""The rule ``trigger-dropped``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules import difference
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Catalog
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="trigger-dropped",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="{name} no longer runs at each write to {table}. The application may rely on it.",
    fix="""\
# Release an application that does not rely on {name}. Then acknowledge the finding in a later revision:
# -- reviewed: trigger-dropped no release relies on it""",
    measured="The triggers of each table, and which are enabled, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE orders DISABLE TRIGGER ALL")
""",
    good="""\
def upgrade() -> None:
    op.execute("DROP TRIGGER noted ON products")
    op.execute("CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note_change()")
""",
)

# A trigger that is disabled, or that fires only in a replica.
_DISABLED = (" D", " R")
_EVENTS = re.compile(r" (?:BEFORE|AFTER|INSTEAD OF) (.*?) ON ")
_EVENT = re.compile(r"\b(INSERT|UPDATE|DELETE|TRUNCATE)\b")
_NOT_ENFORCED = " NOT ENFORCED"
_NOT_CHECKED = "foreign keys not checked"


def check(case: Case) -> Iterator[Finding]:
    """Yield the triggers that are dropped without a replacement, and those that are disabled."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    tables = {was.name: now.name for was, now in difference.kept_tables(before, after)}
    tables |= {table.name: table.name for table in before.tables if after.table_named(table.name)}
    for entry, definition in before.others.items():
        name, _, table = entry.removeprefix("trigger ").partition(" on ")
        if not entry.startswith("trigger ") or table not in tables or definition.endswith(_DISABLED):
            continue
        kept = after.others.get(f"trigger {name} on {tables[table]}")
        if kept is None and not _others_made(before.others, after.others, tables[table]):
            yield case.found(RULE, f"the upgrade drops {definition.rpartition(' ')[0]}", table=tables[table], name=name)
        elif kept is not None and kept.endswith(_DISABLED):
            state = "disabled" if kept.endswith(_DISABLED[0]) else "enabled in replicas only"
            yield case.found(RULE, f"{name} is {state}", table=tables[table], name=name)
        elif kept is not None and not _others_made(before.others, after.others, tables[table]):
            for event in sorted(_events(definition) - _events(kept)):
                yield case.found(RULE, f"{name} no longer runs at {event}", table=tables[table], name=name)
    for table, now in tables.items():
        was, settings = before.table_settings(table), after.table_settings(now)
        if _NOT_CHECKED in settings and _NOT_CHECKED not in was:
            evidence = f"the triggers of {now} that check foreign keys are disabled"
            yield case.found(RULE, evidence, table=now, name="the check of foreign keys")
    yield from _not_enforced(case, before, after)


def _not_enforced(case: Case, before: Catalog, after: Catalog) -> Iterator[Finding]:
    """Yield the foreign keys that stay, but that PostgreSQL no longer checks or follows."""
    for was, now in difference.kept_tables(before, after):
        checked = {each.oid for each in was.constraints if each.kind == "f" and _NOT_ENFORCED not in each.definition}
        for each in now.constraints:
            if each.oid in checked and _NOT_ENFORCED in each.definition:
                yield case.found(RULE, f"{each.name} is not enforced", table=now.name, name=f"the check of {each.name}")


def _events(definition: str) -> set[str]:
    """Return the commands at which a trigger runs."""
    found = _EVENTS.search(definition)
    return set(_EVENT.findall(found[1])) if found is not None else set()


def _others_made(before: Mapping[str, str], after: Mapping[str, str], table: str) -> bool:
    """Return whether the table has a new trigger that may replace the dropped one."""
    return any(name.startswith("trigger ") and name.endswith(f" on {table}") for name in after.keys() - before.keys())
