"""One invocation: what it works with, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.session import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.database.secret import CredentialStore
    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.request import Request
    from lambda_migrate.invocation.result import Applied, Revision
    from lambda_migrate.invocation.settings import Settings
    from lambda_migrate.run.attempts import Account


@dataclass(frozen=True)
class Invocation:
    """What one invocation works with. ``name`` is its sessions' application_name."""

    request: Request
    settings: Settings
    store: CredentialStore
    deadline: Deadline
    name: str

    @property
    def schema(self) -> str | None:
        """The schema to work in, where the request names one."""
        return self.request.target.schema

    def open_session(self) -> Session:
        """A session of our own on the target; raises what `database.open_session` does."""
        return open_session(self.settings, self.store, self.deadline, self.name, self.schema)


@dataclass
class Progress:
    """What a run has achieved so far, over all its attempts. The version table vouches for it.

    ``outcome`` is what has become of a rollout's target, where the run decides that.
    """

    action: str
    database: str = ""
    previous: tuple[str, ...] | None = None
    revisions: tuple[str, ...] = ()
    done: list[Applied] = field(default_factory=list)
    pending: tuple[Revision, ...] = ()
    told: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    attempts: int = 0
    retries: int = 0
    lock_wait_ms: int = 0
    ahead: bool = False
    outcome: str | None = None
    unsettled: Account | None = None

    def applied_ids(self) -> list[str]:
        """The ids of what was applied, in order; what a downgrade stepped through was not."""
        return self.done_ids() if self.action == "upgrade" else []

    def done_ids(self) -> list[str]:
        """The ids of the revisions that were stepped through, in order."""
        return [done.revision.revision for done in self.done]
