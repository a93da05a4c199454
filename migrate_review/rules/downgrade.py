"""Checks that the revision runs up, down and up again, and keeps the rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.measure.catalog import differences
from migrate_review.observation import NOT_REACHED, REFUSED_ROWS
from migrate_review.rules.case import short
from migrate_review.rules.compatibility import required_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from migrate_review.observation import Pass
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

_TOO_LONG = "22001"
_ACTIVE_TRANSACTION = "25001"
_NOT_NULL_VIOLATION = "23502"
_MOST = 5


def failures(case: Case) -> Iterator[Finding]:
    """Yield why the upgrade failed: at all, or with rows that the schema before it allows."""
    failed = case.observation.refused or case.observation.upgrade
    if failed.failure is None:
        return
    if failed.failure.startswith(NOT_REACHED):
        yield case.found("not-measured", failed.failure)
        return
    evidence = _evidence(failed)
    if failed.sqlstate == _TOO_LONG and not failed.failed_sql:
        # No statement of the revision's own: Alembic was about to note it.
        evidence += f", as Alembic noted the revision, whose id has {len(case.revision.id)} characters"
    state, sql = failed.sqlstate or "", failed.failed_sql or ""
    if state == _ACTIVE_TRANSACTION and "concurrently" in sql.lower():
        yield case.found("ban-concurrent-index-creation-in-transaction", f"{failed.failure}: {evidence}")
    elif state == _NOT_NULL_VIOLATION and any(required_columns(case)):
        return  # that says more
    elif state.startswith(REFUSED_ROWS) and case.observation.refused is not None:
        yield case.found("upgrade-depends-on-data", evidence, failure=failed.failure)
    else:  # other rows would not help: without any it fails, too
        yield case.found("upgrade-fails", evidence, failure=failed.failure)


def _evidence(direction: Pass) -> str:
    ran = len(direction.statements)
    return short(direction.failed_sql) if direction.failed_sql else f"after {ran} statement{'' if ran == 1 else 's'}"


def downgrades(case: Case) -> Iterator[Finding]:
    """Yield why the downgrade fails or is missing, or which differences it leaves."""
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
    changed = differences(observation.before, observation.restored)
    if not changed:
        return
    rule = "downgrade-empty" if downgrade.empty else "downgrade-incomplete"
    yield case.found(rule, _listed(changed), undo=_undo(changed))


def repetition(case: Case) -> Iterator[Finding]:
    """Yield why a second upgrade fails, or how its schema differs from the first one's."""
    observation = case.observation
    if observation.upgrade_again is not None and observation.upgrade_again.failure is not None:
        # What the downgrade leaves over is in the way: `downgrades` reports it, this is the consequence.
        changed = differences(observation.before, observation.restored) if observation.restored else ()
        names = {"failure": observation.upgrade_again.failure, "undo": _undo(changed)}
        yield case.found("upgrade-not-repeatable", _evidence(observation.upgrade_again), **names)
    elif observation.after is not None and observation.restored is not None and observation.again is not None:
        if differences(observation.before, observation.restored):
            return  # no wonder
        changed = differences(observation.after, observation.again)
        if changed:
            evidence = _listed(changed)
            yield case.found(
                "upgrade-not-repeatable", evidence, failure="the schema is another one.", undo=_undo(changed)
            )


def data(case: Case) -> Iterator[Finding]:
    """Yield the rows and values that an upgrade and a downgrade lose, change or add."""
    observation = case.observation
    for change in observation.changes:
        kept = observation.after and observation.after.table_named(change.table)
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
    return "; ".join(short(line) for line in changed[:_MOST]) + more


# How `differences` words it, and the operation that a downgrade lacks.
_LEFT_OVER = (
    (re.compile(r"table (\S+) is left over"), 'op.drop_table("{0}")'),
    (re.compile(r"column (\S+)\.(\S+) is left over"), 'op.drop_column("{0}", "{1}")'),
    (re.compile(r"constraint (\S+) of (\S+) is left over"), 'op.drop_constraint("{0}", "{1}")'),
    (re.compile(r"index (\S+) of (\S+) is left over"), 'op.drop_index("{0}", table_name="{1}")'),
    *(
        (re.compile(rf"{kind} (\S+) is left over"), f'op.execute("DROP {kind.upper()} {{0}}")')
        for kind in ("type", "view", "function", "sequence", "schema")
    ),
    (re.compile(r"table (\S+) is gone"), 'op.create_table("{0}", ...)'),
    (re.compile(r"column (\S+)\.(\S+) is gone"), 'op.add_column("{0}", sa.Column("{1}", ...))'),
    (re.compile(r"index (\S+) of (\S+) is gone"), 'op.create_index("{0}", "{1}", [...])'),
    (re.compile(r"constraint (\S+) of (\S+) is gone"), 'op.execute("ALTER TABLE {1} ADD CONSTRAINT {0} ...")'),
    (re.compile(r"column (\S+)\.(\S+) was"), 'op.alter_column("{0}", "{1}", ...)'),
)


def _undo(changed: Sequence[str]) -> str:
    """Return the code that a downgrade lacks, as far as the differences show it."""
    matches = ((pattern.match(line), operation) for line in changed for pattern, operation in _LEFT_OVER)
    code = [f"    {operation.format(*match.groups())}" for match, operation in matches if match]
    return "\n".join(code) or "    ...  # the opposite of upgrade(), last step first"
