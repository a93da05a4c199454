"""One target of a rollout: migrate it, record its outcome, and halt the rollout after too many failures.

`infra.state_machine` builds the state machine that invokes the function with the field ``rollout``. S3, and not the
state machine, holds whether a rollout is halted and the outcome of each target: when a Distributed Map passes its
failure threshold, AWS stops its children and discards their results.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.server_limit import ServerBusy
from lambda_migrate.fleet.bucket import bucket_of
from lambda_migrate.fleet.folder import (
    BASE,
    BEHIND,
    CURRENT,
    DEPLOYED,
    FAILED,
    FAILURES,
    LEFT,
    MIGRATED,
    Folder,
    SpoiledError,
)
from lambda_migrate.fleet.outcome_reader import last_of_each, wave_of
from lambda_migrate.invocation.errors import ConfigurationError, InvalidRequest, MigrationLocked, keeping
from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.request import DEFAULT_REVISION, Target
from lambda_migrate.invocation.result import Result, RunState, joined
from lambda_migrate.invocation.telemetry import log
from lambda_migrate.invocation.wording import counted
from lambda_migrate.revisions.manifest import for_settings, package_digest, read_graph, with_ancestors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.revisions.manifest import PackagedRevision

_RETRY_AFTER_S = 5
_LONGEST_ERROR = 200
# Give up after this many "server busy" answers; each uses 9 of the 25,000 events that one execution may have.
_LOOKS = 2000


def take_part(invocation: Invocation, action: Callable[[Invocation], Result]) -> Result:
    """Perform an action on one target of a rollout, record the outcome, and return a short answer with `outcome`.

    Two outcomes are not recorded: ``left`` if the rollout is halted, ``busy`` if as many runs as allowed are active on
    the server. A busy answer has the seconds to wait in ``wait_s`` and the number of such answers so far in ``looks``.
    A failure is not recorded here either: the state machine may retry, and sends `record` when it gives up.

    Raises:
        MigrationError: the action failed.
        MigrationLocked: also after too many busy answers.
    """
    folder, rollout = folder_of(invocation), rollout_fields(invocation)
    if folder.is_halted() or _is_another_package(invocation, folder):
        return answer(invocation, {"outcome": LEFT})
    if Target(**rollout["item"]["target"]) != invocation.request.target:
        raise InvalidRequest("target must be rollout.item.target: the outcome is recorded for that one")
    if problem := rollout["item"].get("problem"):
        raise ConfigurationError(str(problem))
    before = invocation.deadline.left()
    try:
        taken_back = invocation.request.action == "downgrade"
        result = _take_back(invocation, action) if taken_back else action(invocation)
        state = result.state
        # Revisions that earlier runs of this rollout have applied or reverted count, too.
        is_done = result.has_applied or state.done or rollout["runs"]
        outcome = MIGRATED if is_done else BEHIND if state.pending else CURRENT
        if taken_back and outcome == BEHIND:
            outcome = CURRENT  # the target's goal
        if invocation.request.action == "status":
            load("lambda_migrate.fleet.plan_results").record(invocation, folder, rollout["item"], state, outcome)
    except ServerBusy as busy:
        return _busy(invocation, busy)
    duration_ms = round((before - invocation.deadline.left()) * 1000)
    with keeping(state):
        folder.put_outcome(rollout["item"], outcome, duration_ms=duration_ms, revision=joined(state.revisions))
    # A plan changes nothing, so the metrics do not count it.
    counted_as = outcome if invocation.request.action == "upgrade" else None
    return replace(result, located=False, extra={"outcome": outcome}, counted_as=counted_as)


def _take_back(invocation: Invocation, action: Callable[[Invocation], Result]) -> Result:
    """Perform a downgrade, unless the database is already there, for instance after an earlier rollout.

    ``confirm`` is the revision to which the reverted rollout migrated the database. If an earlier run reverted a part
    and then ran out of time or met a lock, ``confirm`` is the database's current revision.
    """
    request = invocation.request
    looking = replace(request, action="status", revision=DEFAULT_REVISION, confirm=None)
    state: RunState = load("lambda_migrate.run.start").inspect(replace(invocation, request=looking))
    if (joined(state.revisions) or BASE) == request.revision:
        return Result(request.action, invocation.settings.stage, invocation.schema, state)
    if rollout_fields(invocation)["runs"] or _is_partly_taken_back(invocation, state.revisions):
        return action(replace(invocation, request=replace(request, confirm=joined(state.revisions))))
    return action(invocation)


def _is_partly_taken_back(invocation: Invocation, revisions: tuple[str, ...]) -> bool:
    request, settings = invocation.request, invocation.settings
    manifest = for_settings(settings)
    if manifest is None or request.confirm is None:
        return False
    graph = read_graph(settings.package_root, manifest)
    return is_between(graph, revisions, upper=request.confirm.split(","), lower=request.revision)


def is_between(
    graph: Mapping[str, PackagedRevision], revisions: Iterable[str], *, upper: Iterable[str], lower: str
) -> bool:
    """Return whether a database at these revisions is on the way down from the upper ones to the lower one."""
    at = set(revisions)
    return bool(at) and at <= with_ancestors(upper, graph) and (lower == BASE or lower in with_ancestors(at, graph))


def _busy(invocation: Invocation, busy: ServerBusy) -> Result:
    log("lock.waiting", f"{busy}; this run is retried")
    longest = 2 * int(invocation.settings.rollout.get("retry_after_s", _RETRY_AFTER_S))
    # Executions that began under an older version of the state machine do not send the number.
    looks = (rollout_fields(invocation).get("looks") or 0) + 1
    if looks >= _LOOKS:
        raise MigrationLocked(
            f"the server had no room {looks:,} times: {busy}; see the active runs in pg_stat_activity,"
            " or raise per_server"
        ) from None
    # Random, so that targets that were refused together are not retried together.
    wait_s = random.randint(1, longest)  # noqa: S311
    # A run that connects again after it has committed may find the server busy.
    state = busy.state or RunState()
    return replace(answer(invocation, {"outcome": "busy", "wait_s": wait_s, "looks": looks}), state=state)


def record(invocation: Invocation) -> Result:
    """Record that a target failed, and halt the rollout if its wave has more failures than it tolerates."""
    outcome = record_failure(folder_of(invocation), rollout_fields(invocation))
    result = answer(invocation, {"outcome": outcome})
    return replace(result, counted_as=FAILED) if outcome == FAILED else result


def record_failure(folder: Folder, fields: Mapping[str, Any]) -> str:
    """Do what `record` does for the fields of its request, and return the outcome that the target has then."""
    item, failure = fields["item"], failure_of(fields["error"])
    rollout = listing_of(folder)
    wave = wave_of(rollout, item["number"])
    if wave is None or wave["wave"] != item["wave"]:
        raise InvalidRequest(f"rollout {folder.name!a} has no target {item['number']} in wave {item['wave']}")
    if folder.has_succeeded(item):
        # The answer was lost and a retry failed. The first record is right about the database.
        return MIGRATED
    folder.put_outcome(
        item,
        FAILED,
        duration_ms=_since(fields.get("began")),
        revision=failure["error_type"],
        details={**failure, "runs": fields["runs"]},
    )
    # A plan changes nothing: it visits every target.
    if rollout["plan"]:
        return FAILED
    failed = _failed(folder, rollout, wave)
    if failed > wave["tolerated_failures"]:
        folder.halt(
            FAILURES,
            f"{failed} of {counted(wave['count'], 'target')} in {title(wave)} failed, {wave['tolerated_failures']} are"
            f" tolerated; the last was {item['name']}: {failure['error_type']}: {failure['message']}",
        )
    return FAILED


def _failed(folder: Folder, rollout: Mapping[str, Any], wave: Mapping[str, Any]) -> int:
    """Return the number of targets of a wave that failed. One whose success was recorded later has not failed."""
    number = wave["wave"]
    failed = len({outcome.number for outcome in folder.outcomes(number, FAILED)})
    # After each failure, read the failed outcomes only. Before a halt, read all of the wave's.
    if failed > wave["tolerated_failures"]:
        last = last_of_each(rollout, folder.outcomes(number))
        failed = sum(1 for outcome in last.values() if outcome.outcome == FAILED)
    return failed


def _since(began: str | None) -> int:
    """Return the milliseconds since the target's own execution began, or 0 if its start is unknown."""
    if began is None:
        return 0
    try:
        then = datetime.fromisoformat(began.replace("Z", "+00:00"))
        return max(round((datetime.now(timezone.utc) - then).total_seconds() * 1000), 0)
    except (ValueError, TypeError):
        return 0


def _is_another_package(invocation: Invocation, folder: Folder) -> bool:
    """Return whether another package was deployed since the targets were listed, and halt the rollout if so.

    Otherwise the remaining targets would get revisions that no canary ran.
    """
    listed = rollout_fields(invocation).get("package")
    own = package_digest(invocation.settings)
    if not listed or listed == own:
        return False
    folder.halt(
        DEPLOYED,
        f"the function was deployed while the rollout ran: its package is {own[:12]}, the targets were listed with"
        f" {listed[:12]}; start a new rollout",
    )
    return True


def listing_of(folder: Folder) -> Mapping[str, Any]:
    """Return the listing of a rollout.

    Raises:
        InvalidRequest: there is no such rollout, or its rollout.json was changed.
    """
    try:
        listing = folder.listing()
    except SpoiledError as error:
        raise InvalidRequest(str(error)) from None
    if listing is None:
        raise InvalidRequest(f"there is no rollout {folder.name!a} whose targets were listed")
    return listing


def folder_of(invocation: Invocation) -> Folder:
    """Return the folder of the invocation's rollout, or raise as `bucket_of`."""
    return Folder(bucket_of(invocation.settings), rollout_fields(invocation)["name"])


def rollout_fields(invocation: Invocation) -> Mapping[str, Any]:
    """Return the fields of ``rollout`` in the event."""
    fields = invocation.request.rollout
    if fields is None:
        raise AssertionError("unreachable: parse_request requires them for these actions")
    return fields


def answer(invocation: Invocation, extra: Mapping[str, Any]) -> Result:
    """Return the answer of an action that reads no database."""
    return Result(invocation.request.action, invocation.settings.stage, located=False, extra=extra)


def title(wave: Mapping[str, Any]) -> str:
    """Return the name of a wave for people."""
    return "the canaries" if wave["canary"] else f"wave {wave['wave']}"


def failure_of(error: Mapping[str, Any]) -> dict[str, str]:
    """Return the type and message of an error that Step Functions caught. It is Lambda's JSON, or a service's text."""
    cause = str(error.get("Cause", ""))
    try:
        message = str(json.loads(cause)["errorMessage"])
    except (ValueError, TypeError, KeyError):
        message = cause
    return {
        "error_type": one_line(str(error.get("Error", "Unknown")), limit=_LONGEST_ERROR),
        "message": one_line(message),
    }
