"""What the function returns: docs/contract.md, section 6."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Revision:
    """A revision of the packaged tree, as much of it as callers and logs see.

    ``down_revisions`` are the ids it comes after: none for a base, several for a merge.
    """

    revision: str
    description: str
    down_revisions: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give the revision as an answer holds it."""
        return {"revision": self.revision, "description": self.description}


@dataclass(frozen=True)
class Applied:
    """A revision that the version table confirms, and how long it took, its commit included."""

    revision: Revision
    duration_ms: int

    def as_json(self) -> dict[str, Any]:
        """Give the revision as an answer holds it, with its duration."""
        return {**self.revision.as_json(), "duration_ms": self.duration_ms}


@dataclass(frozen=True)
class Result:
    """Where the database was, where it is now, and what was done in between, all as the version table tells it.

    Revisions are the ids in the version table; no id stands for an empty database, several for several heads.
    ``reverted`` is what a downgrade took back. Durations are in milliseconds. ``located`` is False for an action that
    does not ask where the database is, and whose answer then says nothing of it.
    """

    action: str
    stage: str
    database: str
    schema: str | None
    previous_revisions: tuple[str, ...]
    revisions: tuple[str, ...]
    applied: tuple[Applied, ...] = ()
    reverted: tuple[Applied, ...] = ()
    pending: tuple[Revision, ...] = ()
    attempts: int = 1
    lock_wait_ms: int = 0
    ahead: bool = False
    located: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self, *, duration_ms: int, request_id: str) -> dict[str, Any]:
        """The answer in the form of the contract's section 6."""
        answer: dict[str, Any] = {"status": "ok", "action": self.action, "stage": self.stage}
        if self.located:
            answer |= {
                "database": self.database,
                "schema": self.schema,
                "previous_revision": joined(self.previous_revisions),
                "revision": joined(self.revisions),
                "up_to_date": not self.pending,
                "applied": [applied.as_json() for applied in self.applied],
                "pending": [revision.as_json() for revision in self.pending],
                "attempts": self.attempts,
                "lock_wait_ms": self.lock_wait_ms,
            }
        answer |= {"duration_ms": duration_ms, "request_id": request_id, **self.extra}
        if self.ahead:
            answer["ahead"] = True
        if self.action == "downgrade":
            answer["reverted"] = [reverted.as_json() for reverted in self.reverted]
        return answer


def joined(revisions: tuple[str, ...]) -> str | None:
    """Several heads as one text, in sorted order; None for an empty database."""
    return ",".join(sorted(revisions)) or None
