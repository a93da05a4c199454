"""Watches the statements on env.py's connection: records a revision's commits, and drops invalid indexes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event

from lambda_migrate.env_py.messages import IndexDropped, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_migrate.invocation.result import Revision

_NO_WORK = re.compile(r"\s*(--[^\n]*\n\s*)*(SELECT|SET|SHOW|RESET|BEGIN|COMMIT|ROLLBACK)\b", re.IGNORECASE)

_NAME = r'(?:"(?:[^"]|"")+"|\w+)'
_BUILDS_INDEX = re.compile(
    r"\s*CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?"
    rf"(?P<index>{_NAME})\s+ON\s+(?:ONLY\s+)?(?P<table>{_NAME}(?:\.{_NAME})?)",
    re.IGNORECASE,
)
# An index is created in its table's schema, so its name needs none. A lookup in all schemas would need rights in them.
# An index that another session is building now is invalid too, and must stay.
_INVALID_INDEX = sqlalchemy.text(
    "SELECT i.indexrelid::regclass::text FROM pg_index i"
    " JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE i.indrelid = to_regclass(:table) AND NOT i.indisvalid"
    " AND c.relname = (parse_ident(:index))[1]"
    " AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"
)


@dataclass
class Journal:
    """The progress of one run of env.py: whether it began, the running revision, and whether that has committed."""

    send: Callable[[Message], None]
    began: bool = False
    ahead: bool = False
    stopped: bool = False
    revision: Revision | None = None
    heads: tuple[str, ...] = ()
    # Revisions that a stamp deleted from the version table. Alembic does not know that and still lists them as heads.
    forgotten: frozenset[str] = frozenset()
    # True if env.py began a transaction of its own around all revisions. Its end decides whether they are committed.
    held_open: bool = False
    partly_committed: bool = False
    _uncommitted_work: bool = False

    def start(self, revision: Revision) -> None:
        """Begin a revision. Each commit from now until its end is a part of it."""
        self.revision = revision
        self.partly_committed = self._uncommitted_work = False

    def watch(self, connection: sqlalchemy.Connection) -> None:
        """Follow the statements and commits of a connection.

        SQLAlchemy does not see every commit: a revision may execute COMMIT, call a procedure that commits, or commit on
        the driver's connection. The connection's own transaction status shows these.
        """

        def before(conn: Any, cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401, ARG001
            self._notice_commit(conn)
            self._drop_invalid_index(conn, statement)

        def after(conn: Any, cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401, ARG001
            # A backfill sets "repeatable": it continues after its own commits, so they do not forbid another attempt.
            if not (_NO_WORK.match(statement) or conn.info.get("repeatable")):
                self._uncommitted_work = True
            self._notice_commit(conn)

        def committed(conn: Any) -> None:  # noqa: ANN401, ARG001
            self.partly_committed |= self._uncommitted_work
            self._uncommitted_work = False

        def rolled_back(conn: Any) -> None:  # noqa: ANN401
            self._notice_commit(conn)
            self._uncommitted_work = False

        event.listen(connection, "before_cursor_execute", before)
        event.listen(connection, "after_cursor_execute", after)
        event.listen(connection, "commit", committed)
        event.listen(connection, "rollback", rolled_back)

    def _notice_commit(self, connection: sqlalchemy.Connection) -> None:
        """Note that work is committed, if there was some and the session is in no transaction."""
        # SQLAlchemy reports a rollback for a lost connection, too, which has no status any more.
        if self._uncommitted_work and not connection.invalidated and _is_idle(connection):
            self.partly_committed, self._uncommitted_work = True, False

    def _drop_invalid_index(self, connection: sqlalchemy.Connection, statement: str) -> None:
        """Drop the invalid index that an interrupted attempt left, before one of its name is built concurrently.

        With IF NOT EXISTS, PostgreSQL would silently keep the invalid index. Without it, the statement would fail.
        """
        builds = _BUILDS_INDEX.match(statement)
        if builds is None or self.revision is None:
            return
        names = {"table": builds["table"], "index": builds["index"]}
        invalid = connection.execute(_INVALID_INDEX, names).scalar()
        if invalid is not None:
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {invalid}")
            self.partly_committed = False
            self.send(IndexDropped(invalid, self.revision))


def _is_idle(connection: sqlalchemy.Connection) -> bool:
    """Return whether the session is in no transaction, as the driver got it from the server."""
    driver: Any = connection.connection.dbapi_connection
    info: Any = getattr(driver, "info", None)  # psycopg2, psycopg
    if hasattr(info, "transaction_status"):
        return int(info.transaction_status) == 0  # PQTRANS_IDLE
    asyncpg: Any = getattr(driver, "driver_connection", None)
    if hasattr(asyncpg, "is_in_transaction"):
        return not asyncpg.is_in_transaction()
    return bool(getattr(driver, "autocommit", False))
