"""The environment of all contestants: one PostgreSQL with TLS, one Secrets Manager, and a database each."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import secrets_manager
from localcloud import locks, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localcloud.postgres import Database, Server

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / ".local" / "bench"

_PASSWORD = "benchmark-password"  # noqa: S105 - the databases exist only during the benchmark


@dataclass
class Ground:
    """Servers and a temporary folder for a benchmark. Its databases are dropped at the end."""

    server: Server
    scratch: Path
    endpoint: str
    secrets: dict[str, str]
    made: dict[str, Database] = field(default_factory=dict)

    def database(self, name: str) -> Database:
        """Return an empty database with its own owner, and a secret with the database's name.

        A second call empties it again.
        """
        name = f"{self.scratch.name}_{name}".lower().replace("-", "_")
        owner = f"{name}_owner"
        postgres.drop_database(self.server, name, owner)
        postgres.create_role(self.server, owner, _PASSWORD)
        postgres.create_database(self.server, name, owner)
        database = self.server.database(name, owner, _PASSWORD)
        self.made[name] = database
        self.secrets[name] = json.dumps(database.secret)
        return database

    def behind(self, database: Database, port: int) -> Database:
        """Return the same database through another port. Its secret has this port until the next call of `database`."""
        moved = replace(database, port=port)
        self.secrets[database.name] = json.dumps(moved.secret)
        return moved

    def close(self) -> None:
        """Drop all databases."""
        for database in self.made.values():
            postgres.drop_database(self.server, database.name, database.user)


def execute(database: Database, *statements: str) -> None:
    """Execute statements, each in its own transaction."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def value(database: Database, query: str) -> object:
    """Return the first column of a query's first row, or None."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return row[0] if row else None


@contextmanager
def on(server: Server, folder: Path) -> Iterator[Ground]:
    """Return an environment on a running server."""
    secrets: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="bench", dir=folder))
    try:
        with secrets_manager.serve(secrets) as endpoint:
            ground = Ground(server, scratch, endpoint, secrets)
            try:
                yield ground
            finally:
                ground.close()
    finally:
        shutil.rmtree(scratch)


@contextmanager
def own() -> Iterator[Ground]:
    """Return an environment on the benchmark's own server. Another benchmark of this checkout waits.

    The server does not wait for the disk at commits. That wait is the same for all and would only hide the differences.
    """
    directory = BENCH / "postgres"
    with locks.exclusive(BENCH / "running.lock"):
        server = postgres.start(ROOT, directory, durable=False, needs_tls=False)
        try:
            with on(server, BENCH / "scratch") as ground:
                yield ground
        finally:
            postgres.remove(ROOT, directory)
