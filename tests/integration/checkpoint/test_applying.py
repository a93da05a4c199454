"""An empty database that begins with a checkpoint ends like one that ran its revisions."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import threading
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.schema import read_schema, same_form
from lambda_migrate.revisions.checkpoint import Surroundings
from localcloud.clients import client
from migrate_review.checkpoint.apply_locally import apply_if_empty
from migrate_review.checkpoint.making import make
from migrate_review.checkpoint.replaying import Backend
from migrate_review.measure.session import settings_of
from tests.support.bystander import execute, query
from tests.support.checkout import ROOT
from tests.support.checkpoints import checkpoint, describe_as, held, replayed
from tests.support.planted import calls_of_ours, plant
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

pytestmark = pytest.mark.xdist_group("checkpoint")
STRESS = pytest.mark.stress
ROLE_ENV = ENV_PY.replace(
    "        context.configure(connection=connection",
    '        connection.execute(text("SET ROLE " + os.environ["OWNER"]))\n        connection.commit()\n'
    "        context.configure(connection=connection",
).replace("import create_engine, pool", "import create_engine, pool, text")
ASYNC_ENV = """
import asyncio, os
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine


def run(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(main())
"""
OWN_TRANSACTION_ENV = ENV_PY.replace("connectable.connect() as connection", "connectable.begin() as connection")
AUTOCOMMIT_ENV = ENV_PY.replace("poolclass=pool.NullPool", 'poolclass=pool.NullPool, isolation_level="AUTOCOMMIT"')
LOOP_ENV = ENV_PY.replace(
    """        context.configure(connection=connection, target_metadata=target_metadata)
        with context.begin_transaction():
            context.run_migrations()
""",
    """        for schema in ("one", "two"):
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.exec_driver_sql(f"SET search_path = {schema}")
            connection.commit()
            context.configure(connection=connection, version_table_schema=schema)
            with context.begin_transaction():
                context.run_migrations()
""",
)
BRANCHING = """
import os
from alembic import context
flag = os.environ.get("FLAG", "none")
tenant = context.get_x_argument(as_dictionary=True).get("tenant", "none")
op.execute(f"CREATE TABLE made_for (name text DEFAULT '{flag} {tenant}')")
"""


@pytest.fixture(scope="module")
def branching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree whose revision reads a variable and an -x argument, with a checkpoint that was made with both."""
    folder = write_tree(
        tmp_path_factory.mktemp("branching") / "branching",
        [Rev("a1", BRANCHING)],
    )
    variables = {"FLAG": "on", "ALEMBIC_X": '{"tenant": "one"}'}
    settings = settings_of(folder, "alembic.ini", variables)
    make(Backend(folder, settings, Path(sys.executable), variables), versions=(18,)).write()
    return folder


def test_an_empty_database_gets_the_checkpoint_and_then_the_later_revisions(
    runner: Runner, database: Database, later: Path
) -> None:
    wanted = replayed(later, database)

    result = runner.invoke(later).payload

    assert held(database) == wanted
    checkpoint_ = result.pop("checkpoint")
    assert checkpoint_.pop("duration_ms") >= 0
    assert checkpoint_ == {"revision": "b2,c3", "revisions": 3}
    assert [each["revision"] for each in result["applied"]] == ["d4"]
    assert (result["previous_revision"], result["revision"], result["pending"]) == (None, "d4", [])
    assert [line["revision"] for line in runner.events("checkpoint.applied")] == ["b2,c3"]
    assert [line["revision"] for line in runner.events("revision.started")] == ["d4"]


@STRESS
def test_it_is_used_in_any_schema(runner: Runner, database: Database, seeded: Path) -> None:
    names = ("one", "Two-2")
    query(database, "; ".join(f'CREATE SCHEMA "{name}"' for name in names))
    ended = {}
    for name, switch in zip(names, ("off", "on"), strict=True):
        event = {"revision": "heads", "target": {"schema": name}}
        result = runner.invoke(seeded, event, CHECKPOINT=switch).payload
        assert ("checkpoint" in result) == (switch == "on"), result
        ended[name] = query(
            database,
            "SELECT c.relname, c.relkind, obj_description(c.oid),"
            " replace(concat(pg_get_viewdef(c.oid), pg_get_expr(d.adbin, d.adrelid)), quote_ident(nspname) || '.', '')"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_attrdef d ON d.adrelid = c.oid"
            " WHERE nspname = %s ORDER BY 1, 4",
            (name,),
        )
    one, two = ([(*row[:3], same_form(row[3])) for row in ended[name]] for name in names)
    assert one == two
    assert not query(database, "SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace")


def test_nothing_that_another_role_has_planted_is_called(
    runner: Runner,
    database: Database,
    postgres_server: Server,
    put_secret: Callable[[object], str],
    seeded: Path,
) -> None:
    strong = postgres_server.database(database.name)
    path = "public, trojan, pg_catalog"
    execute(database, "CREATE SCHEMA trojan", f"ALTER DATABASE {database.name} SET search_path = {path}")
    plant(strong, "trojan", database.user)

    function = runner.start(seeded, DB_SECRET_ID=put_secret(strong.secret), UNTRUSTED_SCHEMA="ignore")
    # What is before pg_catalog may mislead Alembic after the checkpoint.
    answer = function.invoke({"revision": "heads"})

    assert len(runner.events("checkpoint.applied")) == 1, (answer.payload, runner.events("checkpoint.skipped"))
    assert calls_of_ours(postgres_server, database) == []
    assert query(strong, "SELECT total FROM sums") == [(Decimal("5.1"),)]


@pytest.mark.parametrize(
    "before,event,environment,why",
    [
        ("CREATE TABLE own (id int)", {"revision": "heads"}, {}, "holds objects"),
        pytest.param(
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            {"revision": "heads"},
            {},
            "every role may create",
            id="every role may create",
            marks=STRESS,
        ),
        pytest.param("", {"revision": "b2"}, {}, "ends below", id="below it", marks=STRESS),
        pytest.param("", {"revision": "+1"}, {}, "a number of revisions", id="a number", marks=STRESS),
        ("", {"revision": "heads"}, {"FLAG": "text"}, "variable FLAG is not what it was"),
        pytest.param(
            "",
            {"revision": "heads"},
            {"ALEMBIC_X": '{"tenant": "one"}'},
            "the -x arguments are not those",
            id="other -x arguments",
            marks=STRESS,
        ),
        pytest.param("", {"revision": "heads"}, {"CHECKPOINT": "off"}, None, id="switched off", marks=STRESS),
        pytest.param(
            "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY)",
            {"revision": "heads"},
            {},
            None,
            id="a version table",
            marks=STRESS,
        ),
    ],
)
def test_anything_else_replays(
    runner: Runner,
    database: Database,
    seeded: Path,
    before: str,
    event: dict[str, str],
    environment: dict[str, str],
    why: str | None,
) -> None:
    query(database, before or "SELECT")

    result = runner.invoke(seeded, event, **environment).payload

    assert "checkpoint" not in result
    assert [each["revision"] for each in result["applied"]][:1] == ["a1"]
    skipped = [line["message"] for line in runner.events("checkpoint.skipped")]
    assert len(skipped) == (why is not None)
    assert all(str(why) in message for message in skipped)


@STRESS
def test_a_downgrade_below_it_runs_as_without_it(runner: Runner, database: Database, later: Path) -> None:
    runner.invoke(later)

    event = {"action": "downgrade", "revision": "b2", "confirm": "d4"}
    answer = runner.invoke(later, event, ALLOW_DOWNGRADE="true")

    assert answer.error_type is None, answer.payload
    assert query(database, "SELECT version_num FROM alembic_version ORDER BY 1") == [("b2",), ("c3",)]


@STRESS
@pytest.mark.parametrize("count", [2, 20])
def test_several_at_once_apply_it_once(runner: Runner, database: Database, later: Path, count: int) -> None:
    wanted = replayed(later, database)
    functions = [runner.start(later) for _ in range(count)]
    threads = [threading.Thread(target=function.invoke) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert held(database) == wanted
    assert len(runner.events("checkpoint.applied")) == 1
    assert not runner.events("migration.failed")


@STRESS
def test_its_objects_belong_to_the_role_that_env_py_acts_as(
    runner: Runner, postgres_server: Server, database: Database, seeded: Path, tmp_path: Path
) -> None:
    owner = f"{database.name}_owners"
    query(postgres_server.database(database.name), f"CREATE ROLE {owner}; GRANT {owner} TO {database.user}")
    query(postgres_server.database(database.name), f"GRANT CREATE ON SCHEMA public TO {owner}")
    folder = shutil.copytree(seeded, tmp_path / "role")
    (folder / "alembic" / "env.py").write_text(ROLE_ENV)
    describe_as(folder, variables=Surroundings({}, {}, {"OWNER": owner}, ()).noted(()))

    result = runner.invoke(folder, {"revision": "heads"}, DATABASE_ENV=json.dumps({"OWNER": owner})).payload

    assert result["checkpoint"]["revisions"] == 3, result
    assert query(
        database,
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    ) == [(owner,)]


@STRESS
@pytest.mark.parametrize(
    "env_py,driver,uses_it",
    [
        pytest.param(ENV_PY, "postgresql+psycopg", True, id="psycopg", marks=STRESS),
        pytest.param(ASYNC_ENV, "postgresql+psycopg", True, id="psycopg, async", marks=STRESS),
        pytest.param(ASYNC_ENV, "postgresql+asyncpg", True, id="asyncpg"),
        pytest.param(OWN_TRANSACTION_ENV, "postgresql+psycopg2", True, id="a transaction of its own", marks=STRESS),
        pytest.param(AUTOCOMMIT_ENV, "postgresql+psycopg2", False, id="autocommit", marks=STRESS),
    ],
)
def test_it_runs_on_env_pys_own_connection_whatever_the_driver(
    runner: Runner,
    database: Database,
    later: Path,
    env_py: str,
    driver: str,
    uses_it: bool,  # noqa: FBT001 - expected
) -> None:
    wanted = replayed(later, database)
    (later / "alembic" / "env.py").write_text(env_py)

    result = runner.invoke(later, DB_DRIVER=driver).payload

    assert ("checkpoint" in result) == uses_it, result
    assert result["revision"] == "d4"
    assert held(database) == wanted


@STRESS
def test_an_env_py_with_several_version_tables_begins_all_of_them(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    folder = write_tree(tmp_path / "loop", [Rev("a1", sql("CREATE TABLE t (i serial)"))], env_py=LOOP_ENV)
    made = checkpoint(folder)

    result = runner.invoke(folder).payload

    assert [table.schema for table in made.checkpoint.tables] == ["", "two"]
    assert (result["checkpoint"]["revisions"], result["applied"], result["pending"]) == (1, [], [])
    assert {each["schema"]: each["revision"] for each in result["version_tables"]} == {"one": "a1", "two": "a1"}
    assert query(database, "SELECT count(*) FROM pg_class WHERE relname = 't'") == [(2,)]


@STRESS
@pytest.mark.parametrize(
    "variables,why",
    [
        ({}, None),
        ({"FLAG": "off"}, "the environment variable FLAG is not what it was"),
        ({"FLAG": None}, "the environment variable FLAG is not what it was"),
        ({"DATABASE_ENV": '{"OTHER": "1"}'}, "the environment variable OTHER is not what it was"),
        ({"DATABASE_ENV": '{"ADDRESS": "{host}"}'}, None),
        ({"ALEMBIC_X": '{"tenant": "two"}'}, "the -x arguments are not those"),
        ({"ALEMBIC_X": None}, "the -x arguments are not those"),
    ],
)
def test_revisions_that_are_given_something_else_run(
    runner: Runner, database: Database, branching: Path, variables: dict[str, str | None], why: str | None
) -> None:
    given = {"FLAG": "on", "ALEMBIC_X": '{"tenant": "one"}', **variables}

    result = runner.invoke(branching, **given).payload

    assert ("checkpoint" in result) == (why is None), result
    assert [why is not None and why in line["message"] for line in runner.events("checkpoint.skipped")] == (
        [] if why is None else [True]
    )
    tenant = json.loads(given["ALEMBIC_X"] or "{}").get("tenant", "none")
    [(name,)] = query(database, "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef")
    assert name == f"'{given['FLAG'] or 'none'} {tenant}'::text"


def test_a_developers_upgrade_begins_with_it(database: Database, seeded: Path) -> None:
    assert apply_if_empty(seeded / "alembic.ini", database) == "began with a checkpoint of 3 revisions, at b2,c3"
    assert apply_if_empty(seeded / "alembic.ini", database) is None


@pytest.mark.stress
def test_the_reference_tree_ends_the_same_with_and_without_it(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    folder = shutil.copytree(ROOT / "back", tmp_path / "back", ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    made = checkpoint(folder, versions=(15, 18))
    assert (made.checkpoint.any_schema, made.items, made.remarks) == (True, (), ())
    wanted = replayed(folder, database)

    result = runner.invoke(folder).payload

    assert result["checkpoint"]["revisions"] == len(made.checkpoint.revisions)
    assert (result["applied"], result["pending"]) == ([], [])
    assert held(database) == wanted
    with closing(database.connect()) as opened:
        assert read_schema(opened).fingerprint == made.checkpoint.fingerprint


@STRESS
def test_a_new_tenant_in_a_rollout_begins_with_it(
    runner: Runner, database: Database, emulator: Emulator, seeded: Path
) -> None:
    bucket = f"rollouts-{secrets.token_hex(4)}"
    client(emulator, "s3").create_bucket(Bucket=bucket)
    query(database, "CREATE SCHEMA tenant")
    target = {"schema": "tenant"}
    item = {"number": 1, "name": "tenant", "server": "s", "wave": 1, "target": target}
    event = {"revision": "heads", "target": target, "rollout": {"name": "first", "item": item, "runs": 0}}

    outcomes = [runner.invoke(seeded, event, ROLLOUT_BUCKET=bucket).payload["outcome"] for _ in range(2)]

    assert outcomes == ["migrated", "current"]
    assert [line["schema"] for line in runner.events("checkpoint.applied")] == ["tenant"]
    assert query(database, "SELECT version_num FROM tenant.alembic_version ORDER BY 1") == [("b2",), ("c3",)]
