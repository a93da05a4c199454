"""Detects a pooler between the function and the server, and refuses one that shares a server session among clients.

In transaction mode a pooler such as PgBouncer runs each transaction of a client on whichever server session is free. A
session-level setting would then reach the application, and the migration lock would stay behind on a session of the
pool. In session mode, and behind RDS Proxy once it has pinned the session, a client keeps one server session.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from lambda_migrate.database.session import rows_of
from lambda_migrate.invocation.errors import DatabaseUnavailable, PoolerRefused

if TYPE_CHECKING:
    from lambda_migrate.database.session import Connection
    from lambda_migrate.invocation.deadline import Deadline

# Under the application's traffic, two clients may by chance get different server sessions several times.
_LOOKS = 40


def check_pinned(first: Connection, second: Connection, name: str, deadline: Deadline) -> int:
    """Return the backend pid of the first of two open connections, if each has a server session of its own.

    Nothing is set that other clients could see.

    The backend pid reveals a pooler: it sends its clients a pid of its own making at connect time, which differs from
    ``pg_backend_pid()``.

    In transaction mode the two connections get the same server session in turn, because PgBouncer hands out the one
    used last, or one connection gets several. ``name`` is their application_name: PgBouncer keeps it for each client,
    and RDS Proxy pins a session when it sees the first SET.

    Raises:
        PoolerRefused: the pooler is in transaction or statement mode.
        DatabaseUnavailable: the pooler gave the second connection no server session in time.
    """
    seen: tuple[set[int], set[int]] = (set(), set())
    try:
        for connection in (first, second):
            rows_of(connection, deadline, "SELECT pg_catalog.set_config('application_name', %s, false)", (name,))
        for _ in range(_LOOKS):
            # In no regular order, which a pool that hands out its sessions in turn could match.
            which = random.randrange(2)  # noqa: S311 - no secret
            seen[which].add(backend_pid((first, second)[which], deadline))
        for connection, pids in zip((first, second), seen, strict=True):
            pids.add(backend_pid(connection, deadline))
    except DatabaseUnavailable as error:
        raise DatabaseUnavailable(
            f"{error}: the connection goes through a pooler, which must give two server sessions to each run;"
            " raise its pool size"
        ) from None
    if len(seen[0]) > 1 or len(seen[1]) > 1 or seen[0] & seen[1]:
        raise PoolerRefused(
            f"{first.info.host}:{first.info.port} is a pooler in transaction mode, which a migration must not pass"
            " through: let the stage's `database.host` and `database.port` (DB_HOST and DB_PORT) lead to the server"
            " itself, or to a pool in session mode; nothing was set or run"
        )
    return next(iter(seen[0]))


def backend_pid(connection: Connection, deadline: Deadline) -> int:
    """Return the pid of the server session that ran this statement."""
    pid: int = rows_of(connection, deadline, "SELECT pg_catalog.pg_backend_pid()", ())[0][0]
    return pid
