"""Requests to an env.py with several version tables, which it reaches one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_migrate.env_py.messages import MAY_PASS
from lambda_migrate.invocation.errors import (
    DowngradeRefused,
    InvalidRequest,
    TargetMismatch,
    UnknownRevision,
    not_confirmed,
)
from lambda_migrate.invocation.request import GUARDED_ACTIONS
from lambda_migrate.invocation.result import joined
from lambda_migrate.revisions import manifest
from lambda_migrate.run.inspection import inspect_tables
from lambda_migrate.run.outcome import TryAgain, error_of

if TYPE_CHECKING:
    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.run.run_record import RunRecord


def concerns_all_tables(invocation: Invocation) -> bool:
    """Return whether a version table, or a database, that env.py reaches later may refuse the request."""
    request, packaged = invocation.request, manifest.for_settings(invocation.settings)
    loops = packaged is not None and packaged.loops
    return request.action in GUARDED_ACTIONS or (request.action == "upgrade" and (loops or request.revision[0] == "+"))


def check_all_tables(invocation: Invocation, record: RunRecord, session: Session) -> None:
    """Refuse a request that a version table would refuse, before the first one is changed, if env.py has several.

    A single one is checked by the process that changes it.

    Raises:
        DowngradeRefused: ``confirm`` is not where they are.
        InvalidRequest: the wanted revision cannot be reached from where one of them is.
        TargetMismatch: env.py connects to another database, even if it connected to the right one first.
        UnknownRevision: one of them is at a revision that the package does not have.
        TryAgain: they could not be read, for a reason that may pass.
    """
    packaged = manifest.for_settings(invocation.settings)
    if packaged is not None and packaged.version_table is not None:
        return  # the builder has seen that env.py has one only
    request = invocation.request
    looked, end = inspect_tables(invocation, record, session, trial=request.action)
    failure = end.failure
    if failure is not None and (failure.kind in MAY_PASS or failure.error_type == TargetMismatch.__name__):
        error = error_of(failure, where="", any_ran=False, several=False, holders=end.blockers, changes=False)
        if isinstance(error, TargetMismatch):
            raise error
        raise error if isinstance(error, TryAgain) else TryAgain(error)
    refused = failure is not None and failure.error_type == InvalidRequest.__name__
    if not end.ended or (failure and not refused) or len({began.table for began in looked}) < 2:  # noqa: PLR2004 - several
        return
    record.found(looked)
    if failure is not None:
        raise InvalidRequest(f"{looked[-1].table}: {failure.message}; {record.state.where()}")
    ahead = [began for began in looked if began.ahead]
    allowed = request.action == "stamp" or (request.action == "upgrade" and invocation.settings.newer_database_ok)
    if ahead and not allowed:
        raise UnknownRevision(
            f"{ahead[0].table} is at {joined(ahead[0].heads)}, which this package does not have: deploy the newer"
            f" backend; {record.state.where()}",
            revision=joined(ahead[0].heads),
        )
    current = joined(record.state.revisions)
    if request.action in GUARDED_ACTIONS and request.confirm != current:
        raise DowngradeRefused(f"{not_confirmed(request.confirm, current)}; {record.state.where()}")


def may_have_more_tables(invocation: Invocation, record: RunRecord, session: Session) -> bool:
    """Return whether env.py probably migrates several schemas, and may not have reached all of them."""
    elsewhere = {table for table in record.located() if table.schema != session.default_schema}
    return invocation.schema is None and bool(record.state.tables or elsewhere)
