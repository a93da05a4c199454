"""A backend with SQLAlchemy 1.4 ends where the alembic command ends with the same libraries."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

import pytest

from infra.package.layout import BACKEND_LIBRARIES
from tests.support.env_py.backend import ABC, Backend, online, package_with
from tests.support.plain_alembic import alembic, snapshot
from tests.support.samples import sampled
from tests.support.trees import Rev, sql

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

ENGINE = 'engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)\n'
CONNECT = ENGINE + "with engine.connect() as connection:\n"
CONFIGURE = "    context.configure(connection=connection, target_metadata=sa.MetaData())\n"
RUN = "context.run_migrations()\n"
SET_LOCAL = "connection.execute(text(\"SET LOCAL app.mode = 'on'\"))"
ASYNC = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine

def migrate(connection):
    context.configure(connection=connection, target_metadata=sa.MetaData())
    with context.begin_transaction():
        context.run_migrations()

async def main():
    url = sa.engine.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg", query={})
    async with create_async_engine(url, poolclass=pool.NullPool).connect() as connection:
        await connection.run_sync(migrate)

asyncio.run(main())
"""


def block(first: str = "pass") -> str:
    return f"    with context.begin_transaction():\n        {first}\n        {RUN}"


GENERIC = CONNECT + CONFIGURE + block()
FORMS = {
    "generic": GENERIC,
    "async": ASYNC,
    "in its transaction": CONNECT + CONFIGURE + f"    with connection.begin():\n        {RUN}",
    "configured in its transaction": CONNECT
    + "    with connection.begin():\n"
    + indent(f"{CONFIGURE}    {RUN}", "    "),
    "a block in its transaction": CONNECT + CONFIGURE + "    with connection.begin():\n" + indent(block(), "    "),
    "engine.begin": ENGINE + "with engine.begin() as connection:\n" + CONFIGURE + block(),
    "begin and commit": f"{CONNECT}{CONFIGURE}    begun = connection.begin()\n    {RUN}    begun.commit()\n",
    "no block": f"{CONNECT}{CONFIGURE}    {RUN}",
    "a query before": CONNECT + "    connection.execute(text('SELECT 1'))\n" + CONFIGURE + block(),
    "a schema before": CONNECT + "    connection.execute(text('CREATE SCHEMA app'))\n" + CONFIGURE + block(),
    "COMMIT": CONNECT + CONFIGURE + "    connection.execute(text('COMMIT'))\n" + block(),
    "SET LOCAL": CONNECT + CONFIGURE + block(SET_LOCAL),
    "SET LOCAL before the block": CONNECT + CONFIGURE + f"    {SET_LOCAL}\n" + block(),
    "SET LOCAL before configure": CONNECT + f"    {SET_LOCAL}\n" + CONFIGURE + block(),
    "SET LOCAL in its transaction": CONNECT
    + CONFIGURE
    + f"    with connection.begin():\n        {SET_LOCAL}\n        {RUN}",
    "autocommit": CONNECT.replace("NullPool", "NullPool, isolation_level='AUTOCOMMIT'") + CONFIGURE + block(),
    "statements after": f"{GENERIC}        context.execute('CREATE TABLE IF NOT EXISTS x (i int)')\n"
    "    connection.execute(text('CREATE TABLE IF NOT EXISTS y (i int)'))\n",
}
# Without a block, and if env.py has begun a transaction before configure(), Alembic commits nothing of these.
LOST_IN_FUTURE = {"no block", "a query before", "a schema before", "SET LOCAL before configure"}
FUTURE = {form: text.replace("NullPool", "NullPool, future=True") for form, text in FORMS.items() if form != "async"}
ALL = {f"{form}, legacy": text for form, text in FORMS.items()} | {
    f"{form}, future": text for form, text in FUTURE.items() if form not in LOST_IN_FUTURE
}
SAMPLE = {"SET LOCAL, legacy"}

REVISIONS = [
    ABC[0],
    Rev(
        "b2",
        """
table = op.create_table('b', sa.Column('id', sa.Integer, primary_key=True), sa.Column('mode', sa.Text))
op.bulk_insert(table, [{'mode': 'x'}, {'mode': 'y'}])
first = op.get_bind().execute(sa.select(table.c.id)).fetchall()[0][0]
op.execute(table.update().where(table.c.id == first).values(mode=sa.text("current_setting('app.mode', true)")))
try:
    with op.get_bind().begin_nested():
        op.get_bind().execute(sa.text('SELECT 1 / 0'))
except sa.exc.DBAPIError:
    pass
""",
        "op.drop_table('b')",
    ),
    Rev(
        "c3",
        """
from sqlalchemy import orm
op.execute("CREATE TABLE c (mode text)")
session = orm.Session(bind=op.get_bind())
session.execute(sa.text("INSERT INTO c VALUES (current_setting('app.mode', true))"))
session.commit()
""",
        sql("DROP TABLE c"),
    ),
    Rev("d4", sql("CREATE TABLE d (id int)", "COMMIT", "INSERT INTO d VALUES (1)"), sql("COMMIT", "DROP TABLE d")),
]
CONCURRENTLY = Rev(
    "b2",
    """
op.execute('CREATE TABLE b (id int)')
with op.get_context().autocommit_block():
    op.execute('CREATE INDEX CONCURRENTLY b_id ON b (id)')
op.execute('INSERT INTO b VALUES (1)')
""",
    sql("DROP TABLE b"),
)


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    with_drivers = package_with(package, "drivers.txt", shared_run / "package-drivers")
    return package_with(with_drivers, "sqlalchemy14.txt", shared_run / "package-sqlalchemy14")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path, ALLOW_DOWNGRADE="true")


@pytest.fixture
def plain(backend: Backend, package: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The alembic command with the libraries of the package."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return alembic(backend.folder, backend.database, *arguments, libraries=package / BACKEND_LIBRARIES)

    return run


def as_alembic(
    backend: Backend, plain: Callable[..., subprocess.CompletedProcess[str]], env_py: str, revisions: Sequence[Rev]
) -> None:
    """The function leaves the same database as Alembic's command, after an upgrade and after a downgrade."""
    backend.put(online(env_py), revisions)
    expected = []
    for arguments in (("upgrade", "head"), ("downgrade", "a1")):
        done = plain(*arguments)
        assert done.returncode == 0, done.stderr
        expected.append(snapshot(backend.database))
    backend.empty()

    for action in ("status", "plan", "check"):
        answer = backend.invoke({"action": action})
        assert answer.error_type == ("DriftDetected" if action == "check" else None), answer.payload
        assert backend.tables() == []
    answer = backend.invoke()
    assert answer.error_type is None, answer.payload
    assert [each["revision"] for each in answer.payload["applied"]] == [each.id for each in revisions]
    assert snapshot(backend.database) == expected[0]
    answer = backend.invoke({"action": "downgrade", "revision": "a1", "confirm": revisions[-1].id})
    assert answer.error_type is None, answer.payload
    assert snapshot(backend.database) == expected[1]


@pytest.mark.parametrize("form", sampled(ALL, SAMPLE))
def test_any_env_py_ends_as_under_alembic(
    backend: Backend, plain: Callable[..., subprocess.CompletedProcess[str]], form: str
) -> None:
    env_py = ALL[form].replace("CREATE SCHEMA app", "CREATE SCHEMA IF NOT EXISTS app")
    as_alembic(backend, plain, env_py, REVISIONS)


@pytest.mark.stress
@pytest.mark.parametrize(
    "form", sampled(["generic, legacy", "generic, future", "SET LOCAL, legacy"], {"generic, legacy"})
)
def test_an_autocommit_block(
    backend: Backend, plain: Callable[..., subprocess.CompletedProcess[str]], form: str
) -> None:
    last = REVISIONS[2] if "SET LOCAL" in form else ABC[2]
    as_alembic(backend, plain, ALL[form], [ABC[0], CONCURRENTLY, last])


@pytest.mark.stress
def test_the_other_actions_and_failures(backend: Backend) -> None:
    failing = [*ABC, Rev("d4", sql("CREATE TABLE d (id int)", "SELECT 1 / 0"))]
    assert backend.run(online(GENERIC), failing).error_type == "MigrationFailed"
    assert (backend.tables(), backend.version()) == (["a", "alembic_version", "b", "c"], ["c3"])
    assert "failed: DivisionByZero" in backend.refused(online(FORMS["a block in its transaction"]), failing)
    assert backend.run(online(FORMS["no block"]), failing).error_type == "MigrationFailed"
    assert (backend.tables(), backend.version()) == (["a", "alembic_version", "b", "c"], ["c3"])

    assert backend.invoke({"action": "history"}).payload["history"][0]["revision"] == "d4"
    assert backend.invoke({"action": "doctor"}).payload["status"] == "ok"
    for revision, confirm in (("b2", "c3"), ("base", "b2"), ("a1", None)):
        stamped = backend.invoke({"action": "stamp", "revision": revision, "confirm": confirm})
        assert stamped.error_type is None, stamped.payload
        assert backend.version() == ([] if revision == "base" else [revision])
    # A stamp that fails does not leave the version table empty.
    backend.execute(
        "UPDATE alembic_version SET version_num = 'z9'", "ALTER TABLE alembic_version ADD CHECK (version_num > 'b2')"
    )
    failed = backend.invoke({"action": "stamp", "revision": "b2", "confirm": "z9"})
    assert "violates check constraint" in failed.message
    assert backend.version() == ["z9"]
    assert backend.invoke({"action": "stamp", "revision": "c3", "confirm": "z9"}).error_type is None
    assert backend.version() == ["c3"]
    # Nothing commits what would hold until the end of a transaction, and the first statement of a revision ends it.
    local = online(f"{CONNECT}{CONFIGURE}    {SET_LOCAL}\n    {RUN}")
    assert "SQLAlchemy 1.4 commits the next one by itself" in backend.refused(local)
