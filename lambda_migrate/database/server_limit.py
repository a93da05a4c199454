"""How many runs are at work on one database server at once: connections are what a server runs out of.

The state machine bounds how many targets it works on in all; which of them share a server only the server knows for
sure, and it also knows of another rollout's. So a run looks for the others there, and leaves when there are enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import MigrationLocked

if TYPE_CHECKING:
    from lambda_migrate.database.session import Session


class ServerBusy(MigrationLocked):
    """As many runs as allowed are at work on this server. It passes when one of them ends."""


def leave_if_busy(session: Session, name: str, limit: int) -> None:
    """Leave a server on which ``limit`` other runs of this function have a session, in whatever database.

    Whoever counts has a session there already, so of any number of runs that come at once the last one to count sees
    all others: there are never more than ``limit`` at work. When many come at once more of them may leave than have
    to, which is why they come again at random times. ``name`` is the session's application_name, which PostgreSQL
    shows to every role, with the request id at its end; a run has two sessions under the same one.

    Raises:
        ServerBusy: nothing was touched; the session is to be closed.
    """
    [(others,)] = session.rows(
        "SELECT count(DISTINCT application_name) FROM pg_stat_activity"
        " WHERE application_name <> %s AND starts_with(application_name, %s)",
        (name, name[: name.rfind("/") + 1]),
    )
    if others >= limit:
        raise ServerBusy(
            f"{others} runs are at work on this server and SERVER_CONCURRENCY allows {limit}; this one comes again"
        )
