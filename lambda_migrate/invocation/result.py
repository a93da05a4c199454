"""The answer of the function: docs/contract.md#the-result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


# Maximum number of version tables that an error or a log line names for one revision. It counts the others.
_TABLES_NAMED = 5


@dataclass(frozen=True)
class VersionTable:
    """A version table. An env.py may have one for each schema, and runs the tree for each of them."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    def as_json(self) -> dict[str, str]:
        """Return the fields that name it in an entry of a result."""
        return {"schema": self.schema, "version_table": self.name}


@dataclass(frozen=True)
class Revision:
    """A revision of the packaged tree, as callers and log lines show it.

    ``down_revisions`` are the ids of its parents: none for a base, several for a merge. ``table`` is the version table
    that it is applied for, None unless env.py has several. ``stands_for`` are the revisions in whose place a checkpoint
    is applied; a revision itself has none.
    """

    revision: str
    description: str
    down_revisions: tuple[str, ...] = ()
    table: VersionTable | None = None
    stands_for: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the revision's entry in a result."""
        where = self.table.as_json() if self.table else {}
        return {"revision": self.revision, "description": self.description, **where}


@dataclass(frozen=True)
class Applied:
    """A revision that the version table confirms, with the duration of its run and its commit."""

    revision: Revision
    duration_ms: int

    def as_json(self) -> dict[str, Any]:
        """Return the revision's entry in a result, with its duration."""
        return {**self.revision.as_json(), "duration_ms": self.duration_ms}


@dataclass(frozen=True)
class TableState:
    """One of several version tables before and after a run, as `RunState`."""

    table: VersionTable
    previous: tuple[str, ...] = ()
    revisions: tuple[str, ...] = ()
    pending: tuple[Revision, ...] = ()
    ahead: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return its entry in a result."""
        entry = {
            **self.table.as_json(),
            "previous_revision": joined(self.previous),
            "revision": joined(self.revisions),
            "up_to_date": not self.pending,
            "pending": [revision.revision for revision in self.pending],
        }
        return {**entry, "ahead": True} if self.ahead else entry


@dataclass(frozen=True)
class RunState:
    """The revisions of the database before and after a run, and the work of the run, as the version table confirms it.

    Revisions are ids: none for an empty database, several for several heads. ``previous`` is None until a run has read
    the version table. ``done`` are the revisions that were run, in order, upwards or downwards. ``entries`` are the
    lists of an action, such as a plan's revisions, by the name of their field in the result. ``retries`` counts the
    attempts after a lock timeout. ``checkpoint`` is what the upgrade of an empty database began with, if anything.
    ``tables`` are the version tables if env.py has several. Then the other fields cover all of them. ``located`` are
    the version tables that env.py reached, even if there is only one.
    """

    database: str = ""
    previous: tuple[str, ...] | None = None
    revisions: tuple[str, ...] = ()
    done: tuple[Applied, ...] = ()
    pending: tuple[Revision, ...] = ()
    entries: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    attempts: int = 0
    retries: int = 0
    lock_wait_ms: int = 0
    ahead: bool = False
    tables: tuple[TableState, ...] = ()
    checkpoint: Applied | None = None
    located: tuple[VersionTable, ...] = ()

    def where(self) -> str:
        """Return where the database is, in words. Of several version tables, each is named with its revision."""
        if not self.tables:
            return f"the database is at {joined(self.revisions) or 'base'}"
        at: dict[str, list[str]] = {}
        for each in self.tables:
            at.setdefault(joined(each.revisions) or "base", []).append(str(each.table))
        return f"the database is {'; '.join(f'at {revision} in {some(names)}' for revision, names in at.items())}"

    def done_ids(self) -> list[str]:
        """Return the ids of the revisions that were run, in order."""
        return [done.revision.revision for done in self.done]


@dataclass(frozen=True)
class Result:
    """The answer to one invocation.

    ``located`` is False for an action that does not read the version table: its answer has no fields about it.
    ``extra`` are the fields of one action alone. ``counted_as`` is the outcome of a rollout's target that the metrics
    count.
    """

    action: str
    stage: str
    schema: str | None = None
    state: RunState = field(default_factory=RunState)
    located: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    counted_as: str | None = None

    @property
    def has_applied(self) -> bool:
        """Return whether an upgrade applied revisions, or a checkpoint in their place."""
        return bool(self.applied) or self.state.checkpoint is not None

    @property
    def applied(self) -> tuple[Applied, ...]:
        """The revisions that an upgrade applied; empty for any other action."""
        return self.state.done if self.action == "upgrade" else ()

    def as_json(self, *, duration_ms: int, request_id: str) -> dict[str, Any]:
        """Return the JSON of the answer."""
        state = self.state
        answer: dict[str, Any] = {"status": "ok", "action": self.action, "stage": self.stage}
        if self.located:
            answer |= {
                "database": state.database,
                "schema": self.schema,
                "previous_revision": joined(state.previous or ()),
                "revision": joined(state.revisions),
                "up_to_date": not state.pending,
                "applied": [applied.as_json() for applied in self.applied],
                "pending": [revision.as_json() for revision in state.pending],
                "attempts": state.attempts,
                "lock_wait_ms": state.lock_wait_ms,
            }
            if state.tables:
                answer["version_tables"] = [each.as_json() for each in state.tables]
            if state.checkpoint is not None:
                answer["checkpoint"] = {
                    "revision": state.checkpoint.revision.revision,
                    "revisions": len(state.checkpoint.revision.stands_for),
                    "duration_ms": state.checkpoint.duration_ms,
                }
        answer |= {"duration_ms": duration_ms, "request_id": request_id, **self.extra}
        if state.ahead:
            answer["ahead"] = True
        if self.action == "downgrade":
            answer["reverted"] = [reverted.as_json() for reverted in state.done]
        return answer


def merged(revisions: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the revisions of several version tables, each once."""
    return tuple(sorted({each for some in revisions for each in some}))


def some(names: Sequence[str], most: int = _TABLES_NAMED) -> str:
    """Return some of the names, and the number of the others."""
    more = f" and {len(names) - most} others" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def joined(revisions: tuple[str, ...]) -> str | None:
    """Return several heads as one text, sorted, or None for an empty database."""
    return ",".join(sorted(revisions)) or None
