"""Watches a statement's locks from other connections, for statements that cannot run in a transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg2.extensions import connection

    from localcloud import postgres


# PostgreSQL counts a session when its first command has ended.
_SESSIONS = "SELECT pg_stat_get_db_sessions(oid) FROM pg_database WHERE datname = current_database()"


@dataclass
class LocksFromOutside:
    """Reads the locks of a statement that cannot run in a transaction. It releases its locks when it ends.

    Such a statement waits for writers of its table. One connection therefore holds a writer's lock until the statement
    waits for it, and another connection then reads the statement's locks.
    """

    database: postgres.Database
    opened: Callable[[], connection]
    tables: Sequence[str] = ()
    _writer: connection | None = None
    _watcher: connection | None = None
    _pid: int = 0
    _seen: set[tuple[int, str]] = field(default_factory=set)
    _holding: bool = False
    _own: int = 0

    def begin(self, pid: int) -> None:
        """Lock the tables as a writer does, before the server process ``pid`` starts the statement."""
        self._pid, self._seen = pid, set()
        self._writer = self._writer or self._connected()
        self._watcher = self._watcher or self._connected()
        if self.tables:
            with self._writer.cursor() as cursor:
                cursor.execute(f"BEGIN; LOCK TABLE {', '.join(self.tables)} IN ROW EXCLUSIVE MODE")
            self._holding = True

    def look(self) -> None:
        """Record the locks that the statement holds or waits for. Once it waits, release the writer's lock."""
        assert self._watcher is not None  # noqa: S101 - made in `begin`
        with self._watcher.cursor() as cursor:
            cursor.execute(
                "SELECT relation::bigint, mode, granted FROM pg_locks WHERE pid = %s AND (locktype <> 'relation'"
                " OR database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
                (self._pid,),
            )
            found = cursor.fetchall()
        self._seen |= {(oid, mode) for oid, mode, _ in found if oid is not None}
        if not all(granted for *_, granted in found):
            self._let_go()

    def end(self) -> list[tuple[int, str]]:
        """Release the writer's lock and return the locks that were seen, by table and mode."""
        self._let_go()
        return sorted(self._seen)

    def sessions(self) -> int:
        """Return the number of sessions that the database has had, without those of this object."""
        with self.opened().cursor() as cursor:
            cursor.execute(_SESSIONS)
            [(count,)] = cursor.fetchall()
        return int(count) - self._own

    def _connected(self) -> connection:
        self._own += 1
        return self.database.connect()

    def close(self) -> None:
        """Close both connections."""
        for opened in (self._writer, self._watcher):
            if opened is not None:
                opened.close()
        self._writer = self._watcher = None
        self._holding = False

    def _let_go(self) -> None:
        if self._holding and self._writer is not None:
            self._holding = False
            with self._writer.cursor() as cursor:
                cursor.execute("ROLLBACK")
