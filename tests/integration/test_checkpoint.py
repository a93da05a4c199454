"""A checkpoint stands for revisions: an empty database that begins with it ends like one that ran them."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from infra.package import PackageError, checkpoints
from infra.package.builder import graph_of
from infra.package.layout import read_layout
from lambda_migrate.database.schema import read_schema, same_form
from lambda_migrate.revisions.checkpoint import DESCRIPTION, SCRIPT, Surroundings, read_checkpoint, to_text
from lambda_migrate.revisions.manifest import digest_of
from localcloud.clients import client
from migrate_review.checkpoint.beginning import begin
from migrate_review.checkpoint.making import UncarriedError, make
from migrate_review.checkpoint.replaying import Backend
from migrate_review.measure.session import settings_of
from tests.support.bystander import query
from tests.support.env_py.backend import package_with
from tests.support.plain_alembic import alembic, snapshot
from tests.support.trees import ENV_PY, Rev, sql, write_revision, write_tree
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server
    from migrate_review.checkpoint.making import Made
    from tests.support.functions import Runner

pytestmark = pytest.mark.xdist_group("checkpoint")
STRESS = pytest.mark.stress

SEEDED = (
    Rev(
        "a1",
        sql(
            "CREATE TYPE plan AS ENUM ('free', 'team')",
            "CREATE TABLE plans (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, kind plan,"
            " parent int REFERENCES plans, price numeric DEFAULT 0,"
            " twice numeric GENERATED ALWAYS AS (price * 2) STORED)",
            "INSERT INTO plans (name, kind, price) VALUES (E'two\\nlines;', 'team', 5),"
            " ('it''s \"100%\" \\:free', 'free', 0.1)",
            "UPDATE plans SET parent = 2 WHERE id = 1",
            "COMMENT ON TABLE plans IS 'What is sold; $$quoted$$'",
        ),
        description="Add plans",
    ),
    Rev(
        "b2",
        sql(
            "CREATE SEQUENCE numbers START 10",
            "CREATE TABLE notes (kind varchar(9) CHECK (kind IN ('a', 'it''s')), done varchar(3))",
            "CREATE INDEX open_notes ON notes (kind) WHERE done IN ('no', 'new')",
            "CREATE VIEW open_kinds AS SELECT kind FROM notes WHERE done IN ('no', 'new')",
            "SELECT nextval('numbers')",
            "CREATE TABLE events (at date NOT NULL, plan int) PARTITION BY RANGE (at)",
            "CREATE TABLE events_2001 PARTITION OF events FOR VALUES FROM ('2001-01-01') TO ('2002-01-01')",
            "INSERT INTO events VALUES ('2001-02-03', 1)",
            "CREATE VIEW sold AS SELECT name, count(*) FROM plans JOIN events ON plan = id GROUP BY name",
            "CREATE MATERIALIZED VIEW sums AS SELECT sum(price) AS total FROM plans",
            "CREATE FUNCTION cheapest() RETURNS text LANGUAGE sql STABLE"
            " AS 'SELECT name FROM plans ORDER BY price LIMIT 1'",
            "REVOKE EXECUTE ON FUNCTION cheapest() FROM PUBLIC",
        ),
        description="Add events",
    ),
    Rev(
        "c3",
        "import os\nop.execute(f\"CREATE TABLE third (id {os.environ.get('FLAG', 'int')})\")",
        down="a1",
        description="Another branch",
    ),
)


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does without."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


def checkpoint(
    folder: Path, *, at: str | None = None, allow: Sequence[str] = (), versions: Sequence[int] = (18,)
) -> Made:
    """Make and write the checkpoint of a backend."""
    backend = Backend(folder, settings_of(folder, "alembic.ini", {}), Path(sys.executable), {})
    made = make(backend, at=at, allow=allow, versions=versions)
    made.write()
    return made


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with two heads, rows, and objects of many kinds, with its checkpoint."""
    folder = write_tree(tmp_path_factory.mktemp("seeded") / "seeded", SEEDED)
    checkpoint(folder)
    return folder


@pytest.fixture
def later(seeded: Path, tmp_path: Path) -> Path:
    """The same with a revision that came after the checkpoint."""
    folder = shutil.copytree(seeded, tmp_path / "later")
    write_revision(
        folder / "alembic" / "versions",
        Rev(
            "d4",
            sql("ALTER TABLE plans ADD note text", "DROP TABLE third"),
            sql("CREATE TABLE third (id int)"),
            description="Later",
        ),
        ("b2", "c3"),
    )
    return folder


def held(database: Database) -> dict[str, Any]:
    """What a database holds, without the names of its owner."""
    found = snapshot(database)
    return {**found, "tables": [(name, columns) for name, _, columns in found["tables"]]}


def replayed(folder: Path, database: Database) -> dict[str, Any]:
    """What Alembic's own command leaves, and then nothing: the database is empty again."""
    assert alembic(folder, database, "upgrade", "heads").returncode == 0
    found = held(database)
    query(database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return found


def test_an_empty_database_begins_with_it_and_goes_on(runner: Runner, database: Database, later: Path) -> None:
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
        ("", {"revision": "heads"}, {"ALEMBIC_X": '{"tenant": "one"}'}, "the -x arguments are not those"),
        pytest.param("", {"revision": "heads"}, {"CHECKPOINT": "off"}, None, id="switched off", marks=STRESS),
        (
            "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY)",
            {"revision": "heads"},
            {},
            None,
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


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=STRESS)])
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


def test_what_fails_in_it_leaves_nothing(runner: Runner, database: Database, seeded: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(seeded, tmp_path / "failing")
    spoil(folder, "SELECT 1 / (SELECT count(*) - 2 FROM migrate_checkpoint_home.plans);")

    answer = runner.invoke(folder, {"revision": "heads"})

    assert answer.error_type == "MigrationFailed"
    assert "a checkpoint of 3 revisions" in answer.payload["errorMessage"]
    assert "the database is at base" in answer.payload["errorMessage"]
    [failed] = runner.events("migration.failed")
    assert (failed["sqlstate"], failed["pending"]) == ("22012", ["a1", "c3", "b2"])
    assert not query(database, "SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace")


@STRESS
def test_killed_half_way_it_leaves_nothing_and_the_next_run_finishes(
    runner: Runner, database: Database, seeded: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(seeded, tmp_path / "slow")
    spoil(folder, "SELECT pg_sleep(30);")
    function = runner.start(folder)
    function.start({"revision": "heads"})
    eventually(lambda: bool(query(database, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")))
    function.kill()
    eventually(lambda: not query(database, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))

    assert not query(database, "SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    result = runner.invoke(seeded, {"revision": "heads"}).payload
    assert (result["checkpoint"]["revisions"], result["revision"]) == (3, "b2,c3")


def spoil(folder: Path, statement: str) -> None:
    """Let the script end with a statement, and describe it as if it had been written so."""
    tree = folder / "alembic"
    (tree / SCRIPT).write_text((tree / SCRIPT).read_text() + statement)
    describe_as(folder, script_sha256=digest_of(tree / SCRIPT))


def describe_as(folder: Path, **fields: Any) -> None:  # noqa: ANN401 - whatever a description has
    """Let the description of the checkpoint say something else."""
    tree = folder / "alembic"
    found = read_checkpoint(tree)
    assert found is not None
    (tree / DESCRIPTION).write_text(to_text(replace(found, **fields)))


UNCARRIED = Rev(
    "a1",
    sql(
        "CREATE TABLE tokens (value uuid DEFAULT gen_random_uuid())",
        "INSERT INTO tokens DEFAULT VALUES",
        "CREATE TABLE days (value date)",
        "INSERT INTO days VALUES (current_date)",
        "CREATE TABLE kept (value date DEFAULT current_date)",
        "INSERT INTO kept VALUES ('2001-02-03')",
        "CREATE ROLE checkpoint_owner",
        "CREATE TABLE owned (id int)",
        "ALTER TABLE owned OWNER TO checkpoint_owner",
        "GRANT SELECT ON kept TO made_by_others",
        "CREATE SCHEMA audit",
        "CREATE TABLE audit.log (id int)",
        "SELECT lo_create(0)",
        "SET work_mem = '5MB'",
        "CREATE PUBLICATION everything FOR ALL TABLES",
    ),
)
REFUSED = (
    "large-objects",
    "owner:checkpoint_owner",
    "publication:everything",
    "role:checkpoint_owner",
    "rows:days",
    "rows:tokens",
    "schema:audit",
    "session:work_mem",
)


def test_what_cannot_be_carried_over_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "refused", [UNCARRIED])

    with pytest.raises(UncarriedError) as refused:
        checkpoint(folder, allow=("rows", "owner:*", "audit"))

    assert [item.name for item in sorted(refused.value.items, key=lambda item: item.name)] == [
        name for name in REFUSED if name.partition(":")[0] not in {"rows", "owner"} and name != "schema:audit"
    ]
    assert not (folder / "alembic" / DESCRIPTION).exists()


@STRESS
def test_what_cannot_be_carried_over_is_left_out_if_each_is_named(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "allowed", [UNCARRIED])

    made = checkpoint(folder, allow=REFUSED)

    assert made.checkpoint.roles == ("checkpoint_owner", "made_by_others")
    assert made.checkpoint.schemas == ("audit",)
    assert read_checkpoint(folder / "alembic") == made.checkpoint


@STRESS
def test_a_materialized_view_that_is_out_of_date_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    statements = (
        "CREATE TABLE a (id int)",
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM a",
        "INSERT INTO a VALUES (1)",
    )
    folder = write_tree(tmp_path / "stale", [Rev("a1", sql(*statements))])

    with pytest.raises(UncarriedError) as refused:
        checkpoint(folder)

    assert [item.name for item in refused.value.items] == ["rows:counted"]
    assert checkpoint(folder, allow=["counted"]).checkpoint.any_schema


ROLE_ENV = ENV_PY.replace(
    "        context.configure(connection=connection",
    '        connection.execute(text("SET ROLE " + os.environ["OWNER"]))\n        connection.commit()\n'
    "        context.configure(connection=connection",
).replace("import create_engine, pool", "import create_engine, pool, text")


def test_what_it_makes_belongs_to_the_role_that_env_py_acts_as(
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


def test_the_builder_packages_it_refuses_another_and_warns_of_an_old_one(seeded: Path, tmp_path: Path) -> None:
    def checked(folder: Path) -> checkpoints.Checked:
        layout = read_layout(folder)
        return checkpoints.check(layout, graph_of(layout, folder))

    assert checked(seeded) == (True, None)

    changed = shutil.copytree(seeded, tmp_path / "changed")
    (changed / "alembic" / "env.py").write_text(ENV_PY + "\n# another\n")
    usable, warning = checked(changed)
    assert not usable
    assert "env.py has changed" in str(warning)

    edited = shutil.copytree(seeded, tmp_path / "edited")
    revision = edited / "alembic" / "versions" / "a1_.py"
    revision.write_text(revision.read_text().replace("0.1", "0.2"))
    with pytest.raises(PackageError, match="revision a1 has changed since the checkpoint was made"):
        checked(edited)

    lacking = shutil.copytree(seeded, tmp_path / "lacking")
    (lacking / "alembic" / "versions" / "c3_.py").unlink()
    with pytest.raises(PackageError, match="stands for revision c3, which the tree does not have"):
        checked(lacking)

    layout = read_layout(seeded)
    usable, warning = checkpoints.check(layout, graph_of(layout, seeded), {"LOCK_TIMEOUT_MS", "FLAG", "FURTHER"})
    assert not usable
    assert "no stage had the variable FURTHER" in str(warning)

    old = shutil.copytree(seeded, tmp_path / "old")
    before: str | tuple[str, ...] = ("b2", "c3")
    for number in range(50):
        write_revision(old / "alembic" / "versions", Rev(f"z{number:03}"), before)
        before = f"z{number:03}"
    usable, warning = checked(old)
    assert usable
    assert "50 revisions have come since" in str(warning)


def test_the_documented_recipe_does_the_same(database: Database, later: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    recipe = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert recipe is not None
    names: dict[str, Any] = {"__file__": str(later / "conftest.py")}
    wanted = replayed(later, database)

    exec(recipe[1], names)  # noqa: S102 - our own page
    with closing(psycopg2.connect(database.url.replace("+psycopg2", ""))) as connection:
        names["begin_with_checkpoint"](connection)

    assert query(database, "SELECT version_num FROM alembic_version ORDER BY 1") == [("b2",), ("c3",)]
    assert alembic(later, database, "upgrade", "heads").returncode == 0
    assert held(database) == wanted


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
    assert begin(seeded / "alembic.ini", database) == "began with a checkpoint of 3 revisions, at b2,c3"
    assert begin(seeded / "alembic.ini", database) is None


@pytest.mark.stress
def test_the_reference_tree_ends_the_same_with_and_without_it(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    folder = shutil.copytree(
        Path(__file__).parents[2] / "back", tmp_path / "back", ignore=shutil.ignore_patterns(".venv", "__pycache__")
    )
    made = checkpoint(folder, versions=(15, 18))
    assert (made.checkpoint.any_schema, made.items, made.remarks) == (True, (), ())
    wanted = replayed(folder, database)

    result = runner.invoke(folder).payload

    assert result["checkpoint"]["revisions"] == len(made.checkpoint.revisions)
    assert (result["applied"], result["pending"]) == ([], [])
    assert held(database) == wanted
    with closing(database.connect()) as opened:
        assert read_schema(opened).fingerprint == made.checkpoint.fingerprint


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that makes a trusted extension and one that only a superuser may make, with its checkpoint."""
    first = Rev("a1", sql("CREATE EXTENSION citext", "CREATE TABLE mails (address citext PRIMARY KEY)"))
    second = Rev("b2", sql("CREATE EXTENSION file_fdw"))
    folder = write_tree(tmp_path_factory.mktemp("extended") / "extended", [first, second])
    checkpoint(folder)
    return folder


@STRESS
def test_an_extension_that_the_login_may_not_make_is_the_same_error_and_leaves_nothing(
    runner: Runner, database: Database, extended: Path
) -> None:
    begun = runner.invoke(extended)
    left = query(database, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    replaying = runner.invoke(extended, CHECKPOINT="off")

    assert [answer.error_type for answer in (begun, replaying)] == ["MigrationFailed"] * 2
    assert 'permission denied to create extension "file_fdw"' in begun.message
    assert left == []
    assert {line["sqlstate"] for line in runner.events("migration.failed")} == {"42501"}


@STRESS
def test_an_extension_in_another_schema_is_a_reason_to_replay(
    runner: Runner, postgres_server: Server, database: Database, extended: Path
) -> None:
    administrator = postgres_server.database(database.name)
    query(administrator, "CREATE SCHEMA extensions; CREATE EXTENSION citext WITH SCHEMA extensions")

    runner.invoke(extended)

    [skipped] = runner.events("checkpoint.skipped")
    assert "the extension citext is in the schema extensions" in skipped["message"]


@STRESS
def test_extensions_that_are_there_are_no_objects_of_the_users(
    runner: Runner, postgres_server: Server, database: Database, extended: Path
) -> None:
    query(postgres_server.database(database.name), "CREATE EXTENSION file_fdw; CREATE EXTENSION citext")

    result = runner.invoke(extended).payload

    assert result["checkpoint"]["revisions"] == 2, (result, runner.events())
    types = query(database, "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'mails'::regclass")
    assert ("citext",) in types


@pytest.mark.stress
def test_the_command_writes_it_and_says_so_in_json(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "small", [Rev("a1", sql("CREATE TABLE a (id int)")), Rev("b2")])
    command = [
        sys.executable,
        "-m",
        "migrate_cli",
        "checkpoint",
        "--backend",
        str(folder),
        "--postgres",
        "18",
        "--json",
    ]

    ended = subprocess.run([*command, "--at", "a1"], capture_output=True, text=True, check=True)

    document = json.loads(ended.stdout)
    tree = folder / "alembic"
    found = read_checkpoint(tree)
    assert found is not None
    assert document == {
        "revision": "a1",
        "revisions": 1,
        "fingerprint": found.fingerprint,
        "any_schema": True,
        "allowed": [],
        "remarks": [],
        "files": [str(tree / DESCRIPTION), str(tree / SCRIPT)],
    }


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
