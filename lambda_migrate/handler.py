"""The entry point, and the only module for Lambda: it turns an event into a result or an error of the contract."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.actions.answers import sendable
from lambda_migrate.actions.perform import perform
from lambda_migrate.invocation.allowed import check_target
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.errors import MigrationError, Unexpected
from lambda_migrate.invocation.invocation import Invocation, application_name
from lambda_migrate.invocation.redaction import conceal_for_good, one_line
from lambda_migrate.invocation.request import ACTIONS, Request, parse_request
from lambda_migrate.invocation.result import Result, RunState, joined
from lambda_migrate.invocation.settings import PACKAGE_ROOT, Settings, read_settings, secrets_of, settings_for
from lambda_migrate.invocation.telemetry import log, logger, measure, set_level
from lambda_migrate.revisions.manifest import defaults

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


# CloudFormation takes 4,096 bytes from a custom resource, and the CDK's resource for `migrate_on_deploy` adds up to
# 1,000 to the message.
_LONGEST_MESSAGE = 3000


@logger.inject_lambda_context(clear_state=True)
def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Run one action and return its result.

    Raises:
        MigrationError: one of docs/contract.md#errors. Lambda reports its class name as ``errorType``.
    """
    started = time.monotonic()
    settings: Settings | None = None
    request: Request | None = None
    try:
        settings = read_settings(defaults=defaults(PACKAGE_ROOT))
        conceal_for_good(secrets_of(settings))
        logger.append_keys(stage=settings.stage)
        set_level(settings.log_level)
        request = parse_request(event)
        _log_start(request)
        result = perform(_invocation(request, settings, context))
        if request.snapshot:
            result = replace(result, extra={**result.extra, "snapshot": request.snapshot})
        duration_ms = round((time.monotonic() - started) * 1000)
        answer = sendable(result.as_json(duration_ms=duration_ms, request_id=context.aws_request_id))
        _log_end(result, duration_ms)
    except Exception as error:  # noqa: BLE001 - the only handler of errors
        contract_error = _contract_error(error)
        duration_ms = round((time.monotonic() - started) * 1000)
        state = contract_error.state or RunState()
        # A downgrade and a stamp apply nothing.
        applied = state.done_ids() if request is not None and request.action == "upgrade" else []
        log(
            "migration.failed",
            str(contract_error),
            level=logging.ERROR,
            error_type=type(contract_error).__name__,
            database=state.database or None,
            duration_ms=duration_ms,
            **{
                "applied": applied,
                "pending": [revision.revision for revision in state.pending] if state.previous is not None else None,
                **contract_error.facts,
            },
        )
        # Without its stage a metric has no dimension.
        if settings is not None:
            measure(settings.stage, state, applied=len(applied), duration_ms=duration_ms, failed=True)
        # A caller needs only the message, and the chained exceptions may hold secrets.
        raise contract_error from None
    measure(
        settings.stage,
        result.state,
        applied=len(result.applied),
        duration_ms=duration_ms,
        failed=False,
        outcome=result.counted_as,
    )
    return answer


def _invocation(request: Request, settings: Settings, context: LambdaContext) -> Invocation:
    check_target(request.target, settings.targets_allowed, settings.secret_id)
    remaining_s = context.get_remaining_time_in_millis() / 1000
    return Invocation(
        request=request,
        settings=settings_for(request.target, settings),
        deadline=Deadline.after(remaining_s, reserve=settings.deadline_reserve_ms / 1000),
        name=application_name(context.function_name, context.aws_request_id),
    )


def _contract_error(error: Exception) -> MigrationError:
    """Return the error as one of the contract, without secrets. Any other exception is a bug of the function."""
    if isinstance(error, MigrationError):
        redacted = type(error)(_within_bytes(one_line(error)), **error.facts)
        redacted.state = error.state
        return redacted
    cause, state = (error.error, error.state) if isinstance(error, Unexpected) else (error, None)
    text = _within_bytes(one_line(cause))
    bug = MigrationError(f"unexpected {type(cause).__name__}: {text} (a fault of the migration function itself)")
    bug.state = state
    return bug


def _within_bytes(message: str) -> str:
    """Return a message whose JSON has at most `_LONGEST_MESSAGE` bytes of UTF-8."""
    whole = message
    # A half of a surrogate pair cannot be encoded.
    while len(json.dumps(message, ensure_ascii=False).encode(errors="replace")) > _LONGEST_MESSAGE:
        whole = whole[: len(whole) * 9 // 10]
        message = f"{whole}..."
    return message


def _log_start(request: Request) -> None:
    logger.append_keys(action=request.action, **({"snapshot": request.snapshot} if request.snapshot else {}))
    has_revision = "revision" in ACTIONS.get(request.action, ())
    log(
        "migration.started",
        f"{request.action} to {request.revision}" if has_revision else request.action,
        database=request.target.database,
        schema=request.target.schema,
    )


def _log_end(result: Result, duration_ms: int) -> None:
    state = result.state
    fields: dict[str, Any] = {
        "database": state.database or None,
        "schema": result.schema,
        "revision": joined(state.revisions),
        "pending": [revision.revision for revision in state.pending],
        "duration_ms": duration_ms,
    }
    at = state.where()
    if state.ahead and not result.has_applied:
        message = f"{at}, newer than this package; nothing was changed"
        log("migration.ahead", message, level=logging.WARNING, **fields)
    elif "outcome" in result.extra and not state.database:
        log("migration.finished", f"{result.action}: {result.extra['outcome']}", **fields)
    elif result.action == "upgrade" and not result.has_applied:
        log("migration.noop", f"nothing to apply: {at}", applied=[], **fields)
    elif result.action in {"history", "doctor", "targets", "report", "dangers"}:
        log("migration.finished", f"{result.action} done", **fields)
    else:
        ids = [applied.revision.revision for applied in result.applied]
        log("migration.finished", f"{result.action}: {at}; {len(ids)} applied", applied=ids, **fields)
