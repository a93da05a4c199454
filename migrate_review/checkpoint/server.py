"""The PostgreSQL servers on which a checkpoint is made and proven. Nothing of an earlier one is left on them."""

from __future__ import annotations

import itertools
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from psycopg2 import sql

from localcloud import locks, postgres

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server

_PASSWORD = "of-a-server-of-this-machine"  # noqa: S105 - it accepts clients of this machine only


@contextmanager
def running(root: Path, version: int) -> Iterator[Server]:
    """Yield a server without any role or database but its own. Another checkpoint of this checkout waits."""
    directory = root / ".local" / "checkpoint" / f"postgres-{version}"
    with locks.exclusive(directory.with_suffix(".lock")):
        server = postgres.start(root, directory, durable=False, version=version, needs_tls=False)
        try:
            yield server
        finally:
            postgres.stop(directory)


class Databases:
    """Makes databases on a server."""

    def __init__(self, server: Server) -> None:
        """Begin with none, and without roles of revisions."""
        self.server = server
        # Roles that env.py or the revisions expect to exist.
        self.premade: set[str] = set()
        self.clean()
        self._numbers = itertools.count(1)

    def make(self, login: str, schemas: Iterable[str] = (), time_zone: str = "UTC") -> Database:
        """Return a new, empty database of a superuser with this name, with schemas of these names."""
        with closing(self.server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (login,))
            if cursor.fetchone() is None:
                statement = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
                cursor.execute(statement.format(sql.Identifier(login), sql.Literal(_PASSWORD)))
        name = self._create("template0", login)
        with closing(self.server.connect(name)) as opened, opened.cursor() as cursor:
            # Not as a setting of the database or of the role alone, because revisions may change those.
            statement = sql.SQL("ALTER ROLE {} IN DATABASE {} SET TimeZone = {}")
            names = map(sql.Identifier, (login, name))
            cursor.execute(statement.format(*names, sql.Literal(time_zone)))
            for schema in {*schemas} - {"public"}:
                statement = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}")
                cursor.execute(statement.format(sql.Identifier(schema), sql.Identifier(login)))
        return self.server.database(name, login, _PASSWORD)

    def copy(self, database: Database) -> Database:
        """Return a copy of a database without sessions."""
        name = self._create(database.name, database.user)
        return self.server.database(name, database.user, database.password)

    def clean(self) -> None:
        """Drop all databases, and the roles that revisions have made. The next replay makes them again."""
        _clean(self.server)
        for role in sorted(self.premade):
            self.premake(role)

    def premake(self, role: str) -> None:
        """Create a role that the revisions or env.py expect to exist."""
        self.premade.add(role)
        with closing(self.server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))

    def drop(self, database: Database) -> None:
        """Drop a database."""
        with closing(self.server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database.name)))

    def _create(self, template: str, owner: str) -> str:
        name = f"checkpoint_{next(self._numbers)}"
        # Copying files beats logging every page while nothing needs to be on disk.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy")
        with closing(self.server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(statement.format(*map(sql.Identifier, (name, template, owner))))
        return name


def _clean(server: Server) -> None:
    """Drop the databases of a killed run, and the roles that revisions have made."""
    with closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')")
        for (name,) in cursor.fetchall():
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        cursor.execute(r"SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\_%%' AND rolname <> current_user", ())
        roles = [sql.Identifier(name) for (name,) in cursor.fetchall()]
        if roles:
            cursor.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.SQL(", ").join(roles)))
