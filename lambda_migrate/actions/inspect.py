"""The actions that read a database and change nothing: status, plan and check."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.actions.answers import limited
from lambda_migrate.database.migration_lock import lock_holder
from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.session import invalid_indexes
from lambda_migrate.env_py.messages import NO_MODELS
from lambda_migrate.invocation.errors import ConfigurationError, DriftDetected, keeping
from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.request import Request
from lambda_migrate.invocation.result import Result, joined, some
from lambda_migrate.revisions import manifest, reviewed
from lambda_migrate.run import start

if TYPE_CHECKING:
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import RunState


# Enough for a message.
_DIFFERENCES = 20


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
        entries, holdups = load("lambda_migrate.run.preflight").of_plan(invocation, state.entries.get("plan", ()))
    extra = {**limited("plan", entries), **({"holdups": holdups} if holdups else {})}
    return Result("plan", invocation.settings.stage, invocation.schema, state, extra=extra)


def check(invocation: Invocation) -> Result:
    """Compare the database with its recorded schema and with the models, and return its state.

    Raises:
        DriftDetected: it differs.
    """
    tree = manifest.tree_of(invocation.settings)
    if tree is None or not reviewed.measured(tree):
        return Result("check", invocation.settings.stage, invocation.schema, start.inspect(invocation))
    state = start.inspect(replace(invocation, request=Request(action="status", target=invocation.request.target)))
    compared = _compared(invocation, state)
    try:
        state = start.inspect(invocation)
    except ConfigurationError as error:
        # Without models, the recorded schema decides.
        if NO_MODELS not in str(error) or compared["schema"] == "unknown":
            raise
    return Result("check", invocation.settings.stage, invocation.schema, state, extra=compared)


def _compared(invocation: Invocation, state: RunState) -> dict[str, Any]:
    """Return the comparison of the database's schema with the recorded one.

    Raises:
        DriftDetected: it differs.
    """
    with keeping(state):
        found = load("lambda_migrate.run.drift").of_state(invocation, state)
        if found.schema == "different":
            raise DriftDetected(
                f"the database differs from the tree at {joined(state.revisions) or 'base'}:"
                f" {some(found.differences, _DIFFERENCES)}",
                differences=list(found.differences),
            )
    fields: dict[str, Any] = found.as_json()
    return fields
