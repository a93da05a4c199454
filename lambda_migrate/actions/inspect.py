"""The actions that read a database and change nothing: status, plan and check."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from lambda_migrate.actions.answers import limited
from lambda_migrate.database.migration_lock import lock_holder
from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.session import invalid_indexes
from lambda_migrate.invocation.errors import keeping
from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.result import Result
from lambda_migrate.run import start

if TYPE_CHECKING:
    from lambda_migrate.invocation.invocation import Invocation


def status(invocation: Invocation) -> Result:
    """Return the state of the database, the holder of the migration lock, and the invalid indexes."""
    state = start.inspect(invocation)
    with keeping(state), closing(open_session(invocation)) as session:
        holder = lock_holder(session, invocation.schema)
        found = {
            "lock": holder and {"pid": holder.pid, "holder": holder.application_name, "since": holder.since},
            **limited("invalid_indexes", invalid_indexes(session)),
        }
    return Result("status", invocation.settings.stage, invocation.schema, state, extra=found)


def plan(invocation: Invocation) -> Result:
    """Return the pending revisions with the SQL of each."""
    state = start.inspect(invocation)
    with keeping(state):
        entries = load("lambda_migrate.run.preflight").of_plan(invocation, state.entries.get("plan", ()))
    extra = limited("plan", entries)
    return Result("plan", invocation.settings.stage, invocation.schema, state, extra=extra)


def check(invocation: Invocation) -> Result:
    """Compare the models with the database, and return its state.

    Raises:
        DriftDetected: they differ.
    """
    return Result("check", invocation.settings.stage, invocation.schema, start.inspect(invocation))
