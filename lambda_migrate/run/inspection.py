"""The job for the process of env.py, and a run of env.py that only reads the version tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_migrate.database.migration_lock import lock_keys
from lambda_migrate.env_py.messages import Began, Job
from lambda_migrate.run.supervisor import supervise

if TYPE_CHECKING:
    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Message
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.run.run_record import RunRecord
    from lambda_migrate.run.supervisor import ProcessEnd


def job_for(invocation: Invocation, record: RunRecord, session: Session) -> Job:
    """Return the job for the process that runs env.py.

    A further attempt begins where the last one ended. Without `done`, "+2" would take two more steps from there, and
    without `located`, a downgrade that had begun would be refused.
    """
    return Job(
        action=invocation.request.action,
        revision=invocation.request.revision,
        confirm=invocation.request.confirm,
        done=record.steps_done(),
        located=record.located(),
        schema=invocation.schema,
        settings=invocation.settings,
        credentials=session.credentials,
        server=session.server,
        lock_pid=session.pid,
        lock_keys=lock_keys(invocation.schema, session.default_schema),
        application_name=invocation.name,
        deadline=invocation.deadline,
        trial="stamp" if invocation.request.action == "check" and invocation.request.verify else None,
        pooled=session.pooled,
        encrypted=session.encrypted,
        checked_schemas=(*session.path, *([invocation.schema] if invocation.schema is not None else ())),
    )


def inspect_tables(
    invocation: Invocation, record: RunRecord, session: Session, *, trial: str | None = None
) -> tuple[list[Began], ProcessEnd]:
    """Run env.py without a change. Return a message for each version table that it reads, and how it ended.

    With ``trial``, it also finds out whether that action would be refused.
    """
    job = replace(job_for(invocation, record, session), action="status", trial=trial)
    begun: list[Began] = []

    def receive(message: Message) -> None:
        if isinstance(message, Began):
            begun.append(message)

    end = supervise(job, session, receive)
    if must_write(end):
        begun.clear()
        end = supervise(replace(job, may_write=True), session, receive)
    return begun, end


def must_write(end: ProcessEnd) -> bool:
    """Return whether env.py tried to write in a read-only run. Then it runs again, and its writes are rolled back."""
    return end.ended is not None and end.ended.refused_write and not end.out_of_time
