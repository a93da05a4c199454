"""Runs a stopped revision again. Like the function, it skips the statements that the stopped run has committed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_migrate.env_py import alembic_hook
from lambda_migrate.env_py.journal import Journal
from lambda_migrate.env_py.steps import migrations_call
from lambda_migrate.invocation.heads import heads_of
from lambda_migrate.invocation.result import Revision

if TYPE_CHECKING:
    import sqlalchemy
    from alembic.runtime.migration import MigrationContext

    from lambda_migrate.env_py.messages import Job


@dataclass
class Resuming:
    """The function's journal, while it is used as a context manager. Otherwise it does nothing.

    There is one journal for all runs, because it listens to every engine of the process.
    """

    job: Job
    _journal: Journal = field(default_factory=lambda: Journal(lambda _: None))
    _on: bool = False

    def __enter__(self) -> None:
        self._on = True

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._journal.begin_again()

    def watch(self, connection: sqlalchemy.Connection) -> None:
        """Follow the statements and commits of env.py's connection."""
        if self._on:
            self._journal.watch(connection)

    def start(self, revision: str, heads: Any, context: MigrationContext) -> Journal:  # noqa: ANN401 - as Alembic has them
        """Begin a revision with the notes in the version table. Return the journal."""
        journal = self._journal
        journal.begin(migrations_call(context, self.job, heads_of(heads, context.version_table)))
        journal.start(Revision(revision, ""), "upgrade")
        return journal

    def change_options(self, options: dict[str, Any]) -> None:
        """Clear the note in the version table when the revision is applied."""
        if self._on:
            alembic_hook.call_on_version_apply(options, self._journal.version_applied)
