"""Replays the revisions of a backend on a database, as the alembic command does."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_migrate.revisions.checkpoint import NotedTable
from migrate_review.driver.process import DiedError, Process
from migrate_review.driver.start_message import start_message
from migrate_review.errors import EnvPyError, ReviewError
from migrate_review.revisions.tree import working_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lambda_migrate.invocation.settings import Settings
    from localcloud.postgres import Database

_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Backend:
    """A backend's folder, and how its env.py is run.

    ``variables`` are the stage's. ``of_other_stages`` are the names of those that other stages have.
    """

    folder: Path
    settings: Settings
    python: Path
    variables: Mapping[str, str]
    of_other_stages: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Replayed:
    """A run of env.py: its version tables, and its sessions before and after the revisions of each."""

    tables: tuple[NotedTable, ...]
    before: tuple[Mapping[str, Any], ...]
    after: tuple[Mapping[str, Any], ...]
    steps: int

    @property
    def home(self) -> str:
        """The schema to which unqualified names led, in the first session."""
        return str(self.before[0]["schema"])

    @property
    def role(self) -> str:
        """The role that the objects belong to."""
        return str(self.before[0]["role"])

    @property
    def heads(self) -> tuple[str, ...]:
        """The revisions that the database is at."""
        return tuple(sorted({head for table in self.tables for head in table.heads}))

    @property
    def version_table(self) -> str:
        """The name of the first version table."""
        return self.tables[0].name

    @property
    def schemas_before(self) -> tuple[str, ...]:
        """Return the schemas that existed before the first revision, without PostgreSQL's own."""
        return tuple(self.before[0]["schemas"] or ())

    def left_in_session(self) -> list[str]:
        """Return the state that revisions have left in their session, and that a later revision may need."""
        found = []
        for before, after in zip(self.before, self.after, strict=True):
            was, is_now = before["settings"] or {}, after["settings"] or {}
            found += [name for name in {**was, **is_now} if was.get(name) != is_now.get(name)]
            found += ["role"] if after["role"] != before["role"] else []
            found += ["temporary objects"] if after["temporary"] != before["temporary"] else []
        return sorted({*found})


def replay(backend: Backend, database: Database, revision: str, schema: str | None = None) -> Replayed:
    """Run env.py to bring a database to a revision, in ``schema`` if one is given.

    Raises:
        ReviewError: env.py or a revision failed, or reached another database.
    """
    folder = working_folder(backend.folder.resolve(), backend.settings.alembic_config)
    with closing(database.connect()) as opened:
        start = start_message(backend.settings, folder, database, opened, _TIMEOUT_S, schema)
    process = Process(backend.python, backend.variables)
    try:
        process.start(start)
        found = process.execute({"do": "replay", "revision": revision}, _TIMEOUT_S)
    except (DiedError, EnvPyError) as error:
        raise ReviewError(f"the revisions cannot be replayed: {error}") from None
    finally:
        process.close()
    if found["failure"] is not None:
        raise ReviewError(f"the revisions cannot be replayed: {found['failure']}")
    calls = found["calls"]
    if not calls:
        raise ReviewError("env.py ended without calling context.run_migrations()")
    before = tuple(json.loads(each["before"]) for each in calls)
    after = tuple(json.loads(each["after"]) for each in calls)
    home = before[0]["schema"]
    tables: dict[tuple[str, str], NotedTable] = {}
    for each, session in zip(calls, before, strict=True):
        configured, name = each["configured"]
        place = configured or session["schema"]
        # env.py may run the migrations of one version table twice. The last call has its revisions.
        known = tables.get((place, name))
        heads = tuple(each["heads"]) or (known.heads if known else ())
        tables[place, name] = NotedTable(
            "" if configured == home else configured, "" if place == home else place, name, heads
        )
    return Replayed(tuple(tables.values()), before, after, sum(each["steps"] for each in calls))
