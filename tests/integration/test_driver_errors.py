"""An error of PostgreSQL has the same fields in the answer and the log with every driver."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.env_py.backend import Backend, online, package_with
from tests.support.samples import sampled
from tests.support.trees import Rev, sql

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

ENV_PY = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine
url = sa.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+DRIVER")
def work(connection):
    connection.execute(text("SET lock_timeout = '50ms'"))
    connection.commit()
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
async def work_in_async():
    async with create_async_engine(url).connect() as connection:
        await connection.run_sync(work)
if "async" in "DRIVER":
    asyncio.run(work_in_async())
else:
    with create_engine(url).connect() as connection:
        work(connection)
"""
REVISIONS = [
    Rev("r1", sql("CREATE TABLE mails (mail text)", "INSERT INTO mails VALUES ('a'), ('a')")),
    Rev("r2", sql("ALTER TABLE mails ADD CONSTRAINT one UNIQUE (mail)")),
]


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does not need."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path, LOCK_RETRIES="1")


@pytest.mark.parametrize("driver", sampled(["psycopg2", "psycopg", "asyncpg", "pg8000"], {"asyncpg"}))
def test_the_fields_of_an_error(backend: Backend, driver: str) -> None:
    backend.put(online(ENV_PY.replace("DRIVER", driver)), REVISIONS)

    answer = backend.invoke()
    with closing(backend.database.connect()) as blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE mails")
        locked = backend.invoke()

    assert answer.error_type == "MigrationFailed"
    assert 'could not create unique index "one" (SQLSTATE 23505); the database is at r1' in answer.message
    [line] = backend.runner.events("migration.failed")[:1]
    fields = ("sqlstate", "detail", "table", "constraint")
    assert [line.get(field) for field in fields] == ["23505", "Key (mail)=(a) is duplicated.", "mails", "one"]
    assert locked.error_type == "LockTimeout", locked.payload
