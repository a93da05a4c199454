"""What a statement makes others wait for: the locks that are held while it works, and how long that work gets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from migrate_review.observation import Observation, Pass, Statement

# Weakest first; https://www.postgresql.org/docs/current/explicit-locking.html has what each conflicts with.
_MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
_BLOCKS_READS = frozenset({"AccessExclusiveLock"})
_BLOCKS_WRITES = _BLOCKS_READS | {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock"}
_EMPTIES = re.compile(r"\s*truncate\b", re.IGNORECASE)


@dataclass(frozen=True)
class Work:
    """A statement that takes the longer the more rows there are, with what is blocked meanwhile.

    ``held`` maps each table that it scans or rewrites, and that had rows, to the modes that block others and are held
    on it, by this statement or by one before it in its transaction.
    """

    statement: Statement
    held: Mapping[str, tuple[str, ...]]

    @property
    def rewritten(self) -> tuple[str, ...]:
        """Those tables that it writes anew."""
        return tuple(table for table in self.held if table in self.statement.rewritten)


def blocks(modes: Iterable[str]) -> str | None:
    """Say what locks block: "reads and writes", "writes", or None."""
    held = frozenset(modes)
    if held & _BLOCKS_READS:
        return "reads and writes"
    return "writes" if held & _BLOCKS_WRITES else None


def strongest(modes: Iterable[str]) -> str:
    """The mode among them that conflicts with most others."""
    return max(modes, key=_MODES.index)


def shown_mode(mode: str) -> str:
    """A lock mode as the manual spells it: ACCESS EXCLUSIVE."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()


def long_works(observation: Observation) -> Iterator[Work]:
    """Each statement of the upgrade whose time grows with a table that others cannot use meanwhile."""
    for statement, held in _with_locks_held(observation.upgrade):
        if _EMPTIES.match(statement.sql):
            continue  # a new file, but an empty one
        touched = {
            table: tuple(sorted(mode for mode in held.get(table, ()) if mode in _BLOCKS_WRITES))
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
    """What was measured: tables with their rows, the time here, and the locks."""
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
