"""The rule ``locks-against-the-order``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lambda_migrate.database.lock_modes import CONFLICTS, WRITE, shown_mode
from migrate_review.rules.blocking import long_works
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Catalog
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="locks-against-the-order",
    severity=Severity.WARNING,
    theme=Theme.LOCKS,
    hazard="A transaction of the application that writes to {parent} and then to {child} can deadlock with the"
    " revision, which locks {child} first. One of the two then fails.",
    fix="""\
# Give each table its own revision, or alter {parent} first and {child} second.""",
    measured="The order in which one transaction locks existing tables, and their foreign keys.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.add_column("customers", sa.Column("channel", sa.Text()))
""",
    good="""\
def upgrade() -> None:
    op.add_column("customers", sa.Column("channel", sa.Text()))
    op.add_column("orders", sa.Column("channel", sa.Text()))
""",
)


_ADDS_KEY = re.compile(r"\bADD\b.*\bREFERENCES\b", re.IGNORECASE | re.DOTALL)


def check(case: Case) -> Iterator[Finding]:
    """Yield the first pair of tables that a transaction locks in two statements, the child before the parent."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    # A dropped table does not count: it must be dropped before the table to which it refers.
    gone = {table.name for table in before.tables if after.table(table.oid) is None}
    parents = {child: among - gone for child, among in _ancestors(before).items() if child not in gone}
    [run, *_] = case.runs
    # A lock that blocks others for long has its own finding, whose fix moves it to another transaction.
    long = {id(work.statement) for work in long_works(run, case.observation.rows)}
    held: dict[str, int] = {}
    found = False
    for position, statement in enumerate(case.observation.upgrade.statements):
        if statement.begins_without_locks:
            held, found = {}, False
        # Outside a transaction, the statement's own locks end with it.
        if not statement.in_transaction or id(statement) in long:
            continue
        # A new foreign key always locks the child and then the parent.
        adds_key = _ADDS_KEY.search(statement.sql) is not None
        for lock in statement.locks:
            if lock.mode not in CONFLICTS[WRITE] or lock.table in held:
                continue
            child = next(
                (each for each, at in held.items() if at < position and lock.table in parents.get(each, ())), None
            )
            held[lock.table] = position
            if child is not None and not found and not adds_key:
                found = True
                evidence = f"{child} is locked, and then {lock.table} ({shown_mode(lock.mode)})"
                yield case.found(RULE, evidence, parent=lock.table, child=child)


def _ancestors(catalog: Catalog) -> Mapping[str, set[str]]:
    """Return the tables to which each table refers, directly or through others."""
    direct = {
        table.name: {each.references for each in table.constraints if each.references} - {table.name}
        for table in catalog.tables
    }
    found: dict[str, set[str]] = {}
    for table, left in direct.items():
        seen: set[str] = set()
        todo = list(left)
        while todo:
            each = todo.pop()
            if each not in seen:
                seen.add(each)
                todo.extend(direct.get(each, ()))
        found[table] = seen - {table}
    return found
