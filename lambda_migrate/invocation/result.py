"""The answer of the function: docs/contract.md, section 6."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Revision:
    """A revision of the packaged tree, as callers and log lines show it.

    ``down_revisions`` are the ids of its parents: none for a base, several for a merge.
    """

    revision: str
    description: str
    down_revisions: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the revision's entry in a result."""
        return {"revision": self.revision, "description": self.description}


@dataclass(frozen=True)
class Applied:
    """A revision that the version table confirms, with the duration of its run and its commit."""

    revision: Revision
    duration_ms: int

    def as_json(self) -> dict[str, Any]:
        """Return the revision's entry in a result, with its duration."""
        return {**self.revision.as_json(), "duration_ms": self.duration_ms}


@dataclass(frozen=True)
class RunState:
    """The revisions of the database before and after a run, and the work of the run, as the version table confirms it.

    Revisions are ids: none for an empty database, several for several heads. ``previous`` is None until a run has read
    the version table. ``done`` are the revisions that were run, in order, upwards or downwards. ``entries`` are the
    lists of an action, such as a plan's revisions, by the name of their field in the result. ``retries`` counts the
    attempts after a lock timeout.
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
        answer |= {"duration_ms": duration_ms, "request_id": request_id, **self.extra}
        if state.ahead:
            answer["ahead"] = True
        if self.action == "downgrade":
            answer["reverted"] = [reverted.as_json() for reverted in state.done]
        return answer


def joined(revisions: tuple[str, ...]) -> str | None:
    """Return several heads as one text, sorted, or None for an empty database."""
    return ",".join(sorted(revisions)) or None
