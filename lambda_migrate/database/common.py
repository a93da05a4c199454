"""Facts about a server that the function's process and the process of env.py share. It imports no library."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The first half of the key of every migration lock, "MIGR" in ASCII. `migration_lock.lock_keys` returns the second
# halves.
LOCK_CLASS = 0x4D494752
# env.py's own session holds a shared lock with this first half, "MIGS" in ASCII. A killed run loses its migration lock
# at once, while its revision's session may be about to commit. The next run finds that session by this lock, and ends
# it.
WORKER_LOCK_CLASS = 0x4D494753

# The first versions with idle_session_timeout and with client_connection_check_interval.
HAS_IDLE_TIMEOUT = HAS_CONNECTION_CHECK = 14

# The server ends a session in a transaction that runs no statement for this long, even if the network vanished without
# a FIN. It is longer than the timeout of a session that holds the lock, because a revision may compute between two
# statements.
IDLE_IN_TRANSACTION_TIMEOUT_S = 55
# The interval in which the server checks, during a statement, that its client still exists (PostgreSQL 14 and later).
CONNECTION_CHECK_MS = 500


# The start of the server, which differs between servers. A session's TimeZone and DateStyle do not change this text.
STARTED = "to_char(timezone('UTC', pg_postmaster_start_time()), 'YYYYMMDDHH24MISSUS')"


@dataclass(frozen=True)
class Server:
    """The server and database of a session. Two sessions on the same database have equal values."""

    version: int
    started: str
    database: str


WRONG_PASSWORD = r"password authentication failed|PAM authentication failed|no password supplied|SCRAM"  # noqa: S105


def is_authentication_failure(message: str) -> bool:
    """Return whether a message of libpq, asyncpg or the server means that the password is wrong."""
    return re.search(WRONG_PASSWORD, message) is not None
