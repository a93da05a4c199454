"""One target of a rollout: migrate it, record its outcome, and halt the rollout after too many failures.

`infra.state_machine` builds the state machine that invokes the function with the field ``rollout``. S3, and not the
state machine, holds whether a rollout still runs and the outcome of each target: when a Distributed Map passes its
failure threshold, AWS stops its children and discards their results.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.server_limit import ServerBusy, leave_if_busy
from lambda_migrate.fleet.bucket import bucket_of
from lambda_migrate.fleet.folder import BEHIND, CURRENT, FAILED, FAILURES, LEFT, MIGRATED, ROLLOUT, Folder
from lambda_migrate.invocation.errors import MigrationLocked
from lambda_migrate.invocation.invocation import Invocation
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.result import Result, joined
from lambda_migrate.invocation.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.invocation import Progress

_RETRY_AFTER_S = 5
# So many times a target comes to its server in vain. Each is nine of the 25,000 events that one execution may have.
_LOOKS = 2000


def folder_of(invocation: Invocation) -> Folder:
    """The folder of the rollout that an invocation is a part of; as `bucket_of`."""
    return Folder(bucket_of(invocation.settings), said_of(invocation)["name"])


def said_of(invocation: Invocation) -> Mapping[str, Any]:
    """What the state machine said of the rollout."""
    said = invocation.request.rollout
    if said is None:
        raise AssertionError("unreachable: the contract demands it for these actions")
    return said


@dataclass(frozen=True)
class _Part(Invocation):
    """An invocation that works on a server only where there is room."""

    def open_session(self) -> Session:
        session = super().open_session()
        limit = self.settings.server_concurrency
        try:
            if limit is not None:
                leave_if_busy(session, self.name, limit)
        except BaseException:
            session.close()
            raise
        return session


def take_part(invocation: Invocation, progress: Progress, perform: Callable[[Invocation, Progress], Result]) -> Result:
    """Do one target's part in a rollout, and write down what became of it. The answer is short: `outcome`.

    Beside those of an `Outcome`, that is ``left`` when the rollout is halted, and ``busy`` when there is no room on the
    server, with the seconds to wait in ``wait_s`` and in ``looks`` how often that was so. A failure is not written
    down: the state machine may try again.

    Raises:
        MigrationError: as the action itself.
        MigrationLocked: also when there was no room on the server so often that it will not look again.
    """
    folder, said = folder_of(invocation), said_of(invocation)
    if folder.is_halted():
        return answer(invocation, {"outcome": LEFT})
    part = _Part(
        **{field: getattr(invocation, field) for field in ("request", "settings", "store", "deadline", "name")}
    )
    left = invocation.deadline.left()
    try:
        result = perform(part, progress)
    except ServerBusy as busy:
        log("lock.waiting", str(busy))
        longest = 2 * int(invocation.settings.rollout.get("retry_after_s", _RETRY_AFTER_S))
        # An execution that began before it was counted does not say.
        looks = (said.get("looks") or 0) + 1
        if looks >= _LOOKS:
            raise MigrationLocked(
                f"{looks:,} times there was no room on the server: {busy}; see who is at work there in"
                " pg_stat_activity, or raise per_server"
            ) from None
        # At random: those that were refused together would otherwise come back together.
        wait_s = random.randint(1, longest)  # noqa: S311
        return answer(invocation, {"outcome": "busy", "wait_s": wait_s, "looks": looks})
    # What runs before this one have applied is the rollout's doing, too.
    outcome = MIGRATED if result.applied or said["runs"] else BEHIND if result.pending else CURRENT
    duration_ms = round((left - invocation.deadline.left()) * 1000)
    folder.put_outcome(said["item"], outcome, duration_ms=duration_ms, revision=joined(result.revisions))
    # A plan looks, and decides nothing.
    progress.outcome = outcome if invocation.request.action == "upgrade" else None
    return replace(result, located=False, extra={"outcome": outcome})


def record(invocation: Invocation, progress: Progress) -> Result:
    """Write down that a target failed, and halt the rollout when its wave has more of those than it tolerates."""
    folder, said = folder_of(invocation), said_of(invocation)
    item, failure = said["item"], failure_of(said["error"])
    folder.put_outcome(item, FAILED, details={**failure, "runs": said["runs"]})
    rollout = folder.read(ROLLOUT)
    progress.outcome = None if rollout["plan"] else FAILED
    wave = next(wave for wave in rollout["waves"] if wave["wave"] == item["wave"])
    failed = sum(1 for _ in folder.outcomes(item["wave"], FAILED))
    if failed > wave["tolerated_failures"]:
        folder.halt(
            FAILURES,
            f"{failed} of the {wave['count']} targets of {title(wave)} failed, {wave['tolerated_failures']} are"
            f" tolerated; the last was {item['name']}: {failure['error_type']}: {failure['message']}",
        )
    return answer(invocation, {"outcome": FAILED})


def title(wave: Mapping[str, Any]) -> str:
    """A wave, for people."""
    return "the canaries" if wave["canary"] else f"wave {wave['wave']}"


def failure_of(error: Mapping[str, Any]) -> dict[str, str]:
    """The errorType and the message in what Step Functions caught: Lambda's own JSON, or what a service said."""
    cause = str(error.get("Cause", ""))
    try:
        told = json.loads(cause)
        message = str(told["errorMessage"])
    except (ValueError, TypeError, KeyError):
        message = cause
    return {"error_type": str(error.get("Error", "Unknown")), "message": one_line(message)}


def answer(invocation: Invocation, extra: Mapping[str, Any]) -> Result:
    """The answer of what looked at no database."""
    return Result(
        action=invocation.request.action,
        stage=invocation.settings.stage,
        database="",
        schema=None,
        previous_revisions=(),
        revisions=(),
        located=False,
        extra=extra,
    )
