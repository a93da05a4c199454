"""Checks for locks that are held while a whole table is read or written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lambda_migrate.database.lock_modes import ACCESS_EXCLUSIVE, ROW_EXCLUSIVE, blocks, shown_mode, strongest
from migrate_review.observation import is_share
from migrate_review.rules import batches, difference, squawk, wording
from migrate_review.rules.blocking import evidence_of, held_meanwhile, long_works, reading
from migrate_review.rules.case import attempted, short
from migrate_review.rules.names import Identifier, Relation
from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from migrate_review.observation import Execution, Statement
    from migrate_review.rules.blocking import Work
    from migrate_review.rules.case import Case, Run
    from migrate_review.rules.findings import Finding

_CHANGES_ROWS = re.compile(r"\s*(?:with\b.*?[()]\s*)?(update|delete|insert|merge)\b", re.IGNORECASE | re.DOTALL)


def work_that_others_wait_for(case: Case) -> Iterator[Finding]:
    """Yield each statement that reads or rewrites a whole table while others wait for its lock."""
    known: set[tuple[str, str]] = set()
    for run in case.runs:
        for found, table in _works(case, run):
            # No second finding if the downgrade repeats the upgrade, or for several scans under one lock.
            once = run.function != "upgrade" or found.rule == "scan-while-locked"
            if not once or (found.rule, table) not in known:
                yield found
            known.add((found.rule, table))
        yield from _not_measured(case, run)


def _works(case: Case, run: Run) -> Iterator[tuple[Finding, str]]:
    """Yield the findings on one direction, each with its table."""
    rows = case.observation.rows
    places = {id(statement): place for place, statement in enumerate(run.statements.statements)}
    for work in long_works(run, rows):
        rules = _rules(run, places[id(work.statement)])
        evidence = evidence_of(work, rows)
        for rule in rules:
            names = _names(rule, work, run)
            yield case.found_in(run, RULES[rule], evidence, **names), names["table"]
        if not rules:
            yield _without_squawk(work, case, run, evidence), (work.rewritten or tuple(work.held))[0]


def _rules(run: Run, place: int) -> list[str]:
    """Return squawk's rules on a statement that matter if other sessions wait."""
    rules = [rule for rule in run.squawk_on(place) if rule in squawk.IF_OTHERS_WAIT]
    if len(rules) > 1 and "constraint-missing-not-valid" in rules:
        rules.remove("constraint-missing-not-valid")  # squawk reports it for constraints of every kind
    return rules


def _without_squawk(work: Work, case: Case, run: Run, evidence: str) -> Finding:
    table = (work.rewritten or tuple(work.held))[0]
    if table in {view.name for view in run.before.materialized}:
        return case.found_in(run, RULES["refresh-not-concurrent"], evidence, view=table)
    blocked = blocks(work.held[table]) or "writes"
    if work.rewritten and _adds_computed_column(table, work.statement.sql, run):
        # For instance serial, which squawk reads as a type.
        names = wording.names("adding-field-with-default", table, work.statement.sql, run)
        return case.found_in(run, RULES["adding-field-with-default"], evidence, **names)
    if work.rewritten:
        return case.found_in(run, RULES["table-rewrite"], evidence, table=table, blocked=blocked)
    names = {"table": table, "blocked": blocked, "lock": shown_mode(strongest(work.held[table]))}
    return case.found_in(run, RULES["scan-while-locked"], evidence, **names, sql=short(work.statement.sql))


def _adds_computed_column(table: str, sql: str, run: Run) -> bool:
    columns = difference.new_columns(run.before, run.after) if run.after is not None else ()
    return any(
        owner.name == table
        and (column.default is not None or column.generated or column.identity)
        and re.search(
            rf"\badd\s+(column\s+)?(if\s+not\s+exists\s+)?{re.escape(Identifier(column.name).sql)}\b",
            sql,
            re.IGNORECASE,
        )
        for owner, column in columns
    )


def locks_held_meanwhile(case: Case) -> Iterator[Finding]:
    """Yield each lock that is held while its transaction does long work elsewhere."""
    rows = case.observation.rows
    known: set[str] = set()
    for run in case.runs:
        # A lock on a table that the revision drops does not count: sessions that wait for it fail in any case.
        gone = {table.name for table in difference.gone_tables(run.before, run.after)} if run.after else set()
        for held in held_meanwhile(run, rows):
            if not held.work or held.table in gone or held.table in known:
                continue
            known.add(held.table)
            mode = strongest(held.modes)
            work = "; it ".join(dict.fromkeys(held.work))
            taken = f"{shown_mode(mode)} on {held.table}, taken by: {short(held.statement.sql)}"
            evidence = f"{taken}; the transaction then {work}"
            names = {"table": held.table, "blocked": blocks(held.modes) or "writes", "lock": shown_mode(mode)}
            names |= {"work": held.work[0], "sql": short(held.statement.sql)}
            yield case.found_in(run, RULES["lock-held-during-other-work"], evidence, **names)


def _not_measured(case: Case, run: Run) -> Iterator[Finding]:
    """Yield squawk's remarks on tables that could not be filled, which no measurement confirms or refutes."""
    observation = case.observation
    locked: set[str] = set()
    for place, statement in enumerate(run.statements.statements):
        locked.update(lock.table for lock in statement.locks)
        empty = [lock.table for lock in statement.locks if lock.table in observation.unfilled]
        rules = _rules(run, place)
        if empty and rules:
            evidence = f"not measured: {empty[0]} stayed empty, {observation.unfilled[empty[0]]}"
            table = _referring(locked, statement.sql, run) or empty[0]
            yield case.found_in(run, RULES[rules[0]], evidence, **wording.names(rules[0], table, statement.sql, run))


def _names(rule: str, work: Work, run: Run) -> dict[str, str]:
    table = next(iter(work.rewritten), None) or _referring(work.held, work.statement.sql, run) or next(iter(work.held))
    root = wording.root(table, run.after or run.before)
    # If the statement names only a partition, the finding does, too.
    named = wording.contains_name(work.statement.sql, Relation(root).bare)
    return wording.names(rule, root if named else table, work.statement.sql, run)


def _referring(locked: Collection[str], sql: str, run: Run) -> str | None:
    """Return the table of the foreign key that a statement names, if it is locked. The statement locks both tables.

    The key may be new or have the name of the one that it replaces.
    """
    if run.after is None:
        return None
    parents = difference.parents(run.after).values()
    keys = ((table.name, each) for table in run.after.tables for each in table.constraints if each.kind == "f")
    return next(
        (
            table
            for table, key in keys
            if (table in locked or table in parents) and wording.contains_name(sql, key.name)
        ),
        None,
    )


def backfills(case: Case) -> Iterator[Finding]:
    """Yield each statement that changes the rows of a table at once, and the rows that are changed one by one."""
    observation = case.observation
    [run, *_] = case.runs
    locked = {id(work.statement) for work in long_works(run, observation.rows)}
    looked_at: set[str] = set()
    for statement in observation.upgrade.statements:
        looked_at.update(statement.scanned)
        if id(statement) in locked or statement.bounded:
            continue  # it blocks others, which has its own finding; or it is one batch of several
        changed = _changed_at_once(statement, observation.rows)
        if changed:
            verb = _CHANGES_ROWS.match(statement.sql)
            evidence = (
                f"{verb.group(1).upper() if verb else 'it'} {' and '.join(changed.values())} in one transaction,"
                f" {statement.duration_ms:.1f} ms here"
            )
            table = next(iter(changed))
            code = batches.fix(table, statement.sql, observation.before, case.revision.path)
            yield case.found(RULES["backfill-in-one-transaction"], evidence, table=table, fix=code)
    for table, (statements, count) in _one_by_one(observation.upgrade, observation.rows).items():
        # The keys that a revision lists, or finds without reading the whole table, are few in production, too.
        if table in looked_at or count >= observation.rows[table] / 2:
            evidence = (
                f"{statements} statements changed {count} of {observation.rows[table]} rows of {table} one by one"
            )
            code = batches.fix(table, "", observation.before, case.revision.path)
            evidence = f"{evidence}, in one transaction"
            yield case.found(RULES["backfill-in-one-transaction"], evidence, table=table, fix=code)


def _changed_at_once(statement: Statement, rows: Mapping[str, int]) -> dict[str, str]:
    """Return the tables of which a statement changes many rows or may change any row, with a text for each."""
    changed = {table: count for table, count in statement.changed.items() if is_share(count, rows.get(table, 0))}
    found = {
        table: f"changed {count} of {rows[table]} rows of {table}"
        for table, count in sorted(changed.items(), key=lambda each: -each[1])
    }
    if _CHANGES_ROWS.match(statement.sql):
        written = {lock.table for lock in statement.locks if lock.mode == ROW_EXCLUSIVE}
        for table in statement.scanned:
            if table in written and table not in found and rows.get(table):
                found[table] = reading(table, statement, rows).replace("reads", "read", 1)
    return found


def rows_locked(case: Case) -> Iterator[Finding]:
    """Yield each table with a query that locks all of its rows, or a share that grows with the table."""
    rows = case.observation.rows
    known: set[str] = set()
    for run in case.runs:
        waited_for = {id(work.statement) for work in long_works(run, rows)}
        for statement in run.statements.statements:
            for table, count in statement.locked.items():
                if is_share(count, rows.get(table, 0)) and id(statement) not in waited_for and table not in known:
                    known.add(table)
                    evidence = f"{count} of {rows[table]} rows of {table} are locked by: {short(statement.sql)}"
                    yield case.found_in(run, RULES["rows-locked"], evidence, table=table)


def _one_by_one(direction: Execution, rows: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return the numbers of statements and rows, if many statements of a transaction each change few rows."""
    found: dict[str, tuple[int, int]] = {}
    now: dict[str, tuple[int, int]] = {}
    for statement in direction.statements:
        if statement.begins_without_locks:
            now = {}
        if not statement.in_transaction:
            continue
        for table, count in statement.changed.items():
            if not is_share(count, rows.get(table, 0)):
                several, changed = now.get(table, (0, 0))
                now[table] = (several + 1, changed + count)
                if is_share(changed + count, rows.get(table, 0)):
                    found[table] = now[table]
    return found


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
                yield case.found(
                    RULES["require-concurrent-index-deletion"], evidence, table=table.name, name=index.name
                )


def commits_in_between(case: Case) -> Iterator[Finding]:
    """Yield the statement that fails when a revision was stopped after a commit and runs again."""
    statements = case.observation.upgrade.statements
    rule = RULES["prefer-robust-stmts"]
    if case.observation.reruns is not None:
        for place, again in case.observation.reruns:
            if again.failure is not None:
                failed = f": {short(again.failed_sql)}" if again.failed_sql else ""
                evidence = f"stopped before statement {place + 1} of {len(statements)} and run again: {again.failure}"
                yield case.found(rule, f"{evidence}{failed}")
        return
    if len(statements) < 2 or not any(each.begins_without_locks for each in statements):  # noqa: PLR2004 - alone, it is all there is to repeat
        return
    found = [remark for remark in case.remarks if remark.rule == rule.name]
    for remark in found[:1]:  # one cause, one finding
        sql = short(attempted(case.observation)[remark.statement].sql)
        yield case.found(rule, f"not run a second time, because the downgrade fails; it commits before or after: {sql}")
