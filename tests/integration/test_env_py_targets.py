"""env.py's target and tree, its errors, and read-only actions."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from infra.package.builder import build
from infra.package.layout import BACKEND_LIBRARIES
from infra.package.package_platform import Platform
from lambda_migrate.invocation.settings import RDS_CA_BUNDLE
from localcloud import postgres, testing
from tests.support.bystander import execute, query
from tests.support.env_py.backend import ABC, Backend, online, package_with
from tests.support.functions import ROOT
from tests.support.samples import in_two_sets, sampled, sampled_by_name
from tests.support.trees import ALEMBIC_INI, ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

DRIVERS = ("postgresql+psycopg2", "postgresql+psycopg", "postgresql+asyncpg")

SYNC_OR_ASYNC = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine
url = sa.make_url(os.environ["DATABASE_URL"]).set(drivername=DRIVER)
def work(connection):
    BEFORE
    context.configure(connection=connection, target_metadata=sa.MetaData())
    with context.begin_transaction():
        context.run_migrations()
async def work_in_async():
    async with create_async_engine(url).connect() as connection:
        await connection.run_sync(work)
if DRIVER == "postgresql+asyncpg":
    asyncio.run(work_in_async())
else:
    with create_engine(url).connect() as connection:
        work(connection)
"""


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does not need."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(
        runner,
        database,
        tmp_path,
        ALLOW_DOWNGRADE="true",
        DATABASE_ENV=json.dumps({"APP_SECRET": "{password}"}),
        LOCK_TIMEOUT_MS="200",
        LOCK_RETRIES="1",
    )


def with_driver(driver: str, before: str = "pass", top: str = "") -> str:
    return online(SYNC_OR_ASYNC.replace("DRIVER", repr(driver)).replace("BEFORE", before), top)


CONNECT_TO_DATABASE_URL = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


def connecting_to(url: str) -> str:
    return online(
        f"with create_engine({url}).connect() as connection:\n"
        "    context.configure(connection=connection)\n"
        "    with context.begin_transaction():\n"
        "        context.run_migrations()"
    )


class TestTarget:
    def test_another_database_than_the_secrets_is_refused_before_any_revision(
        self, backend: Backend, postgres_server: Server
    ) -> None:
        elsewhere = connecting_to(repr(postgres_server.database("postgres").url))

        message = backend.refused(elsewhere)
        for action in ("plan", "status", "check"):
            assert backend.invoke({"action": action}).error_type == "TargetMismatch"

        assert message.startswith("TargetMismatch: env.py connected to database 'postgres' on the same server, but")
        assert "DATABASE_URL_ENV" in message
        connection = postgres_server.connect()
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('public.alembic_version'), to_regclass('public.a')")
            assert cursor.fetchall() == [(None, None)]
        connection.close()

    def test_another_database_after_the_secrets_own_is_refused_before_either_is_migrated(
        self, backend: Backend, postgres_server: Server
    ) -> None:
        elsewhere = repr(postgres_server.database("postgres").url)
        both = (
            f"for url in (os.environ['DATABASE_URL'], {elsewhere}):\n"
            "    with create_engine(url).connect() as connection:\n"
            "        context.configure(connection=connection)\n"
            "        with context.begin_transaction():\n"
            "            context.run_migrations()"
        )

        assert backend.refused(online(both)).startswith("TargetMismatch: ")

    def test_another_kind_of_database_is_refused(self, runner: Runner, database: Database, tmp_path: Path) -> None:
        tree = write_tree(tmp_path / "shop", ABC, env_py=connecting_to("'sqlite://'"))
        (tree / "requirements.txt").touch()
        # SQLAlchemy's SQLite is packaged where it is named.
        function = runner.start_package(build(tree, tmp_path / "package", Platform()).directory)

        for action in ("upgrade", "plan", "status", "check"):
            answer = function.invoke({"action": action})
            assert answer.error_type == "TargetMismatch"
            assert answer.message.startswith("env.py connected to sqlite, but")
        assert query(database, "SELECT to_regclass('a')") == [(None,)]

    def test_another_server_is_refused(
        self, runner: Runner, database: Database, shared_run: Path, tmp_path: Path
    ) -> None:
        other = testing.start_postgres(ROOT, shared_run, "another")
        postgres.create_role(other, database.user, database.password)
        postgres.create_database(other, database.name, database.user)
        authorities = tmp_path / "authorities.pem"
        authorities.write_text(database.ca.read_text() + other.ca.read_text())
        elsewhere = connecting_to(f"sa.make_url(os.environ['DATABASE_URL']).set(port={other.port})")

        answer = runner.invoke(write_tree(tmp_path / "tree", ABC, env_py=elsewhere), DB_SSLROOTCERT=str(authorities))

        assert answer.error_type == "TargetMismatch"
        assert f"env.py connected to database {database.name!r} on another server" in answer.message
        there = other.database(database.name, database.user, database.password)
        assert query(there, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'") == []

    @pytest.mark.stress
    def test_another_time_zone_and_style_of_dates_are_not_another_server(self, runner: Runner, tmp_path: Path) -> None:
        env_py = connecting_to(
            "os.environ['DATABASE_URL'], connect_args={'options': '-c timezone=Asia/Tokyo -c datestyle=German'}"
        )

        answer = runner.invoke(write_tree(tmp_path / "tree", ABC, env_py=env_py))

        assert answer.payload["revision"] == "c3"

    @pytest.mark.parametrize("driver", sampled(DRIVERS, {"postgresql+asyncpg"}))
    def test_a_schema_gets_its_own_tables_and_version(self, backend: Backend, driver: str) -> None:
        backend.put(with_driver(driver), [Rev("a1", "op.create_table('a', sa.Column('id', sa.Integer))"), ABC[1]])
        backend.execute("CREATE SCHEMA one", 'CREATE SCHEMA "Two %2\'s"')

        for schema in ("one", "Two %2's"):
            result = backend.invoke({"target": {"schema": schema}}).payload
            assert (result["previous_revision"], result["revision"]) == (None, "b2"), result
            again = backend.invoke({"target": {"schema": schema}}).payload
            assert (again["previous_revision"], again["applied"]) == ("b2", [])

        own = with_driver(driver).replace("target_metadata=", "version_table_schema='public', target_metadata=")
        (backend.folder / "alembic" / "env.py").write_text(own)
        assert backend.invoke({"target": {"schema": "one"}}).payload["applied"] == []

        names = ("a", "alembic_version", "b")
        assert backend.tables() == [*(f'"Two %2\'s".{name}' for name in names), *(f"one.{name}" for name in names)]

    @pytest.mark.stress
    @pytest.mark.parametrize("driver", DRIVERS)
    def test_a_setting_of_its_transaction_holds_for_each_revision(self, backend: Backend, driver: str) -> None:
        sees = "op.execute(f\"CREATE TABLE {name} AS SELECT current_setting('app.mode', true) AS mode\")"
        revisions = [Rev(name, f"name = {name!r}\n{sees}") for name in ("a1", "b2")]
        sets = "connection.execute(text(\"SELECT set_config('app.mode', 'on', true)\"))"
        run = "        context.run_migrations()"

        backend.upgraded(with_driver(driver).replace(run, f"        {sets}\n    {run}"), revisions)

        assert backend.query("SELECT mode FROM a1 UNION ALL SELECT mode FROM b2") == [("on",), ("on",)]

    @pytest.mark.parametrize("driver", sampled(DRIVERS, {"postgresql+asyncpg"}))
    def test_env_pys_own_session_is_verified_tls(self, backend: Backend, driver: str) -> None:
        look = "print(connection.scalar(text('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')))"
        backend.upgraded(with_driver(driver, f"{look}; connection.commit()"))
        assert backend.output("stdout") == [("INFO", "True")]

        wrong = f"assert os.environ['PGSSLMODE'] == 'verify-full'; os.environ['PGSSLROOTCERT'] = {str(RDS_CA_BUNDLE)!r}"
        backend.put(with_driver(driver, top=wrong))
        answer = backend.invoke()

        assert answer.error_type == "ConfigurationError"
        assert answer.duration_s < 5
        assert "certificate verify failed" in answer.message
        assert backend.tables() == []


class TestTree:
    @pytest.mark.stress
    def test_branches_merges_and_dependencies(self, backend: Backend) -> None:
        merged = [
            Rev("a1", sql("CREATE TABLE a (id int)")),
            Rev("l1", sql("CREATE TABLE l (id int)"), sql("DROP TABLE l"), down="a1", branch_labels="left"),
            Rev("r1", sql("CREATE TABLE r (id int)"), sql("DROP TABLE r"), down="a1", branch_labels="right"),
            Rev("m1", down=("l1", "r1")),
        ]
        result = backend.run(ENV_PY, merged).payload
        order = [applied["revision"] for applied in result["applied"]]
        assert (order[0], sorted(order[1:3]), order[3]) == ("a1", ["l1", "r1"], "m1")
        assert (result["revision"], result["pending"]) == ("m1", [])

        down = backend.invoke({"action": "downgrade", "revision": "a1", "confirm": "m1"}).payload
        assert down["reverted"][0]["revision"] == "m1"
        assert (down["revision"], backend.tables()) == ("a1", ["a", "alembic_version"])

        one = backend.invoke({"revision": "l1"}).payload
        assert (one["revision"], [pending["revision"] for pending in one["pending"]]) == ("l1", ["r1", "m1"])
        rest = backend.invoke({"revision": "heads"}).payload
        assert [applied["revision"] for applied in rest["applied"]] == ["r1", "m1"]

    def test_several_heads_and_what_depends_on_another_branch(self, backend: Backend) -> None:
        heads = [
            Rev("a1", sql("CREATE TABLE a (id int)"), sql("DROP TABLE a"), branch_labels="left"),
            Rev("x1", sql("CREATE TABLE x (id int)"), sql("DROP TABLE x"), down=None, branch_labels="other"),
            Rev("x2", sql("INSERT INTO l VALUES (1)"), sql("DELETE FROM l"), down="x1", depends_on="a2"),
            Rev("a2", sql("CREATE TABLE l (id int)"), sql("DROP TABLE l"), down="a1"),
        ]
        refused = backend.run(ENV_PY, heads)
        assert (refused.error_type, backend.tables()) == ("ConfigurationError", [])

        plan = backend.invoke({"action": "plan", "revision": "heads"}).payload
        result = backend.invoke({"revision": "heads"}).payload

        order = [applied["revision"] for applied in result["applied"]]
        assert [rendered["revision"] for rendered in plan["plan"]] == order
        assert (sorted(order), order.index("a2") < order.index("x2")) == (["a1", "a2", "x1", "x2"], True)
        assert (result["up_to_date"], result["pending"]) == (True, [])
        assert backend.query("SELECT count(*) FROM l") == [(1,)]
        assert backend.invoke({"revision": "heads"}).payload["applied"] == []
        confirm = result["revision"]
        stamp = backend.invoke({"action": "stamp", "revision": "a1", "confirm": confirm}).payload
        assert stamp["previous_revision"] == confirm
        down = backend.invoke({"action": "downgrade", "revision": "base", "confirm": stamp["revision"]})
        assert down.error_type is None, down.payload

    @pytest.mark.stress
    def test_steps_relative_to_where_the_database_is(self, backend: Backend) -> None:
        backend.put()
        reached = [backend.invoke({"revision": "+1"}).payload["revision"] for _ in range(2)]
        too_far = backend.invoke({"revision": "+2"})
        down = backend.invoke({"action": "downgrade", "revision": "-1", "confirm": "b2"}).payload

        assert (reached, down["revision"]) == (["a1", "b2"], "a1")
        assert too_far.error_type == "InvalidRequest"

    @pytest.mark.stress
    @pytest.mark.parametrize("location", ["alembic", "./alembic", "%(here)s/alembic"])
    def test_script_location_by_any_path(self, backend: Backend, location: str) -> None:
        backend.upgraded(ini=ALEMBIC_INI.replace("%(here)s/alembic", location))

    @pytest.mark.stress
    def test_a_tree_in_an_installed_package_that_wants_the_applications_variables(self, backend: Backend) -> None:
        ini = ALEMBIC_INI.replace("%(here)s/alembic", "installed_app:db/migrations")
        backend.put(ini=ini)
        libraries = backend.folder.parent / BACKEND_LIBRARIES
        # A link to the libraries that all tests share.
        shared = libraries.resolve()
        libraries.unlink()
        libraries.mkdir()
        for entry in shared.iterdir():
            (libraries / entry.name).symlink_to(entry)
        installed = libraries / "installed_app"
        (installed / "db").mkdir(parents=True)
        (backend.folder / "alembic").rename(installed / "db" / "migrations")
        (installed / "__init__.py").write_text(
            "import os\nURL = os.environ['DATABASE_URL'], os.environ['APP_SECRET']\n"
        )

        result = backend.invoke()
        history = backend.invoke({"action": "history"})

        assert (result.error_type, result.payload.get("revision")) == (None, "c3"), result.payload
        assert len(history.payload["history"]) == 3

    @pytest.mark.stress
    def test_several_version_locations_and_folders_within(self, backend: Backend) -> None:
        ini = ALEMBIC_INI.replace(
            "[alembic]",
            "[alembic]\nversion_locations = %(here)s/alembic/versions %(here)s/more\n"
            "recursive_version_locations = true\nversion_path_separator = space",
        )
        backend.put(ini=ini)
        (backend.folder / "more" / "below").mkdir(parents=True)
        versions = backend.folder / "alembic" / "versions"
        (versions / "c3_.py").rename(backend.folder / "more" / "below" / "c3_.py")

        assert backend.invoke().payload["revision"] == "c3"

        (backend.folder / "alembic.ini").write_text(ini.replace("/more", "/moer"))
        answer = backend.invoke()
        assert answer.error_type == "ConfigurationError"
        assert "has no folder" in answer.message
        assert "moer" in answer.message

    @pytest.mark.stress
    def test_sources_in_a_folder_of_their_own(self, backend: Backend) -> None:
        backend.put(
            online("import app_in_src\nwith create_engine(app_in_src.url()).connect() as connection:\n"
                   "    context.configure(connection=connection)\n"
                   "    with context.begin_transaction():\n        context.run_migrations()"),
            ini=ALEMBIC_INI.replace("prepend_sys_path = .", "prepend_sys_path = src"),
        )  # fmt: skip
        (backend.folder / "src" / "app_in_src").mkdir(parents=True)
        (backend.folder / "src" / "app_in_src" / "__init__.py").write_text(
            "import os\ndef url():\n    return os.environ['DATABASE_URL']\n"
        )

        assert backend.invoke().payload["revision"] == "c3"


IN_A_CHILD = """
import multiprocessing
def work():
    with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
        context.configure(connection)
        with context.begin_transaction():
            context.run_migrations()
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
"""
FAULTS = {
    "never runs": ("pass", "env.py ended without calling context.run_migrations()"),
    "runs in a child process": (IN_A_CHILD, "without calling context.run_migrations()"),
    "exits": ("sys.exit('no more')", "SystemExit: no more"),
    "exits with a list": ("sys.exit(['no', 'more'])", "SystemExit: ['no', 'more']"),
    "exits with 0.0": ("sys.exit(0.0)", "SystemExit: 0.0"),
    "exits without a word": ("sys.exit()", "without calling context.run_migrations()"),
    "asserts": ("assert config.cmd_opts is None", "assert config.cmd_opts is None"),
    "a variable that is not there": ("os.environ['NO_SUCH_DB']", "KeyError: 'NO_SUCH_DB' (an environment variable?"),
    "a module that is not there": ("import no_such_module", "No module named 'no_such_module'"),
    "prints and raises the address": ("raise ValueError(os.environ['DATABASE_URL'] + '\\n' + 'more')", "@"),
    "no connection": ("context.configure(url=os.environ['DATABASE_URL'])", "no connection"),
    "SQL only": (
        "context.configure(create_engine(os.environ['DATABASE_URL']).connect(), as_sql=True)\ncontext.run_migrations()",
        "as_sql, so Alembic would only print the SQL",
    ),
    "an engine for a connection": (
        "context.configure(create_engine(os.environ['DATABASE_URL']))\ncontext.run_migrations()",
        "Connection",
    ),
}
FAULTS_SAMPLE = ("never runs", "exits", "prints and raises the address", "no connection", "SQL only")


ALLOCATE = """
import resource
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 50_000_000, now + 50_000_000))
bytearray(500_000_000)
"""
# How the process of a revision may end, and the words of the error.
ENDS = {
    "exits with a text": ("sys.exit('enough')", "SystemExit: enough"),
    "exits with 3": ("os._exit(3)", "exit code 3"),
    "exits with 0": ("os._exit(0)", "exit code 0"),
    "recursion": ("def deeper():\n    deeper()\ndeeper()", "RecursionError"),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "is killed": ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    "memory": (ALLOCATE, "MemoryError"),
}


class TestFaults:
    @pytest.mark.parametrize("faults", in_two_sets(FAULTS, FAULTS_SAMPLE))
    def test_of_env_py_are_one_line(self, backend: Backend, faults: list[tuple[str, str]]) -> None:
        for body, expected in faults:
            message = backend.refused(online(body))
            assert message.startswith("ConfigurationError: "), message
            assert expected in message

    @pytest.mark.parametrize("ends", sampled([("", 0), ("3", 3 << 8), ("'no more'", 1 << 8)], {("3", 3 << 8)}))
    def test_a_process_that_env_py_forks_does_not_answer(self, backend: Backend, ends: tuple[str, int]) -> None:
        code, status = ends
        forks = f"if os.fork() == 0:\n    sys.exit({code})\nassert os.wait()[1] == {status}\n"

        assert backend.upgraded(online(forks + CONNECT_TO_DATABASE_URL))["revision"] == "c3"

    @pytest.mark.stress
    def test_an_error_without_a_text(self, backend: Backend) -> None:
        fails = "class Mute(Exception):\n    def __str__(self):\n        raise LookupError\nraise Mute"
        answer = backend.run(online(CONNECT_TO_DATABASE_URL), [Rev("a1", fails)])
        assert answer.error_type == "MigrationFailed"
        assert "Mute, whose text cannot be read" in answer.message

    @pytest.mark.stress
    def test_a_view_in_place_of_the_version_table_is_refused_before_a_revision(self, backend: Backend) -> None:
        backend.put()
        backend.execute(
            "CREATE TABLE versions (version_num varchar)", "CREATE VIEW alembic_version AS SELECT * FROM versions"
        )

        answer = backend.invoke()

        assert (answer.error_type, backend.tables()) == ("ConfigurationError", ["versions"]), answer.payload
        assert 'version table "public"."alembic_version" is no table' in answer.message

    @pytest.mark.stress
    def test_of_the_package_are_one_line(self, backend: Backend) -> None:
        folder = backend.put()
        (folder / "alembic" / "versions" / "b2_.py").write_text("revision = 'b2'\ndef upgrade(:\n")
        broken = backend.invoke()
        folder = backend.put(revisions=[])
        empty = backend.invoke()
        (folder / "alembic" / "versions").rmdir()
        missing = backend.invoke()
        (folder / "alembic" / "env.py").unlink()
        (folder / "alembic.ini").unlink()
        no_ini = backend.invoke()

        answers = (broken, empty, missing, no_ini)
        assert [answer.error_type for answer in answers] == ["ConfigurationError"] * 4
        expected = ("SyntaxError: invalid syntax (b2_.py, line 2)", "no revision", "has no folder", "no alembic.ini")
        for answer, text in zip(answers, expected, strict=True):
            assert text in answer.message
            assert "\n" not in answer.message
        assert backend.tables() == []

    @pytest.mark.parametrize("ends", sampled_by_name(ENDS, {"exits with 0"}))
    def test_of_a_revision_leave_a_boundary_and_a_usable_function(
        self, backend: Backend, ends: tuple[str, str]
    ) -> None:
        body, expected = ends
        fails = Rev("b2", f"{sql('CREATE TABLE b (id int)')}\n{body}")

        answer = backend.run(ENV_PY, [ABC[0], fails, ABC[2]])

        assert answer.error_type == "MigrationFailed", answer.payload
        assert answer.message.startswith("revision b2 (Revision b2) failed: ")
        assert expected in answer.message
        assert answer.message.endswith("; the database is at a1")
        assert (backend.version(), backend.tables()) == (["a1"], ["a", "alembic_version"])
        pid = backend.function.pid
        backend.upgraded()
        assert backend.function.pid == pid

    @pytest.mark.stress
    @pytest.mark.parametrize("driver", DRIVERS)
    def test_of_a_statement_have_the_fields_of_the_server(self, backend: Backend, driver: str) -> None:
        twice = Rev("b2", sql("CREATE TABLE u (id int UNIQUE)", "INSERT INTO u VALUES (1), (1)"))

        answer = backend.run(with_driver(driver), [ABC[0], twice])

        assert answer.error_type == "MigrationFailed"
        assert "duplicate key value violates unique constraint" in answer.message
        assert "(SQLSTATE 23505); the database is at a1" in answer.message
        [failed] = backend.runner.events("migration.failed")
        assert (failed["constraint"], failed["table"], failed["statement"]) == (
            "u_id_key",
            "u",
            "INSERT INTO u VALUES (1), (1)",
        )

    @pytest.mark.stress
    @pytest.mark.parametrize("driver", DRIVERS)
    def test_of_a_lock_are_tried_again(self, backend: Backend, driver: str) -> None:
        backend.put(with_driver(driver), [ABC[0]])
        backend.invoke()
        backend.put_revisions(Rev("b2", sql("ALTER TABLE a ADD b int"), down="a1"))
        with closing(backend.database.connect()) as other, other.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE a")

            answer = backend.invoke()

        assert answer.error_type == "LockTimeout", answer.payload
        assert "SQLSTATE" not in answer.message
        assert len(backend.runner.events("revision.retried")) == 1

    @pytest.mark.stress
    @pytest.mark.parametrize("driver", DRIVERS)
    def test_of_an_interrupted_run_are_none_if_its_index_is_there(self, backend: Backend, driver: str) -> None:
        backend.put(with_driver(driver), [ABC[0]])
        backend.invoke()
        index = "CREATE INDEX CONCURRENTLY a_id ON a (id) WHERE id % 2 = 0 AND id::text LIKE 'a%'"
        backend.execute(index)
        alone = f"with op.get_context().autocommit_block():\n    op.execute({index!r})"
        backend.put_revisions(Rev("b2", alone, down="a1"))

        answer = backend.invoke()

        assert answer.error_type is None, answer.payload
        assert len(backend.runner.events("statement.skipped")) == 1

    def test_threads_and_sessions_left_behind_do_not_keep_a_run_from_ending(self, backend: Backend) -> None:
        leaves = "import threading, time\nthreading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
        leaves += "import atexit\natexit.register(print, 'late')\n"
        leaves += "kept = [create_engine(os.environ['DATABASE_URL']).connect() for _ in range(3)]\n"
        leaves += "for one in kept:\n    one.execute(text('SELECT 1'))\n"

        answer = backend.run(online(leaves + CONNECT_TO_DATABASE_URL))

        assert (answer.error_type, answer.payload.get("revision")) == (None, "c3"), answer.payload
        assert answer.duration_s < 10
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
        assert backend.query(sessions) == [(0,)]

    @pytest.mark.stress
    def test_errors_that_pass_by_sqlalchemy_are_known_all_the_same(self, backend: Backend) -> None:
        raw = "op.get_bind().connection.cursor().execute('SELECT 1 / 0')"

        answer = backend.run(ENV_PY, [ABC[0], Rev("b2", raw)])

        assert "division by zero (SQLSTATE 22012)" in answer.message


MODELS = """
models = sa.MetaData()
sa.Table("a", models, sa.Column("id", sa.Integer))
def ours(name, type_, parents):
    return type_ != "table" or name == "a"
def objects(object, name, type_, reflected, compare_to):
    return name not in ("b", "c")
def nothing_empty(context, revision, directives):
    assert config.cmd_opts.autogenerate
    if directives[0].upgrade_ops.is_empty():
        directives[:] = []
"""
# env.py's options, the error, and words of it.
CHECKS = {
    "models": (", target_metadata=models", "DriftDetected", "differ in 2 ways"),
    "include_name": (", target_metadata=models, include_name=ours", None, ""),
    "include_object": (", target_metadata=models, include_object=objects", None, ""),
    "include_name and a directive": (
        ", target_metadata=models, include_name=ours, process_revision_directives=nothing_empty",
        None,
        "",
    ),
    "no models": ("", "ConfigurationError", "no target_metadata"),
}


class TestLookingOnly:
    def test_a_plan_names_revisions_that_cannot_be_rendered_and_writes_nothing(self, backend: Backend) -> None:
        opens = "engine = sa.create_engine(os.environ['DATABASE_URL'])\nwith engine.begin() as own:\n"
        raw = "import psycopg2\nown = psycopg2.connect(os.environ['DATABASE_URL'].replace('+psycopg2', ''))\n"
        raw += "own.cursor().execute('CREATE TABLE sneaked (id int)')\nown.commit()"
        revisions = [
            ABC[0],
            Rev("b2", "op.get_bind().execute(sa.text('SELECT 1')).scalar()"),
            Rev("c3", f"{opens}    own.execute(sa.text('CREATE TABLE sneaked (id int)'))"),
            Rev("d4", f"{opens}    own.execute(sa.text('CREATE TABLE IF NOT EXISTS sneaked (id int)'))"),
            Rev("e5", raw),
            Rev("f6", sql("CREATE TABLE f (id int)")),
        ]

        plan = backend.run(ENV_PY, revisions, {"action": "plan"}).payload["plan"]

        assert [entry["revision"] for entry in plan] == ["a1", "b2", "c3", "d4", "e5", "f6"]
        assert "CREATE TABLE a" in plan[0]["sql"]
        assert "cannot be rendered without a database" in plan[1]["error"]
        assert "read-only transaction" in plan[2]["error"]
        assert "read-only transaction" in plan[4]["error"]
        assert "CREATE TABLE f" in plan[5]["sql"]
        assert backend.tables() == []

    @pytest.mark.stress
    def test_a_plan_without_an_offline_mode_has_the_reason(self, backend: Backend) -> None:
        lacks = ENV_PY.replace("if context.is_offline_mode():\n    run_migrations_offline()", "if False:\n    pass")
        refuses = ENV_PY.replace("    run_migrations_offline()\nelse", "    sys.exit('online only')\nelse")
        for env_py in (lacks, refuses.replace("import os", "import os, sys")):
            answer = backend.run(env_py, event={"action": "plan"})

            assert answer.error_type is None, answer.payload
            assert [entry["revision"] for entry in answer.payload["plan"]] == ["a1", "b2", "c3"]
            assert backend.tables() == []
        assert "online only" in answer.payload["plan"][0]["error"]

    @pytest.mark.stress
    def test_env_pys_own_preparations_do_not_stop_a_look_and_are_not_done(self, backend: Backend) -> None:
        prepare = "connection.execute(text('CREATE SCHEMA IF NOT EXISTS \"my app\" AUTHORIZATION current_user'))"
        env_py = with_driver("postgresql+psycopg2", f"{prepare}; connection.commit()")
        backend.put(env_py)

        for action in ("status", "plan"):
            answer = backend.invoke({"action": action})
            assert answer.error_type is None, answer.payload
            assert backend.query("SELECT to_regnamespace('\"my app\"')") == [(None,)]
        assert backend.invoke().payload["revision"] == "c3"
        assert backend.invoke({"action": "status"}).payload["revision"] == "c3"

    @pytest.mark.parametrize("case", sampled_by_name(CHECKS, {"no models"}))
    def test_a_check_compares_with_env_pys_options(self, backend: Backend, case: tuple[str, str | None, str]) -> None:
        options, error_type, words = case
        configures = "\n    context.configure(connection=connection"
        body = CONNECT_TO_DATABASE_URL.replace(configures, configures + options)
        backend.put(online(body, MODELS))
        assert backend.invoke().error_type is None

        answer = backend.invoke({"action": "check"})

        assert (answer.error_type, words in answer.message) == (error_type, True), answer.payload


X_ENV_PY = ENV_PY.replace(
    "        context.configure(connection",
    "        tenant = context.get_x_argument(as_dictionary=True)['tenant']\n"
    "        connection.exec_driver_sql(f'SET search_path TO \"{tenant}\"'); connection.commit()\n"
    "        connection.dialect.default_schema_name = tenant\n"
    "        context.configure(connection",
)


class TestXArguments:
    @pytest.fixture
    def tree(self, database: Database, tmp_path: Path) -> Path:
        execute(database, "CREATE SCHEMA one", "CREATE SCHEMA two")
        return write_tree(tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)"))], env_py=X_ENV_PY)

    @pytest.mark.stress
    def test_they_reach_env_py(self, runner: Runner, database: Database, tree: Path) -> None:
        function = runner.start(tree, ALEMBIC_X='{"tenant": "one"}')

        assert function.invoke().payload["revision"] == "a1"
        assert function.invoke({"action": "status"}).payload["up_to_date"] is True
        assert function.invoke({"action": "history"}).payload["count"] == 1
        assert query(database, "SELECT to_regclass('one.a') IS NOT NULL, to_regclass('two.a')") == [(True, None)]

    def test_the_schema_of_a_target_may_be_one(self, runner: Runner, database: Database, tree: Path) -> None:
        function = runner.start(tree, ALEMBIC_X='{"tenant": "{schema}", "where": "{host}:{port}"}')

        assert function.invoke({"target": {"schema": "two"}}).payload["revision"] == "a1"
        answer = function.invoke()

        assert answer.error_type == "ConfigurationError"
        assert "target.schema" in answer.message
        assert query(database, "SELECT to_regclass('two.a') IS NOT NULL, to_regclass('one.a')") == [(True, None)]


@pytest.mark.stress
def test_the_error_of_an_aws_service_that_the_package_lacks_names_the_setting(runner: Runner, tmp_path: Path) -> None:
    env_py = "import boto3\nboto3.client('ss' + 'm', region_name='eu-central-1')\n" + ENV_PY
    tree = write_tree(tmp_path / "tree", [Rev("a1")], env_py=env_py)
    (tree / "requirements.txt").write_text("alembic\nsqlalchemy\nboto3\n")

    answer = runner.start_package(build(tree, tmp_path / "package", Platform()).directory).invoke()

    assert answer.error_type == "ConfigurationError"
    assert "`aws_services`" in answer.message
