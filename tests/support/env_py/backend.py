"""One warm function whose backend changes between invocations, and the packages it runs in."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uv import find_uv_bin

from infra.package.layout import BACKEND_LIBRARIES
from tests.support.functions import RUNTIME, describe
from tests.support.trees import ALEMBIC_INI, ENV_PY, Rev, sql, write_revision, write_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localcloud.postgres import Database
    from localcloud.runtime_api import Answer
    from tests.support.functions import Runner

REQUIREMENTS = Path(__file__).parent

ABC = (
    Rev("a1", sql("CREATE TABLE a (id int)"), sql("DROP TABLE a")),
    Rev("b2", sql("CREATE TABLE b (id int)"), sql("DROP TABLE b")),
    Rev("c3", sql("CREATE TABLE c (id int)"), sql("DROP TABLE c")),
)


def package_with(package: Path, requirements: str, out: Path) -> Path:
    """Return the package with the pins of a requirements file installed over it. It is made once for all workers."""
    with out.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            making = out.with_suffix(".making")
            libraries = making / BACKEND_LIBRARIES
            command = [find_uv_bin(), "pip", "install", "--quiet", "--python", str(RUNTIME), "--target", str(libraries)]
            command += ["--no-deps", "--compile-bytecode", "--require-hashes", "-r", str(REQUIREMENTS / requirements)]
            subprocess.run(command, check=True)
            for entry in (*package.iterdir(), *(package / BACKEND_LIBRARIES).iterdir()):
                into = making / entry.relative_to(package)
                if not into.exists():
                    into.symlink_to(entry)
            making.rename(out)
    return out


def online(body: str, top: str = "") -> str:
    """An env.py that only knows online mode."""
    indented = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    return f"""
import os, sys, logging, logging.config
import sqlalchemy as sa
from sqlalchemy import create_engine, pool, text
from alembic import context
config = context.config
{top}
def go():
{indented}
go()
"""


class Backend:
    """A function and the folder of its backend. Each run loads the tree anew, so it may be another one each time."""

    def __init__(self, runner: Runner, database: Database, scratch: Path, **environment: str) -> None:
        first = write_tree(scratch / "changing", ABC)
        # Two trees of one second and size would otherwise be one to Python's bytecode cache.
        self.function = runner.start(first, timeout_s=60, PYTHONDONTWRITEBYTECODE="1", **environment)
        self.runner = runner
        self.folder = scratch / "package-changing" / "backend"
        self.database = database

    def put(self, env_py: str = ENV_PY, revisions: Sequence[Rev] = ABC, ini: str = ALEMBIC_INI, **files: str) -> Path:
        """Put another backend in the package, and empty the database."""
        shutil.rmtree(self.folder)
        write_tree(self.folder, revisions, env_py=env_py, ini=ini)
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)
        self.empty()
        return self.folder

    def put_revisions(self, *revisions: Rev) -> None:
        """Add revisions, each of which names its parents."""
        for revision in revisions:
            write_revision(self.folder / "alembic" / "versions", revision, revision.down)

    def empty(self) -> None:
        """Empty the database."""
        schemas = self.query(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        )
        for (schema,) in schemas:
            self.execute(f'DROP SCHEMA "{schema}" CASCADE')
        self.execute("CREATE SCHEMA public")

    def run(self, env_py: str = ENV_PY, revisions: Sequence[Rev] = ABC, event: object = None, **files: str) -> Answer:
        """Put another backend in the package and invoke the function."""
        self.put(env_py, revisions, **files)
        return self.invoke(event)

    def invoke(self, event: object = None) -> Answer:
        """Invoke the function with the present content of the package, as if it had been built with it."""
        describe(self.folder.parent)
        return self.function.invoke(event)

    def upgraded(self, env_py: str = ENV_PY, revisions: Sequence[Rev] = ABC, **files: str) -> dict[str, Any]:
        """The result of an upgrade that applied every revision, which the database confirms."""
        answer = self.run(env_py, revisions, **files)
        assert answer.error_type is None, answer.payload
        result: dict[str, Any] = answer.payload
        assert [applied["revision"] for applied in result["applied"]] == [revision.id for revision in revisions], (
            result,
            self.runner.events(),
        )
        assert (result["pending"], result["up_to_date"]) == ([], True)
        return result

    def refused(self, env_py: str = ENV_PY, revisions: Sequence[Rev] = ABC, **files: str) -> str:
        """Return the type and message of an error. The database must be unchanged."""
        answer = self.run(env_py, revisions, **files)
        assert answer.error_type is not None, answer.payload
        assert "\n" not in answer.message
        assert self.tables() == [], answer.message
        return f"{answer.error_type}: {answer.message}"

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of one statement, in a session of the test's own."""
        with closing(self.database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def execute(self, *statements: str) -> None:
        """Execute statements, each in a transaction of its own."""
        with closing(self.database.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def tables(self) -> list[str]:
        """Every table there is."""
        rows = self.query(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)' ORDER BY 1"
        )
        return [row[0] for row in rows]

    def version(self) -> list[str]:
        """Return the revisions in the version table."""
        return [row[0] for row in self.query("SELECT version_num FROM alembic_version ORDER BY 1")]

    def output(self, source: str) -> list[tuple[str, str]]:
        """Level and text of the backend's lines of this logger, in all runs."""
        lines = self.runner.events("backend.output")
        return [(line["level"], line["message"]) for line in lines if line["source"] == source]


# Where an env.py configures, in the words of Alembic's templates.
CONNECT = """
engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    {before}
    context.configure(connection=connection{options})
    {after}
    with context.begin_transaction():
        context.run_migrations()
"""


def connecting(before: str = "pass", options: str = "", after: str = "pass", top: str = "") -> str:
    return online(CONNECT.format(before=before, options=options, after=after), top)


CONNECT_TO_URL = """
with create_engine(url).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
