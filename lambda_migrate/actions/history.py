"""The action that lists the packaged revisions. It needs no database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_migrate.actions.answers import limited
from lambda_migrate.database.credentials import Credentials
from lambda_migrate.env_py.messages import Entry, Job, Output
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.result import Result
from lambda_migrate.run.run_record import log_output
from lambda_migrate.run.supervisor import supervise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.env_py.messages import Message
    from lambda_migrate.invocation.invocation import Invocation


def history(invocation: Invocation) -> Result:
    """Return every packaged revision."""
    entries = packaged_revisions(invocation)
    extra = {**limited("history", entries), "count": len(entries)}
    return Result("history", invocation.settings.stage, invocation.schema, located=False, extra=extra)


def packaged_revisions(invocation: Invocation, *, load_all: bool = False) -> list[Mapping[str, Any]]:
    """Load the packaged tree in its own process and return an entry for each revision.

    ``load_all`` loads every revision's module, which the manifest makes unnecessary, and compares its file with the
    manifest.

    Raises:
        ConfigurationError: the tree cannot be loaded, or differs from the manifest.
    """
    settings = invocation.settings
    # Loading a tree may import the application, whose settings may require an address. Any address will do.
    nowhere = Credentials("localhost", 1, "none", "none", "none", settings.sslmode, settings.sslrootcert)
    job = Job(
        action="doctor" if load_all else "history",
        revision="heads",
        settings=settings,
        credentials=nowhere,
        application_name=invocation.name,
        deadline=invocation.deadline,
    )
    entries: list[Mapping[str, Any]] = []

    def receive(message: Message) -> None:
        if isinstance(message, Entry):
            entries.append(message.entry)
        elif isinstance(message, Output):
            log_output(message)

    end = supervise(job, None, receive)
    failure = end.failure if end.ended else end.death()
    if failure is not None:
        raise ConfigurationError(failure.message)
    return entries
