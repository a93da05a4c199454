"""What the function does for each action of the contract, and what it answers."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.credentials import Credentials
from lambda_migrate.database.migration_lock import lock_holder
from lambda_migrate.database.session import invalid_indexes
from lambda_migrate.invocation.errors import ConfigurationError, DowngradeRefused
from lambda_migrate.invocation.invocation import Progress
from lambda_migrate.invocation.loading import loading
from lambda_migrate.invocation.request import Request
from lambda_migrate.invocation.result import Result
from lambda_migrate.invocation.telemetry import log
from lambda_migrate.run.up_to_date import is_current

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Message
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.request import Target
    from lambda_migrate.invocation.settings import Settings

# Lambda refuses answers over 6 MB; the rest of an answer, and the escaping of JSON in JSON, need room too.
_LARGEST_LIST_BYTES = 5_000_000


def perform(invocation: Invocation, progress: Progress) -> Result:
    """Do what the request asks for.

    Raises:
        MigrationError: one of the contract's section 7.
    """
    action = _ACTIONS[invocation.request.action]
    if invocation.request.rollout is not None and invocation.request.action in _OF_A_TARGET:
        from lambda_migrate.fleet import target  # noqa: PLC0415 - only rollouts need S3

        return target.take_part(invocation, progress, action)
    return action(invocation, progress)


def _migrate(invocation: Invocation, progress: Progress) -> None:
    if session := _session_with_work(invocation, progress):
        # What the way through env.py needs is loaded when it is gone: most runs find nothing to do.
        with loading():
            from lambda_migrate.run import attempts  # noqa: PLC0415

        attempts.migrate(invocation, progress, session)


def inspect(invocation: Invocation, progress: Progress) -> None:
    """Find out where the database is, without a lock and without a change; `progress` then says it.

    Raises:
        MigrationError: one of the contract's section 7.
    """
    if session := _session_with_work(invocation, progress):
        with loading():
            from lambda_migrate.run import attempts  # noqa: PLC0415 - as above

        attempts.inspect(invocation, progress, session)


def _session_with_work(invocation: Invocation, progress: Progress) -> Session | None:
    """A session to go on with, or None where `progress` has it already that there is nothing to do."""
    with ExitStack() as opened:
        session = invocation.open_session()
        opened.callback(session.close)
        if is_current(invocation, session, progress):
            return None
        opened.pop_all()
        return session


def settings_for(target: Target, settings: Settings) -> Settings:
    """The settings with which a target is reached.

    What the stage's DB_ variables override is the stage's own secret. Another secret speaks for itself, and they only
    fill in what it lacks.
    """
    if target.secret_id is not None:
        settings = replace(settings, secret_id=target.secret_id, secret_first=True)
    if target.database is not None:
        settings = replace(settings, target_database=target.database)
    return settings


def _upgrade(invocation: Invocation, progress: Progress) -> Result:
    _migrate(invocation, progress)
    return _result(invocation, progress, applied=tuple(progress.done))


def _downgrade(invocation: Invocation, progress: Progress) -> Result:
    _check_allowed(invocation)
    _migrate(invocation, progress)
    reverted = tuple(progress.done)
    pending = (*(step.revision for step in reversed(reverted)), *progress.pending)
    return replace(_result(invocation, progress), reverted=reverted, pending=pending)


def _stamp(invocation: Invocation, progress: Progress) -> Result:
    _check_allowed(invocation)
    _migrate(invocation, progress)
    # What is pending now depends on where the stamp went: look.
    now = Progress("status")
    inspect(replace(invocation, request=Request(action="status", target=invocation.request.target)), now)
    return replace(_result(invocation, progress), revisions=now.revisions, pending=now.pending)


def _check_allowed(invocation: Invocation) -> None:
    if not invocation.settings.allow_downgrade:
        raise DowngradeRefused(
            f"{invocation.request.action} is not allowed on stage {invocation.settings.stage}; set ALLOW_DOWNGRADE=true"
            " on the function if it is meant"
        )


def _status(invocation: Invocation, progress: Progress) -> Result:
    inspect(invocation, progress)
    with closing(invocation.open_session()) as session:
        holder = lock_holder(session, invocation.schema)
        found = {
            "lock": holder and {"pid": holder.pid, "holder": holder.application_name, "since": holder.since},
            "invalid_indexes": invalid_indexes(session),
        }
    return replace(_result(invocation, progress), extra=found)


def _plan(invocation: Invocation, progress: Progress) -> Result:
    inspect(invocation, progress)
    return replace(_result(invocation, progress), extra=_told(progress.told, "plan"))


def _check(invocation: Invocation, progress: Progress) -> Result:
    inspect(invocation, progress)
    return _result(invocation, progress)


def _history(invocation: Invocation, progress: Progress) -> Result:
    """The packaged tree. No database is involved, so it answers also when there is none."""
    progress.told = packaged_history(invocation)
    entries = progress.told.get("history", [])
    extra = {**_told(progress.told, "history"), "count": len(entries)}
    return replace(_result(invocation, progress), located=False, extra=extra)


def _doctor(invocation: Invocation, progress: Progress) -> Result:
    from lambda_migrate.actions import doctor  # noqa: PLC0415 - as above

    report = doctor.examine(invocation, progress, lambda: packaged_history(invocation, look_at_all=True), inspect)
    return replace(_result(invocation, progress), located=False, extra=report)


def _targets(invocation: Invocation, progress: Progress) -> Result:
    from lambda_migrate.fleet import targets  # noqa: PLC0415 - as above

    return targets.targets(invocation, progress)


def _record(invocation: Invocation, progress: Progress) -> Result:
    from lambda_migrate.fleet import target  # noqa: PLC0415 - as above

    return target.record(invocation, progress)


def _report(invocation: Invocation, progress: Progress) -> Result:
    from lambda_migrate.fleet import report  # noqa: PLC0415 - as above

    return report.report(invocation, progress)


def packaged_history(invocation: Invocation, *, look_at_all: bool = False) -> dict[str, list[Mapping[str, Any]]]:
    """Load the packaged tree in a process of its own and list its revisions.

    ``look_at_all`` loads every revision, which its manifest makes unnecessary, and compares it with the manifest.

    Raises:
        ConfigurationError: it cannot be loaded, or is not what was packaged.
    """
    # As above.
    from lambda_migrate.env_py.messages import Job, Output, Told  # noqa: PLC0415
    from lambda_migrate.run.supervisor import died, supervise  # noqa: PLC0415

    settings = invocation.settings
    # Loading a tree may import the application, which wants its variables, if only to have them.
    nowhere = Credentials("localhost", 1, "none", "none", "none", settings.sslmode, settings.sslrootcert)
    job = Job(
        action="doctor" if look_at_all else "history",
        revision="heads",
        confirm=None,
        schema=None,
        settings=settings,
        credentials=nowhere,
        server=None,
        lock_pid=None,
        application_name=invocation.name,
        deadline=invocation.deadline,
    )
    told: dict[str, list[Mapping[str, Any]]] = {}

    def receive(message: Message) -> None:
        if isinstance(message, Told):
            told.setdefault(message.name, []).append(message.entry)
        elif isinstance(message, Output):
            log("backend.output", message.text, level=message.level, source=message.source)

    watch = supervise(job, None, receive)
    failure = watch.ended.failure if watch.ended else died(watch)
    if failure is not None:
        raise ConfigurationError(failure.message)
    return told


def _told(told: Mapping[str, list[Mapping[str, Any]]], name: str) -> dict[str, Any]:
    """A list for an answer, cut where Lambda would refuse it, and then saying so."""
    kept: list[Mapping[str, Any]] = []
    size = 0
    entries = told.get(name, [])
    for entry in entries:
        size += len(json.dumps(entry))
        if size > _LARGEST_LIST_BYTES:
            return {name: kept, "truncated": f"{len(kept)} of {len(entries)} shown: Lambda answers with 6 MB at most"}
        kept.append(entry)
    return {name: kept}


def _result(invocation: Invocation, progress: Progress, applied: tuple[Any, ...] = ()) -> Result:
    return Result(
        action=invocation.request.action,
        stage=invocation.settings.stage,
        database=progress.database,
        schema=invocation.schema,
        previous_revisions=progress.previous or (),
        revisions=progress.revisions,
        applied=applied,
        pending=progress.pending,
        attempts=progress.attempts,
        lock_wait_ms=progress.lock_wait_ms,
        ahead=progress.ahead,
    )


_ACTIONS: Mapping[str, Callable[[Invocation, Progress], Result]] = {
    "upgrade": _upgrade,
    "downgrade": _downgrade,
    "stamp": _stamp,
    "status": _status,
    "plan": _plan,
    "check": _check,
    "history": _history,
    "doctor": _doctor,
    "targets": _targets,
    "record": _record,
    "report": _report,
}
_OF_A_TARGET = frozenset({"upgrade", "status"})
