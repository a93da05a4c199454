"""The job for the process that runs env.py, and the messages that the process sends, as data for a pipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.database.session import Server
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.result import Revision
    from lambda_migrate.invocation.settings import Settings

# The kind of a failure. "lock" and "connection" may pass. "refused" is an error of the contract that the process raised
# because of the tree or env.py.
Kind = Literal["lock", "cancelled", "connection", "authentication", "refused", "error"]


@dataclass(frozen=True)
class Job:
    """One run of env.py: its action, target and deadline.

    ``server`` is None if no database is involved. ``lock_pid`` is the backend of the session that holds the lock, and
    ``lock_keys`` are the lock's keys. ``pooled`` is True if a pooler in session mode is between the function and the
    server.
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


@dataclass(frozen=True)
class Connected:
    """env.py handed Alembic a connection to the secret's database. ``pid`` is its backend."""

    pid: int


@dataclass(frozen=True)
class Began:
    """Alembic read the version table. ``planned`` are the revisions that this run steps through, in their order.

    ``role`` is the role that env.py set, None if it acts as its login.
    """

    heads: tuple[str, ...]
    pending: tuple[Revision, ...]
    planned: tuple[Revision, ...]
    schema: str
    version_table: str
    role: str | None = None
    ahead: bool = False


@dataclass(frozen=True)
class Started:
    """A revision begins."""

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
class Entry:
    """One entry of a list that an action returns. ``name`` is the list's field in the result."""

    name: str
    entry: Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """The reason why env.py failed. The texts are redacted; a statement is without its parameters.

    ``partly_committed`` is True if the revision had committed some of its work (an autocommit block): its author may
    not expect it to run again. ``facts`` are the fields of an error of the contract that the process itself raised.
    """

    kind: Kind
    error_type: str
    message: str
    revision: Revision | None = None
    sqlstate: str | None = None
    statement: str | None = None
    table: str | None = None
    constraint: str | None = None
    partly_committed: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """env.py returned or raised. ``stopped`` is True if time ran out, between two revisions or with a failure.

    ``heads`` are the revisions that the version table must hold then, None for an action that writes nothing.
    """

    failure: Failure | None = None
    stopped: bool = False
    heads: tuple[str, ...] | None = None


Message = Connected | Began | Started | Ran | Next | Output | IndexDropped | Entry | Ended
