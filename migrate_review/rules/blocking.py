"""Finds statements that hold a blocking lock while they scan or rewrite a table with rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate_review.lock_modes import CONFLICTS, WRITE, blocks, shown_mode, strongest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Observation, Pass, Statement

_EMPTIES = re.compile(r"\s*truncate\b", re.IGNORECASE)


@dataclass(frozen=True)
class Work:
    """A statement whose time grows with a table's rows while it blocks others.

    ``held`` maps each table that it scans or rewrites, and that had rows, to the modes that block others and are held
    on it, by this statement or by one before it in its transaction.
    """

    statement: Statement
    held: Mapping[str, tuple[str, ...]]

    @property
    def rewritten(self) -> tuple[str, ...]:
        """The tables that it rewrites."""
        return tuple(table for table in self.held if table in self.statement.rewritten)


def long_works(observation: Observation) -> Iterator[Work]:
    """Yield each statement of the upgrade whose time grows with a table that others cannot use meanwhile."""
    for statement, held in _with_locks_held(observation.upgrade):
        if _EMPTIES.match(statement.sql):
            continue  # the new file is empty, so its time does not grow
        touched = {
            table: tuple(sorted(mode for mode in held.get(table, ()) if mode in CONFLICTS[WRITE]))
            for table in dict.fromkeys((*statement.rewritten, *statement.scanned))
            if observation.rows.get(table)
        }
        blocking = {table: modes for table, modes in touched.items() if modes}
        if blocking:
            yield Work(statement, blocking)


def _with_locks_held(direction: Pass) -> Iterator[tuple[Statement, dict[str, set[str]]]]:
    held: dict[str, set[str]] = {}
    for statement in direction.statements:
        if not statement.in_transaction:
            held = {}  # Alembic commits before an autocommit block
        for lock in statement.locks:
            held.setdefault(lock.table, set()).add(lock.mode)
        yield statement, held
        if not statement.in_transaction:
            held = {}


def evidence_of(work: Work, rows: Mapping[str, int]) -> str:
    """Return the measurements in one line: tables with their rows, the time here, and the locks."""
    done = []
    for table in work.held:
        verb = "rewrote" if table in work.statement.rewritten else "read all of"
        done.append(f"{verb} {table} ({rows[table]} rows)")
    locks = "; ".join(
        f"{shown_mode(mode)} on {table} blocks {blocks([mode])}"
        for table, modes in work.held.items()
        for mode in (strongest(modes),)
    )
    return f"{' and '.join(done)} in {work.statement.duration_ms:.1f} ms here; {locks}"
