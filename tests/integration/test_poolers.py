"""With a pooler in transaction mode, nothing changes. In session mode everything works, also under load."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bystander import execute, query
from tests.support.pgbouncer import connect, pgbouncer, program
from tests.support.samples import sampled
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

pytestmark = pytest.mark.skipif(
    program() is None, reason="PgBouncer is not installed (on Debian: apt-get install pgbouncer)"
)

# What a session of the function's own, or of env.py, sets.
SETTINGS = (
    "statement_timeout",
    "lock_timeout",
    "default_transaction_read_only",
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
    "tcp_user_timeout",
    "client_connection_check_interval",
    "search_path",
)
# More server sessions than clients that work at once, so that a client gets any of several.
POOL = {"default_pool_size": 12}
SAMPLE = {("transaction", 6, "upgrade")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "tree",
        [Rev("a1", sql("CREATE TABLE a (id int)")), Rev("b2", sql("CREATE TABLE b (id int)"))],
    )


class Application:
    """Clients of the pooler that write and read without a pause. ``errors`` holds their errors."""

    def __init__(self, database: Database, port: int) -> None:
        self.errors: list[str] = []
        self.writes = 0
        self._database, self._port = database, port
        self._stop = threading.Event()

    def work(self) -> None:
        try:
            while not self._stop.is_set():
                # Connections come and go, as they do in a web server's own pool.
                with closing(connect(self._database, self._port)) as client, client.cursor() as cursor:
                    for _ in range(20):
                        cursor.execute("INSERT INTO public.visits DEFAULT VALUES")
                        cursor.execute("SELECT count(*), pg_sleep(0.002) FROM public.visits")
                        self.writes += 1
        except Exception as error:  # noqa: BLE001 - whatever the application would see
            self.errors.append(str(error))

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def traffic(database: Database, port: int, clients: int) -> Iterator[Application]:
    """Run clients until the end of the context. No client may get an error."""
    execute(
        database, "CREATE TABLE public.visits (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now())"
    )
    application = Application(database, port)
    threads = [threading.Thread(target=application.work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield application
    finally:
        application.stop()
        for thread in threads:
            thread.join()
    assert application.errors == []
    assert clients == 0 or application.writes > 0


def left_behind(database: Database, port: int) -> list[tuple[str, str]]:
    """Return the settings and migration locks by which the pool's sessions differ from new sessions of the server."""
    fresh = dict(query(database, "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", ([*SETTINGS],)))
    found: set[tuple[str, str]] = set()
    clients = [connect(database, port) for _ in range(POOL["default_pool_size"])]
    for client in clients:
        with client.cursor() as cursor:
            # In a transaction, so that each has a server session of its own.
            cursor.execute("BEGIN; SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", ([*SETTINGS],))
            found |= {(name, value) for name, value in cursor.fetchall() if fresh[name] != value}
    for client in clients:
        client.close()
    return sorted(found) + [("lock", name) for name in locks(database)]


def locks(database: Database) -> list[str]:
    """Return the advisory locks that are held in the database."""
    rows = query(
        database,
        "SELECT classid::text FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    return [name for (name,) in rows]


def through(port: int) -> dict[str, Any]:
    return {"DB_HOST": "127.0.0.1", "DB_PORT": str(port), "DB_SSLMODE": "disable"}


@pytest.mark.parametrize(
    "mode,clients,action",
    [
        pytest.param(*case, id="-".join(map(str, case)), marks=() if case in SAMPLE else pytest.mark.stress)
        for case in product(("transaction", "statement"), (0, 6), ("upgrade", "status"))
    ],
)
def test_a_pool_whose_sessions_are_shared_is_refused_and_untouched(
    runner: Runner, database: Database, tree: Path, mode: str, clients: int, action: str
) -> None:
    with pgbouncer(database, mode, **POOL) as port:
        function = runner.start(tree, **through(port))

        with traffic(database, port, clients):
            for _ in range(3):
                answer = function.invoke({"action": action})
                assert answer.error_type == "PoolerRefused", answer.payload
                assert f"127.0.0.1:{port}" in answer.message

        if mode == "transaction":
            assert left_behind(database, port) == []
    assert query(database, "SELECT to_regclass('a'), to_regclass('alembic_version')") == [(None, None)]
    assert locks(database) == []


@pytest.mark.parametrize("clients", sampled([0, 6], [6]), ids=["quiet", "busy"])
def test_a_pool_in_session_mode_works_and_gets_its_sessions_back_as_they_were(
    runner: Runner, database: Database, tree: Path, clients: int, rounds: Callable[[int, int], int]
) -> None:
    with pgbouncer(database, "session", **POOL) as port:
        function = runner.start(tree, **through(port))

        with traffic(database, port, min(clients, rounds(2, 6))):
            for action in ("status", "plan", "upgrade", "upgrade", "status"):
                answer = function.invoke({"action": action})
                assert answer.error_type is None, answer.payload

        assert left_behind(database, port) == []
    assert query(database, "SELECT version_num FROM alembic_version") == [("b2",)]
    assert locks(database) == []


@pytest.mark.stress
def test_a_pool_in_session_mode_takes_a_tenants_schema(runner: Runner, database: Database, tree: Path) -> None:
    execute(database, 'CREATE SCHEMA "tenant one"')
    with pgbouncer(database, "session", **POOL) as port:
        function = runner.start(tree, **through(port))

        for action in ("plan", "upgrade", "status"):
            answer = function.invoke({"action": action, "target": {"schema": "tenant one"}})
            assert answer.error_type is None, answer.payload

        assert left_behind(database, port) == []
    assert query(database, 'SELECT version_num FROM "tenant one".alembic_version') == [("b2",)]
    assert query(database, "SELECT to_regclass('public.a')") == [(None,)]


@pytest.mark.stress
def test_sessions_of_the_application_survive_a_run_that_is_out_of_time(
    runner: Runner, database: Database, tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    slow = write_tree(tmp_path / "slow", [Rev("a1", sql("SELECT pg_sleep(60)"))])
    with pgbouncer(database, "session", **POOL) as port, traffic(database, port, rounds(1, 4)):
        answer = runner.start(slow, timeout_s=8, DEADLINE_RESERVE_MS="3000", **through(port)).invoke()

        assert answer.error_type == "MigrationIncomplete", answer.payload
    assert query(database, "SELECT FROM pg_stat_activity WHERE query ~ 'pg_sleep.60' AND pid <> pg_backend_pid()") == []


@pytest.mark.parametrize("action", sampled(["upgrade", "status", "plan"], ["upgrade"]))
def test_an_env_py_that_goes_through_a_pooler_of_its_own_is_refused(
    runner: Runner, database: Database, tmp_path: Path, action: str
) -> None:
    env_py = ENV_PY.replace('os.environ["DATABASE_URL"]', 'os.environ["POOLED_URL"]')
    tree = write_tree(tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)"))], env_py=env_py)
    with pgbouncer(database, "transaction", **POOL) as port:
        # PGSSLMODE, which the function sets, asks for TLS that this pooler does not offer.
        address = f"{{driver}}://{database.user}:x@127.0.0.1:{port}/{database.name}?sslmode=disable"
        variables = f'{{"POOLED_URL": "{address}", "PGPASSWORD": "{{password}}"}}'.replace(":x@", "@")

        answer = runner.invoke(tree, {"action": action}, DATABASE_ENV=variables, DB_SSLMODE="prefer")

        assert answer.error_type == "PoolerRefused", answer.payload
        assert left_behind(database, port) == []
    assert query(database, "SELECT to_regclass('a')") == [(None,)]


@pytest.mark.stress
def test_a_session_pool_does_not_excuse_another_pooler_of_env_py(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    env_py = ENV_PY.replace('os.environ["DATABASE_URL"]', 'os.environ["POOLED_URL"]')
    tree = write_tree(tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)"))], env_py=env_py)
    with pgbouncer(database, "session", **POOL) as own, pgbouncer(database, "transaction", **POOL) as other:
        address = f"{{driver}}://{database.user}@127.0.0.1:{other}/{database.name}?sslmode=disable"
        variables = f'{{"POOLED_URL": "{address}", "PGPASSWORD": "{{password}}"}}'

        answer = runner.invoke(tree, DATABASE_ENV=variables, **through(own))

        assert answer.error_type == "PoolerRefused", answer.payload
        assert left_behind(database, other) == []
    assert query(database, "SELECT to_regclass('a')") == [(None,)]


@pytest.mark.parametrize("mode,message", [("session", "in session mode"), ("transaction", "PoolerRefused")])
def test_the_doctor_has_a_step_for_it(runner: Runner, database: Database, tree: Path, mode: str, message: str) -> None:
    with pgbouncer(database, mode, **POOL) as port:
        report = runner.invoke(tree, {"action": "doctor"}, **through(port)).payload

    steps = {step["step"]: step for step in report["steps"]}
    passed = mode == "session"
    assert (steps["login"]["ok"], steps["pooler"]["ok"], report["healthy"]) == (True, passed, passed)
    assert message in steps["pooler"]["message"]


@pytest.mark.stress
def test_the_doctor_reports_that_there_is_no_pooler(runner: Runner, tree: Path) -> None:
    report = runner.invoke(tree, {"action": "doctor"}).payload

    assert [step["message"] for step in report["steps"] if step["step"] == "pooler"] == ["none"]
