"""`python -m app`: migrate the database to head, then serve.

The address answers from the start, 503 until the database is there, so that whoever watches can
tell a migration at work from a dead server. When the migration fails, the process ends with 1.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from threading import Thread

from sqlalchemy import create_engine, pool

from app import health, migrations
from app.revising import reason

# What others see in pg_stat_activity when they wait for this one, and how long it tries to connect.
_CONNECT = {"application_name": "back", "connect_timeout": 5}


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    # The first process of a container has no default for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    url, port = os.environ.get("DATABASE_URL"), int(os.environ.get("PORT", "8000"))
    if not url:
        print(
            "FAILED: DATABASE_URL is not set; it names the database to migrate and to use",
            file=sys.stderr,
        )
        return 1
    engine = create_engine(url, poolclass=pool.NullPool, connect_args=_CONNECT)
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            migrations.upgrade_to_head(engine)
            print(
                f"The database is at {migrations.code_head()}; serving on port {port}.", flush=True
            )
        except (
            BaseException
        ) as error:  # SystemExit in a revision included: nothing may leave a server that waits
            failures.append(error)
            server.shutdown()

    with health.server(engine, port) as server:
        # Not in the main thread: there a signal would wait for the end of a statement.
        Thread(target=migrate, daemon=True).start()
        server.serve_forever()
    [error] = failures
    traceback.print_exception(error, file=sys.stderr)
    print(f"FAILED: the migration failed, nothing is served: {reason(error)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
