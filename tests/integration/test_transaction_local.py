"""Settings of env.py's transaction apply to each revision, as under Alembic with one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import administer, execute, query
from tests.support.env_py.backend import Backend, online
from tests.support.plain_alembic import alembic, snapshot
from tests.support.samples import sampled
from tests.support.trees import Rev, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

# What each revision finds: settings, role, transaction, advisory locks, and where a table without a schema goes.
SEES = """
op.execute('''INSERT INTO public.seen SELECT '{name}', current_setting('app.mode', true), current_user,
    current_setting('transaction_isolation'), current_schema(),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND pid = pg_backend_pid())''')
op.execute('CREATE TABLE {name}_table (id int)')
"""
CONCURRENTLY = """
with op.get_context().autocommit_block():
    op.execute('CREATE INDEX CONCURRENTLY {name}_index ON {name}_table (id)')
"""
REVISIONS = [Rev(name, SEES.format(name=name)) for name in ("r1", "r2", "r3")]

CONNECT = """
with create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool).connect() as connection:
"""
IN_BLOCK = (
    CONNECT
    + """
    context.configure(connection=connection)
    with context.begin_transaction():
        {}
        context.run_migrations()
"""
)
LISTENING = """
engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
@sa.event.listens_for(engine, "{event}")
{listener}
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
SET_MODE = "SELECT set_config('app.mode', 'on', true)"

WAYS = {
    "SET LOCAL": IN_BLOCK.format("context.execute('SET LOCAL search_path TO app')"),
    "set_config": IN_BLOCK.format(f'connection.execute(text("{SET_MODE}"))'),
    "set_config with parameters": IN_BLOCK.format(
        "connection.execute(text('SELECT set_config(:name, :value, :local)'),"
        " {'name': 'app.mode', 'value': 'on', 'local': True})"
    ),
    "a function that sets": IN_BLOCK.format("connection.execute(text('SELECT public.set_mode()'))"),
    "a statement after others": IN_BLOCK.format(
        "context.execute('SET search_path TO app, public; SET /* here */ LOCAL app.mode = 7')"
    ),
    "SET TRANSACTION": IN_BLOCK.format("context.execute('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE')"),
    "SET LOCAL ROLE": IN_BLOCK.format("context.execute('SET LOCAL ROLE {role}')"),
    "an advisory lock": IN_BLOCK.format("connection.execute(text('SELECT pg_advisory_xact_lock(77)'))"),
    "the driver's cursor": IN_BLOCK.format(f'connection.connection.cursor().execute("{SET_MODE}")'),
    "a session that is bound": IN_BLOCK.format(
        f'sa.orm.Session(bind=connection, join_transaction_mode="rollback_only").execute(text("{SET_MODE}"))'
    ),
    "before the block": CONNECT
    + f"""
    context.configure(connection=connection)
    connection.execute(text("{SET_MODE}"))
    with context.begin_transaction():
        context.run_migrations()
""",
    "without a block": CONNECT
    + f"""
    context.configure(connection=connection)
    connection.execute(text("{SET_MODE}"))
    context.run_migrations()
    connection.commit()
""",
    "a transaction per revision": IN_BLOCK.format(f'connection.execute(text("{SET_MODE}"))').replace(
        "connection=connection", "connection=connection, transaction_per_migration=True"
    ),
    "a listener for begin": LISTENING.format(
        event="begin", listener=f'def begun(connection):\n    connection.exec_driver_sql("{SET_MODE}")'
    ),
    "a listener for connect": LISTENING.format(
        event="connect", listener=f'def connected(driver, _):\n    driver.cursor().execute("{SET_MODE}")'
    ),
    "no local setting": IN_BLOCK.format(
        "context.execute('SET search_path TO app'); context.execute('SET ROLE {role}')"
    ),
}

SAMPLE = {"SET LOCAL"}


@pytest.fixture
def role(postgres_server: Server, database: Database) -> Iterator[str]:
    """A role that the login may set."""
    role = f"{database.name}_role"
    administer(postgres_server, f"CREATE ROLE {role}", f'GRANT {role} TO "{database.user}"')
    yield role
    execute(postgres_server.database(database.name), f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path, ALLOW_DOWNGRADE="true")


def put(backend: Backend, env_py: str, revisions: list[Rev], role: str) -> None:
    """Put the backend in the package, and the objects that its revisions need in the empty database."""
    backend.put(online(env_py.replace("{role}", role), top="import sqlalchemy.orm"), revisions)
    backend.execute(
        "CREATE SCHEMA app",
        "CREATE TABLE seen (revision text, mode text, role text, isolation text, schema text, locks int)",
        "CREATE FUNCTION set_mode() RETURNS text LANGUAGE sql AS"
        " 'SELECT set_config($$app.mode$$, $$by a function$$, true)'",
        f"GRANT ALL ON SCHEMA public, app TO {role}",
        f"GRANT ALL ON seen TO {role}",
    )


def as_alembic(backend: Backend, env_py: str, revisions: list[Rev], role: str) -> None:
    """The function leaves the same database as Alembic's command, and its result agrees."""
    put(backend, env_py, revisions, role)
    plain = alembic(backend.folder, backend.database, "upgrade", "head")
    assert plain.returncode == 0, plain.stderr
    expected = snapshot(backend.database)
    put(backend, env_py, revisions, role)

    answer = backend.invoke()

    assert answer.error_type is None, answer.payload
    assert snapshot(backend.database) == expected
    assert [each["revision"] for each in answer.payload["applied"]] == [revision.id for revision in revisions]
    assert (answer.payload["revision"], answer.payload["up_to_date"]) == (revisions[-1].id, True)


class TestUpgrade:
    @pytest.mark.parametrize("way", sampled(WAYS, SAMPLE))
    def test_each_revision_finds_what_it_finds_under_alembic(self, backend: Backend, role: str, way: str) -> None:
        as_alembic(backend, WAYS[way], REVISIONS, role)

    @pytest.mark.stress
    def test_statements_of_env_py_after_them_in_its_block_are_committed(self, backend: Backend, role: str) -> None:
        last = "        context.execute(\"INSERT INTO public.seen VALUES ('env.py')\")\n"
        block = f"{IN_BLOCK.format('pass')}{last}"

        as_alembic(backend, block, REVISIONS, role)

    @pytest.mark.parametrize(
        "way", sampled(["set_config", "an advisory lock", "no local setting"], ["an advisory lock"])
    )
    def test_after_an_autocommit_block_it_is_gone_as_under_alembic(self, backend: Backend, role: str, way: str) -> None:
        revisions = [REVISIONS[0], Rev("r2", SEES.format(name="r2") + CONCURRENTLY.format(name="r2")), REVISIONS[2]]

        as_alembic(backend, WAYS[way], revisions, role)

    @pytest.mark.stress
    def test_constraints_stay_deferred_until_the_end(self, backend: Backend, role: str) -> None:
        revisions = [
            Rev("r1", "op.execute('CREATE TABLE a (id int UNIQUE DEFERRABLE)')"),
            Rev("r2", "op.execute('INSERT INTO a VALUES (1)')\nop.execute('INSERT INTO a VALUES (1)')"),
            Rev("r3", "op.execute('UPDATE a SET id = 2 WHERE ctid = (SELECT max(ctid) FROM a)')"),
        ]

        as_alembic(backend, IN_BLOCK.format("context.execute('SET CONSTRAINTS ALL DEFERRED')"), revisions, role)

    def test_a_failure_leaves_what_it_leaves_under_alembic(self, backend: Backend, role: str) -> None:
        revisions = [*REVISIONS[:2], Rev("r3", "op.execute('SELECT 1 / 0')")]
        way = WAYS["set_config"]
        put(backend, way, revisions, role)
        assert alembic(backend.folder, backend.database, "upgrade", "head").returncode != 0
        expected = snapshot(backend.database)
        put(backend, way, revisions, role)

        answer = backend.invoke()

        assert answer.error_type == "MigrationFailed"
        assert answer.message.endswith("; the database is at base")
        assert snapshot(backend.database) == expected
        assert [line["applied"] for line in backend.runner.events("migration.failed")] == [[]]

    def test_after_a_lock_timeout_all_of_them_run_again(self, backend: Backend, role: str) -> None:
        # The sequence is not rolled back.
        locked = "DO $$BEGIN IF nextval('public.tries') = 1 THEN RAISE lock_not_available; END IF; END$$"
        revisions = [REVISIONS[0], Rev("r2", SEES.format(name="r2") + f"op.execute({locked!r})"), REVISIONS[2]]
        put(backend, WAYS["set_config"], revisions, role)
        backend.execute("CREATE SEQUENCE public.tries")

        result = backend.invoke().payload

        assert [each["revision"] for each in result["applied"]] == ["r1", "r2", "r3"], result
        assert result["attempts"] == 2
        assert backend.query("SELECT revision, mode FROM seen") == [("r1", "on"), ("r2", "on"), ("r3", "on")]

    @pytest.mark.stress
    def test_without_a_commit_nothing_is_a_success(self, backend: Backend, role: str) -> None:
        put(backend, WAYS["without a block"].replace("connection.commit()", "pass"), REVISIONS, role)

        answer = backend.invoke()

        assert answer.error_type == "ConfigurationError"
        assert answer.message.startswith("env.py ran to its end but did not commit")


# It ends between two cancellations, which come every half second from then on.
UNTIL_TIME_IS_UP = """
while context.config.attributes["time_left"]() > 0:
    time.sleep(0.02)
time.sleep(0.2)
"""


@pytest.mark.parametrize(
    "second,applied,says",
    [
        pytest.param("op.execute('SELECT pg_sleep(60)')", 0, "and the 1 that had run were rolled back", id="within"),
        pytest.param(
            UNTIL_TIME_IS_UP,
            2,
            "invoke again to continue from there",
            id="between revisions",
            marks=pytest.mark.stress,
        ),
    ],
)
def test_when_time_is_up_env_py_commits_what_has_run_or_nothing(
    runner: Runner, database: Database, tmp_path: Path, second: str, applied: int, says: str
) -> None:
    env_py = online(IN_BLOCK.format(f'connection.execute(text("{SET_MODE}"))'))
    tree = write_tree(tmp_path / "tree", [Rev("r1"), Rev("r2", second), Rev("r3")], env_py=env_py)
    function = runner.start(tree, timeout_s=7, DEADLINE_RESERVE_MS="3500")
    function.invoke({"action": "history"})

    answer = function.invoke()

    assert answer.error_type == "MigrationIncomplete", answer.payload
    assert f"{applied} applied, {3 - applied} left" in answer.message
    assert says in answer.message
    versions = query(database, "SELECT to_regclass('alembic_version')::text")
    assert versions == [("alembic_version" if applied else None,)]


class TestOtherActions:
    @pytest.mark.stress
    def test_each_finds_the_local_search_path(self, backend: Backend, role: str) -> None:
        """The version table is in the schema that SET LOCAL names, too."""
        revisions = [
            Rev(name, f"op.execute('CREATE TABLE {name} (i int)')", f"op.execute('DROP TABLE {name}')") for name in "ab"
        ]
        sets = "SET LOCAL search_path TO app"
        listening = LISTENING.format(
            event="connect", listener=f'def f(driver, _):\n    driver.cursor().execute("{sets}")'
        )
        for env_py in (WAYS["SET LOCAL"], listening):
            put(
                backend,
                env_py.replace("connection=connection", "connection=connection, target_metadata=sa.MetaData()"),
                revisions,
                role,
            )

            assert backend.invoke({"action": "status"}).payload["revision"] is None
            assert backend.invoke({"revision": "a"}).payload["revision"] == "a"
            plan = backend.invoke({"action": "plan"}).payload
            assert ([each["revision"] for each in plan["plan"]], plan["revision"]) == (["b"], "a")
            backend.invoke()
            assert "remove_table" in backend.invoke({"action": "check"}).message
            down = backend.invoke({"action": "downgrade", "revision": "base", "confirm": "b"}).payload
            assert [each["revision"] for each in down["reverted"]] == ["b", "a"]
            stamp = backend.invoke({"action": "stamp", "revision": "b", "confirm": None}).payload
            assert (stamp["revision"], stamp["up_to_date"]) == ("b", True)

        assert backend.tables() == ["app.alembic_version", "seen"]
