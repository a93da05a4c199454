"""Checks for locks that are held while a whole table is read or written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.lock_modes import ACCESS_EXCLUSIVE, ROW_EXCLUSIVE, blocks, shown_mode
from migrate_review.rules import difference, squawk
from migrate_review.rules.blocking import evidence_of, long_works
from migrate_review.rules.case import attempted, quoted, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.blocking import Work
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

_CHANGES_ROWS = re.compile(r"\s*(?:with\b.*?\)\s*)?(update|delete|insert|merge)\b", re.IGNORECASE | re.DOTALL)
_LIMITED = re.compile(r"\b(limit|between|fetch\s+first)\b", re.IGNORECASE)

_TYPES = re.compile(r"""\balter\s+(?:column\s+)?"?(\w+)"?\s+(?:set\s+data\s+)?type\b""", re.IGNORECASE)

_KINDS = {
    "adding-foreign-key-constraint": "f",
    "constraint-missing-not-valid": "cxf",
    "disallowed-unique-constraint": "u",
    "adding-serial-primary-key-field": "p",
}


def work_that_others_wait_for(case: Case) -> Iterator[Finding]:
    """Yield each statement that reads or rewrites a whole table while others wait for its lock."""
    observation = case.observation
    places = {id(statement): place for place, statement in enumerate(observation.upgrade.statements)}
    for work in long_works(observation):
        rules = [rule for rule in case.squawk_on(places[id(work.statement)]) if rule in squawk.IF_OTHERS_WAIT]
        if len(rules) > 1 and "constraint-missing-not-valid" in rules:
            rules.remove("constraint-missing-not-valid")  # squawk's word for constraints of every kind
        evidence = evidence_of(work, observation.rows)
        for rule in rules:
            yield case.found(rule, evidence, **_names(rule, work, case))
        if not rules:
            yield _without_squawk(work, case, evidence)
    yield from _not_measured(case)


def _without_squawk(work: Work, case: Case, evidence: str) -> Finding:
    table = (work.rewritten or tuple(work.held))[0]
    blocked = blocks(work.held[table]) or "writes"
    if work.rewritten:
        return case.found("table-rewrite", evidence, table=table, blocked=blocked)
    lock = shown_mode(work.held[table][0])
    sql = short(work.statement.sql)
    return case.found("scan-while-locked", evidence, table=table, blocked=blocked, lock=lock, sql=sql)


def _not_measured(case: Case) -> Iterator[Finding]:
    """Yield squawk's remarks on tables that could not be filled, which no measurement confirms or refutes."""
    observation = case.observation
    for place, statement in enumerate(observation.upgrade.statements):
        empty = [lock.table for lock in statement.locks if lock.table in observation.unfilled]
        rules = [rule for rule in case.squawk_on(place) if rule in squawk.IF_OTHERS_WAIT]
        if empty and rules:
            table = empty[0]
            evidence = f"not measured: {table} stayed empty, {observation.unfilled[table]}"
            yield case.found(rules[0], evidence, **_names_of(rules[0], table, statement.sql, case))


def _names(rule: str, work: Work, case: Case) -> dict[str, str]:
    table = next(iter(work.rewritten), None) or _altered(work, case)
    return _names_of(rule, table, work.statement.sql, case)


def _altered(work: Work, case: Case) -> str:
    """Return the table that the statement alters. Of a foreign key's two tables, that is its own."""
    after = case.observation.after
    if after is not None:
        for table, constraint in difference.new_constraints(case.observation.before, after):
            if table.name in work.held and constraint.kind == "f" and constraint.name in work.statement.sql:
                return table.name
    return next(iter(work.held))


def _names_of(rule: str, table: str, sql: str, case: Case) -> dict[str, str]:
    """Return the names for the placeholders in the rule's texts, from the schema before and after."""
    names = {"table": table, "name": "...", "columns": "...", "column": "...", "other": "...", "unique": "False"}
    names |= {"old": "the old type", "new": "the new type"}
    after = case.observation.after
    if after is None:
        return names
    before = case.observation.before
    if rule in _KINDS:
        candidates = [
            constraint
            for owner, constraint in difference.new_constraints(before, after)
            if owner.name == table and constraint.kind in _KINDS[rule]
        ]
        # The one that the statement names; the server may have chosen a name, which it then does not hold.
        for constraint in sorted(candidates, key=lambda constraint: constraint.name not in sql)[:1]:
            names |= {"name": constraint.name, "columns": quoted(constraint.columns)}
            names["other"] = constraint.references or "..."
    elif rule == "require-concurrent-index-creation":
        for owner, index in difference.new_indexes(before, after):
            if owner.name == table and index.name in sql:
                names |= {"name": index.name, "columns": quoted(index.columns) or "...", "unique": str(index.unique)}
    else:
        names |= _names_of_column(rule, table, sql, case)
    return names


def _names_of_column(rule: str, table: str, sql: str, case: Case) -> dict[str, str]:
    # Kept whole: three rules, each with its own condition on the same pairs of columns.
    before, after = case.observation.before, case.observation.after
    if after is None:
        return {}
    if rule == "adding-field-with-default":
        for owner, column in difference.new_columns(before, after):
            if owner.name == table and (column.default is not None or column.generated or column.identity):
                return {"column": column.name}
    for was, now in difference.kept_tables(before, after):
        for old, new in difference.kept_columns(was, now):
            if now.name != table:
                continue
            if rule == "changing-column-type" and new.name in _TYPES.findall(sql):
                return {"column": new.name, "old": old.type, "new": new.type}
            if rule == "adding-not-nullable-field" and new.not_null and not old.not_null:
                return {"column": new.name}
    return {}


def backfills(case: Case) -> Iterator[Finding]:
    """Yield each statement that changes the rows of a whole table at once."""
    observation = case.observation
    for statement in observation.upgrade.statements:
        changes = _CHANGES_ROWS.match(statement.sql)
        if not changes or (not statement.in_transaction and _LIMITED.search(statement.sql)):
            continue
        written = {lock.table for lock in statement.locks if lock.mode == ROW_EXCLUSIVE}
        for table in statement.scanned:
            if table in written and observation.rows.get(table):
                evidence = (
                    f"{changes.group(1).upper()} read all of {table} ({observation.rows[table]} rows) in one"
                    f" transaction, {statement.duration_ms:.1f} ms here"
                )
                yield case.found("backfill-in-one-transaction", evidence, table=table)


def indexes_dropped(case: Case) -> Iterator[Finding]:
    """Yield each index that was dropped while the statement locked its table."""
    observation = case.observation
    if observation.after is None:
        return
    for table, index in difference.gone_indexes(observation.before, observation.after):
        for statement in observation.upgrade.statements:
            dropped = re.match(r"\s*drop\s+index\b", statement.sql, re.IGNORECASE) and index.name in statement.sql
            locks = [lock for lock in statement.locks if lock.table == table.name and lock.mode == ACCESS_EXCLUSIVE]
            if dropped and locks and observation.rows.get(table.name):
                evidence = f"{shown_mode(locks[0].mode)} on {table.name} blocks reads and writes, briefly"
                yield case.found("require-concurrent-index-deletion", evidence, table=table.name, name=index.name)


def commits_in_between(case: Case) -> Iterator[Finding]:
    """Yield the statements that cannot run again, in a revision that commits before its end."""
    statements = case.observation.upgrade.statements
    if len(statements) < 2 or all(statement.in_transaction for statement in statements):  # noqa: PLR2004 - alone, it is all there is to repeat
        return
    for remark in case.remarks:
        if remark.rule == "prefer-robust-stmts":
            yield case.found(
                remark.rule, f"commits before or after: {short(attempted(case.observation)[remark.statement].sql)}"
            )
