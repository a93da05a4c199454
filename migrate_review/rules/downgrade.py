"""Checks that the revision runs up, down and up again, and keeps the rows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_migrate.invocation.wording import counted
from migrate_review.measure.catalog import differences
from migrate_review.observation import REFUSED_ROWS
from migrate_review.rules.case import short
from migrate_review.rules.compatibility import required_columns
from migrate_review.rules.findings import Severity
from migrate_review.rules.names import Identifier, Relation, fix, shown
from migrate_review.rules.rulebook import RULES
from migrate_review.rules.undo import undo
from migrate_review.rules.violations import checks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from migrate_review.observation import Catalog, Execution
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

_TOO_LONG = "22001"
_ACTIVE_TRANSACTION = "25001"
_NOT_NULL_VIOLATION = "23502"
_VALIDATES = re.compile(r"\bVALIDATE\s+CONSTRAINT\b", re.IGNORECASE)
_MOST = 5


def failures(case: Case) -> Iterator[Finding]:
    """Yield the upgrade's failure: always, or only with some rows that the old schema allows."""
    failed = case.observation.refused or case.observation.upgrade
    if failed.failure is None:
        return
    evidence = _evidence(failed)
    if failed.sqlstate == _TOO_LONG and not failed.failed_sql:
        # It was no statement of the revision: Alembic wrote the revision id into the version table.
        evidence += f", when Alembic stored the revision id of {len(case.revision.id)} characters"
    state, sql = failed.sqlstate or "", failed.failed_sql or ""
    if state == _ACTIVE_TRANSACTION and "concurrently" in sql.lower():
        rule = RULES["ban-concurrent-index-creation-in-transaction"]
        yield case.found(rule, f"{failed.failure}: {evidence}", sql=" ".join(sql.split()))
    elif state == _NOT_NULL_VIOLATION and any(required_columns(case)):
        return  # the other finding is more important
    elif case.observation.refused is not None and (
        state.startswith(REFUSED_ROWS) or case.observation.upgrade.failure is None
    ):
        queries = "".join(f"\n#   {query}" for query in _queries(case))
        which = f" Find them with:{queries}" if queries else ""
        found = case.found(RULES["upgrade-depends-on-data"], evidence, failure=failed.failure, queries=which)
        yield replace(found, severity=Severity.NOTE) if _only_validates(case, sql) else found
    else:  # the rows are not the cause: it also fails without rows
        yield case.found(RULES["upgrade-fails"], evidence, failure=failed.failure)


def _only_validates(case: Case, sql: str) -> bool:
    """Return whether the statement is a VALIDATE in its own transaction. Its failure blocks nobody."""
    alone = any(each.sql == sql and not each.in_transaction for each in case.observation.upgrade.statements)
    return alone and _VALIDATES.search(sql) is not None


def _evidence(direction: Execution) -> str:
    ran = len(direction.statements)
    return short(direction.failed_sql) if direction.failed_sql else f"after {counted(ran, 'statement')}"


def missing(case: Case) -> Iterator[Finding]:
    """Yield a finding if the revision has no downgrade."""
    if not case.revision.has_downgrade:
        before, after = case.observation.before, case.observation.after
        code = undo(before, after) if after is not None else "    pass  # the opposite of upgrade(), last step first"
        yield case.found(RULES["downgrade-missing"], f"no function downgrade in {case.revision.path.name}", undo=code)


def downgrades(case: Case) -> Iterator[Finding]:
    """Yield a finding if the downgrade fails, is missing, or leaves differences."""
    observation = case.observation
    if not case.revision.has_downgrade:
        yield from missing(case)
        return
    downgrade = observation.downgrade
    if downgrade is None:
        return
    if downgrade.failure is not None:
        yield case.found(RULES["downgrade-fails"], _evidence(downgrade), failure=downgrade.failure)
        return
    if observation.restored is None:
        return
    added = _labels_added(observation.before, observation.restored)
    changed = [each for each in differences(observation.before, observation.restored) if not each.startswith(added)]
    if not changed:
        return
    rule = "downgrade-empty" if downgrade.empty else "downgrade-incomplete"
    yield case.found(RULES[rule], _listed(changed), undo=undo(observation.before, observation.restored))


def _labels_added(before: Catalog, now: Catalog) -> tuple[str, ...]:
    """Return the beginnings of the lines on enums with added labels, which PostgreSQL cannot remove."""
    several = ((name, [label for _, label in labels]) for name, labels in before.enums.items())
    return tuple(
        f"type {name} had the labels "
        for name, labels in several
        if [label for _, label in now.enums.get(name, ()) if label in labels] == labels
    )


def downgrade_on_data(case: Case) -> Iterator[Finding]:
    """Yield a finding if the downgrade fails on rows that only the new schema allows."""
    refused = case.observation.downgrade_refused
    if refused is not None and refused.failure is not None:
        yield case.found(RULES["downgrade-depends-on-data"], _evidence(refused), failure=refused.failure)


def repetition(case: Case) -> Iterator[Finding]:
    """Yield a finding if a second upgrade fails, or if its schema differs from that of the first upgrade."""
    observation = case.observation
    if observation.upgrade_again is not None and observation.upgrade_again.failure is not None:
        # The second upgrade fails because of the downgrade's leftovers, which `downgrades` reports.
        left = observation.restored
        code = undo(observation.before, left) if left is not None else "    pass  # the opposite of upgrade()"
        names = {"failure": observation.upgrade_again.failure, "undo": code}
        yield case.found(RULES["upgrade-not-repeatable"], _evidence(observation.upgrade_again), **names)
    elif observation.after is not None and observation.restored is not None and observation.again is not None:
        if differences(observation.before, observation.restored):
            return  # the downgrade left differences, which have their own finding
        changed = differences(observation.after, observation.again)
        if changed:
            code = undo(observation.after, observation.again)
            names = {"failure": "it results in another schema than the first upgrade.", "undo": code}
            yield case.found(RULES["upgrade-not-repeatable"], _listed(changed), **names)


def data(case: Case) -> Iterator[Finding]:
    """Yield the rows and values that an upgrade and a downgrade lose, change or add."""
    observation = case.observation
    for change in observation.changes:
        kept = observation.after and observation.after.table_named(change.table)
        if change.lost:
            evidence = f"{change.lost} of {change.rows} rows of {change.table} are missing afterwards: {change.example}"
            archive = shown(f'"archived_{Relation(change.table).bare}"')
            was = observation.before.table_named(change.table)
            own = RULES["rows-lost"].fix
            if was and any(column.identity for column in was.columns):
                own = own.replace("{table} SELECT", "{table} OVERRIDING SYSTEM VALUE SELECT")
            code = fix(own, {"table": change.table, "archive": archive})
            yield case.found(RULES["rows-lost"], evidence, table=change.table, archive=archive, fix=code)
        if change.added:
            evidence = f"{change.table} has {change.added} more rows than before"
            yield case.found(RULES["rows-left"], evidence, table=change.table)
        for column, count in change.changed.items():
            if not count:
                continue
            in_place = kept and any(other.name == column for other in kept.columns)
            rule = "values-changed" if in_place else "values-lost"
            example = change.examples.get(column, change.example)
            evidence = f"{count} of {change.rows} values of {change.table}.{column}: {example}"
            names = _archive(case, change.table, column)
            yield case.found(RULES[rule], evidence, table=change.table, column=column, **names)


def _queries(case: Case) -> list[str]:
    """Return the queries for rows that violate the revision's requirements."""
    found = [check.query for check in checks(case.observation) if check.query is not None]
    return list(dict.fromkeys(found))[:_MOST]


def _archive(case: Case, table: str, column: str) -> dict[str, str]:
    """Return the names for a table that keeps a column's values by primary key."""
    was = case.observation.before.table_named(table)
    key = next((each.columns for each in was.constraints if each.kind == "p"), ()) if was else ()
    if not key:
        return {"fix": f"# {table} has no primary key: keep a copy of the table, or acknowledge the finding."}
    names = [Identifier(each).sql for each in key]
    return {
        "archive": shown(f'"archived_{Relation(table).bare}_{column}"'),
        "key": ", ".join(names),
        "condition": " AND ".join(f"archive.{name} = {table}.{name}" for name in names),
    }


def _listed(changed: Sequence[str]) -> str:
    more = f"; and {len(changed) - _MOST} more" if len(changed) > _MOST else ""
    return "; ".join(short(line) for line in changed[:_MOST]) + more
