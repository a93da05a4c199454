"""The actions that change a database: upgrade, downgrade and stamp."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import ALLOW_FIRST, DowngradeRefused, keeping
from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.request import Request
from lambda_migrate.invocation.result import Result
from lambda_migrate.run import start

if TYPE_CHECKING:
    from lambda_migrate.invocation.invocation import Invocation


def upgrade(invocation: Invocation) -> Result:
    """Upgrade the database and return what was applied.

    Raises:
        PreflightFailed: the database's rows forbid it, and the preflight is enforced.
    """
    state = start.migrate(invocation, preflight=True)
    return Result("upgrade", invocation.settings.stage, invocation.schema, state)


def downgrade(invocation: Invocation) -> Result:
    """Downgrade the database, if that is allowed, and return what was reverted."""
    _check_allowed(invocation)
    state = start.migrate(invocation)
    reverted = tuple(done.revision for done in reversed(state.done))
    order = {each.table: number for number, each in enumerate(state.tables)}
    pending = sorted((*reverted, *state.pending), key=lambda revision: order[revision.table] if revision.table else 0)
    tables = tuple(
        replace(each, pending=tuple(revision for revision in pending if revision.table == each.table))
        for each in state.tables
    )
    state = replace(state, pending=tuple(pending), tables=tables)
    return Result("downgrade", invocation.settings.stage, invocation.schema, state)


def stamp(invocation: Invocation) -> Result:
    """Write the version table and run no revision, if that is allowed or the schema was verified.

    Raises:
        DriftDetected: the request verifies, and the database does not have the revision's schema.
    """
    if invocation.request.verify:
        verified = {"verified": load("lambda_migrate.run.adoption").verify(invocation)}
    else:
        _check_allowed(invocation)
        verified = {}
    state = start.migrate(invocation)
    # The pending revisions depend on the stamped one, so read the state again.
    look = replace(invocation, request=Request(action="status", target=invocation.request.target))
    with keeping(state):
        now = start.inspect(look)
    before = {each.table: each.previous for each in state.tables}
    tables = tuple(replace(each, previous=before.get(each.table, each.previous)) for each in now.tables)
    state = replace(state, revisions=now.revisions, pending=now.pending, tables=tables)
    return Result("stamp", invocation.settings.stage, invocation.schema, state, extra=verified)


def _check_allowed(invocation: Invocation) -> None:
    if not invocation.settings.allow_downgrade:
        raise DowngradeRefused(
            f"{invocation.request.action} is not allowed on stage {invocation.settings.stage}; {ALLOW_FIRST}"
        )
