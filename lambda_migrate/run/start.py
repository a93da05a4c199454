"""Starts a run. If there is nothing to do, the run ends here and does not load Alembic and SQLAlchemy."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from lambda_migrate.database.open_session import open_session
from lambda_migrate.invocation.loading import load
from lambda_migrate.run import up_to_date

if TYPE_CHECKING:
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import RunState


def migrate(invocation: Invocation, *, preflight: bool = False) -> RunState:
    """Migrate as requested, under the migration lock, and return what was done.

    With ``preflight``, the pending revisions are compared with the database before anything is begun.

    Raises:
        MigrationError: one of docs/contract.md#errors, with its ``state``; the database is at a revision boundary.
    """
    return _run(invocation, changes=True, preflight=preflight)


def inspect(invocation: Invocation) -> RunState:
    """Return where the database is, without a lock and without a change.

    Raises:
        MigrationError: as for `migrate`.
    """
    return _run(invocation, changes=False)


def _run(invocation: Invocation, *, changes: bool, preflight: bool = False) -> RunState:
    with ExitStack() as opened:
        packaged = up_to_date.manifest_of(invocation)
        session = open_session(invocation, packaged.version_table if packaged is not None else None)
        opened.callback(session.close)
        state = up_to_date.state_at_heads(packaged, session, invocation.schema)
        if state is None:
            # `attempts` closes the session, maybe long before its own end.
            opened.pop_all()
            attempts = load("lambda_migrate.run.attempts")
            state = (
                attempts.migrate(invocation, session, preflight=preflight)
                if changes
                else attempts.inspect(invocation, session)
            )
        return state
