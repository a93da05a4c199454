"""`python -m app`: migrate the database to head, then serve.

The address answers from the start, with 503 until the database is ready, so that a monitor can
distinguish a running migration from a dead server. After a failed migration, the process exits
with 1. After SIGTERM during the migration, it cancels the statement and exits with 143.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, pool

from app import health, migrations
from app.revising import reason

if TYPE_CHECKING:
    from sqlalchemy import Engine

# The name of this session in pg_stat_activity, and the time limit for connecting.
_CONNECT = {"application_name": "back", "connect_timeout": 5}
# A shell's exit code of a process that SIGTERM ended.
_TERMINATED = 128 + signal.SIGTERM


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    # The first process of a container has no default for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    url, port = os.environ.get("DATABASE_URL"), int(os.environ.get("PORT", "8000"))
    if not url:
        print(
            "FAILED: DATABASE_URL is not set; it names the database to migrate and to use",
            file=sys.stderr,
        )
        return 1
    engine = create_engine(url, poolclass=pool.NullPool, connect_args=_CONNECT)
    failures: list[BaseException] = []

    def at_end(error: BaseException | None) -> None:
        if error is None:
            print(
                f"The database is at {migrations.code_head()}; serving on port {port}.", flush=True
            )
        else:
            failures.append(error)
            server.shutdown()

    with health.server(engine, port) as server:
        # In another thread: in this one a signal would wait for the end of a statement.
        upgrade = migrations.Upgrade(engine, at_end)
        upgrade.start()
        try:
            server.serve_forever()
        except SystemExit:  # by SIGTERM
            if not upgrade.is_running:
                return 0
            if not upgrade.began:
                print("STOPPED by SIGTERM, before it migrated anything", file=sys.stderr)
                return 0
            stopped = _stop(upgrade, engine)
            if upgrade.succeeded:
                return 0
            print(stopped, file=sys.stderr)
            return _TERMINATED
    [error] = failures
    traceback.print_exception(error, file=sys.stderr)
    print(
        f"FAILED: the migration failed, nothing is served: {reason(error)};"
        " correct it and start again: docker compose up -d",
        file=sys.stderr,
    )
    return 1


def _stop(upgrade: migrations.Upgrade, engine: Engine) -> str:
    """Stop an upgrade at work, and return where it came to."""
    if upgrade.stop():
        what = "its statement was cancelled"
    else:
        what = "its revision did not end and is rolled back with this process"
    try:
        place = f"the database is at {migrations.database_revision(engine) or 'base'}"
    except Exception as error:  # the server may be stopping, too
        place = f"the database does not answer: {reason(error)}"
    return (
        f"STOPPED by SIGTERM, in the middle of a migration: {what}; {place};"
        " the next start goes on from there"
    )


if __name__ == "__main__":
    sys.exit(main())
