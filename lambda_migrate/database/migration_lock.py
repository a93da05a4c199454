"""The migration lock: who may migrate a database and schema now, who else wants to, and what is in the way."""

from __future__ import annotations

import random
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import DatabaseUnavailable, MigrationLocked
from lambda_migrate.invocation.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.settings import Settings

# The first half of the key of every migration lock, "MIGR" in ASCII; the second half is the schema's checksum.
LOCK_CLASS = 0x4D494752
# The same, shared, held by env.py's own session: "MIGS". A run that was killed loses its lock at once, while its
# revision's session may be about to commit. Whoever gets the lock sees by this that there still is one, and ends it.
WORKER_LOCK_CLASS = 0x4D494753

_POLL_S = 0.5
_WAITING_LOG_S = 10
_ORPHAN_POLL_S = 0.05


@dataclass(frozen=True)
class Holder:
    """A session that stands in the way, as pg_stat_activity tells it. ``since`` is in ISO 8601."""

    pid: int
    application_name: str
    since: str

    def __str__(self) -> str:
        return f"{self.application_name or 'unnamed session'} (pid {self.pid}, since {self.since})"


@dataclass(frozen=True)
class Lock:
    """The migration lock, held. ``wait_ms`` is how long it took to get it."""

    wait_ms: int


@contextmanager
def migration_lock(session: Session, settings: Settings, deadline: Deadline, schema: str | None) -> Iterator[Lock]:
    """Hold the lock that lets one run at a time migrate a database and schema.

    It is a session-level advisory lock on a session that is never in a transaction, and it is polled for: a waiter
    inside `pg_advisory_lock` has a snapshot that CREATE INDEX CONCURRENTLY waits for, which is a deadlock.

    Raises:
        MigrationLocked: another run held it for too long; names its request id and since when.
    """
    key = (LOCK_CLASS, lock_key(schema))
    started = time.monotonic()
    patience = deadline.until(settings.migration_lock_timeout_s)
    next_log = started
    held = False
    while True:
        held = held or session.rows("SELECT pg_try_advisory_lock(%s, %s)", key)[0][0]
        holder = _end_orphan(session, schema) if held else lock_holder(session, schema)
        if held and holder is None:
            break
        waited_ms = _ms_since(started)
        if patience.left() <= 0:
            raise MigrationLocked(
                f"another run holds the migration lock on database {session.server.database!r}:"
                f" {holder or 'one that has just ended'}; waited {waited_ms / 1000:.1f} s (wait for it to finish, then"
                " run again)",
                blocking_pids=[holder.pid] if holder else None,
            )
        if holder and time.monotonic() >= next_log:
            log(
                "lock.waiting",
                f"waiting for {holder} to release the migration lock",
                database=session.server.database,
                schema=schema,
                blocking_pids=[holder.pid],
                duration_ms=waited_ms,
            )
            next_log = time.monotonic() + _WAITING_LOG_S
        pause = _ORPHAN_POLL_S if held else _POLL_S * random.uniform(0.5, 1)  # noqa: S311 - no secret
        time.sleep(min(pause, max(0.01, patience.left())))
    lock = Lock(_ms_since(started) if next_log > started else 0)
    log("lock.acquired", "holding the migration lock", database=session.server.database, duration_ms=lock.wait_ms)
    try:
        yield lock
    finally:
        # A lost connection has released it already; what the run has come to stands all the same.
        with suppress(DatabaseUnavailable):
            session.rows("SELECT pg_advisory_unlock(%s, %s)", key)


def _end_orphan(session: Session, schema: str | None) -> Holder | None:
    """End what a run that lost the lock has left working, and say which it is; None when there is none.

    Only the same login may end a session; another's ends by the server's own timeouts.
    """
    if not _is_held(session, WORKER_LOCK_CLASS, schema):
        return None
    rows = session.rows(
        f"SET LOCAL ROLE NONE; SELECT *, CASE WHEN usename = session_user THEN pg_terminate_backend(pid) END"  # noqa: S608 - ours
        f" FROM ({_HOLDERS}) AS orphan",
        _lock_as_listed(WORKER_LOCK_CLASS, schema),
    )
    return Holder(*rows[0][:3]) if rows else None


def lock_key(schema: str | None) -> int:
    """The second half of the advisory lock's key, a signed 32-bit number; the database is part of it by itself."""
    return zlib.crc32(schema.encode()) - (1 << 31) if schema else 0


def lock_holder(session: Session, schema: str | None) -> Holder | None:
    """Who holds the migration lock now."""
    if not _is_held(session, LOCK_CLASS, schema):
        return None
    rows = session.rows(_HOLDERS, _lock_as_listed(LOCK_CLASS, schema))
    return Holder(*rows[0][:3]) if rows else None


def _is_held(session: Session, lock_class: int, schema: str | None) -> bool:
    """Whether anybody holds a lock. By whom costs the server several times as much, and mostly there is nobody."""
    return bool(session.rows(f"SELECT l.pid {_HELD}", _lock_as_listed(lock_class, schema)))


_HELD = (
    "FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = %s AND l.objsubid = 2"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_HOLDERS = (
    "SELECT a.pid, coalesce(a.application_name, '') AS name, coalesce(a.backend_start::text, '?') AS since, a.usename"  # noqa: S608 - ours
    f" FROM (SELECT l.pid {_HELD}) AS held JOIN pg_stat_activity a USING (pid)"
)


def _lock_as_listed(lock_class: int, schema: str | None) -> tuple[int, int]:
    """A lock's key as pg_locks shows it: unsigned."""
    return lock_class, lock_key(schema) & 0xFFFFFFFF


def blockers(session: Session, pids: list[int]) -> tuple[Holder, ...]:
    """The sessions that any of these backends is waiting for right now."""
    rows = session.rows(
        "SELECT pid, coalesce(application_name, ''), coalesce(xact_start::text, backend_start::text, '?')"
        " FROM pg_stat_activity"
        " WHERE pid IN (SELECT unnest(pg_blocking_pids(waiting)) FROM unnest(%s::int[]) AS waiting)",
        (pids,),
    )
    return tuple(Holder(*row) for row in rows)


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
