"""The migration lock lets one run at a time migrate a database and schema. Errors name the sessions in its way."""

from __future__ import annotations

import random
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_migrate.database.common import LOCK_CLASS, WORKER_LOCK_CLASS
from lambda_migrate.invocation.errors import DatabaseUnavailable, MigrationLocked
from lambda_migrate.invocation.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.settings import Settings

_POLL_S = 0.5
_WAITING_LOG_S = 10
_ORPHAN_POLL_S = 0.05


@dataclass(frozen=True)
class Holder:
    """A session that holds or blocks a lock, as pg_stat_activity shows it. ``since`` is a timestamp as text, or "?".

    ``user`` is its login, and ``is_run`` is False if it is no run of this function: another login, or another name.
    Both are known of the holder of the migration lock only. A prepared transaction has no session, and so the pid 0.
    """

    pid: int
    application_name: str
    since: str
    user: str = ""
    is_run: bool = True

    def __str__(self) -> str:
        login = "" if self.is_run else f"login {self.user or '?'}, "
        pid = f"pid {self.pid}, " if self.pid else ""
        return f"{self.application_name or 'unnamed session'} ({pid}{login}since {self.since})"


@dataclass(frozen=True)
class Lock:
    """A held migration lock. ``wait_ms`` is the time that the run waited for another one, 0 if it found none."""

    wait_ms: int


@contextmanager
def migration_lock(session: Session, settings: Settings, deadline: Deadline, schema: str | None) -> Iterator[Lock]:
    """Hold the lock that lets one run at a time migrate a database and schema.

    It is a session-level advisory lock on a session that is never in a transaction. The function polls for it, because
    a waiter inside `pg_advisory_lock` has a snapshot. CREATE INDEX CONCURRENTLY waits for it, which is a deadlock.

    Raises:
        MigrationLocked: another run held the lock for too long. The message names its request id and its start.
    """
    keys = lock_keys(schema, session.default_schema)
    started = time.monotonic()
    patience = deadline.until(settings.migration_lock_timeout_s)
    next_log = started
    held = False
    while True:
        held = held or _take(session, keys)
        holder = _end_orphan(session, schema) if held else lock_holder(session, schema)
        if held and holder is None:
            break
        waited_ms = _ms_since(started)
        if patience.left() <= 0:
            raise _locked(session, holder, waited_ms)
        if holder and time.monotonic() >= next_log:
            log(
                "lock.waiting",
                f"waiting for {holder} to release the migration lock",
                database=session.server.database,
                schema=schema,
                blocking_pids=[holder.pid] if holder.pid else None,
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
        # If the connection is lost, the server has released the lock, and the result of the run is still valid.
        with suppress(DatabaseUnavailable):
            session.rows("SELECT pg_advisory_unlock_all()")


def _locked(session: Session, holder: Holder | None, waited_ms: int) -> MigrationLocked:
    who, hint = "another run", "wait for it to finish, then run again"
    if holder and not holder.is_run:
        who = "a session that is no run of this function"
        end = f"the session with pg_terminate_backend({holder.pid})" if holder.pid else "it with ROLLBACK PREPARED"
        hint = f"any role may take an advisory lock: ask its owner, or end {end}"
    return MigrationLocked(
        f"{who} holds the migration lock on database {session.server.database!r}:"
        f" {holder or 'one that has just ended'}; waited {waited_ms / 1000:.1f} s ({hint})",
        blocking_pids=[holder.pid] if holder and holder.pid else None,
    )


def _end_orphan(session: Session, schema: str | None) -> Holder | None:
    """End the sessions of a run that lost the lock, and return one of them, or None if there are none.

    This login can end only its own sessions. A session of another login ends by the server's timeouts.
    """
    return _holder(session, WORKER_LOCK_CLASS, schema, end=True)


def lock_keys(schema: str | None, default_schema: str | None) -> tuple[int, ...]:
    """Return the second halves of the lock's keys, in the order in which they are taken.

    PostgreSQL keeps advisory locks apart by database, so only the schema is part of a key. A session's default schema
    has two keys: the checksum of its name, and 0, which other programs use.
    """
    if schema is None or schema == default_schema:
        return (0, _checksum(default_schema)) if default_schema else (0,)
    return (_checksum(schema),)


def _checksum(schema: str) -> int:
    return zlib.crc32(schema.encode()) - (1 << 31)


def _take(session: Session, keys: tuple[int, ...]) -> bool:
    """Take the lock under all keys, or under none, in one round trip.

    The last key is tried after the first, so that two runs cannot each hold a key that the other waits for. A single
    key is taken twice, which makes no difference.
    """
    got: list[bool | None] = list(
        session.rows(
            "SELECT one.got, CASE WHEN one.got THEN pg_try_advisory_lock(%s, %s) END"
            " FROM (SELECT pg_try_advisory_lock(%s, %s) AS got) AS one",
            (LOCK_CLASS, keys[-1], LOCK_CLASS, keys[0]),
        )[0]
    )
    if all(got):
        return True
    if got[0]:
        session.rows("SELECT pg_advisory_unlock(%s, %s)", (LOCK_CLASS, keys[0]))
    return False


def lock_holder(session: Session, schema: str | None) -> Holder | None:
    """Return the session that holds the migration lock now, or None."""
    return _holder(session, LOCK_CLASS, schema)


def _holder(session: Session, lock_class: int, schema: str | None, *, end: bool = False) -> Holder | None:
    """Return a session that holds the lock under any of its keys, or None. ``end`` ends each such one of this login."""
    parameters = (lock_class, [key & 0xFFFFFFFF for key in lock_keys(schema, session.default_schema)], session.pid)
    # Looking up the holder costs the server several times as much, and usually there is none.
    if not session.rows(f"SELECT l.pid {_HELD}", parameters):
        return None
    end_it = ", CASE WHEN usename = session_user THEN pg_terminate_backend(pid) END" if end else ""
    role = "SET LOCAL ROLE NONE; " if end else ""
    rows = session.rows(f"{role}SELECT *{end_it} FROM ({_HOLDERS}) AS holders", parameters)  # noqa: S608 - ours
    return Holder(*rows[0][:5]) if rows else None


# pg_locks shows keys as unsigned numbers.
_HELD = (
    "FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = ANY(%s::bigint[])"
    " AND l.objsubid = 2 AND l.pid IS DISTINCT FROM %s"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_HOLDERS = (
    "SELECT DISTINCT coalesce(held.pid, 0) AS pid,"  # noqa: S608 - ours
    " coalesce(a.application_name, 'prepared transaction ' || quote_literal(p.gid), '') AS name,"
    " coalesce(coalesce(a.backend_start, p.prepared)::text, '?') AS since,"
    " coalesce(a.usename, p.owner, '')::text AS usename,"
    # The name of a run is the function's name, a slash and the request id; this session has the function's name, too.
    " coalesce(a.usename = session_user AND starts_with(a.application_name,"
    " regexp_replace(current_setting('application_name'), '[^/]*$', '')), false) AS is_run"
    f" FROM (SELECT l.pid, l.virtualtransaction {_HELD}) AS held LEFT JOIN pg_stat_activity a USING (pid)"
    # pg_locks shows a prepared transaction without a pid, and its id as one more lock.
    " LEFT JOIN pg_prepared_xacts p ON EXISTS (SELECT FROM pg_locks own WHERE held.pid IS NULL AND own.pid IS NULL"
    " AND own.virtualtransaction = held.virtualtransaction AND own.transactionid = p.transaction)"
    " WHERE a.pid IS NOT NULL OR p.gid IS NOT NULL"
)


def blockers(session: Session, pids: list[int]) -> tuple[Holder, ...]:
    """Return the sessions that block any of these backends now."""
    rows = session.rows(
        "SELECT pid, coalesce(application_name, ''), coalesce(xact_start::text, backend_start::text, '?')"
        " FROM pg_stat_activity"
        " WHERE pid IN (SELECT unnest(pg_blocking_pids(waiting)) FROM unnest(%s::int[]) AS waiting)",
        (pids,),
    )
    return tuple(Holder(*row) for row in rows)


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
