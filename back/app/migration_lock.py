"""The lock of programs that migrate the database: the starting server and the alembic command."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from alembic import command
from sqlalchemy import func, select

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from alembic.config import Config
    from sqlalchemy import Engine

# The advisory lock of whoever migrates the database: "MIGR" in ASCII, 0 for the default schema.
# Another program that migrates it takes turns with this one if it takes the same lock.
LOCK_KEY = (0x4D494752, 0)
_POLL_S = 0.5

# The commands that change the database, or compare it with the models.
_LOCKED = (command.upgrade, command.downgrade, command.stamp, command.check)


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """Hold the migration lock; wait while another process holds it.

    The lock is polled for: a session that waits inside `pg_advisory_lock` has a snapshot, which
    CREATE INDEX CONCURRENTLY would wait for. It ends with its session, however that ends.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        waiting = False
        while not session.scalar(select(func.pg_try_advisory_lock(*LOCK_KEY))):
            if not waiting:
                print(
                    "Another process is migrating the database; waiting for it.",
                    file=sys.stderr,
                    flush=True,
                )
                waiting = True
            time.sleep(_POLL_S)
        yield


def held_by_command(config: Config, engine: Engine) -> AbstractContextManager[None]:
    """Hold the lock if the alembic command runs `env.py`.

    A program that runs `env.py` takes the lock itself, and shows that by what it puts into
    `config.attributes`.
    """
    options = config.cmd_opts
    if options is None or config.attributes:
        return nullcontext()
    called = getattr(options, "cmd", (None,))[0]
    autogenerates = called is command.revision and options.autogenerate
    return held(engine) if called in _LOCKED or autogenerates else nullcontext()
