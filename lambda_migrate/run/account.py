"""Records the work of a run. Only the version table counts, read on another session after env.py's process has ended.

`Account` owns the state of a run, `Attempt` follows the messages of one attempt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.session import versions
from lambda_migrate.env_py.messages import Began, Entry, IndexDropped, Next, Output, Ran, Started
from lambda_migrate.invocation.result import Applied, RunState, joined
from lambda_migrate.invocation.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Message
    from lambda_migrate.invocation.errors import MigrationError
    from lambda_migrate.invocation.result import Revision
    from lambda_migrate.invocation.telemetry import Event


class Account:
    """The state of one run over all its attempts. Nothing else changes it."""

    def __init__(self, schema: str | None) -> None:
        self.state = RunState()
        self._schema = schema
        # The last attempt, until the version table was read after it.
        self._unsettled: Attempt | None = None

    def opened(self, database: str, lock_wait_ms: int) -> None:
        """Note a session, and how long it waited for the migration lock."""
        self.state = replace(self.state, database=database, lock_wait_ms=self.state.lock_wait_ms + lock_wait_ms)

    def is_up_to_date(self, found: RunState) -> None:
        """Note that the database was found at the wanted revisions, before any attempt."""
        self.state = replace(found, database=self.state.database, lock_wait_ms=self.state.lock_wait_ms)

    def next_attempt(self) -> None:
        """Count an attempt."""
        self.state = replace(self.state, attempts=self.state.attempts + 1)

    def retry(self) -> None:
        """Count a lock timeout after which the run goes on."""
        self.state = replace(self.state, retries=self.state.retries + 1)

    def begin(self) -> Attempt:
        """Return the attempt that begins now. It stays unsettled until `settle`."""
        self._unsettled = Attempt(self.state.database, self._schema, self.state.attempts)
        return self._unsettled

    def settle(self, session: Session) -> None:
        """Read the version table and add the revisions of the last attempt, if unsettled, that it confirms."""
        attempt = self._unsettled
        if attempt is not None and attempt.began is not None:
            actual = versions(session, attempt.began.schema, attempt.began.version_table, attempt.began.role)
            self._add(attempt, attempt.began, attempt.confirmed(actual), actual)
        self._unsettled = None

    def _add(self, attempt: Attempt, began: Began, done: tuple[Applied, ...], actual: tuple[str, ...]) -> None:
        state = self.state
        all_done = (*state.done, *done)
        ids = {each.revision.revision for each in all_done}
        self.state = replace(
            state,
            previous=attempt.previous if state.previous is None else state.previous,
            revisions=actual,
            done=all_done,
            pending=tuple(revision for revision in began.pending if revision.revision not in ids),
            entries={name: tuple(entries) for name, entries in attempt.entries.items()},
            ahead=began.ahead,
        )

    def give_up(self, error: MigrationError) -> MigrationError:
        """Return the error of a run that ends without reading the version table. It names the last known commit."""
        attempt, self._unsettled = self._unsettled, None
        if attempt is None or attempt.began is None:
            return error
        done = tuple(Applied(ran.revision, ran.duration_ms) for ran in attempt.ran if ran.committed)
        self._add(attempt, attempt.began, done, attempt.began.heads)
        known = f"{done[-1].revision.revision} was committed" if done else "nothing was committed before that"
        unknown = attempt.running or next((ran.revision for ran in attempt.ran[len(done) :]), None)
        doubt = f", and whether {unknown.revision} was is unknown: ask for the status" if unknown else ""
        return type(error)(f"{error}; as far as is known {known}{doubt}", **error.facts)


@dataclass
class Attempt:
    """Follows the messages of one attempt, and logs them."""

    database: str
    schema: str | None
    number: int
    # An env.py may let Alembic begin several times, each time with another version table: the last one counts.
    began: Began | None = None
    previous: tuple[str, ...] | None = None
    running: Revision | None = None
    # True if the table confirms the commit of a revision whose process had not reported it.
    outlived: bool = False
    ran: list[Ran] = field(default_factory=list)
    entries: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    _started: float = 0.0
    _logged: set[str] = field(default_factory=set)

    def receive(self, message: Message) -> None:
        """Process one message, and log it."""
        if isinstance(message, Began):
            self.began = message
            self.previous = message.heads if self.previous is None else self.previous
            self.entries.clear()
        elif isinstance(message, Started):
            self._start(message.revision)
        elif isinstance(message, Next):
            self.receive(message.ran)
            self.receive(message.started)
        elif isinstance(message, Ran):
            self.running = None
            self.ran.append(message)
            if message.committed:
                self._log_applied(message)
        elif isinstance(message, IndexDropped):
            what = f"dropped the invalid index {message.index}, left by an interrupted run, before building it again:"
            self._log("index.dropped", what, message.revision)
        elif isinstance(message, Entry):
            self.entries.setdefault(message.name, []).append(message.entry)
        elif isinstance(message, Output):
            log_output(message)

    def _start(self, revision: Revision) -> None:
        self.running, self._started = revision, time.monotonic()
        self._log(
            "revision.started",
            "running",
            revision,
            down_revision=joined(revision.down_revisions),
            step=len(self.ran) + 1,
            steps=len(self.began.planned) if self.began else None,
        )

    def confirmed(self, actual: tuple[str, ...]) -> tuple[Applied, ...]:
        """Return the revisions of this attempt that the committed version table confirms.

        Revisions run one after the other. So the longest sequence of them that leaves the table as it is now was
        committed, and later revisions were rolled back. If no sequence leaves it so, the revision that was still
        running, according to its messages, was committed too.
        """
        heads = [self.began.heads if self.began else (), *(tuple(sorted(ran.heads)) for ran in self.ran)]
        committed = max((number for number, each in enumerate(heads) if each == actual), default=None)
        if committed is None and self.running is not None:
            # The commit went through and its answer was lost: nobody else writes this table while the lock is held.
            took_ms = round((time.monotonic() - self._started) * 1000)
            self.ran.append(Ran(self.running, actual, took_ms, committed=True))
            self.running, self.outlived = None, True
        done = self.ran[:committed]
        for ran in done:
            if ran.revision.revision not in self._logged:
                self._log_applied(ran)
        return tuple(Applied(ran.revision, ran.duration_ms) for ran in done)

    def left(self, done: tuple[Applied, ...]) -> tuple[Revision, ...]:
        """Return the planned revisions that are not among those done."""
        ids = {each.revision.revision for each in done}
        return tuple(r for r in (self.began.planned if self.began else ()) if r.revision not in ids)

    def _log_applied(self, ran: Ran) -> None:
        self._logged.add(ran.revision.revision)
        self._log("revision.applied", "committed", ran.revision, duration_ms=ran.duration_ms)

    def _log(self, event: Event, what: str, revision: Revision, **fields: Any) -> None:  # noqa: ANN401 - as `log`
        log(
            event,
            f"{what} {revision.revision} ({revision.description})",
            database=self.database,
            schema=self.schema,
            revision=revision.revision,
            description=revision.description,
            attempt=self.number,
            **fields,
        )


def log_output(output: Output) -> None:
    """Log a line that the backend's code logged or printed."""
    log("backend.output", output.text, level=output.level, source=output.source)
