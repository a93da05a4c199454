"""Whether the revision goes up, down and up again, and what becomes of the rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review import difference
from migrate_review.rules.case import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from migrate_review.findings import Finding
    from migrate_review.observation import Pass
    from migrate_review.rules.case import Case

_INTEGRITY = "23"  # the SQLSTATE class of violated constraints
_ACTIVE_TRANSACTION = "25001"
_NOT_NULL_VIOLATION = "23502"
_MOST = 5


def failures(case: Case) -> Iterator[Finding]:
    """Say why the upgrade failed, if it did."""
    upgrade = case.observation.upgrade
    if upgrade.failure is None:
        return
    evidence = _evidence(upgrade)
    if upgrade.sqlstate == _ACTIVE_TRANSACTION and "concurrently" in (upgrade.failed_sql or "").lower():
        yield case.found("ban-concurrent-index-creation-in-transaction", f"{upgrade.failure}: {evidence}")
    elif upgrade.sqlstate == _NOT_NULL_VIOLATION and _adds_required_column(case):
        return  # required_columns says it
    elif (upgrade.sqlstate or "").startswith(_INTEGRITY) and case.observation.rows:
        yield case.found("upgrade-depends-on-data", evidence, failure=upgrade.failure)
    else:
        yield case.found("upgrade-fails", evidence, failure=upgrade.failure)


def _adds_required_column(case: Case) -> bool:
    upgrade = case.observation.upgrade
    return any(
        statement.sql == upgrade.failed_sql and "adding-required-field" in case.squawk_on(place)
        for place, statement in enumerate(upgrade.statements)
    )


def _evidence(direction: Pass) -> str:
    return short(direction.failed_sql) if direction.failed_sql else f"after {len(direction.statements)} statements"


def downgrades(case: Case) -> Iterator[Finding]:
    """Say whether the revision can be taken back, and what is then not as it was."""
    observation = case.observation
    if not case.revision.has_downgrade:
        yield case.found("downgrade-missing", f"no function downgrade in {case.revision.path.name}")
        return
    downgrade = observation.downgrade
    if downgrade is None:
        return
    if downgrade.failure is not None:
        yield case.found("downgrade-fails", _evidence(downgrade), failure=downgrade.failure)
        return
    if observation.restored is None:
        return
    changed = difference.differences(observation.before, observation.restored)
    if not changed:
        return
    rule = "downgrade-empty" if downgrade.empty else "downgrade-incomplete"
    yield case.found(rule, _listed(changed), undo=_undo(changed))


def repetition(case: Case) -> Iterator[Finding]:
    """Say whether a second upgrade fails, or makes another schema."""
    observation = case.observation
    if observation.upgrade_again is not None and observation.upgrade_again.failure is not None:
        # What is left over is in its way: the difference was said already, this is what it leads to.
        changed = difference.differences(observation.before, observation.restored) if observation.restored else ()
        names = {"failure": observation.upgrade_again.failure, "undo": _undo(changed)}
        yield case.found("upgrade-not-repeatable", _evidence(observation.upgrade_again), **names)
    elif observation.after is not None and observation.again is not None:
        changed = difference.differences(observation.after, observation.again)
        if changed:
            evidence = _listed(changed)
            yield case.found(
                "upgrade-not-repeatable", evidence, failure="the schema is another one.", undo=_undo(changed)
            )


def data(case: Case) -> Iterator[Finding]:
    """Say which rows and values did not survive going up and down."""
    observation = case.observation
    for change in observation.changes:
        kept = observation.after and observation.after.named(change.table)
        if change.lost:
            evidence = f"{change.lost} of {change.rows} rows of {change.table} are gone: {change.example}"
            yield case.found("rows-lost", evidence, table=change.table)
        if change.added:
            evidence = f"{change.added} rows more in {change.table} than before"
            yield case.found("rows-left", evidence, table=change.table)
        for column, count in change.changed.items():
            if not count:
                continue
            in_place = kept and any(other.name == column for other in kept.columns)
            rule = "values-changed" if in_place else "values-lost"
            evidence = f"{count} of {change.rows} values of {change.table}.{column}: {change.example}"
            yield case.found(rule, evidence, table=change.table, column=column)


def _listed(changed: Sequence[str]) -> str:
    more = f"; and {len(changed) - _MOST} more" if len(changed) > _MOST else ""
    return "; ".join(changed[:_MOST]) + more


_LEFT_OVER = (
    (re.compile(r"table (\S+) is left over"), 'op.drop_table("{0}")'),
    (re.compile(r"column (\S+) of (\S+) is left over"), 'op.drop_column("{1}", "{0}")'),
    (re.compile(r"constraint (\S+) of (\S+) is left over"), 'op.drop_constraint("{0}", "{1}")'),
    (re.compile(r"index (\S+) of (\S+) is left over"), 'op.drop_index("{0}", table_name="{1}")'),
    (re.compile(r"enum (\S+) is left over"), 'op.execute("DROP TYPE {0}")'),
    (re.compile(r"table (\S+) is missing"), 'op.create_table("{0}", ...)'),
    (re.compile(r"column (\S+) of (\S+) is missing"), 'op.add_column("{1}", sa.Column("{0}", ...))'),
    (re.compile(r"index (\S+) of (\S+) is missing"), 'op.create_index("{0}", "{1}", [...])'),
    (re.compile(r"constraint (\S+) of (\S+) is missing"), 'op.execute("ALTER TABLE {1} ADD CONSTRAINT {0} ...")'),
    (re.compile(r"column (\S+) of (\S+) was"), 'op.alter_column("{1}", "{0}", ...)'),
)


def _undo(changed: Sequence[str]) -> str:
    """The code that a downgrade lacks. What goes with a table or a column needs no line of its own."""
    code = []
    tables = {words[1] for line in changed if (words := line.split())[0] == "table"}
    columns = {words[1] for line in changed if (words := line.split())[0] == "column"}
    for line in changed:
        for pattern, operation in _LEFT_OVER:
            found = pattern.match(line)
            if not found:
                continue
            groups = found.groups()
            covered = len(groups) > 1 and (
                groups[1] in tables
                or (not line.startswith("column") and any(column in groups[0] for column in columns))
            )
            if not covered:
                code.append(f"    {operation.format(*groups)}")
            break
    return "\n".join(code) or "    ...  # the opposite of upgrade(), last step first"
