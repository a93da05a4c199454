"""The two accesses to a review's database: the driver's process, which runs env.py, and the review's own connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.qualified import identifier
from migrate_review.driver.process import Process
from migrate_review.driver.start_message import start_message
from migrate_review.errors import EnvPyError
from migrate_review.measure.outside import LocksFromOutside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from psycopg2.extensions import connection

    from lambda_migrate.invocation.settings import Settings
    from localcloud.postgres import Database
    from migrate_review.driver.process import Outside

PASS_TIMEOUT_S = 60.0


@dataclass
class Connections:
    """Both connections, each opened on first use. ``version_table`` is the last one that the driver saw."""

    settings: Settings
    folder: Path
    python: Path
    database: Database
    variables: Mapping[str, str]
    # A process that has been started already.
    _process: Process | None
    version_table: tuple[str | None, str] = (None, "alembic_version")
    _connection: connection | None = None
    _outside: LocksFromOutside = field(init=False)

    def __post_init__(self) -> None:
        self._outside = LocksFromOutside(self.database, self.opened)

    # --- the driver ---

    def execute(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Return the driver's answer to a command.

        Raises:
            DiedError: the process ended, or did not answer in time.
            EnvPyError: env.py failed before any revision began.
            ReviewError: the driver refused.
        """
        return self._execute(command, None)

    def execute_watching(self, command: Mapping[str, Any], tables: Sequence[str]) -> dict[str, Any]:
        """Return the driver's answer, as `execute` does. Watch statements that must run alone on these tables."""
        self._outside.tables = tables
        return self._execute(command, self._outside)

    def _execute(self, command: Mapping[str, Any], outside: Outside | None) -> dict[str, Any]:
        process = self._running()
        first = not process.used
        try:
            found = process.execute(command, PASS_TIMEOUT_S, outside)
        except EnvPyError:
            if first:
                raise
            # The alembic command runs env.py once for each process. State of the first run may cause this error.
            self.end_process()
            found = self._running().execute(command, PASS_TIMEOUT_S, outside)
        if "version_table" in found:
            schema, name = found["version_table"]
            self.version_table = (schema, name)
        return found

    def began(self) -> list[str]:
        """Return the revisions that the driver began since the last command."""
        return [each for each in self._process.began if each] if self._process is not None else []

    def forget(self) -> None:
        """Let a running driver drop its connections, because the database is another one from now on."""
        if self._process is not None and self._process.started:
            self.execute({"do": "forget"})

    def end_process(self) -> None:
        """End the driver's process. The next command starts another one."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _running(self) -> Process:
        if self._process is None:
            self._process = Process(self.python, self.variables)
        if not self._process.started:
            message = start_message(self.settings, self.folder, self.database, self.opened(), PASS_TIMEOUT_S)
            self._process.start(message)
        return self._process

    # --- the review's own connection ---

    def opened(self) -> connection:
        """Return the review's own connection."""
        if self._connection is None:
            self._connection = self.database.connect()
        return self._connection

    def versions(self) -> set[str]:
        """Return the revisions in the version table, or none if the table does not exist."""
        schema, name = self.version_table
        with self.opened().cursor() as cursor:
            table = ".".join(identifier(each) for each in (schema or "public", name))
            cursor.execute("SELECT to_regclass(%s) IS NULL", (table,))
            if cursor.fetchone() == (True,):
                return set()
            cursor.execute(f"SELECT version_num FROM {table}")  # noqa: S608 - quoted names
            return {version for (version,) in cursor.fetchall()}

    def disconnect(self) -> None:
        """Close the review's own connections, so that the database can be copied or replaced."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._outside.close()

    def close(self) -> None:
        """End the driver and the connections."""
        self.end_process()
        self.disconnect()
