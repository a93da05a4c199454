"""The only module that knows Lambda: an event comes in, a result or a named error goes out."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from lambda_migrate.actions.perform import perform, settings_for
from lambda_migrate.database.secret import CredentialStore
from lambda_migrate.database.session import application_name
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.errors import MigrationError
from lambda_migrate.invocation.invocation import Invocation, Progress
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.request import ACTIONS, parse_request
from lambda_migrate.invocation.result import Result, joined
from lambda_migrate.invocation.settings import Settings, read_settings
from lambda_migrate.invocation.telemetry import log, logger, measure

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# Read once in the life of a sandbox, and again when the server refuses what it holds.
_store = CredentialStore()


@logger.inject_lambda_context(clear_state=True)
def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Run one action and answer with its result.

    Raises:
        MigrationError: one of the contract's section 7. Lambda reports its class name as ``errorType``.
    """
    started = time.monotonic()
    progress = Progress("unknown")
    settings: Settings | None = None
    try:
        settings = read_settings()
        logger.append_keys(stage=settings.stage)
        logger.setLevel(settings.log_level)
        request = parse_request(event)
        progress.action = request.action
        logger.append_keys(action=request.action)
        log(
            "migration.started",
            f"{request.action} to {request.revision}"
            if "revision" in ACTIONS.get(request.action, ())
            else request.action,
            database=request.target.database,
            schema=request.target.schema,
        )
        invocation = Invocation(
            request=request,
            settings=settings_for(request.target, settings),
            store=_store,
            deadline=Deadline.after(
                context.get_remaining_time_in_millis() / 1000, reserve=settings.deadline_reserve_ms / 1000
            ),
            name=application_name(context.function_name, context.aws_request_id),
        )
        result = perform(invocation, progress)
    except Exception as error:  # noqa: BLE001 - handled once, here, whatever it is
        named = _named(error)
        duration_ms = round((time.monotonic() - started) * 1000)
        log(
            "migration.failed",
            str(named),
            level=logging.ERROR,
            error_type=type(named).__name__,
            database=progress.database or None,
            duration_ms=duration_ms,
            **{"applied": progress.applied_ids(), **named.facts},
        )
        _measure(settings, progress, duration_ms, failed=True)
        # The message is all that a caller needs; the chain below it may hold what nobody should see.
        raise named from None
    duration_ms = round((time.monotonic() - started) * 1000)
    _log_end(result, duration_ms)
    _measure(settings, progress, duration_ms, failed=False)
    return result.as_json(duration_ms=duration_ms, request_id=context.aws_request_id)


def _named(error: Exception) -> MigrationError:
    """One of the contract's errors, without secrets; whatever else reaches the handler is a fault of ours."""
    if isinstance(error, MigrationError):
        return type(error)(one_line(error), **error.facts)
    said = one_line(error)
    return MigrationError(f"unexpected {type(error).__name__}: {said} (a fault of the migration function itself)")


def _log_end(result: Result, duration_ms: int) -> None:
    fields: dict[str, Any] = {
        "database": result.database or None,
        "schema": result.schema,
        "revision": joined(result.revisions),
        "pending": [revision.revision for revision in result.pending],
        "duration_ms": duration_ms,
    }
    at = f"the database is at {joined(result.revisions) or 'base'}"
    if result.ahead:
        message = f"{at}, newer than this package; nothing was changed"
        log("migration.ahead", message, level=logging.WARNING, **fields)
    elif "outcome" in result.extra and not result.database:
        log("migration.finished", f"{result.action}: {result.extra['outcome']}", **fields)
    elif result.action == "upgrade" and not result.applied:
        log("migration.noop", f"nothing to apply: {at}", applied=[], **fields)
    elif result.action in {"history", "doctor", "targets", "report"}:
        log("migration.finished", f"{result.action} done", **fields)
    else:
        ids = [applied.revision.revision for applied in result.applied]
        log("migration.finished", f"{result.action}: {at}; {len(ids)} applied", applied=ids, **fields)


def _measure(settings: Settings | None, progress: Progress, duration_ms: int, *, failed: bool) -> None:
    # Without its stage a metric has no dimension to stand in.
    if settings is not None:
        measure(
            settings.stage,
            applied=len(progress.applied_ids()),
            duration_ms=duration_ms,
            failed=failed,
            lock_wait_ms=progress.lock_wait_ms,
            lock_retries=progress.retries,
            outcome=progress.outcome,
        )
