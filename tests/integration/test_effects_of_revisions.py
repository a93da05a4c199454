"""What ends with a transaction, and what ends a transaction, has the effect that it has under Alembic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import query
from tests.support.env_py.backend import Backend
from tests.support.plain_alembic import alembic, snapshot
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

TABLE = "CREATE TABLE t (id int, tenant text DEFAULT current_setting('app.tenant', true))"
INSERTS = "INSERT INTO t (id) VALUES (1)"
LOCKS = (
    "INSERT INTO t (id) SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
    " AND (locktype = 'advisory' AND objid = 77 OR mode = 'ShareLock' AND relation = 't'::regclass)"
)
# The first revision makes the table. The others here are in order.
HOLDS = {
    "SET LOCAL": [sql("SET LOCAL app.tenant = 'a'"), sql(INSERTS), sql(INSERTS)],
    "SET LOCAL with a comment": [sql("/* x */ SET -- y\n LOCAL app.tenant = 'a'"), sql(INSERTS)],
    "SET LOCAL search_path": [
        sql("CREATE SCHEMA s", "SET LOCAL search_path TO s, public"),
        sql("CREATE TABLE u (id int)"),
    ],
    "SET LOCAL ROLE in a DO block": [sql("DO $$BEGIN SET LOCAL app.tenant = 'a'; END$$"), sql(INSERTS)],
    "set_config": [sql("SELECT set_config('app.tenant', 'a', true)"), sql(INSERTS)],
    "set_config with parameters": [
        "op.get_bind().execute(sa.select(sa.func.set_config('app.tenant', 'a', True)))",
        sql(INSERTS),
    ],
    "a function": [
        sql("CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT set_config('app.tenant', 'a', true)$$"),
        sql("SELECT f()"),
        sql(INSERTS),
    ],
    "a procedure": [
        sql("CREATE PROCEDURE p() LANGUAGE plpgsql AS $$BEGIN SET LOCAL app.tenant = 'a'; END$$", "CALL public.p()"),
        sql(INSERTS),
    ],
    "SET CONSTRAINTS": [
        sql("CREATE TABLE c (id int UNIQUE DEFERRABLE)", "SET CONSTRAINTS ALL DEFERRED"),
        sql("INSERT INTO c VALUES (1), (1)"),
        sql("UPDATE c SET id = 2 WHERE ctid = (SELECT max(ctid) FROM c)"),
    ],
    "an advisory lock": [sql("SELECT pg_advisory_xact_lock(77)"), sql(LOCKS)],
    "LOCK TABLE": [sql("LOCK TABLE t IN SHARE MODE"), sql(LOCKS)],
    "LOCK": [sql("LOCK t IN SHARE MODE"), sql(LOCKS)],
    "a temporary table": [
        sql("CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT 1 AS id"),
        sql("INSERT INTO t (id) SELECT id FROM kept"),
    ],
    "a temporary table of SQLAlchemy": [
        """
op.create_table('kept', sa.Column('id', sa.Integer), prefixes=['TEMPORARY'], postgresql_on_commit='DELETE ROWS')
op.execute('INSERT INTO kept VALUES (1)')
""",
        sql("INSERT INTO t (id) SELECT id FROM kept"),
    ],
    "the driver's cursor": [
        "op.get_bind().connection.cursor().execute(\"SET LOCAL app.tenant = 'a'\")",
        sql(INSERTS),
    ],
    "a cursor": [sql("DECLARE c CURSOR FOR SELECT 1"), "op.get_bind().execute(sa.text('FETCH c'))"],
    "a savepoint": [sql("SAVEPOINT s", INSERTS), sql("RELEASE SAVEPOINT s")],
    "before an autocommit block": [
        sql("SET LOCAL app.tenant = 'a'", INSERTS),
        sql(INSERTS)
        + "\nwith op.get_context().autocommit_block():\n    op.execute('CREATE INDEX CONCURRENTLY i ON t (id)')",
        sql(INSERTS),
    ],
    "not after the revision commits": [sql("SET LOCAL app.tenant = 'a'", INSERTS, "COMMIT"), sql(INSERTS)],
    "not in a function's definition": [
        sql("CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT set_config('app.tenant', 'a', true)$$"),
        sql(INSERTS),
    ],
}

SAMPLE_OF_HOLDS = {"SET LOCAL", "a function", "LOCK TABLE", "a temporary table", "the driver's cursor"}


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path)


@pytest.mark.parametrize(
    "what", [what if what in SAMPLE_OF_HOLDS else pytest.param(what, marks=pytest.mark.stress) for what in HOLDS]
)
def test_later_revisions_find_it(backend: Backend, what: str) -> None:
    bodies = [sql(TABLE), *HOLDS[what]]
    revisions = [Rev(f"r{number}", body) for number, body in enumerate(bodies, 1)]
    backend.put(revisions=revisions)
    plain = alembic(backend.folder, backend.database, "upgrade", "head")
    assert plain.returncode == 0, plain.stderr
    expected = snapshot(backend.database)
    backend.empty()

    answer = backend.invoke()

    assert answer.error_type is None, answer.payload
    assert snapshot(backend.database) == expected
    assert [each["revision"] for each in answer.payload["applied"]] == [each.id for each in revisions]
    assert answer.payload["up_to_date"] is True


def test_a_failure_takes_them_back_with_it(backend: Backend) -> None:
    bodies = [sql(TABLE), sql("SET LOCAL app.tenant = 'a'"), sql(INSERTS), sql("SELECT 1 / 0")]
    answer = backend.run(revisions=[Rev(f"r{number}", body) for number, body in enumerate(bodies, 1)])

    assert answer.error_type == "MigrationFailed", answer.payload
    assert answer.message.endswith("; the database is at r1")
    assert [each["revision"] for each in backend.runner.events("revision.applied")] == ["r1"]
    assert (backend.version(), backend.query("SELECT * FROM t")) == (["r1"], [])


def test_when_time_is_up_they_are_rolled_back(runner: Runner, database: Database, tmp_path: Path) -> None:
    """The next run would not find the setting if it continued after the revision that made it."""
    waits = """
import time
while context.config.attributes["time_left"]() > 0:
    time.sleep(0.02)
time.sleep(0.2)
"""
    bodies = [sql(TABLE), sql("SET LOCAL app.tenant = 'a'") + "\nfrom alembic import context" + waits, sql(INSERTS)]
    tree = write_tree(tmp_path / "tree", [Rev(f"r{number}", body) for number, body in enumerate(bodies, 1)])
    function = runner.start(tree, timeout_s=7, DEADLINE_RESERVE_MS="3500")
    function.invoke({"action": "history"})

    answer = function.invoke()

    assert answer.error_type == "MigrationIncomplete", answer.payload
    assert "1 applied, 2 left, the next is r2" in answer.message
    assert "the later ones share that transaction, which was rolled back" in answer.message
    assert query(database, "SELECT version_num FROM alembic_version") == [("r1",)]


ENDS = {
    "text": "op.execute('ROLLBACK')",
    "abort": "op.execute('/* x */ abort work;')",
    "chain": "op.get_bind().execute(sa.text('ROLLBACK AND CHAIN'))",
    "connection": "op.get_bind().rollback()",
    "pooled": "op.get_bind().connection.rollback()",
    "driver": "op.get_bind().connection.dbapi_connection.rollback()",
    "cursor": "op.get_bind().connection.cursor().execute('ROLLBACK')",
    "prepared": "op.execute(f\"PREPARE TRANSACTION '{op.get_bind().engine.url.database}'\")",
    "refused commit": """
op.execute("CREATE TABLE checked (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
op.execute("INSERT INTO checked VALUES (1), (1)")
try:
    op.execute("COMMIT")
except Exception:
    pass
""",
    "error": "try:\n    op.execute('SELECT 1/0')\nexcept Exception:\n    op.execute('ROLLBACK')",
}

SAMPLE = {"text", "connection", "driver", "prepared", "refused commit"}


def after_rollback(backend: Backend, how: str) -> list[Rev]:
    """Put revisions in the package of which the second one rolls back."""
    body = "\n".join([sql("CREATE TABLE lost (id int)"), ENDS[how], sql("CREATE TABLE kept (id int)")])
    revisions = [Rev("r1", sql("CREATE TABLE t (id int)")), Rev("r2", body), Rev("r3", sql("CREATE TABLE u (id int)"))]
    backend.put(revisions=revisions)
    return revisions


@pytest.mark.parametrize("how", [how if how in SAMPLE else pytest.param(how, marks=pytest.mark.stress) for how in ENDS])
def test_a_rollback_that_loses_earlier_revisions_under_alembic_is_an_error(backend: Backend, how: str) -> None:
    after_rollback(backend, how)
    assert alembic(backend.folder, backend.database, "upgrade", "head").returncode != 0
    if how == "prepared":
        backend.execute(f"ROLLBACK PREPARED '{backend.database.name}'")
    backend.empty()

    answer = backend.invoke()

    assert answer.error_type == "MigrationFailed", answer.payload
    assert "revision r2 (Revision r2) failed: RollsBack: it ends its transaction without" in answer.message
    assert answer.message.endswith("; the database is at r1")
    assert "had committed" not in answer.message
    assert (backend.tables(), backend.version()) == (["alembic_version", "t"], ["r1"])


@pytest.mark.parametrize(
    "how",
    [
        how if how in {"text", "driver"} else pytest.param(how, marks=pytest.mark.stress)
        for how in ENDS
        if how not in {"connection", "prepared"}
    ],
)
def test_a_rollback_that_loses_only_the_revision_is_as_under_alembic(backend: Backend, how: str) -> None:
    after_rollback(backend, how)
    for revision in ("r1", "head"):
        assert alembic(backend.folder, backend.database, "upgrade", revision).returncode == 0
    expected = snapshot(backend.database)
    backend.empty()
    assert alembic(backend.folder, backend.database, "upgrade", "r1").returncode == 0

    assert backend.invoke().error_type is None
    assert snapshot(backend.database) == expected


def test_a_rollback_after_which_alembic_commits_nothing_is_an_error(backend: Backend) -> None:
    after_rollback(backend, "connection")
    for revision in ("r1", "head"):
        assert alembic(backend.folder, backend.database, "upgrade", revision).returncode == 0
    assert backend.version() == ["r1"]

    answer = backend.invoke()

    assert answer.error_type == "MigrationFailed", answer.payload
    assert backend.tables() == ["alembic_version", "t"]


def test_a_rollback_that_loses_the_new_version_table_under_alembic_is_an_error(backend: Backend) -> None:
    backend.put(revisions=[Rev("r1", sql("ROLLBACK", "CREATE TABLE kept (id int)"))])
    assert alembic(backend.folder, backend.database, "upgrade", "head").returncode != 0
    backend.empty()

    answer = backend.invoke()

    assert answer.error_type == "MigrationFailed", answer.payload
    assert backend.tables() == []


def test_a_driver_that_commits_is_as_under_alembic(backend: Backend) -> None:
    commits = "op.get_bind().connection.dbapi_connection.commit()"
    body = "\n".join([sql("CREATE TABLE a (id int)"), commits, sql("CREATE TABLE b (id int)")])
    backend.put(revisions=[Rev("r1"), Rev("r2", body), Rev("r3", sql("CREATE TABLE c (id int)"))])
    assert alembic(backend.folder, backend.database, "upgrade", "head").returncode == 0
    expected = snapshot(backend.database)
    backend.empty()

    assert backend.invoke().error_type is None
    assert snapshot(backend.database) == expected
