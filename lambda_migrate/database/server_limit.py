"""Limits the runs on one database server, because a server runs out of connections first.

The state machine limits the concurrent targets of one rollout in total. Only the server shows which targets share it,
and whether another rollout uses it, too. Therefore each run counts the other runs on the server, and exits at the
limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import MigrationLocked

if TYPE_CHECKING:
    from lambda_migrate.database.session import Session


class ServerBusy(MigrationLocked):
    """As many runs as allowed are active on this server. A retry helps once one of them has ended."""


def leave_if_busy(session: Session, name: str, limit: int) -> None:
    """Raise if ``limit`` other runs of this function with this login have a session on the server, in any database.

    A run opens its session before it counts. So of runs that start at once, the last one to count finds all others, and
    never more than ``limit`` stay. More runs than necessary may exit, so they are retried at random times. ``name`` is
    the session's application_name, which PostgreSQL shows to every role. It ends with the request id, and both sessions
    of a run have the same. Every role may choose such a name, so sessions of other logins do not count.

    Raises:
        ServerBusy: the limit is reached. Nothing was changed; the caller closes the session.
    """
    [(others,)] = session.rows(
        "SELECT count(DISTINCT application_name) FROM pg_stat_activity"
        " WHERE usename = session_user AND application_name <> %s AND starts_with(application_name, %s)",
        (name, name[: name.rfind("/") + 1]),
    )
    if others >= limit:
        raise ServerBusy(
            f"{others} runs are active on this server, and the stage's `rollout.per_server`"
            f" (SERVER_CONCURRENCY) allows {limit}"
        )
