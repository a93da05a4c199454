"""The actions that change a database: upgrade, downgrade and stamp."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import DowngradeRefused, keeping
from lambda_migrate.invocation.request import Request
from lambda_migrate.invocation.result import Result
from lambda_migrate.run import start

if TYPE_CHECKING:
    from lambda_migrate.invocation.invocation import Invocation


def upgrade(invocation: Invocation) -> Result:
    """Upgrade the database and return what was applied."""
    return Result("upgrade", invocation.settings.stage, invocation.schema, start.migrate(invocation))


def downgrade(invocation: Invocation) -> Result:
    """Downgrade the database, if that is allowed, and return what was reverted."""
    _check_allowed(invocation)
    state = start.migrate(invocation)
    reverted = tuple(done.revision for done in reversed(state.done))
    state = replace(state, pending=(*reverted, *state.pending))
    return Result("downgrade", invocation.settings.stage, invocation.schema, state)


def stamp(invocation: Invocation) -> Result:
    """Write the version table, if that is allowed, and run no revision."""
    _check_allowed(invocation)
    state = start.migrate(invocation)
    # The pending revisions depend on the stamped one, so read the state again.
    look = replace(invocation, request=Request(action="status", target=invocation.request.target))
    with keeping(state):
        now = start.inspect(look)
    state = replace(state, revisions=now.revisions, pending=now.pending)
    return Result("stamp", invocation.settings.stage, invocation.schema, state)


def _check_allowed(invocation: Invocation) -> None:
    if not invocation.settings.allow_downgrade:
        raise DowngradeRefused(
            f"{invocation.request.action} is not allowed on stage {invocation.settings.stage}; set ALLOW_DOWNGRADE=true"
            " on the function if it is meant"
        )
