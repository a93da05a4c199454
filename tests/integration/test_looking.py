"""status, plan and check work with every env.py that an upgrade works with, and change nothing."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL

from tests.support.bystander import administer
from tests.support.env_py.backend import Backend, online, package_with
from tests.support.fingerprint import fingerprint
from tests.support.functions import RUNTIME
from tests.support.samples import in_two_sets, sampled
from tests.support.trees import Rev, sql

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with more drivers, and with alembic_utils."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path)


CONNECT = """
engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    {connected}
    context.configure(connection=connection, target_metadata=sa.MetaData(){options})
    with context.begin_transaction():
        context.run_migrations()
    {after}
"""


def connecting(connected: str = "pass", *, before: str = "", options: str = "", after: str = "pass") -> str:
    body = CONNECT.format(connected=connected.strip().replace("\n", "\n    "), options=options, after=after)
    return online(before.strip("\n") + body)


IF_NONE = "IF to_regnamespace('app') IS NULL THEN CREATE SCHEMA app; END IF;"
IN_APP = ', version_table_schema="app"'
FIRST = 'with create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool).begin() as first:\n    '
RAW = """
raw = create_engine(os.environ["DATABASE_URL"]).raw_connection()
raw.cursor().execute("CREATE SCHEMA IF NOT EXISTS app")
raw.commit()
raw.close()
"""
ALONE = """
import psycopg2
alone = psycopg2.connect(os.environ["DATABASE_URL"].replace("+psycopg2", ""))
alone.autocommit = True
alone.cursor().execute("CREATE SCHEMA IF NOT EXISTS app")
alone.close()
"""
PSYCOPG_ALONE = """
import psycopg
with psycopg.connect(os.environ["DATABASE_URL"].replace("+psycopg2", ""), autocommit=True) as alone:
    alone.execute("CREATE SCHEMA IF NOT EXISTS app")
    try:
        alone.execute("CREATE SCHEMA app")
    except psycopg.errors.DuplicateSchema:
        alone.execute("CREATE TABLE IF NOT EXISTS app.settings (id int)")
    with alone.transaction():
        alone.execute("CREATE TABLE IF NOT EXISTS app.more (id int)")
"""
AUTOCOMMIT = """
with create_engine(os.environ["DATABASE_URL"], isolation_level="AUTOCOMMIT").connect() as first:
    first.execute(text("CREATE SCHEMA IF NOT EXISTS app"))
    try:
        first.execute(text("CREATE SCHEMA app"))
    except sa.exc.ProgrammingError:
        first.execute(text("CREATE TABLE IF NOT EXISTS app.settings (id int)"))
"""
LISTENER = """
@sa.event.listens_for(sa.pool.Pool, "connect")
def set_path(driver, _):
    driver.cursor().execute("SET search_path TO app, public")
    driver.commit()
"""
# SQLAlchemy's own recipe: without autocommit mode, the pool's first rollback would take the path back.
RECIPE = """
@sa.event.listens_for(sa.pool.Pool, "connect", insert=True)
def set_path(driver, _):
    autocommit, driver.autocommit = driver.autocommit, True
    cursor = driver.cursor()
    cursor.execute("CREATE SCHEMA IF NOT EXISTS app")
    cursor.execute("SET SESSION search_path = app")
    cursor.close()
    driver.autocommit = autocommit
"""
MAINTENANCE = """
with create_engine(os.environ["DATABASE_URL"], isolation_level="AUTOCOMMIT").connect() as first:
    first.execute(text("VACUUM audit"))
    first.execute(text("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON audit (what)"))
    first.execute(text("REINDEX (VERBOSE) SCHEMA public; -- each table"))
    first.execute(text("CLUSTER"))
    if first.scalar(text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'parted'::regclass")):
        first.execute(text("ALTER TABLE parted DETACH PARTITION part CONCURRENTLY"))
    first.execute(text("REINDEX TABLE audit; CREATE SCHEMA IF NOT EXISTS kept"))
    first.execute(text("SELECT 'kept'::regnamespace"))
"""
OWN_TABLE = "CREATE TABLE IF NOT EXISTS alembic_version (version_num varchar(128) PRIMARY KEY)"

# What an env.py does before Alembic reads the version table, and changes in the database.
WRITES = {
    "a schema that the inspector does not find": connecting(
        'if "app" not in sa.inspect(connection).get_schema_names():\n'
        '    connection.execute(text("CREATE SCHEMA app"))\nconnection.commit()',
        options=IN_APP,
    ),
    "a DO block": connecting(f'connection.execute(text("DO $$ BEGIN {IF_NONE} END $$")); connection.commit()'),
    "a connection of its own, and the next one needs it": connecting(
        'connection.execute(text("INSERT INTO app.settings VALUES (1)")); connection.rollback()',
        before=FIRST
        + 'first.execute(text("CREATE SCHEMA IF NOT EXISTS app; CREATE TABLE IF NOT EXISTS app.settings (id int)"))',
    ),
    "autocommit": connecting(
        'connection.execute(text("SELECT count(*) FROM app.settings")); connection.rollback()', before=AUTOCOMMIT
    ),
    "a raw connection": connecting(before=RAW, options=IN_APP),
    "psycopg2 alone": connecting(before=ALONE),
    "psycopg alone": connecting(before=PSYCOPG_ALONE),
    "an extension": connecting(
        'connection.execute(text("CREATE EXTENSION IF NOT EXISTS citext SCHEMA public")); connection.commit()'
    ),
    "settings of the role and the database": connecting(
        "connection.execute(text(\"ALTER ROLE CURRENT_USER SET work_mem = '8MB'\"))\n"
        'database = connection.scalar(text("SELECT quote_ident(current_database())"))\n'
        "connection.execute(text(f\"ALTER DATABASE {database} SET work_mem = '8MB'\")); connection.commit()"
    ),
    "a role": connecting(
        "role = connection.scalar(text('SELECT quote_ident(current_database() || chr(95) || chr(114))'))\n"
        "connection.execute(text(f\"DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role};\"\n"
        '    f" GRANT {role} TO CURRENT_USER WITH SET TRUE; GRANT ALL ON SCHEMA public TO {role}; END IF; END $$"))\n'
        "connection.execute(text(f'SET ROLE {role}')); connection.commit()"
    ),
    "the version table": connecting(f'connection.execute(text("{OWN_TABLE}")); connection.commit()'),
    "COMMIT as a text": connecting(
        'connection.execute(text("CREATE SCHEMA IF NOT EXISTS app; COMMIT")); connection.execute(text("ROLLBACK"))\n'
        'connection.execute(text("CREATE TABLE IF NOT EXISTS app.settings (id int)")); connection.rollback()'
    ),
    "a row with the number of a sequence": connecting(
        "connection.execute(text(\"INSERT INTO audit (what) VALUES ('env.py')\")); connection.commit()\n"
        "connection.execute(text(\"SELECT nextval('counter'), pg_notify('audit', 'x')\")); connection.commit()"
    ),
    "a search_path that a listener sets in autocommit mode": connecting(before=RECIPE),
    "what cannot run in a transaction": connecting(before=MAINTENANCE),
    "rows of a table that a revision makes": connecting(
        after='connection.execute(text("INSERT INTO a VALUES (1)")); connection.commit()'
    ),
    "a read-only default that it turns off": connecting(
        'connection.execute(text("SET default_transaction_read_only = off")); connection.commit()\n'
        'connection.execute(text("CREATE SCHEMA IF NOT EXISTS app")); connection.commit()',
        before=LISTENER,
    ),
}
BEFORE = (
    "CREATE TABLE audit (id serial PRIMARY KEY, what text)",
    "CREATE SEQUENCE counter",
    "SELECT nextval('counter')",
    "CREATE TABLE parted (id int) PARTITION BY LIST (id)",
    "CREATE TABLE part PARTITION OF parted FOR VALUES IN (1)",
)


# A sample for make test.
SAMPLE = (
    "a schema that the inspector does not find",
    "a connection of its own, and the next one needs it",
    "what cannot run in a transaction",
    "rows of a table that a revision makes",
)


@pytest.mark.parametrize("ways", in_two_sets(dict(zip(WRITES, WRITES, strict=True)), SAMPLE))
def test_an_env_py_that_writes_first_may_look_and_changes_nothing(
    backend: Backend, postgres_server: Server, database: Database, ways: list[str]
) -> None:
    administer(postgres_server, f'ALTER ROLE "{database.user}" CREATEROLE')
    as_superuser = postgres_server.database(database.name)
    for way in ways:
        backend.put(WRITES[way])
        backend.execute(*BEFORE)
        before = fingerprint(as_superuser)

        status = backend.invoke({"action": "status"})

        assert status.error_type is None, (way, status.payload)
        assert (status.payload["revision"], len(status.payload["pending"])) == (None, 3), way
        assert fingerprint(as_superuser) == before, way

        assert backend.invoke().payload["revision"] == "c3", way
        before = fingerprint(as_superuser)
        assert backend.invoke({"action": "status"}).payload["up_to_date"] is True, way
        assert fingerprint(as_superuser) == before, way


@pytest.mark.stress
def test_a_plan_and_a_check_change_nothing_either(
    backend: Backend, postgres_server: Server, database: Database
) -> None:
    backend.put(WRITES["a schema that the inspector does not find"])
    as_superuser = postgres_server.database(database.name)
    before = fingerprint(as_superuser)

    plan = backend.invoke({"action": "plan"})
    check = backend.invoke({"action": "check"})

    assert [entry["revision"] for entry in plan.payload["plan"]] == ["a1", "b2", "c3"]
    assert (check.error_type, "3 revisions pending" in check.message) == ("DriftDetected", True), check.payload
    assert fingerprint(as_superuser) == before


def test_a_missing_table_is_logged_without_the_values_of_its_rows(backend: Backend, runner: Runner) -> None:
    insert = "connection.execute(text('INSERT INTO a VALUES (:name)'), {'name': 'the name of a customer'})"
    backend.put(connecting(after=insert))

    status = backend.invoke({"action": "status"})

    assert len(status.payload["pending"]) == 3, status.payload
    [(level, message)] = backend.output("env.py")
    assert level == "WARNING"
    assert message.endswith('UndefinedTable: relation "a" does not exist (SQLSTATE 42P01)')
    assert not [line for line in runner.lines() if "customer" in line]


def test_another_error_between_two_schemas_is_a_failure(backend: Backend) -> None:
    migrates = CONNECT.format(connected="pass", options="", after="raise RuntimeError('the second has no settings')")
    backend.put(online(migrates))

    status = backend.invoke({"action": "status"})

    assert (status.error_type, "the second has no settings" in status.message) == ("ConfigurationError", True)


OTHERS = ("pg8000", "psycopg", "psycopg_async", "psycopg2")
# The same with other drivers.
OTHER_DRIVERS = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine
url = sa.make_url(os.environ["DATABASE_URL"]).set(drivername=DRIVER)
def work(connection):
    if "app" not in sa.inspect(connection).get_schema_names():
        connection.execute(text("CREATE SCHEMA app"))
    connection.commit()
    connection.execute(text("CREATE TABLE IF NOT EXISTS app.settings (id int)"))
    connection.execute(text("ROLLBACK"))
    connection.rollback()
    # For psycopg's async connection, a two-phase transaction cannot be held.
    for ends in ("commit", "rollback") if "psycopg_async" not in DRIVER else ():
        two_phases = connection.begin_twophase()
        connection.execute(text(f"CREATE TABLE IF NOT EXISTS app.{ends} (id int)"))
        two_phases.prepare()
        getattr(two_phases, ends)()
        connection.execute(text("SELECT FROM app.commit"))
        connection.rollback()
    context.configure(connection=connection, target_metadata=None, version_table_schema="app")
    with context.begin_transaction():
        context.run_migrations()
async def work_in_async():
    async with create_async_engine(url).connect() as connection:
        await connection.run_sync(work)
if "async" in DRIVER:
    asyncio.run(work_in_async())
else:
    with create_engine(url, pool_pre_ping=True).connect() as connection:
        work(connection)
"""


@pytest.mark.stress
@pytest.mark.parametrize(
    "driver",
    sampled(["postgresql+asyncpg", *(f"postgresql+{each}" for each in OTHERS)], {"postgresql+asyncpg"}),
)
def test_other_drivers_are_held_too(backend: Backend, postgres_server: Server, database: Database, driver: str) -> None:
    backend.put(online(OTHER_DRIVERS.replace("DRIVER", repr(driver))))
    as_superuser = postgres_server.database(database.name)
    before = fingerprint(as_superuser)

    answer = backend.invoke({"action": "status"})

    assert (answer.error_type, answer.payload.get("revision")) == (None, None), answer.payload
    if "async" not in driver:
        plan = backend.invoke({"action": "plan"}).payload
        assert all(entry["sql"] for entry in plan["plan"]), plan
    assert fingerprint(as_superuser) == before
    answer = backend.invoke()
    assert answer.error_type is None, answer.payload
    assert backend.invoke({"action": "status"}).payload["up_to_date"] is True


@pytest.mark.stress
def test_a_plan_runs_env_py_twice_though_it_writes_on_another_connection(backend: Backend) -> None:
    other = (
        "with engine.connect().execution_options(isolation_level='AUTOCOMMIT') as other:"
        " other.execute(text('CREATE SCHEMA IF NOT EXISTS app'))"
    )
    backend.put(connecting(other, options=IN_APP))

    plan = backend.invoke({"action": "plan"}).payload

    assert [entry["sql"] is None for entry in plan["plan"]] == [False] * 3, plan


# What no rollback takes back, or cannot be held: each is refused before anything is changed.
REFUSED = {
    "a commit past everything": (
        connecting(
            'connection.execute(text("CREATE SCHEMA app"))\n'
            "import psycopg2\npsycopg2.extensions.connection.commit(connection.connection.dbapi_connection)"
        ),
        "commits what it writes past SQLAlchemy",
    ),
    "a statement that runs in no transaction": (
        connecting(
            "connection = connection.execution_options(isolation_level='AUTOCOMMIT')\n"
            "connection.execute(text('CREATE DATABASE never_created'))"
        ),
        "no transaction can roll back",
    ),
    "asyncpg alone": (
        connecting(
            before="import asyncio, asyncpg\nasync def alone():\n"
            "    one = await asyncpg.connect(os.environ['DATABASE_URL'].replace('+psycopg2', ''))\n"
            "    await one.execute('CREATE SCHEMA IF NOT EXISTS app')\n"
            "    await one.close()\n"
            "asyncio.run(alone())\n"
        ),
        "opens without SQLAlchemy",
    ),
    "another connection of the server's own": (
        connecting("connection.execute(text(\"SELECT dblink_exec('dbname=x', 'CREATE TABLE y (id int)')\"))"),
        "dblink_exec",
    ),
}


def test_operations_that_cannot_be_rolled_back_are_refused(
    backend: Backend, postgres_server: Server, database: Database
) -> None:
    as_superuser = postgres_server.database(database.name)
    for way, (env_py, words) in REFUSED.items():
        backend.put(env_py)
        before = fingerprint(as_superuser)

        answer = backend.invoke({"action": "status"})

        assert answer.error_type == "ConfigurationError", (way, answer.payload)
        assert words in answer.message
        assert fingerprint(as_superuser) == before, way


UTILS = """
import sqlalchemy as sa
from alembic_utils.replaceable_entity import register_entities
from alembic_utils.pg_function import PGFunction
from alembic_utils.pg_trigger import PGTrigger
from alembic_utils.pg_view import PGView
models = sa.MetaData()
sa.Table("t1", models, sa.Column("id", sa.Integer, primary_key=True))
does_nothing = PGFunction("public", "f()", "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
before = "BEFORE INSERT ON public.t1 FOR EACH ROW EXECUTE FUNCTION public.f()"
watches = PGTrigger("public", "watches", before, on_entity="public.t1")
ids = PGView("public", "v1", "SELECT id FROM t1")
ENTITIES = [ids, does_nothing, watches]
"""
UTILS_ENV_PY = """
import os
from alembic import context
from sqlalchemy import create_engine
import entities
entities.register_entities(entities.ENTITIES, entity_types=[type(entity) for entity in entities.ENTITIES])
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection, target_metadata=entities.models)
    with context.begin_transaction():
        context.run_migrations()
"""
MAKE_ENTITIES = "import entities\nfor entity in entities.ENTITIES:\n    op.create_entity(entity)"
UTILS_REVISIONS = [Rev("a1", sql("CREATE TABLE t1 (id serial PRIMARY KEY)")), Rev("b2", MAKE_ENTITIES)]


@pytest.mark.stress
def test_a_check_with_alembic_utils_answers_as_alembic_check(
    backend: Backend, package: Path, postgres_server: Server, database: Database
) -> None:
    backend.put(UTILS_ENV_PY, UTILS_REVISIONS, entities=UTILS)
    answer = backend.invoke()
    assert answer.error_type is None, answer.payload
    as_superuser = postgres_server.database(database.name)
    before = fingerprint(as_superuser)

    assert backend.invoke({"action": "check"}).error_type is None
    assert alembic_check(backend, package) == 0
    assert fingerprint(as_superuser) == before

    backend.execute("CREATE OR REPLACE VIEW v1 AS SELECT id + 0 AS id FROM t1", "DROP TRIGGER watches ON t1")
    before = fingerprint(as_superuser)
    answer = backend.invoke({"action": "check"})
    assert answer.error_type == "DriftDetected"
    assert "differ in 2 ways" in answer.message
    assert alembic_check(backend, package) == 255
    assert fingerprint(as_superuser) == before


def alembic_check(backend: Backend, package: Path) -> int:
    """The exit code of Alembic's own command in the backend's folder."""
    url = URL.create(
        "postgresql+psycopg2",
        backend.database.user,
        backend.database.password,
        backend.database.host,
        backend.database.port,
        backend.database.name,
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(package / "backend-libraries"),
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(backend.database.ca),
    }
    command = [str(RUNTIME), "-m", "alembic", "check"]
    return subprocess.run(command, cwd=backend.folder, env=environment, check=False, capture_output=True).returncode
