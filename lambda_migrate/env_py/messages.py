"""The job for the process that runs env.py, and the messages that the process sends, as data for a pipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.database.common import Server
    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.result import Revision, VersionTable
    from lambda_migrate.invocation.settings import Settings

# The requests to the fork server: fork a process for a run, become that process, and stop reserving its process id.
FORK, RUN, FORGET = b"+", b"!", b"-"

# The kind of a failure. "lock" and "connection" may pass. "refused" is an error of the contract that the process raised
# because of the tree or env.py.
Kind = Literal["lock", "cancelled", "connection", "authentication", "refused", "error"]
MAY_PASS = frozenset[Kind]({"lock", "connection", "authentication"})

# Sessions of these actions change nothing, for any env.py or revision (`looking`).
READ_ONLY_ACTIONS = frozenset({"status", "plan", "check"})
# The constraint that PostgreSQL names if something commits what only such an action wrote.
NEVER_COMMITTED = "looking_changes_nothing"
# Why env.py cannot be compared with the database.
NO_MODELS = "env.py gives Alembic no target_metadata, so there are no models to check"
READ_ONLY = "25006"  # read_only_sql_transaction


@dataclass(frozen=True)
class Job:
    """One run of env.py: its action, target and deadline.

    ``done`` has the number of revisions that earlier attempts of the run have stepped through, by version table, and
    ``located`` the current revisions of those tables that are known already.

    ``trial`` is the action whose steps a job of the action "status" computes, to find out if it would be refused. With
    the action "check" it is "stamp": the models are compared whatever the version table holds. "doctor" loads every
    revision after env.py has run.

    ``server`` is None if no database is involved. ``lock_pid`` is the backend of the session that holds the lock, and
    ``lock_keys`` are the lock's keys. ``pooled`` is True if a pooler in session mode is between the function and the
    server. ``output_lines`` is the number of lines of output that earlier attempts of this run have sent. ``may_write``
    lets env.py write while an action looks, in transactions that PostgreSQL never commits. Without ``resumes``, a
    revision that was interrupted begins from its start.

    ``checked_schemas`` are those in which no other role may create, or may according to UNTRUSTED_SCHEMA. ``encrypted``
    is True if the function's own session is. ``checkpoint`` lets an empty database begin with the packaged checkpoint.
    """

    action: str
    revision: str
    settings: Settings
    credentials: Credentials
    application_name: str
    deadline: Deadline
    confirm: str | None = None
    schema: str | None = None
    server: Server | None = None
    lock_pid: int | None = None
    lock_keys: tuple[int, ...] = ()
    pooled: bool = False
    output_lines: int = 0
    trial: str | None = None
    done: Mapping[VersionTable, int] = field(default_factory=dict)
    located: Mapping[VersionTable, tuple[str, ...]] = field(default_factory=dict)
    may_write: bool = False
    resumes: bool = True
    checked_schemas: tuple[str, ...] = ()
    encrypted: bool = False
    checkpoint: bool = False


@dataclass(frozen=True)
class Connected:
    """env.py handed Alembic a connection to the secret's database. ``pid`` is its backend."""

    pid: int


@dataclass(frozen=True)
class Began:
    """Alembic read a version table. ``planned`` are the revisions that are stepped through now, in their order.

    An env.py that runs migrations several times sends one for each time.
    ``role`` is the role that env.py set, None if it acts as its login. ``may_write`` is False if its session is
    read-only by default; a look does not count. ``home`` is the schema in which its session creates by default.
    """

    heads: tuple[str, ...]
    pending: tuple[Revision, ...]
    planned: tuple[Revision, ...]
    table: VersionTable
    role: str | None = None
    ahead: bool = False
    may_write: bool = True
    home: str | None = None


@dataclass(frozen=True)
class Started:
    """A revision begins, or a checkpoint in place of several."""

    revision: Revision


@dataclass(frozen=True)
class Ran:
    """A revision ended without an error, and the version table then held ``heads``.

    ``committed`` is False if env.py keeps its transaction open: other sessions do not see the revision yet.
    """

    revision: Revision
    heads: tuple[str, ...]
    duration_ms: int
    committed: bool


@dataclass(frozen=True)
class Next:
    """One revision ended without an error, and the next one begins."""

    ran: Ran
    started: Started


@dataclass(frozen=True)
class Output:
    """A line that the backend's code logged or printed."""

    level: int
    source: str
    text: str


@dataclass(frozen=True)
class IndexDropped:
    """An invalid index that an interrupted CREATE INDEX CONCURRENTLY had left was dropped to be built again."""

    index: str
    revision: Revision


@dataclass(frozen=True)
class StatementSkipped:
    """A statement was skipped because an interrupted run had finished its work. ``why`` has the evidence."""

    why: str
    revision: Revision


@dataclass(frozen=True)
class CheckpointSkipped:
    """The database is empty, and still its revisions run in place of the packaged checkpoint. ``why`` is the reason."""

    why: str


@dataclass(frozen=True)
class Entry:
    """One entry of a list that an action returns. ``name`` is the list's field in the result."""

    name: str
    entry: Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """The reason why env.py failed. The texts are redacted; a statement is without its parameters.

    ``partly_committed`` is True if the revision had committed some of its work (an autocommit block): its author may
    not expect it to run again. ``file`` and ``line`` are the place in the backend's code, the file relative to the
    backend's folder. ``facts`` are the fields of an error of the contract that the process itself raised.
    """

    kind: Kind
    error_type: str
    message: str
    revision: Revision | None = None
    sqlstate: str | None = None
    statement: str | None = None
    table: str | None = None
    constraint: str | None = None
    detail: str | None = None
    hint: str | None = None
    file: str | None = None
    line: int | None = None
    partly_committed: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """env.py returned or raised. ``stopped`` is True if time ran out, between two revisions or with a failure.

    ``heads`` are the revisions that each version table must hold then, None for an action that writes nothing.
    ``refused_write`` is True if env.py wrote while an action only looks, and PostgreSQL refused it. ``differs`` is True
    if a revision ran other statements than the interrupted run that it continued.
    """

    failure: Failure | None = None
    stopped: bool = False
    heads: Mapping[VersionTable, tuple[str, ...]] | None = None
    refused_write: bool = False
    differs: bool = False


@dataclass(frozen=True)
class Untrusted:
    """env.py's session resolves names in a schema in which another role may create. ``findings`` lists them."""

    findings: str


Message = (
    Connected
    | Untrusted
    | Began
    | Started
    | Ran
    | Next
    | Output
    | IndexDropped
    | StatementSkipped
    | CheckpointSkipped
    | Entry
    | Ended
)
