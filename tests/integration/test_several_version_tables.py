"""An env.py can run the tree several times. Each version table counts, and the result names each."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.env_py.backend import Backend, online
from tests.support.plain_alembic import alembic, snapshot
from tests.support.samples import sampled
from tests.support.trees import Rev, sql
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

SCHEMAS = """
with create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool).connect() as connection:
    for schema in ("s1", "s2", "s3"):
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
        connection.execute(text(f"SET search_path TO {schema}")); connection.commit()
        context.configure(connection=connection, target_metadata=METADATA, version_table_schema=schema)
        with context.begin_transaction():
            context.run_migrations()
"""
# Other ways to the same: only the search_path leads to the version table, a connection for each, one transaction.
BY_PATH = SCHEMAS.replace(", version_table_schema=schema", "")
CONNECTIONS = """
engine = create_engine(os.environ["DATABASE_URL"])
for schema in ("s1", "s2", "s3"):
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}; SET LOCAL search_path TO {schema}"))
        context.configure(connection=connection, target_metadata=METADATA, version_table_schema=schema)
        context.run_migrations()
"""
ONE_TRANSACTION = """
with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    for schema in ("s1", "s2", "s3"):
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}; SET search_path TO {schema}"))
        context.configure(connection=connection, target_metadata=METADATA, version_table_schema=schema)
        context.run_migrations()
"""
LOCAL_PATH = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    for schema in ("s1", "s2", "s3"):
        with connection.begin():
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
        context.configure(connection=connection, target_metadata=METADATA)
        with context.begin_transaction():
            context.execute(f"SET LOCAL search_path TO {schema}")
            context.run_migrations()
"""
# Several trees in one schema, each with a version table of its own.
TABLES = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    for name in ("one", "two"):
        context.configure(connection=connection, target_metadata=METADATA, version_table=f"{name}_version")
        with context.begin_transaction():
            context.run_migrations(name=name)
"""

WAYS = {
    "schemas": SCHEMAS,
    "path": BY_PATH,
    "connections": CONNECTIONS,
    "one transaction": ONE_TRANSACTION,
    "local path": LOCAL_PATH,
}
REVISIONS = [Rev(f"r{n}", sql(f"CREATE TABLE t{n} (id int)"), sql(f"DROP TABLE t{n}")) for n in (1, 2, 3)]


def env_py(body: str, metadata: str = "None") -> str:
    return online(body.replace("METADATA", metadata))


def refuses(schema: str, revision: str) -> Rev:
    """A revision that fails in one schema only."""
    return Rev(
        revision,
        "if op.get_bind().scalar(sa.text('SELECT current_schema()')) == " + repr(schema) + ":\n"
        "    raise ValueError('not here')\n"
        f"op.execute('CREATE TABLE {revision}_table (id int)')",
    )


def where(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(entry["schema"], entry["revision"]) for entry in entries]


def tables(result: dict[str, Any]) -> dict[str, tuple[str | None, list[str], bool]]:
    return {
        each["schema"]: (each["revision"], each["pending"], each["up_to_date"]) for each in result["version_tables"]
    }


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path, ALLOW_DOWNGRADE="true", LOCK_TIMEOUT_MS="300", LOCK_RETRIES="3")


class TestSchemasThatLag:
    """Leave s2 at head, the first schema one revision behind, and the last one empty."""

    @pytest.fixture
    def lagging(self, backend: Backend) -> Backend:
        backend.put(env_py(SCHEMAS), REVISIONS)
        backend.invoke()
        backend.execute(
            "DROP TABLE s1.t3",
            "UPDATE s1.alembic_version SET version_num = 'r2'",
            "DROP SCHEMA s3 CASCADE",
        )
        return backend

    @pytest.mark.parametrize("way", sampled(WAYS, {"path"}))
    def test_status_and_plan_list_the_pending_revisions_of_each(self, lagging: Backend, way: str) -> None:
        (lagging.folder / "alembic" / "env.py").write_text(env_py(WAYS[way]))
        before = snapshot(lagging.database)

        status = lagging.invoke({"action": "status"}).payload
        plan = lagging.invoke({"action": "plan"}).payload

        pending = [("s1", "r3"), ("s3", "r1"), ("s3", "r2"), ("s3", "r3")]
        for result in (status, plan):
            assert (result["up_to_date"], result["revision"]) == (False, "r2,r3"), result
            assert where(result["pending"]) == pending
            assert tables(result) == {
                "s1": ("r2", ["r3"], False),
                "s2": ("r3", [], True),
                "s3": (None, ["r1", "r2", "r3"], False),
            }
        assert where(plan["plan"]) == pending
        assert [f"CREATE TABLE t{entry['revision'][1]}" in entry["sql"] for entry in plan["plan"]] == [True] * 4
        assert snapshot(lagging.database) == before

    @pytest.mark.parametrize("way", sampled(WAYS, {"schemas"}))
    def test_an_upgrade_leaves_what_alembic_leaves_and_names_the_schemas(self, lagging: Backend, way: str) -> None:
        (lagging.folder / "alembic" / "env.py").write_text(env_py(WAYS[way]))

        result = lagging.invoke().payload

        assert where(result["applied"]) == [("s1", "r3"), ("s3", "r1"), ("s3", "r2"), ("s3", "r3")], result
        assert (result["previous_revision"], result["revision"], result["up_to_date"]) == ("r2,r3", "r3", True)
        after = snapshot(lagging.database)
        lagging.put(env_py(WAYS[way]), REVISIONS)
        plain = alembic(lagging.folder, lagging.database, "upgrade", "head")
        assert plain.returncode == 0, plain.stderr
        assert snapshot(lagging.database) == after
        again = lagging.invoke().payload
        assert (again["applied"], again["up_to_date"]) == ([], True)

    @pytest.mark.stress
    def test_check_finds_the_one_that_lags_and_each_that_differs(self, lagging: Backend) -> None:
        models = "sa.MetaData()"
        (lagging.folder / "alembic" / "env.py").write_text(env_py(SCHEMAS, models))
        answer = lagging.invoke({"action": "check"})
        assert answer.error_type == "DriftDetected"
        assert "s1.alembic_version is at r2 with 1 revision pending" in answer.message
        assert "s3.alembic_version is at base with 3 revisions pending" in answer.message

        lagging.invoke()
        answer = lagging.invoke({"action": "check"})
        assert answer.error_type == "DriftDetected"
        # Three tables and the version table in each: Alembic leaves out its own only where no schema is configured.
        assert "in 12 ways" in answer.message
        assert "s2.alembic_version: ('remove_table', Table('t3'" in answer.message

        tables = "; ".join(f"sa.Table('t{n}', METADATA, sa.Column('id', sa.Integer))" for n in (1, 2, 3))
        same = online(BY_PATH, top=f"METADATA = sa.MetaData(); {tables}")
        (lagging.folder / "alembic" / "env.py").write_text(same)
        assert lagging.invoke({"action": "check"}).payload["status"] == "ok"


class TestFailure:
    def test_it_lists_the_revision_of_each(self, backend: Backend) -> None:
        backend.put(env_py(SCHEMAS), [REVISIONS[0], refuses("s2", "r2")])

        answer = backend.invoke()

        assert answer.error_type == "MigrationFailed"
        assert answer.message.endswith(
            "; the database is at r2 in s1.alembic_version; at r1 in s2.alembic_version; at base in s3.alembic_version"
        )
        [failed] = backend.runner.events("migration.failed")
        assert failed["applied"] == ["r1", "r2", "r1"]
        applied = backend.runner.events("revision.applied")
        assert [(line["schema"], line["revision"]) for line in applied] == [("s1", "r1"), ("s1", "r2"), ("s2", "r1")]
        status = backend.invoke({"action": "status"}).payload
        assert {name: state[0] for name, state in tables(status).items()} == {"s1": "r2", "s2": "r1", "s3": None}

    @pytest.mark.stress
    def test_it_leaves_what_alembic_leaves_if_each_revision_is_committed(self, backend: Backend) -> None:
        per_revision = SCHEMAS.replace("connection=connection", "connection=connection, transaction_per_migration=True")
        backend.put(env_py(per_revision), [REVISIONS[0], refuses("s2", "r2")])
        backend.invoke()
        after = snapshot(backend.database)
        backend.put(env_py(per_revision), [REVISIONS[0], refuses("s2", "r2")])

        assert alembic(backend.folder, backend.database, "upgrade", "head").returncode != 0

        assert snapshot(backend.database) == after

    @pytest.mark.stress
    def test_of_the_first_one_names_the_others(self, backend: Backend) -> None:
        backend.put(env_py(SCHEMAS), [REVISIONS[0], refuses("s1", "r2")])

        answer = backend.invoke()

        assert answer.message.endswith(
            "; the database is at r1 in s1.alembic_version; at base in s2.alembic_version, s3.alembic_version"
        )

    @pytest.mark.stress
    def test_in_one_transaction_nothing_is_applied(self, backend: Backend) -> None:
        backend.put(env_py(ONE_TRANSACTION), [REVISIONS[0], refuses("s2", "r2")])

        answer = backend.invoke()

        assert answer.error_type == "MigrationFailed"
        assert backend.tables() == []
        assert [line["applied"] for line in backend.runner.events("migration.failed")] == [[]]

    @pytest.mark.stress
    def test_after_a_lock_timeout_each_continues_at_its_own_revision(self, backend: Backend) -> None:
        """A relative target counts its steps from each version table's revision."""
        locked = Rev(
            "r2",
            "op.execute('CREATE TABLE t2 (id int)')\n"
            "if op.get_bind().scalar(sa.text(\"SELECT current_schema() = 's2' AND nextval('public.tries') < 3\")):\n"
            "    op.execute('''DO $$BEGIN RAISE lock_not_available; END$$''')",
        )
        backend.put(env_py(SCHEMAS), [REVISIONS[0], locked, Rev("r3")])
        backend.execute("CREATE SEQUENCE public.tries")
        backend.invoke({"revision": "r1"})

        result = backend.invoke({"revision": "+1"}).payload

        assert where(result["applied"]) == [("s1", "r2"), ("s2", "r2"), ("s3", "r2")], result
        assert (result["revision"], result["attempts"]) == ("r2", 3)


class TestOtherActions:
    def test_a_downgrade_and_a_stamp_are_refused_before_anything_is_changed(self, backend: Backend) -> None:
        backend.put(env_py(SCHEMAS), REVISIONS)
        backend.invoke()
        backend.execute("UPDATE s3.alembic_version SET version_num = 'r2'", "DROP TABLE s3.t3")
        before = snapshot(backend.database)

        for action in ("downgrade", "stamp"):
            answer = backend.invoke({"action": action, "revision": "r1", "confirm": "r3"})
            assert answer.error_type == "DowngradeRefused"
            assert "the database's current revision, r2,r3" in answer.message
            assert "at r2 in s3.alembic_version" in answer.message
        assert snapshot(backend.database) == before

    @pytest.mark.stress
    def test_they_work_on_each(self, backend: Backend) -> None:
        backend.put(env_py(SCHEMAS), REVISIONS)
        backend.invoke()
        backend.execute("UPDATE s3.alembic_version SET version_num = 'r2'", "DROP TABLE s3.t3")

        down = backend.invoke({"action": "downgrade", "revision": "r1", "confirm": "r2,r3"}).payload
        assert where(down["reverted"]) == [("s1", "r3"), ("s1", "r2"), ("s2", "r3"), ("s2", "r2"), ("s3", "r2")]
        assert where(down["pending"]) == [(schema, f"r{n}") for schema in ("s1", "s2", "s3") for n in (2, 3)]
        assert (down["revision"], down["up_to_date"]) == ("r1", False)
        assert tables(down)["s3"] == ("r1", ["r2", "r3"], False)

        stamp = backend.invoke({"action": "stamp", "revision": "head", "confirm": "r1"}).payload
        assert (stamp["previous_revision"], stamp["revision"], stamp["up_to_date"]) == ("r1", "r3", True)
        assert {each["previous_revision"] for each in stamp["version_tables"]} == {"r1"}

    @pytest.mark.stress
    def test_a_revision_that_one_cannot_reach_is_refused_before_anything_is_changed(self, backend: Backend) -> None:
        backend.put(env_py(SCHEMAS), REVISIONS)
        backend.invoke()
        backend.execute("UPDATE s1.alembic_version SET version_num = 'r2'", "DROP TABLE s1.t3")
        backend.execute("UPDATE s3.alembic_version SET version_num = 'r1'", "DROP TABLE s3.t3, s3.t2")
        before = snapshot(backend.database)

        up = backend.invoke({"revision": "+1"})
        down = backend.invoke({"action": "downgrade", "revision": "r2", "confirm": "r1,r2,r3"})

        assert (up.error_type, down.error_type) == ("InvalidRequest", "InvalidRequest")
        assert up.message.startswith("s2.alembic_version: revision '+1' cannot be upgraded to")
        assert down.message.startswith("s3.alembic_version: revision 'r2' cannot be downgraded to")
        assert snapshot(backend.database) == before

    @pytest.mark.stress
    def test_an_unknown_revision_in_one_is_named_with_its_table(self, backend: Backend) -> None:
        backend.put(env_py(SCHEMAS), REVISIONS)
        backend.invoke()
        backend.execute("UPDATE s2.alembic_version SET version_num = 'gone'")

        answer = backend.invoke()
        status = backend.invoke({"action": "status"}).payload
        doctor = backend.invoke({"action": "doctor"}).payload

        assert answer.error_type == "UnknownRevision"
        assert "at gone in s2.alembic_version" in answer.message
        assert (status["ahead"], tables(status)["s2"][0]) == (True, "gone")
        assert doctor["healthy"] is False


def test_several_trees_in_one_schema(backend: Backend) -> None:
    revisions = [Rev(f"r{n}", f"op.execute(f'CREATE TABLE {{name}}_t{n} (id int)')") for n in (1, 2)]
    backend.put(env_py(TABLES), revisions)
    for path in (backend.folder / "alembic" / "versions").iterdir():
        path.write_text(path.read_text().replace("def upgrade():", "def upgrade(name):"))
    backend.invoke({"revision": "r1"})
    backend.execute("UPDATE one_version SET version_num = 'r2'", "CREATE TABLE one_t2 (id int)")

    status = backend.invoke({"action": "status"}).payload
    result = backend.invoke().payload

    assert status["up_to_date"] is False
    assert [(each["version_table"], each["revision"]) for each in status["pending"]] == [("two_version", "r2")]
    assert [(each["version_table"], each["revision"]) for each in result["applied"]] == [("two_version", "r2")]
    assert backend.tables() == ["one_t1", "one_t2", "one_version", "two_t1", "two_t2", "two_version"]


@pytest.mark.stress
def test_one_version_table_that_is_migrated_twice_is_one(backend: Backend) -> None:
    backend.put(env_py(SCHEMAS.replace('"s2", "s3"', '"s1"')), REVISIONS)

    plan = backend.invoke({"action": "plan"}).payload
    result = backend.invoke().payload

    assert [each["revision"] for each in plan["plan"]] == [each["revision"] for each in plan["pending"]]
    assert [each["revision"] for each in result["applied"]] == ["r1", "r2", "r3"]
    assert "version_tables" not in {**plan, **result}


@pytest.mark.stress
def test_an_env_py_with_one_offline_pass_has_the_sql_of_each_table(backend: Backend) -> None:
    offline = """
if context.is_offline_mode():
    context.configure(url=os.environ["DATABASE_URL"])
    context.run_migrations()
else:
"""
    indented = "".join(f"    {line}\n" for line in SCHEMAS.strip().splitlines())
    backend.put(env_py(SCHEMAS), REVISIONS)
    backend.invoke({"revision": "r2"})
    backend.execute("DROP SCHEMA s2 CASCADE")
    (backend.folder / "alembic" / "env.py").write_text(env_py(f"{offline}{indented}"))

    plan = backend.invoke({"action": "plan"}).payload

    assert where(plan["plan"]) == [("s1", "r3"), ("s2", "r1"), ("s2", "r2"), ("s2", "r3"), ("s3", "r3")]
    assert all(f"CREATE TABLE t{each['revision'][1]}" in each["sql"] for each in plan["plan"])


def catching(name: str) -> str:
    """Return an env.py that continues with the next schema after an error of this class."""
    lines = SCHEMAS.splitlines(keepends=True)
    caught = [f"    {line}" if "for schema" not in line and "with create" not in line else line for line in lines]
    at = next(number for number, line in enumerate(caught) if "CREATE SCHEMA" in line)
    body = "".join(
        [
            *caught[:at],
            "        try:\n",
            *caught[at:],
            f"        except {name}:\n            connection.rollback()\n",
        ]
    )
    return env_py(body)


class TestAnEnvPyThatGoesOnAfterAnError:
    def test_migrates_the_others_and_the_error_is_the_answer(self, backend: Backend) -> None:
        backend.put(catching("ValueError"), [REVISIONS[0], refuses("s2", "r2")])

        answer = backend.invoke()

        assert answer.error_type == "MigrationFailed"
        assert (
            "revision r2 (Revision r2) for s2.alembic_version failed: ValueError: not here (env.py caught"
            in answer.message
        )
        assert "at r1 in s2.alembic_version" in answer.message
        [failed] = backend.runner.events("migration.failed")
        assert (failed["revision"], failed["applied"]) == ("r2", ["r1", "r2", "r1", "r1", "r2"])
        status = backend.invoke({"action": "status"}).payload
        assert {name: state[0] for name, state in tables(status).items()} == {"s1": "r2", "s2": "r1", "s3": "r2"}

    @pytest.mark.stress
    def test_of_a_version_table_names_it(self, backend: Backend) -> None:
        backend.put(catching("Exception"), REVISIONS)
        backend.invoke()
        backend.execute("UPDATE s2.alembic_version SET version_num = 'gone'")

        answer = backend.invoke()

        assert (answer.error_type, "gone" in answer.message) == ("UnknownRevision", True)

    @pytest.mark.stress
    def test_before_the_version_table_was_read(self, backend: Backend) -> None:
        backend.put(catching("Exception"), REVISIONS)
        backend.invoke()
        backend.execute("ALTER TABLE s2.alembic_version RENAME COLUMN version_num TO other")

        answer = backend.invoke()

        assert answer.error_type == "ConfigurationError"
        assert "UndefinedColumn" in answer.message


class TestBeforeTheFirstTableChanges:
    @pytest.mark.parametrize(
        "request_",
        [
            pytest.param({"action": "downgrade", "revision": "-1", "confirm": "gone,r2"}, marks=pytest.mark.stress),
            {"revision": "+1"},
        ],
    )
    def test_a_table_that_is_ahead_refuses_all(self, backend: Backend, request_: dict[str, str]) -> None:
        backend.put(env_py(SCHEMAS), REVISIONS)
        backend.invoke({"revision": "r2"})
        backend.execute("UPDATE s3.alembic_version SET version_num = 'gone'")

        answer = backend.invoke(request_)

        assert answer.error_type == "UnknownRevision"
        assert "s3.alembic_version is at gone" in answer.message
        assert backend.runner.events("revision.started")[6:] == []
        assert backend.query("SELECT version_num FROM s1.alembic_version") == [("r2",)]

    @pytest.mark.stress
    def test_a_lock_in_the_way_of_the_look_is_waited_for(self, backend: Backend) -> None:
        impatient = SCHEMAS.replace(
            "context.configure(",
            "connection.execute(text('SET lock_timeout = 50')); connection.commit(); context.configure(",
        )
        backend.put(env_py(impatient), REVISIONS)
        backend.invoke({"revision": "r2"})
        backend.execute("UPDATE s3.alembic_version SET version_num = 'gone'")

        with closing(backend.database.connect()) as blocker, blocker.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE s3.alembic_version")

            def release() -> None:
                eventually(lambda: backend.runner.events("connection.retried"))
                cursor.execute("COMMIT")

            releasing = threading.Thread(target=release)
            releasing.start()
            answer = backend.invoke({"revision": "+1"})
            releasing.join()

        assert answer.error_type == "UnknownRevision", answer.payload
        assert backend.query("SELECT version_num FROM s1.alembic_version") == [("r2",)]


@pytest.mark.stress
def test_a_single_version_table_is_answered_as_ever(backend: Backend) -> None:
    backend.put(revisions=REVISIONS)

    result = backend.invoke().payload

    assert "version_tables" not in result
    assert {*result["applied"][0]} == {"revision", "description", "duration_ms"}
    assert {line.get("schema") for line in backend.runner.events("revision.applied")} == {None}
