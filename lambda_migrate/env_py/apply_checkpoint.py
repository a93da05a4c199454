"""Applies the packaged checkpoint to an empty database, in place of its revisions.

It runs on the connection that env.py gives to Alembic, so the objects belong to the role that env.py acts as. If the
result could differ from that of the revisions, the revisions run.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only

from lambda_migrate.env_py import emptiness, steps, tree
from lambda_migrate.env_py.messages import Began, CheckpointSkipped, Ran, Started
from lambda_migrate.env_py.transactions import is_idle, rows_between
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.result import Revision, VersionTable
from lambda_migrate.invocation.wording import counted
from lambda_migrate.revisions.checkpoint import (
    CURRENT_SETTINGS,
    DESCRIPTION,
    LOGIN,
    Checkpoint,
    Surroundings,
    in_session,
    placed,
    read_checkpoint,
    read_script,
)
from lambda_migrate.revisions.manifest import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import sqlalchemy
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from lambda_migrate.env_py.journal import Journal
    from lambda_migrate.env_py.messages import Job

# These send a text of several statements as it is.
_DRIVERS = frozenset({"psycopg2", "psycopg", "psycopg_async", "asyncpg"})


@dataclass
class ApplyCheckpoint:
    """Applies the checkpoint before an upgrade. It is called each time that env.py runs its migrations."""

    job: Job
    script: ScriptDirectory
    graph: tree.PackagedGraph
    journal: Journal
    _surroundings: Surroundings = field(init=False)

    def __post_init__(self) -> None:
        settings = self.job.settings
        # Now, as env.py may change its environment.
        self._surroundings = Surroundings(
            settings.x_arguments, dict(os.environ), settings.env_variables, settings.url_variables
        )

    def __call__(self, context: MigrationContext) -> None:
        """Apply the checkpoint if the database is empty and can use it.

        Raises:
            ConfigurationError: the checkpoint is not the one that the package was built with.
        """
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        configured = context.version_table_schema, context.version_table
        [(text,)] = rows_between(connection, emptiness.query(self._checkpoint, *configured))
        found = emptiness.Found(**json.loads(text))
        if found.version_table_exists:
            return
        revisions = tuple(self._planned())
        why = self._why_not(context, connection, found, [each.revision for each in revisions])
        if why is not None:
            self.journal.send(CheckpointSkipped(why))
            return
        self._apply(context, connection, found, revisions)

    @cached_property
    def _folder(self) -> Path:
        return (self.graph.root / self.graph.manifest.env).parent

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        try:
            same = digest_of(self._folder / DESCRIPTION) == self.graph.manifest.checkpoint
            checkpoint = read_checkpoint(self._folder) if same else None
        except (OSError, ValueError):
            checkpoint = None
        if checkpoint is None:
            raise ConfigurationError(f"{DESCRIPTION} changed after the package was built; build and deploy it again")
        return checkpoint

    @cached_property
    def _script(self) -> str:
        try:
            return read_script(self._folder, self._checkpoint)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the packaged checkpoint cannot be used ({error}); build it again") from None

    def _apply(
        self,
        context: MigrationContext,
        connection: sqlalchemy.Connection,
        found: emptiness.Found,
        revisions: tuple[Revision, ...],
    ) -> None:
        checkpoint = self._checkpoint
        script = placed(self._script, str(found.quoted_schema), found.quoted_role)
        count = len(checkpoint.revisions)
        stands_for = Revision(
            checkpoint.revision, f"a checkpoint of {counted(count, 'revision')}", stands_for=tuple(checkpoint.revisions)
        )
        began = time.monotonic()
        # As Alembic does for a revision: where env.py holds the transaction, nothing is committed here.
        with context.begin_transaction(_per_migration=True):
            settings = json.loads(str(connection.exec_driver_sql(f"SELECT {CURRENT_SETTINGS}").scalar_one()))
            if is_idle(connection):
                self.journal.send(CheckpointSkipped("env.py's connection commits each statement by itself"))
                return
            now = steps.migrations_call(context, self.job, ())
            self.journal.begin(now)
            self.journal.send(Began((), tuple(self._pending()), revisions, now.table, now.role))
            self.journal.start(stands_for, self.job.action)
            self.journal.send(Started(stands_for))
            for text in in_session(script, settings):
                _execute(connection, text)
        heads = self._heads_of(now.table)
        self.journal.finish(heads)
        duration_ms = round((time.monotonic() - began) * 1000)
        self.journal.send(Ran(stands_for, heads, duration_ms, committed=not connection.in_transaction()))

    def _heads_of(self, table: VersionTable) -> tuple[str, ...]:
        noted = self._checkpoint.tables
        of = next((each for each in noted if each.name == table.name), noted[0])
        return tuple(sorted(of.heads))

    def _why_not(
        self,
        context: MigrationContext,
        connection: sqlalchemy.Connection,
        found: emptiness.Found,
        planned: Sequence[str],
    ) -> str | None:
        """Return why the revisions must run, None if the checkpoint may take their place."""
        reasons = chain(
            self._reasons_of_the_run(context, connection, found.schema, planned),
            emptiness.reasons(self._checkpoint, found),
        )
        why = next(reasons, None)
        if why is None and found.quoted_role != found.role and LOGIN in self._script:
            why = "the name of the role must be written in quotes"
        return why

    def _reasons_of_the_run(
        self, context: MigrationContext, connection: sqlalchemy.Connection, home: str | None, planned: Sequence[str]
    ) -> Iterator[str]:
        checkpoint = self._checkpoint
        count = len(checkpoint.revisions)
        if self.job.revision.startswith("+"):
            yield "the request names a number of revisions"
        elif {*planned[:count]} != {*checkpoint.revisions}:
            yield "the request ends below it, or other revisions come before one of its own"
        if connection.dialect.driver not in _DRIVERS:
            yield f"it cannot be run by the driver {connection.dialect.driver}"
        other = self._surroundings.differ_from(checkpoint)
        if other is not None:
            yield other
        first = checkpoint.tables[0]
        configured = home if first.configured == "" or self.job.schema is not None else first.configured
        if (context.version_table_schema, context.version_table) != (configured, first.name):
            yield "env.py has another version table than when it was made"

    def _planned(self) -> Iterator[Revision]:
        """Yield the revisions that the request would run on an empty database, in their order."""
        wanted, line = self.job.revision, self._line()
        if line is None or not (wanted in {"head", "heads"} or any(each.revision == wanted for each in line)):
            yield from map(tree.described, tree.upgrade_steps(self.script, wanted, ()))
            return
        for each in line:
            yield each
            if each.revision == wanted:
                return

    def _pending(self) -> list[Revision]:
        line = self._line()
        return line if line is not None else [*tree.pending(self.script, ())]

    def _line(self) -> list[Revision] | None:
        """Return all revisions if each has the one before it as its only parent, so that Alembic need not sort them."""
        nodes = [*self.graph.nodes.values()]
        parents = [(), *((node.revision,) for node in nodes[:-1])]
        if any(
            tuple(node.down_revisions) != parent or node.depends_on for node, parent in zip(nodes, parents, strict=True)
        ):
            return None
        return [Revision(node.revision, node.description, tuple(node.down_revisions)) for node in nodes]


def _execute(connection: sqlalchemy.Connection, script: str) -> None:
    """Run a text of several statements on the driver's own connection, in the transaction that is open."""
    driver: Any = connection.connection
    if connection.dialect.driver == "asyncpg":
        await_only(driver.driver_connection.execute(script))
        return
    cursor = driver.cursor()
    try:
        cursor.execute(script)
    finally:
        cursor.close()
