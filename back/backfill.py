"""Changes the rows of a large table in batches, each in a transaction of its own, from a revision.

    from backfill import backfill


    def upgrade() -> None:
        backfill("users", "UPDATE users SET name = initcap(email) WHERE name IS NULL AND {batch}")

Needs PostgreSQL, Alembic and SQLAlchemy, nothing else, and works wherever `alembic upgrade` does:
to use it in another project, copy this file beside its alembic.ini. It knows nothing of who runs
Alembic. A runner whose time is limited puts a function `time_left` into `config.attributes`, which
gives the seconds that are left: at 0 the backfill stops.

Each batch commits how far it came, in a table that lives as long as the backfill does. So the next
run goes on where one was stopped or killed, and every row is seen exactly once, also by a statement
like `SET n = n + 1`. That table is dropped in the transaction that writes the version.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from alembic import op
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError

# Below Alembic's own logger, which the alembic.ini that Alembic writes shows from INFO on.
log = logging.getLogger("alembic.backfill")

BATCH = "{batch}"
LONGEST_PAUSE_S = 10.0  # servers and proxies end sessions that idle for long
REPORT_EVERY_S = 5.0

# lock_not_available, deadlock_detected, serialization_failure: a batch that meets one is repeated.
_PASSING = frozenset({"55P03", "40P01", "40001"})
_UNDEFINED_TABLE = "42P01"
_ATTEMPTS = 8
_FIRST_BACKOFF_S = 0.2


def backfill(
    table: str,
    statement: str,
    *,
    schema: str | None = None,
    batch_size: int = 1000,
    pause: float = 0.1,
) -> None:
    """Execute a statement for the rows of a table, batch by batch along its primary key.

    It stands alone in its revision: what a revision does before it would be done again after an
    interruption.

    Args:
        table: Whose rows to go through: those that are there when the backfill begins. Rows that
            come later are the application's, which must write them as they should be by then.
        statement: An UPDATE, a DELETE, or an INSERT ... SELECT, as `op.execute` takes it, with
            `{batch}` as one of its conditions. It names the table there without an alias, and
            does not change its primary key.
        schema: The table's schema, where it is not on the search path.
        batch_size: Rows in a batch. What the statement changes stays locked for one batch.
        pause: Seconds between two batches, in which nothing is locked.

    Raises:
        TimeoutError: There was no time left. The next run goes on from there.
        ValueError: An argument is wrong, or the table is not there or has no primary key.
        RuntimeError: It is not alone in its revision, or another one was left unfinished.

    """
    if BATCH not in statement:
        raise ValueError(f"backfill of {table}: the statement has no {BATCH} among its conditions")
    if batch_size < 1:
        raise ValueError(f"backfill of {table}: batch_size must be 1 or more, not {batch_size}")
    if not 0 <= pause <= LONGEST_PAUSE_S:
        raise ValueError(
            f"backfill of {table}: pause must be 0 to {LONGEST_PAUSE_S:g} seconds, not {pause}"
        )
    context = op.get_context()
    if context.as_sql:
        op.execute(
            f"-- Online in batches of {batch_size}, each in a transaction of its own.\n"
            + statement.replace(BATCH, "true")
        )
        return
    connection = op.get_bind()
    _check_alone(context, connection, table)
    run = _Run(
        connection=connection,
        rows=_rows(connection, table, schema),
        statement=statement,
        progress=_sql(
            connection, f"{context.version_table}_backfill", context.version_table_schema
        ),
        batch_size=batch_size,
        time_left=_time_left(context),
    )
    try:
        with context.autocommit_block(), _repeatable(connection):
            while run.batch():
                time.sleep(min(pause, run.time_left()))
    except PendingRollbackError as error:
        # A block that cannot end, because the connection is lost, would hide what happened.
        raise error.__context__ or error from None
    # After the block, so in the transaction that writes the version: both happen, or neither.
    connection.execute(text(f"DROP TABLE {run.progress}"))
    log.info("backfill of %s: finished, %s", table, run.message)


@dataclass(frozen=True)
class _Rows:
    """The rows of a table in the order of its primary key. The texts are SQL for `sqlalchemy.text`.

    A row's place is its key as a JSON array, which holds every type exactly, whatever formats a
    session has set.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    estimate: int

    @property
    def place(self) -> str:
        return f"CAST(jsonb_build_array({', '.join(self.columns)}) AS text)"

    def order(self, direction: str = "ASC") -> str:
        return ", ".join(f"{column} {direction}" for column in self.columns)

    def between(self, after: str | None) -> str:
        """Make a condition: behind parameter `after`, if there is one, up to `until`."""
        behind = f"{self._compared('>', 'after')} AND " if after is not None else ""
        return f"({behind}{self._compared('<=', 'until')})"

    def _compared(self, operator: str, place: str) -> str:
        values = (
            f"CAST(CAST(:{place} AS jsonb) ->> {nth} AS {kind})"
            for nth, kind in enumerate(self.types)
        )
        return f"({', '.join(self.columns)}) {operator} ({', '.join(values)})"


@dataclass
class _Run:
    """One run's way through the batches. How far they came stands in a table of one row."""

    connection: Connection
    rows: _Rows
    statement: str
    progress: str
    batch_size: int
    time_left: Callable[[], float]
    begun: bool = False
    message: str = "not begun in this run"
    reported_at: float = -math.inf

    def batch(self) -> bool:
        """Do the next batch, in one transaction, and tell whether there may be another."""
        attempt = 0
        while True:
            if self.time_left() <= 0:
                raise TimeoutError(f"backfill of {self.rows.name}: {self.message}")
            try:
                with self._transaction():
                    more = self._batch()
            except DBAPIError as error:
                if self.time_left() <= 0:
                    raise TimeoutError(f"backfill of {self.rows.name}: {self.message}") from error
                if self.begun and _sqlstate(error) == _UNDEFINED_TABLE:
                    raise RuntimeError(
                        f"backfill of {self.rows.name}: another run has finished it"
                    ) from error
                attempt += 1
                if attempt == _ATTEMPTS or _sqlstate(error) not in _PASSING:
                    raise
                backoff = _FIRST_BACKOFF_S * 2**attempt * random.uniform(0.5, 1)
                log.info("backfill of %s: waiting for a lock; %s", self.rows.name, self.message)
                time.sleep(min(backoff, self.time_left()))
            else:
                self.begun = True
                return more

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            # With rows locked already, a wait without end for another one holds up the application.
            self._execute(
                "SELECT set_config('lock_timeout', '3s', true)"
                " WHERE current_setting('lock_timeout') = '0'"
            )
            yield
            self._execute("COMMIT")
        except BaseException:
            # A connection that is lost has been rolled back.
            with contextlib.suppress(Exception):
                self._execute("ROLLBACK")
            raise

    def _batch(self) -> bool:
        if not self.begun:
            self._begin()
        # Locked: should two runs be at work, they take turns, and each goes on from the other.
        statement, after, until, looked_at, changed = self._execute(
            f"SELECT statement, after, until, looked_at, changed FROM {self.progress} FOR UPDATE"
        ).one()
        if statement != self.statement:
            raise RuntimeError(
                f"backfill of {self.rows.name}: another one was left unfinished, after {looked_at}"
                f" rows up to the key {after}. Finish that one first, or give it up with DROP TABLE"
                f" {self.progress}. Its statement is: {statement}"
            )
        if not self.begun and looked_at:
            log.info("backfill of %s: goes on behind the key %s", self.rows.name, after)
        to, rows = self._next(after, until)
        if rows:
            result = self._execute(
                self.statement.replace(BATCH, self.rows.between(after)), after=after, until=to
            )
            looked_at, changed = looked_at + rows, changed + max(0, result.rowcount)
            self._execute(
                f"UPDATE {self.progress}"
                " SET after = :to, looked_at = :looked_at, changed = :changed",
                to=to,
                looked_at=looked_at,
                changed=changed,
            )
        self._tell(looked_at, changed)
        return rows == self.batch_size

    def _begin(self) -> None:
        """Make the table of progress, unless there is one, in the first batch's transaction."""
        self._execute(
            f"CREATE TABLE IF NOT EXISTS {self.progress} (one boolean PRIMARY KEY DEFAULT true"
            " CHECK (one), statement text NOT NULL, after text, until text,"
            " looked_at bigint NOT NULL DEFAULT 0, changed bigint NOT NULL DEFAULT 0)"
        )
        rows = self.rows
        self._execute(
            f"INSERT INTO {self.progress} (statement, until) SELECT :statement,"
            f" (SELECT {rows.place} FROM {rows.table} ORDER BY {rows.order('DESC')} LIMIT 1)"
            " ON CONFLICT DO NOTHING",
            statement=self.statement,
        )

    def _next(self, after: str | None, until: str | None) -> tuple[str, int]:
        """Find the place of the next batch's last row, and how many rows the batch has."""
        if until is None:  # there was no row at all
            return "", 0
        rows = self.rows
        found = self._execute(
            "SELECT place, nth FROM ("
            f"SELECT {rows.place} AS place, row_number() OVER (ORDER BY {rows.order()}) AS nth"
            f" FROM {rows.table} WHERE {rows.between(after)} ORDER BY {rows.order()} LIMIT :size"
            ") batch ORDER BY nth DESC LIMIT 1",
            after=after,
            until=until,
            size=self.batch_size,
        ).one_or_none()
        return (found.place, found.nth) if found else ("", 0)

    def _execute(self, sql: str, **parameters: object) -> Any:
        given = {name: value for name, value in parameters.items() if value is not None}
        return self.connection.execute(text(sql), given)

    def _tell(self, looked_at: int, changed: int) -> None:
        of = f" of about {self.rows.estimate:,}" if self.rows.estimate > 0 else ""
        self.message = f"{looked_at:,}{of} rows looked at, {changed:,} changed"
        now = time.monotonic()
        if now >= self.reported_at + REPORT_EVERY_S:
            self.reported_at = now
            log.info("backfill of %s: %s", self.rows.name, self.message)


def _rows(connection: Connection, table: str, schema: str | None) -> _Rows:
    """Look the table and its primary key up."""
    name = _quoted(connection, table, schema)
    found = connection.execute(
        text(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod), c.reltuples"
            " FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary"
            " LEFT JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, nth)"
            " ON k.nth <= i.indnkeyatts"
            " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum"
            " WHERE c.oid = to_regclass(:name) ORDER BY k.nth"
        ),
        {"name": name},
    ).all()
    if not found:
        raise ValueError(f"backfill of {table}: there is no table {name}; is its schema missing?")
    if found[0][0] is None:
        raise ValueError(f"backfill of {table}: it has no primary key to go along")
    return _Rows(
        name=table,
        table=_sql(connection, table, schema),
        # Without the schema: a statement may name the table with it or without.
        columns=tuple(_sql(connection, column, table) for column, _, _ in found),
        types=tuple(_literal(kind) for _, kind, _ in found),
        estimate=int(found[0][2]),
    )


def _check_alone(context: MigrationContext, connection: Connection, table: str) -> None:
    """Refuse a second backfill in a revision, if it can be detected.

    With all revisions in one transaction, Alembic's default, it cannot be for the second one.
    """
    heads = context.get_current_heads()
    if context.opts.get("backfill_at") == heads:
        raise RuntimeError(f"backfill of {table}: its revision has one already; give it its own")
    context.opts["backfill_at"] = heads
    version = _sql(connection, context.version_table, context.version_table_schema)
    written = "txid_current_if_assigned()"
    if heads and connection.scalar(
        text(
            f"SELECT {written} IS NOT NULL AND NOT EXISTS (SELECT FROM {version}"
            f" WHERE CAST(CAST(xmin AS text) AS bigint) = {written} & 4294967295)"
        )
    ):
        raise RuntimeError(
            f"backfill of {table}: its revision does something before it, which would be done again"
            " after an interruption; give the backfill a revision of its own"
        )


@contextlib.contextmanager
def _repeatable(connection: Connection) -> Iterator[None]:
    """Tell a runner that what is committed now is no reason not to run the revision again."""
    info = connection.info
    info["repeatable"] = True
    try:
        yield
    finally:
        del info["repeatable"]


def _time_left(context: MigrationContext) -> Callable[[], float]:
    attributes = context.config.attributes if context.config else {}
    time_left: Callable[[], float] = attributes.get("time_left", lambda: math.inf)
    return time_left


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def _quoted(connection: Connection, name: str, inside: str | None) -> str:
    quote = connection.dialect.identifier_preparer.quote
    return f"{quote(inside)}.{quote(name)}" if inside else quote(name)


def _sql(connection: Connection, name: str, inside: str | None) -> str:
    return _literal(_quoted(connection, name, inside))


def _literal(name: str) -> str:
    """Escape a name for `sqlalchemy.text`, where a colon may begin a parameter."""
    return name.replace(":", "\\:")
