"""Records the work of a run. Only the version table counts, read on another session after env.py's process has ended.

`RunRecord` owns the state of a run, `Attempt` follows the messages of one attempt.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.version_table import versions
from lambda_migrate.env_py.messages import (
    Began,
    CheckpointSkipped,
    Entry,
    IndexDropped,
    Next,
    Output,
    Ran,
    Started,
    StatementSkipped,
    Untrusted,
)
from lambda_migrate.invocation.result import Applied, Revision, RunState, TableState, VersionTable, joined, merged
from lambda_migrate.invocation.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Message
    from lambda_migrate.invocation.errors import MigrationError
    from lambda_migrate.invocation.telemetry import Event

# A revision that was run, and the version table that it was run for.
Done = tuple[VersionTable, Applied]


class RunRecord:
    """The state of one run over all its attempts. Nothing else changes it."""

    def __init__(self, schema: str | None) -> None:
        self.state = RunState()
        self.output_lines = 0
        self.has_preflight = False
        # The expected times of revisions in milliseconds, by schema and revision.
        self._estimated: Mapping[tuple[str | None, str], int] = {}
        self._schema = schema
        # The version tables in the order in which env.py reached them, and the revisions that were run, in order.
        self._tables: dict[VersionTable, TableState] = {}
        self._done: list[Done] = []
        # The last attempt, until the version tables were read after it.
        self._unsettled: Attempt | None = None

    def opened(self, database: str, lock_wait_ms: int) -> None:
        """Note a session, and the time for which it waited for the migration lock."""
        self.state = replace(self.state, database=database, lock_wait_ms=self.state.lock_wait_ms + lock_wait_ms)

    def is_up_to_date(self, found: RunState) -> None:
        """Note that the database was found at the wanted revisions, before any attempt."""
        self.state = replace(found, database=self.state.database, lock_wait_ms=self.state.lock_wait_ms)

    def preflight_done(self, estimated: Mapping[tuple[str | None, str], int]) -> None:
        """Note the end of the preflight, with the expected times of revisions in milliseconds."""
        self.has_preflight = True
        self._estimated = estimated

    def next_attempt(self) -> None:
        """Count an attempt."""
        self.state = replace(self.state, attempts=self.state.attempts + 1)

    def retry(self) -> None:
        """Count a lock timeout after which the run continues."""
        self.state = replace(self.state, retries=self.state.retries + 1)

    def begin(self, default_schema: str | None) -> Attempt:
        """Return the attempt that begins now. It stays unsettled until `settle`."""
        self._unsettled = Attempt(
            self.state.database,
            self._schema,
            default_schema,
            self.state.attempts,
            self._log_output,
            self._estimated,
        )
        return self._unsettled

    def _log_output(self, output: Output) -> None:
        self.output_lines += 1
        log_output(output)

    def settle(self, session: Session) -> None:
        """Read the version tables and add the revisions of the last attempt, if unsettled, that they confirm."""
        attempt = self._unsettled
        if attempt is not None and attempt.began is not None:
            actual = {
                began.table: versions(session, began.table.schema, began.table.name, began.role)
                for began in attempt.tables()
            }
            self._add(attempt, attempt.confirmed(actual), actual)
        self._unsettled = None

    def found(self, looked: Sequence[Began]) -> None:
        """Note the version tables that a look has found, without those that are known already."""
        for began in looked:
            if began.table not in self._tables:
                self._note(began, began.heads, began.heads)
        self._sum_up()

    def located(self) -> dict[VersionTable, tuple[str, ...]]:
        """Return the current revisions of each known version table."""
        return {table: each.revisions for table, each in self._tables.items()}

    def steps_done(self) -> dict[VersionTable, int]:
        """Return the number of revisions that were run, for each version table."""
        return Counter(table for table, each in self._done if not each.revision.stands_for)

    def left(self, attempt: Attempt) -> tuple[Revision, ...]:
        """Return the revisions that an attempt planned and that are not done."""
        return attempt.left(self._done)

    def _add(self, attempt: Attempt, done: list[Done], actual: Mapping[VersionTable, tuple[str, ...]]) -> None:
        self._done += done
        for began in attempt.tables():
            self._note(began, actual[began.table], attempt.heads_before(began.table))
        entries = {name: tuple(entries) for name, entries in attempt.entries.items()}
        self.state = replace(self.state, entries=entries)
        self._sum_up()

    def _note(self, began: Began, actual: tuple[str, ...], before: tuple[str, ...]) -> None:
        known = self._tables.get(began.table)
        ids = _ids(self._done, began.table)
        self._tables[began.table] = TableState(
            began.table,
            previous=known.previous if known else before,
            revisions=actual,
            pending=tuple(revision for revision in began.pending if revision.revision not in ids),
            ahead=began.ahead,
        )

    def _sum_up(self) -> None:
        several = len(self._tables) > 1

        def shown(table: VersionTable, revision: Revision) -> Revision:
            return replace(revision, table=table) if several else revision

        tables = tuple(
            replace(each, pending=tuple(shown(each.table, revision) for revision in each.pending))
            for each in self._tables.values()
        )
        self.state = replace(
            self.state,
            previous=merged(each.previous for each in tables) if tables else None,
            revisions=merged(each.revisions for each in tables),
            done=tuple(
                replace(each, revision=shown(table, each.revision))
                for table, each in self._done
                if not each.revision.stands_for
            ),
            checkpoint=self._checkpoint(),
            pending=tuple(revision for each in tables for revision in each.pending),
            ahead=any(each.ahead for each in tables),
            tables=tables if several else (),
            located=tuple(self._tables),
        )

    def _checkpoint(self) -> Applied | None:
        """Return the checkpoint that was applied. An env.py may have applied it to several schemas."""
        applied = [each for _, each in self._done if each.revision.stands_for]
        return replace(applied[0], duration_ms=sum(each.duration_ms for each in applied)) if applied else None

    def give_up(self, error: MigrationError) -> MigrationError:
        """Return the error of a run that ends without reading the version tables. It names the last known commit."""
        attempt, self._unsettled = self._unsettled, None
        if attempt is None or attempt.began is None:
            return error
        done = [(table, Applied(ran.revision, ran.duration_ms)) for table, ran in attempt.ran if ran.committed]
        self._add(attempt, done, {began.table: began.heads for began in attempt.tables()})
        known = f"{done[-1][1].revision.revision} was committed" if done else "nothing was committed before the error"
        unknown = attempt.running or next((ran.revision for _, ran in attempt.ran if not ran.committed), None)
        doubt = f", {unknown.revision} may be committed: run status" if unknown else ""
        return type(error)(f"{error}; last known state: {known}{doubt}", **error.facts)


@dataclass
class Attempt:
    """Follows the messages of one attempt, and logs them."""

    database: str
    schema: str | None
    default_schema: str | None
    number: int
    log_output: Callable[[Output], None]
    estimated: Mapping[tuple[str | None, str], int] = field(default_factory=dict)
    # One for each time that env.py ran migrations; the last one is now.
    begun: list[Began] = field(default_factory=list)
    running: Revision | None = None
    # True if the table confirms the commit of a revision whose process had not reported it.
    outlived: bool = False
    ran: list[tuple[VersionTable, Ran]] = field(default_factory=list)
    entries: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    _started: float = 0.0
    _step: int = 0
    _logged: set[tuple[VersionTable, str]] = field(default_factory=set)

    @property
    def began(self) -> Began | None:
        """Return the revisions that Alembic read last, or None if it did not read any."""
        return self.begun[-1] if self.begun else None

    def tables(self) -> list[Began]:
        """Return the last message about each version table."""
        return list({began.table: began for began in self.begun}.values())

    def heads_before(self, table: VersionTable) -> tuple[str, ...]:
        """Return the revisions of a table before this attempt."""
        return next(began.heads for began in self.begun if began.table == table)

    def receive(self, message: Message) -> None:
        """Process one message, and log it."""
        if isinstance(message, Began):
            self.begun.append(message)
            self._step = 0
        elif isinstance(message, Started):
            self._start(message.revision)
        elif isinstance(message, Next):
            self.receive(message.ran)
            self.receive(message.started)
        elif isinstance(message, Ran):
            self.running = None
            table = self.begun[-1].table
            self.ran.append((table, message))
            if message.committed:
                self._log_applied(table, message)
        elif isinstance(message, Entry):
            self.entries.setdefault(message.name, []).append(message.entry)
        else:
            self._note(message)

    def _note(self, message: Message) -> None:
        """Log a message that changes nothing in this attempt's state."""
        if isinstance(message, IndexDropped):
            what = f"dropped the invalid index {message.index}, left by an interrupted run, before building it again:"
            self._log("index.dropped", what, self.begun[-1].table, message.revision)
        elif isinstance(message, StatementSkipped):
            what = f"skipped a statement, because an interrupted run had finished it ({message.why}):"
            self._log("statement.skipped", what, self.begun[-1].table, message.revision)
        elif isinstance(message, CheckpointSkipped):
            what = f"the checkpoint is not used, and every revision runs: {message.why}"
            log("checkpoint.skipped", what, database=self.database, schema=self.schema)
        elif isinstance(message, Output):
            self.log_output(message)
        elif isinstance(message, Untrusted):
            log_untrusted(message.findings, self.database, self.schema)

    def _start(self, revision: Revision) -> None:
        self.running, self._started = revision, time.monotonic()
        if revision.stands_for:
            return
        self._step += 1
        self._log(
            "revision.started",
            "running",
            self.begun[-1].table,
            revision,
            down_revision=joined(revision.down_revisions),
            step=self._step,
            steps=len(self.begun[-1].planned),
        )

    def confirmed(self, actual: Mapping[VersionTable, tuple[str, ...]]) -> list[Done]:
        """Return the revisions of this attempt that the committed version tables confirm.

        Revisions run one after the other. So the longest sequence of them that leaves a table as it is now was
        committed, and later revisions were rolled back. If no sequence leaves it so, the revision that was still
        running, according to its messages, was committed too.
        """
        committed = {table: self._committed(table, heads) for table, heads in actual.items()}
        done: list[Done] = []
        for table, ran in self.ran:
            if committed[table] > 0:
                committed[table] -= 1
                done.append((table, Applied(ran.revision, ran.duration_ms)))
                if (table, ran.revision.revision) not in self._logged:
                    self._log_applied(table, ran)
        return done

    def _committed(self, table: VersionTable, actual: tuple[str, ...]) -> int:
        """Return the number of committed revisions of a table."""
        heads = [self.heads_before(table), *(tuple(sorted(ran.heads)) for each, ran in self.ran if each == table)]
        committed = max((number for number, each in enumerate(heads) if each == actual), default=None)
        if committed is not None:
            return committed
        if self.running is not None and self.begun[-1].table == table:
            # The commit succeeded and its answer was lost: no other run writes this table while the lock is held.
            took_ms = round((time.monotonic() - self._started) * 1000)
            self.ran.append((table, Ran(self.running, actual, took_ms, committed=True)))
            self.running, self.outlived = None, True
            return len(heads)
        return len(heads) - 1

    def left(self, done: Sequence[Done]) -> tuple[Revision, ...]:
        """Return the planned revisions that are not among those done."""
        planned = {(began.table, each.revision): each for began in self.begun for each in began.planned}
        finished = {(table, each) for table in {began.table for began in self.begun} for each in _ids(done, table)}
        return tuple(revision for key, revision in planned.items() if key not in finished)

    def _log_applied(self, table: VersionTable, ran: Ran) -> None:
        self._logged.add((table, ran.revision.revision))
        if count := len(ran.revision.stands_for):
            self._log(
                "checkpoint.applied", "began with", table, ran.revision, revisions=count, duration_ms=ran.duration_ms
            )
            return
        schema = table.schema if table.schema != self.default_schema else None
        known = self.estimated.get((schema, ran.revision.revision), self.estimated.get((None, ran.revision.revision)))
        self._log("revision.applied", "committed", table, ran.revision, duration_ms=ran.duration_ms, estimated_ms=known)

    def _log(self, event: Event, what: str, table: VersionTable, revision: Revision, **fields: Any) -> None:  # noqa: ANN401
        # An env.py may go through schemas by itself. That there are several is known only later.
        elsewhere = table.schema if table.schema != self.default_schema else None
        log(
            event,
            f"{what} {revision.revision} ({revision.description})",
            database=self.database,
            schema=self.schema or elsewhere,
            revision=revision.revision,
            description=revision.description,
            attempt=self.number,
            **fields,
        )


def _ids(done: Sequence[Done], table: VersionTable) -> set[str]:
    """Return the revisions of a table that are done, those of a checkpoint included."""
    revisions = [each.revision for of, each in done if of == table]
    return {name for revision in revisions for name in (revision.revision, *revision.stands_for)}


def log_untrusted(found: object, database: str, schema: str | None) -> None:
    """Warn that another role could run code with the rights of the login."""
    log("schema.untrusted", str(found), level=logging.WARNING, database=database, schema=schema)


def log_output(output: Output) -> None:
    """Log a line that the backend's code logged or printed."""
    log("backend.output", output.text, level=output.level, source=output.source)
