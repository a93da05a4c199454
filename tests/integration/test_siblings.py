"""Backends in other spellings, with other drivers and in other layouts end where Alembic's own command ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infra.package.layout import BACKEND_LIBRARIES
from tests.support.bystander import administer, execute
from tests.support.env_py.backend import Backend, online, package_with
from tests.support.plain_alembic import alembic, snapshot
from tests.support.samples import sampled
from tests.support.trees import Rev, sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

TOP = """
import asyncio
import sqlalchemy.orm
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
"""
URL = "sa.make_url(os.environ['DATABASE_URL']).set(drivername='postgresql+{}', query={{}})"
RUNS = """
with engine.connect() as connection:
    context.configure(connection=connection{options})
    with context.begin_transaction():
        context.run_migrations()
"""


def engine(driver: str = "psycopg2", arguments: str = "", listener: str = "", options: str = "") -> str:
    url = URL.format(driver) if driver != "psycopg2" else "os.environ['DATABASE_URL']"
    return f"engine = create_engine({url}{arguments})\n{listener}{RUNS.format(options=options)}"


def listens(name: str, body: str) -> str:
    return f"@event.listens_for(engine, {name!r})\n{body}\n"


ASYNC = f"""
def work(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        SETS
        context.run_migrations()
async def main():
    async with create_async_engine({URL.format("asyncpg")}).connect() as connection:
        await connection.run_sync(work)
asyncio.run(main())
"""
TWICE = """
engine = create_engine(os.environ["DATABASE_URL"])
for schema in {schemas}:
    with engine.begin() as connection:
        connection.execute(text(f'SET LOCAL search_path TO "{{schema}}"'))
        context.configure(connection=connection, version_table_schema=schema)
        context.run_migrations()
"""
OTHER_ENGINE = "with create_engine(os.environ['DATABASE_URL']).begin() as other:\n"
SESSION = """
import sqlalchemy.orm
with sa.orm.Session(bind=op.get_bind()) as s:
    s.execute(sa.text('INSERT INTO a VALUES (1)'))
"""
# env.py, and the bodies of revisions in place of the usual ones.
SAME: dict[str, tuple[str, list[str] | None]] = {
    "set_config in a connect listener": (
        engine(
            listener=listens(
                "connect",
                "def f(driver, _):\n    driver.cursor().execute(\"SELECT set_config('search_path', 'app', false)\")\n"
                "    driver.commit()",
            )
        ),
        None,
    ),
    "a role as an option of the driver": (engine(arguments=", connect_args={'options': '-c role={role}'}"), None),
    "a role in do_connect": (
        engine(
            "psycopg",
            listener=listens("do_connect", "def f(d, r, a, parameters):\n    parameters['options'] = '-c role={role}'"),
        ),
        None,
    ),
    "a role in engine.begin()": (
        (
            "with create_engine(os.environ['DATABASE_URL']).begin() as connection:\n"
            "    connection.execute(text('SET ROLE {role}'))\n"
            "    context.configure(connection=connection)\n    context.run_migrations()"
        ),
        None,
    ),
    "a role with pg8000": (
        engine(
            "pg8000",
            listener=listens(
                "connect", "def f(driver, _):\n    driver.cursor().execute('SET ROLE {role}')\n    driver.commit()"
            ),
        ),
        None,
    ),
    "a role in engine_connect": (
        engine(
            "psycopg",
            listener=listens(
                "engine_connect",
                "def f(connection):\n    connection.exec_driver_sql('SET ROLE {role}'); connection.commit()",
            ),
        ),
        None,
    ),
    "asyncpg with a local role": (ASYNC.replace("SETS", "connection.execute(text('SET LOCAL ROLE {role}'))"), None),
    "two engines": (
        f"{OTHER_ENGINE}    other.execute(text('CREATE TABLE meta (id int)'))\n{engine('psycopg')}",
        None,
    ),
    "a quoted schema of the version table": (
        OTHER_ENGINE
        + "    other.execute(text('CREATE SCHEMA IF NOT EXISTS \"Ops Ver\"'))\n"
        + engine(options=", version_table_schema='Ops Ver', version_table='Versions', include_schemas=True"),
        None,
    ),
    "transaction_per_migration": (
        engine(options=", transaction_per_migration=True"),
        [sql("SET LOCAL search_path TO app, public", "CREATE TABLE a (id int)"), sql("CREATE TABLE b (id int)")],
    ),
    "x with a default": (
        "tenant = context.get_x_argument(as_dictionary=True).get('tenant', 'app')\n"
        + engine(options=", version_table_schema=tenant"),
        None,
    ),
    "a loop over schemas in engine.begin()": (TWICE.format(schemas="('app', 'public')"), None),
    "the same migrations twice": (TWICE.format(schemas="('app', 'app')"), None),
    "AUTOCOMMIT": (engine(arguments=", isolation_level='AUTOCOMMIT'"), None),
    "AUTOCOMMIT as an execution option": (
        engine("psycopg").replace(
            "engine.connect()", "engine.connect().execution_options(isolation_level='AUTOCOMMIT')"
        ),
        None,
    ),
    "a commit of the driver": (
        engine(),
        [
            sql("CREATE TABLE a (id int)"),
            sql("CREATE TABLE b (id int)") + "\nop.get_bind().connection.commit()\n" + sql("CREATE TABLE c (id int)"),
            sql("CREATE TABLE d (id int)"),
        ],
    ),
    "a commit of psycopg's cursor": (
        engine("psycopg"),
        [
            sql("CREATE TABLE a (id int)"),
            "op.get_bind().connection.cursor().execute('CREATE TABLE b (id int); COMMIT')\n"
            + sql("CREATE TABLE c (id int)"),
            sql("CREATE TABLE d (id int)"),
        ],
    ),
    "a session that commits": (
        engine(),
        [
            sql("CREATE TABLE a (id int)"),
            SESSION + "    s.commit()",
            sql("CREATE TABLE d (id int)"),
        ],
    ),
    "a schema_translate_map": (
        engine("psycopg").replace(
            "engine.connect()", "engine.connect().execution_options(schema_translate_map={None: 'app'})"
        ),
        ["op.create_table('a', sa.Column('id', sa.Integer))", "op.create_table('b', sa.Column('id', sa.Integer))"],
    ),
    "a loop over schemas with a schema_translate_map": (
        """
for schema in ('app', 'public'):
    with create_engine(os.environ['DATABASE_URL']).connect().execution_options(
        schema_translate_map={None: schema}
    ) as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
""",
        ["op.create_table('a', sa.Column('id', sa.Integer))", "op.create_table('b', sa.Column('id', sa.Integer))"],
    ),
    "no block, with a commit": (
        engine().replace(
            "    with context.begin_transaction():\n        context.run_migrations()",
            "    context.run_migrations()\n    connection.commit()",
        ),
        None,
    ),
    "a schema in a DO block": (
        engine().replace(
            "context.run_migrations()",
            "context.execute('DO $$BEGIN CREATE SCHEMA IF NOT EXISTS made; END$$'); context.run_migrations()",
        ),
        [sql("CREATE TABLE made.a (id int)"), sql("CREATE TABLE made.b (id int)")],
    ),
}
# Alembic's command fails or commits nothing.
FAILS: dict[str, tuple[str, list[str] | None]] = {
    "a session that rolls back": (
        engine(),
        [
            sql("CREATE TABLE a (id int)"),
            SESSION + "    s.rollback()",
        ],
    ),
    "no schema": (TWICE.format(schemas="()"), None),
    "pg8000 rolls back": (
        engine("pg8000"),
        [sql("CREATE TABLE a (id int)"), sql("CREATE TABLE b (id int)", "ROLLBACK")],
    ),
    "psycopg rolls back": (
        engine("psycopg"),
        [sql("CREATE TABLE a (id int)"), sql("CREATE TABLE b (id int)", "ROLLBACK")],
    ),
    "asyncpg rolls back": (
        ASYNC.replace("SETS", "pass"),
        [sql("CREATE TABLE a (id int)"), sql("CREATE TABLE b (id int)", "ROLLBACK")],
    ),
}

SAMPLE = {"a role in do_connect", "a session that rolls back"}


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does not need."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


@pytest.fixture
def role(postgres_server: Server, database: Database) -> Iterator[str]:
    """A role that the login may set and does not inherit."""
    role = f"{database.name}_role"
    administer(postgres_server, f"CREATE ROLE {role}", f'GRANT {role} TO "{database.user}" WITH INHERIT FALSE')
    yield role
    execute(postgres_server.database(database.name), f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def put(backend: Backend, case: tuple[str, list[str] | None], role: str) -> None:
    env_py, bodies = case
    bodies = bodies or [sql("CREATE TABLE a (id int)"), sql("CREATE TABLE b (id int)", "INSERT INTO b VALUES (1)")]
    revisions = [Rev(f"r{number}", body) for number, body in enumerate(bodies, 1)]
    backend.put(online(env_py.replace("{role}", role), top=TOP), revisions)
    backend.execute("CREATE SCHEMA app", f"GRANT ALL ON SCHEMA public, app TO {role}")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path)


@pytest.mark.stress
@pytest.mark.parametrize("what", sampled(SAME, SAMPLE))
def test_a_backend_ends_where_it_ends_under_alembic(
    backend: Backend, postgres_server: Server, role: str, what: str
) -> None:
    everything = postgres_server.database(backend.database.name)
    put(backend, SAME[what], role)
    plain = alembic(
        backend.folder, backend.database, "upgrade", "head", libraries=backend.folder.parent / BACKEND_LIBRARIES
    )
    assert plain.returncode == 0, plain.stderr
    expected = snapshot(everything)
    put(backend, SAME[what], role)

    answer = backend.invoke()

    assert answer.error_type is None, answer.payload
    assert snapshot(everything) == expected
    assert answer.payload["up_to_date"] is True


@pytest.mark.parametrize("what", sampled(FAILS, SAMPLE))
def test_a_backend_that_alembic_does_not_migrate_is_no_success(
    backend: Backend, postgres_server: Server, role: str, what: str
) -> None:
    everything = postgres_server.database(backend.database.name)
    put(backend, FAILS[what], role)
    plain = alembic(
        backend.folder, backend.database, "upgrade", "head", libraries=backend.folder.parent / BACKEND_LIBRARIES
    )
    assert plain.returncode != 0 or snapshot(everything)["tables"] == []
    put(backend, FAILS[what], role)

    answer = backend.invoke()
    assert answer.error_type in {"ConfigurationError", "MigrationFailed"}, answer.payload
