"""Any env.py runs unmodified: however it connects, holds its transactions, and configures Alembic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.env_py.backend import ABC, CONNECT, CONNECT_TO_URL, Backend, connecting, online, package_with
from tests.support.samples import in_two_sets
from tests.support.trees import ENV_PY, Rev, autocommit, sql

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does not need."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path, ALLOW_DOWNGRADE="true")


# Ways to hold a connection, all of which bring the database to head. Each revision sees whether it is in a
# transaction of its own: then its id differs from the one before.
CONNECTIONS = {
    "one connection, a transaction per revision": connecting(options=", transaction_per_migration=True"),
    "one transaction asked for": connecting(options=", transaction_per_migration=False"),
    "in line, never closed": online(
        "connection = create_engine(os.environ['DATABASE_URL'], isolation_level='AUTOCOMMIT').connect()\n"
        "context.configure(connection)\n"
        "context.run_migrations()"
    ),
    "in line, a transaction per revision": online(
        "connection = create_engine(os.environ['DATABASE_URL']).connect()\n"
        "context.configure(connection, transaction_per_migration=True)\n"
        "context.run_migrations()"
    ),
    "a pool": online(
        CONNECT.format(before="pass", after="pass", options="").replace("pool.NullPool", "pool.QueuePool")
    ),
    "psycopg 3": online(
        "url = sa.make_url(os.environ['DATABASE_URL']).set(drivername='postgresql+psycopg')\n" + CONNECT_TO_URL
    ),
    "a statement before, committed": connecting(before="connection.execute(text('SELECT 1')); connection.commit()"),
    "a statement after configure": connecting(after="connection.execute(text('SELECT 1'))"),
    "a lock in the transaction": online(
        CONNECT.format(before="pass", after="pass", options="").replace(
            "        context.run_migrations()",
            "        connection.execute(text('SELECT pg_advisory_xact_lock(1)'))\n        context.run_migrations()",
        )
    ),
    "a lock of the session": connecting(
        before="connection.execute(text('SELECT pg_advisory_lock(1)')); connection.commit()"
    ),
    "autocommit of the connection": connecting(
        before="connection = connection.execution_options(isolation_level='AUTOCOMMIT')"
    ),
    "autocommit of the engine": online(
        CONNECT.format(before="pass", after="pass", options="").replace(
            "poolclass=", "isolation_level='AUTOCOMMIT', poolclass="
        )
    ),
    "schema before, committed": connecting(
        before="connection.execute(text('CREATE SCHEMA IF NOT EXISTS extra')); connection.commit()"
    ),
    "future and echo": online(
        CONNECT.format(before="pass", after="pass", options="").replace("poolclass=", "future=True, poolclass=")
    ),
}
CONNECTIONS_SAMPLE = ("in line, never closed", "psycopg 3", "a lock in the transaction", "autocommit of the engine")


ONE_TRANSACTION = {
    "begin before configure": online(
        """
engine = create_engine(os.environ["DATABASE_URL"])
with engine.connect() as connection:
    with connection.begin():
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
    ),
    "begin after configure": online(
        """
engine = create_engine(os.environ["DATABASE_URL"])
with engine.connect() as connection:
    context.configure(connection=connection)
    with connection.begin():
        context.run_migrations()
"""
    ),
    "both": online(
        """
engine = create_engine(os.environ["DATABASE_URL"])
with engine.connect() as connection:
    context.configure(connection=connection)
    with connection.begin(), context.begin_transaction():
        context.run_migrations()
"""
    ),
    "engine.begin": online(
        """
with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    context.configure(connection=connection)
    context.run_migrations()
"""
    ),
    "no block, and a commit at the end": online(
        """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    context.run_migrations()
    connection.commit()
"""
    ),
    "a transaction by hand": online(
        """
connection = create_engine(os.environ["DATABASE_URL"]).connect()
transaction = connection.begin()
connection.execute(text("SET LOCAL search_path = public"))
context.configure(connection=connection)
context.run_migrations()
transaction.commit()
"""
    ),
    "an async engine": online(
        """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine
def work(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
async def main():
    url = sa.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg")
    async with create_async_engine(url).begin() as connection:
        await connection.run_sync(work)
asyncio.run(main())
"""
    ),
}


class TestTransactions:
    @pytest.mark.parametrize("ways", in_two_sets(CONNECTIONS, CONNECTIONS_SAMPLE))
    def test_env_py_may_connect_and_begin_as_it_likes(self, backend: Backend, ways: list[str]) -> None:
        for way in ways:
            backend.upgraded(way)

            assert (backend.tables(), backend.version()) == (["a", "alembic_version", "b", "c"], ["c3"])

    @pytest.mark.parametrize(
        "ways", in_two_sets(ONE_TRANSACTION, ("begin before configure", "no block, and a commit at the end"))
    )
    def test_a_transaction_around_all_revisions_counts_only_if_it_is_committed(
        self, backend: Backend, ways: list[str]
    ) -> None:
        fails = (*ABC[:2], Rev("c3", sql("SELECT 1 / 0")))
        for way in ways:
            backend.upgraded(way)
            assert backend.version() == ["c3"]

            answer = backend.run(way, fails)

            assert answer.error_type == "MigrationFailed", answer.payload
            assert "revision c3" in answer.message
            assert "division by zero (SQLSTATE 22012); the database is at base" in answer.message
            assert backend.tables() == []
            status = backend.invoke({"action": "status"}).payload
            assert (status["revision"], len(status["pending"])) == (None, 3)
        assert [line["applied"] for line in backend.runner.events("migration.failed")] == [[]] * len(ways)

    def test_one_that_env_py_never_commits_is_no_success(self, backend: Backend) -> None:
        """A statement before configure begins a transaction. Alembic assumes that env.py will commit it."""
        loses = connecting(before="connection.execute(text('CREATE SCHEMA IF NOT EXISTS lost'))")
        message = backend.refused(loses)

        assert message.startswith("ConfigurationError: env.py ran to its end but did not commit")
        assert message.endswith("the database is at base, not at c3")
        assert not backend.runner.events("revision.applied")

        backend.upgraded()
        (backend.folder / "alembic" / "env.py").write_text(loses)
        for action in ("downgrade", "stamp"):
            answer = backend.invoke({"action": action, "revision": "a1", "confirm": "c3"})
            assert answer.error_type == "ConfigurationError", answer.payload
            assert answer.message.endswith("the database is at c3, not at a1")
        assert backend.invoke().payload["applied"] == []

    @pytest.mark.stress
    def test_no_block_and_no_commit_is_no_success_and_changes_nothing(self, backend: Backend) -> None:
        """Plain Alembic exits with 0 here, and the database is as before."""
        message = backend.refused(
            online(
                "with create_engine(os.environ['DATABASE_URL']).connect() as connection:\n"
                "    context.configure(connection)\n"
                "    context.run_migrations()"
            )
        )

        assert message.startswith("ConfigurationError: env.py ran to its end but did not commit")
        assert "`with context.begin_transaction():`" in message
        assert not backend.runner.events("revision.applied")

    @pytest.mark.stress
    def test_a_failure_after_the_revisions_names_the_committed_ones(self, backend: Backend) -> None:
        env_py = connecting()

        after = backend.run(env_py + "\nraise RuntimeError('afterwards')\n")
        deferred = backend.run(
            ONE_TRANSACTION["engine.begin"],
            [
                Rev("a1", sql("CREATE TABLE a (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")),
                Rev("b2", sql("INSERT INTO a VALUES (1), (1)")),
            ],
        )

        assert (after.error_type, after.message.split(";")[-1]) == ("MigrationFailed", " the database is at c3")
        assert (deferred.error_type, deferred.message.split(";")[-1]) == (
            "MigrationFailed",
            " the database is at base",
        )
        assert "SQLSTATE 23505" in deferred.message
        assert "committed part" not in deferred.message

    @pytest.mark.stress
    def test_an_exit_with_code_0_is_no_failure(self, backend: Backend) -> None:
        answer = backend.run(connecting() + "\nsys.exit(0)\n")

        assert (answer.error_type, backend.version()) == (None, ["c3"]), answer.payload
        in_revision = backend.run(revisions=[ABC[0], Rev("b2", "sys.exit(0)")])
        assert (in_revision.error_type, "revision b2 " in in_revision.message) == ("MigrationFailed", True)
        assert "and continued" not in in_revision.message

    def test_a_revision_that_commits_by_itself_keeps_its_version(self, backend: Backend) -> None:
        for revisions in (
            [Rev("a1", "op.execute('CREATE TABLE a (id int)')\nop.get_bind().commit()")],
            [*ABC[:1], Rev("b2", "op.get_bind().commit()\nop.execute('CREATE TABLE b (id int)')"), ABC[2]],
        ):
            answer = backend.run(connecting(), revisions)

            assert answer.error_type is None, answer.payload
            assert backend.version() == [revisions[-1].id]

    @pytest.mark.stress
    def test_a_block_outside_a_transaction(self, backend: Backend) -> None:
        index = Rev("d4", sql("CREATE TABLE d (id int)") + "\n" + autocommit("CREATE INDEX CONCURRENTLY i ON d (id)"))
        fails = Rev("e5", autocommit("CREATE INDEX CONCURRENTLY j ON d (id)") + "\n" + sql("SELECT 1 / 0"))
        backend.upgraded(connecting(), [*ABC, index])

        answer = backend.run(connecting(), [*ABC, index, fails])

        assert answer.error_type == "MigrationFailed"
        assert "it had committed part of its work, so" in answer.message
        assert backend.version() == ["d4"]

    @pytest.mark.stress
    def test_a_block_outside_env_pys_own_transaction_cannot_be(self, backend: Backend) -> None:
        message = backend.refused(
            ONE_TRANSACTION["engine.begin"], [*ABC, Rev("d4", autocommit("CREATE INDEX CONCURRENTLY i ON a (id)"))]
        )

        assert message.startswith("MigrationFailed: revision d4")
        assert "an autocommit_block cannot leave a transaction that env.py has begun" in message


class TestOptions:
    @pytest.mark.stress
    def test_timeouts_of_its_own_are_kept(self, backend: Backend) -> None:
        show = Rev("a1", "print([op.get_bind().scalar(sa.text(f'SHOW {n}_timeout')) for n in ('lock', 'statement')])")
        set_them = "connection.execute(text(\"SET lock_timeout = '4s'; SET statement_timeout = '5s'\"))"
        for env_py in (
            connecting(before=f"{set_them}; connection.commit()"),
            connecting(after=set_them),
            online(
                CONNECT.format(before="pass", after="pass", options="").replace(
                    "poolclass=",
                    'connect_args={"options": "-c lock_timeout=4s -c statement_timeout=5s"}, poolclass=',
                )
            ),
        ):
            backend.upgraded(env_py, [show])
        assert backend.output("stdout") == [("INFO", "['4s', '5s']")] * 3

        backend.upgraded(connecting(before="connection.execute(text('SET statement_timeout = 0'));connection.commit()"))
        backend.upgraded(connecting(), [show])

        lock, statement = backend.output("stdout")[-1][1].strip("[]'").split("', '")
        assert lock == "3s"
        assert 1 <= int(statement.removesuffix("ms").removesuffix("s")) <= 60_000

    def test_a_version_table_of_its_own(self, backend: Backend) -> None:
        backend.upgraded(connecting(options=", version_table='my_version'"))
        assert backend.tables() == ["a", "b", "c", "my_version"]

        own = connecting(
            before="connection.execute(text('CREATE SCHEMA IF NOT EXISTS \"My Meta\"')); connection.commit()",
            options=", version_table='Ver %s \"it\"', version_table_schema='My Meta', include_schemas=True",
        )
        backend.upgraded(own)
        assert '"My Meta"."Ver %s ""it"""' in backend.tables()
        assert backend.invoke().payload["applied"] == []
        status = backend.invoke({"action": "status"}).payload
        assert status.get("revision") == "c3", status

    @pytest.mark.stress
    def test_two_trees_in_one_database_may_have_equal_ids(self, backend: Backend) -> None:
        backend.upgraded(connecting(options=", version_table='one'"))
        for file in ("a1", "b2", "c3"):
            path = backend.folder / "alembic" / "versions" / f"{file}_.py"
            path.write_text(path.read_text().replace("CREATE TABLE ", "CREATE TABLE two_"))
        (backend.folder / "alembic" / "env.py").write_text(connecting(options=", version_table='two'"))

        second = backend.invoke().payload

        assert [applied["revision"] for applied in second["applied"]] == ["a1", "b2", "c3"]
        assert backend.tables() == ["a", "b", "c", "one", "two", "two_a", "two_b", "two_c"]

    @pytest.mark.stress
    def test_its_own_callbacks_are_called_and_its_arguments_passed(self, backend: Backend) -> None:
        top = "def note(step, heads, run_args, **_):\n    print(step.up_revision_id, sorted(heads), run_args)"
        for callbacks in ("note", "[note, note]", "(note,)"):
            backend.put(connecting(top=top, options=f", on_version_apply={callbacks}"), ABC[:1])
            for name, text in ((backend.folder / "alembic" / "env.py", "run_migrations(tenant='one')"),):
                name.write_text(name.read_text().replace("run_migrations()", text))
            revision = backend.folder / "alembic" / "versions" / "a1_.py"
            revision.write_text(revision.read_text().replace("def upgrade():", "def upgrade(tenant):"))
            assert backend.invoke().error_type is None
        assert backend.output("stdout") == [("INFO", "a1 ['a1'] {'tenant': 'one'}")] * 4

    @pytest.mark.stress
    def test_a_search_path_and_a_role_of_its_own(self, backend: Backend) -> None:
        backend.upgraded(
            connecting(
                before="connection.execute(text('CREATE SCHEMA app; SET search_path = app; SET ROLE current_user'));"
                " connection.commit()".replace("current_user", '"' + backend.database.user + '"')
            )
        )

        assert backend.tables() == ["app.a", "app.alembic_version", "app.b", "app.c"]
        again = (backend.folder / "alembic" / "env.py").read_text().replace("CREATE SCHEMA app;", "")
        (backend.folder / "alembic" / "env.py").write_text(again)
        assert backend.invoke().payload["applied"] == []

    @pytest.mark.stress
    def test_several_runs_of_one_env_py_are_counted_together(self, backend: Backend) -> None:
        """env.py runs the tree once for each schema of its tenants."""
        env_py = online(
            """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    for tenant in ("one", "two"):
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {tenant}; SET search_path = {tenant}"))
        connection.commit()
        context.configure(connection=connection, version_table_schema=tenant)
        with context.begin_transaction():
            context.run_migrations()
"""
        )
        answer = backend.run(env_py)

        assert [applied["revision"] for applied in answer.payload["applied"]] == ["a1", "b2", "c3"] * 2
        assert len(backend.tables()) == 8
        assert backend.invoke().payload["applied"] == []


CATCHES = """
from alembic import context
from sqlalchemy import create_engine
import os
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    for attempt in range(TIMES):
        context.configure(connection=connection)
        try:
            with context.begin_transaction():
                context.run_migrations()
        except Exception as error:
            print(f"ignored {error}")
            connection.rollback()
"""


@pytest.mark.stress
def test_pg8000_shows_a_commit_that_sqlalchemy_does_not_see(backend: Backend) -> None:
    env_py = ENV_PY.replace('os.environ["DATABASE_URL"]', 'os.environ["DATABASE_URL"].replace("psycopg2", "pg8000")')
    assert env_py != ENV_PY
    revisions = [ABC[0], Rev("b2", sql("CREATE TABLE b (id int)", "COMMIT", "SELECT 1 / 0")), ABC[2]]

    answer = backend.run(env_py, revisions)

    assert answer.error_type == "MigrationFailed", answer.payload
    assert "it had committed part of its work" in answer.message
    assert backend.run(env_py).error_type is None


def test_an_error_that_env_py_catches_is_no_success(backend: Backend) -> None:
    broken = [ABC[0], Rev("b2", sql("SELECT 1 / 0")), ABC[2]]

    answer = backend.run(CATCHES.replace("TIMES", "1"), broken)

    assert answer.error_type == "MigrationFailed"
    assert "revision b2 (Revision b2) failed: DivisionByZero" in answer.message
    assert "env.py caught this error and continued" in answer.message
    assert backend.version() == ["a1"]

    assert backend.run(CATCHES.replace("TIMES", "1") + "raise SystemExit(3)\n", broken).message == answer.message


@pytest.mark.stress
def test_an_error_that_env_py_retries_with_success_is_ignored(backend: Backend) -> None:
    fails_once = (
        "import pathlib\nmark = pathlib.Path(os.environ['MARK'])\nif not mark.exists():\n    mark.touch(); 1 / 0"
    )
    top = f"import os, tempfile\nos.environ['MARK'] = os.path.join(tempfile.mkdtemp(), 'mark')\n{CATCHES}"

    backend.upgraded(top.replace("TIMES", "2"), [ABC[0], Rev("b2", f"import os\n{fails_once}"), ABC[2]])
