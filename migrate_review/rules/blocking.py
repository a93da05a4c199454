"""Finds long statements that run while their transaction holds a lock that blocks others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_migrate.database.lock_modes import CONFLICTS, READ, WRITE, blocks, shown_mode, strongest
from migrate_review.observation import is_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Statement
    from migrate_review.rules.case import Run

# ANALYZE reads a sample of up to 30,000 pages of each table. The tables here are too small to show that.
_ANALYZES = re.compile(r"\s*(ANALYZE|ANALYSE)\b", re.IGNORECASE)
_SLEEPS = re.compile(r"\bpg_sleep(_for|_until)?\s*\(", re.IGNORECASE)
_LONG_SLEEP_MS = 200
# A statement on a few hundred rows takes this long only if it waits for something.
_LONG_MS = 5000
# If the pauses of a transaction add up to this, it waits for Python: a sleep, a request or a computation. Each pause
# shorter than _PAUSE_MS is the time that Python and the review need between two statements.
_LONG_IDLE_MS = 1500
_PAUSE_MS = 100

# Measured with 3 million rows: the check of a foreign key took 1.2 s, and an UPDATE of all rows 16.9 s. A rewrite is
# assumed to be between them, and a loop with a round trip for each row a hundred times slower.
_LARGE = 10_000_000
_READ_A_SECOND = 2_500_000
_REWRITTEN_A_SECOND = 500_000
_CHANGED_A_SECOND = 180_000
_ONE_BY_ONE = 100
_MINUTE = 60


@dataclass(frozen=True)
class Work:
    """A statement whose time grows with a table's rows while it blocks others.

    ``held`` maps each table that it scans or rewrites, and that had rows, to its blocking lock modes: those of this
    statement, and of earlier ones in its transaction.
    """

    statement: Statement
    held: Mapping[str, tuple[str, ...]]

    @property
    def rewritten(self) -> tuple[str, ...]:
        """The tables that it rewrites."""
        return tuple(table for table in self.held if table in self.statement.rewritten)


@dataclass
class Held:
    """A lock that blocks others until its transaction ends, and the work until then.

    ``statement`` took it. ``work`` describes the work that takes long. ``idle_ms`` is the time for which the
    transaction waited for Python.
    """

    table: str
    statement: Statement
    modes: set[str]
    work: list[str] = field(default_factory=list)
    idle_ms: float = 0.0
    _changed: dict[str, int] = field(default_factory=dict)

    def note_changes(self, statement: Statement) -> None:
        """Count the rows that statements change one by one."""
        for table, count in statement.changed.items():
            self._changed[table] = self._changed.get(table, 0) + count

    def conclude(self, rows: Mapping[str, int], looked_at: set[str]) -> Held:
        """Return this lock with the waits for Python, and the tables whose rows were changed one by one, added.

        A table counts only if a statement read all of it, so that the number of changes grows with the table.
        """
        if self.idle_ms >= _LONG_IDLE_MS:
            self.work.append(f"waits {self.idle_ms / 1000:.1f} s for Python")
        for table, count in self._changed.items():
            if table in looked_at and table != self.table and is_share(count, rows.get(table, 0)):
                share = scaled(_CHANGED_A_SECOND / _ONE_BY_ONE, count, rows[table])
                self.work.append(f"changes {count} of {rows[table]} rows of {table} one by one ({share})")
        return self


def long_works(run: Run, rows: Mapping[str, int]) -> Iterator[Work]:
    """Yield each statement whose time grows with a table, and which blocks others on that table."""
    for statement, held in _with_locks_held(run):
        touched = {
            table: tuple(sorted(mode for mode in held.get(table, ()) if _keeps_out(run, table, mode)))
            for table in dict.fromkeys((*statement.rewritten, *statement.scanned))
            if rows.get(table)
        }
        blocking = {table: modes for table, modes in touched.items() if modes}
        if blocking:
            yield Work(statement, blocking)


def held_meanwhile(run: Run, rows: Mapping[str, int]) -> Iterator[Held]:
    """Yield each lock that blocks others while the rest of its transaction does long work on other tables.

    A statement that `long_works` yields does not count. It has its own finding, whose fix moves it to another
    transaction.
    """
    own = {id(work.statement) for work in long_works(run, rows)}
    looked_at = {table for statement in run.statements.statements for table in statement.scanned}
    held: dict[str, Held] = {}
    for statement in run.statements.statements:
        if statement.begins_without_locks:
            yield from (lock.conclude(rows, looked_at) for lock in held.values())
            held = {}
        if not statement.in_transaction:
            continue
        _pause(held, statement.idle_ms)
        for taken in statement.locks:
            if _keeps_out(run, taken.table, taken.mode):
                held.setdefault(taken.table, Held(taken.table, statement, set())).modes.add(taken.mode)
        if id(statement) in own:
            continue
        work = tuple(_work(statement, rows))
        for lock in held.values():
            lock.work += work
            if not work:
                lock.note_changes(statement)
    _pause(held, run.statements.idle_ms)
    yield from (lock.conclude(rows, looked_at) for lock in held.values())


def _pause(held: Mapping[str, Held], idle_ms: float) -> None:
    if idle_ms >= _PAUSE_MS:
        for lock in held.values():
            lock.idle_ms += idle_ms


def _work(statement: Statement, rows: Mapping[str, int]) -> Iterator[str]:
    """Yield the work of a statement that takes long, or longer on larger tables."""
    for table in statement.rewritten:
        if rows.get(table):
            yield f"rewrites {table} ({rows[table]} rows; {scaled(_REWRITTEN_A_SECOND)})"
    changed = [table for table, count in statement.changed.items() if is_share(count, rows.get(table, 0))]
    for table in changed:
        count = statement.changed[table]
        yield f"changes {count} of {rows[table]} rows of {table} ({scaled(_CHANGED_A_SECOND, count, rows[table])})"
    for table in statement.scanned:
        if rows.get(table) and table not in changed and table not in statement.rewritten:
            yield reading(table, statement, rows)
    if _ANALYZES.match(statement.sql):
        yield "reads a sample of up to 30,000 pages of each table that it analyzes"
    if statement.duration_ms >= (_LONG_SLEEP_MS if _SLEEPS.search(statement.sql) else _LONG_MS):
        yield f"runs a statement that took {statement.duration_ms / 1000:.1f} s"


def reading(table: str, statement: Statement, rows: Mapping[str, int]) -> str:
    """Return how much of a table a statement reads: all of it, or a share that grows with the table."""
    count, there = statement.read.get(table, rows[table]), rows[table]
    if count < there / 2:
        return f"reads {count} of {there} rows of {table} ({scaled(_READ_A_SECOND, count, there)})"
    return f"reads all of {table} ({there} rows; {scaled(_READ_A_SECOND)})"


def scaled(rows_a_second: float, count: int = 1, of: int = 1) -> str:
    """Return the time of work on this share of a table when the table is large."""
    seconds = _LARGE * min(count, of) / of / rows_a_second
    return (
        f"about {seconds:.0f} s with 10 million"
        if seconds < _MINUTE
        else f"about {seconds / 60:.0f} min with 10 million"
    )


def _keeps_out(run: Run, table: str, mode: str) -> bool:
    """Return whether a lock keeps the application out of a table. Nobody writes to a materialized view."""
    views = {view.name for view in run.before.materialized}
    return mode in CONFLICTS[READ if table in views else WRITE]


def _with_locks_held(run: Run) -> Iterator[tuple[Statement, dict[str, set[str]]]]:
    held: dict[str, set[str]] = {}
    for statement in run.statements.statements:
        if statement.begins_without_locks:
            held = {}
        for lock in statement.locks:
            held.setdefault(lock.table, set()).add(lock.mode)
        yield statement, held
        if not statement.in_transaction:
            held = {}


def evidence_of(work: Work, rows: Mapping[str, int]) -> str:
    """Return the measurements in one line: tables with their rows, the time here, and the locks."""
    done = []
    for table in work.held:
        rewrote = table in work.statement.rewritten
        done.append(
            f"rewrote {table} ({rows[table]} rows; {scaled(_REWRITTEN_A_SECOND)})"
            if rewrote
            else reading(table, work.statement, rows).replace("reads", "read", 1)
        )
    return f"{' and '.join(done)} in {work.statement.duration_ms:.1f} ms here; {locks_of(work.held)}"


def locks_of(held: Mapping[str, tuple[str, ...]]) -> str:
    """Return locks by table, each with what it blocks."""
    return "; ".join(
        f"{shown_mode(mode)} on {table} blocks {blocks([mode])}"
        for table, modes in held.items()
        for mode in (strongest(modes),)
    )
