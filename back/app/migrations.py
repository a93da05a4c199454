"""The database's revision, the code's revision, and the upgrade from one to the other."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, column, event, func, select, table

from app import migration_lock
from app.revising import BACK

if TYPE_CHECKING:
    from collections.abc import Callable

# How often a statement is cancelled until the upgrade ends, and for how long: Docker kills a
# container 10 s after it has sent SIGTERM.
_CANCEL_EVERY_S = 0.2
_CANCELS = 25


def code_head() -> str:
    """Return the revision that this code needs; several heads are joined by a comma.

    Read anew each time: in development the tree changes under a running server.
    """
    return ",".join(sorted(ScriptDirectory(str(BACK / "alembic")).get_heads()))


def database_revision(engine: Engine) -> str | None:
    """Return the revision that the database is at, None before the first."""
    with engine.connect() as connection:
        # Alembic's own way to ask writes two lines into the log each time.
        if connection.scalar(select(func.to_regclass("alembic_version"))) is None:
            return None
        found = connection.scalars(
            select(column("version_num")).select_from(table("alembic_version"))
        )
        return ",".join(sorted(found)) or None


class Upgrade:
    """An upgrade to head in a thread, which can be stopped while a statement runs."""

    def __init__(self, engine: Engine, at_end: Callable[[BaseException | None], None]) -> None:
        """`at_end` gets the error that ended the upgrade, or None."""
        self.began = self.succeeded = False
        self._engine = engine
        self._at_end = at_end
        self._connections: WeakSet[Any] = WeakSet()
        # The process may end without it: SIGTERM must not wait for a revision.
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread. Of several processes one upgrades, and the others wait for it."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Return whether the thread waits for the lock or upgrades."""
        return self._thread.is_alive()

    def stop(self) -> bool:
        """Cancel what runs in the database, and return whether the thread has ended."""
        for _ in range(_CANCELS if self.began else 0):
            for connection in [*self._connections]:
                if not connection.closed:
                    connection.cancel()
            self._thread.join(_CANCEL_EVERY_S)
            if not self._thread.is_alive():
                return True
        return False

    def _run(self) -> None:
        # SystemExit in a revision included: nothing may leave a server that waits.
        try:
            with migration_lock.held(self._engine):
                self.began = True
                # `env.py` makes its own engine.
                event.listen(Engine, "connect", self._remember)
                command.upgrade(Config(str(BACK / "alembic.ini")), "head")
        except BaseException as error:
            self._at_end(error)
        else:
            self.succeeded = True
            self._at_end(None)
        finally:
            if event.contains(Engine, "connect", self._remember):
                event.remove(Engine, "connect", self._remember)

    def _remember(self, connection: Any, _: object) -> None:
        self._connections.add(connection)
