"""A revision that rolls its own transaction back is not applied, because Alembic would lose earlier revisions by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.env_py.backend import Backend, online
from tests.support.plain_alembic import alembic, snapshot
from tests.support.samples import sampled
from tests.support.trees import Rev, sql

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

ROLLS_BACK = {
    "text": "op.execute('ROLLBACK')",
    "abort": "op.execute('/* x */ abort work;')",
    "chain": "op.get_bind().execute(sa.text('ROLLBACK AND CHAIN'))",
    "connection": "op.get_bind().rollback()",
    "session": """
from sqlalchemy.orm import Session
session = Session(bind=op.get_bind())
session.execute(sa.text("SELECT 1"))
session.rollback()
""",
    "after the body of a function": (
        "op.execute('CREATE FUNCTION f() RETURNS int LANGUAGE SQL BEGIN ATOMIC SELECT 1; END; ROLLBACK')"
    ),
    "prepared": "op.execute(f\"PREPARE TRANSACTION '{op.get_bind().engine.url.database}'\")",
    "refused commit": """
op.execute("CREATE TABLE checked (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
op.execute("INSERT INTO checked VALUES (1), (1)")
try:
    op.execute("COMMIT")
except Exception:
    pass
""",
    "commit of a failed transaction": """
try:
    op.execute("SELECT 1/0")
except Exception:
    op.execute("COMMIT")
""",
    "after an error": "try:\n    op.execute('SELECT 1/0')\nexcept Exception:\n    op.execute('ROLLBACK')",
    "caught": """
op.execute("ROLLBACK")
try:
    op.execute("CREATE TABLE late (id int)")
except Exception:
    pass
""",
}
# The server refuses the COMMIT of another connection.
OTHER_CONNECTION = """
with op.get_bind().engine.connect() as other:
    other.execute(sa.text("CREATE TEMP TABLE checked (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    other.execute(sa.text("INSERT INTO checked VALUES (1), (1)"))
    try:
        other.execute(sa.text("COMMIT"))
    except Exception:
        other.rollback()
"""
MAKES_T = Rev("r1", sql("CREATE TABLE t (id int)"))
SAMPLE = {"text", "refused commit"}


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path)


def put(backend: Backend, how: str) -> None:
    """Put three revisions in the package. The second one rolls back."""
    body = "\n".join([sql("CREATE TABLE lost (id int)"), ROLLS_BACK[how], sql("CREATE TABLE kept (id int)")])
    backend.put(revisions=[MAKES_T, Rev("r2", body), Rev("r3", sql("CREATE TABLE u (id int)"))])


@pytest.mark.parametrize("how", sampled(ROLLS_BACK, SAMPLE))
def test_a_revision_that_rolls_back_fails(backend: Backend, how: str) -> None:
    put(backend, how)
    assert alembic(backend.folder, backend.database, "upgrade", "head").returncode != 0
    if how == "prepared":
        backend.execute(f"ROLLBACK PREPARED '{backend.database.name}'")
    backend.empty()

    answer = backend.invoke()
    if how == "prepared":
        backend.execute(f"ROLLBACK PREPARED '{backend.database.name}'")

    assert answer.error_type == "MigrationFailed", answer.payload
    assert "revision r2 (Revision r2) failed: RollsBack: it rolls its transaction back" in answer.message
    assert answer.message.endswith("; the database is at r1")
    assert "had committed" not in answer.message
    assert (backend.tables(), backend.version()) == (["alembic_version", "t"], ["r1"])


@pytest.mark.stress
def test_a_rollback_that_loses_nothing_is_as_under_alembic(backend: Backend) -> None:
    """A first revision may leave its transaction like this, e.g. for CREATE INDEX CONCURRENTLY."""
    leaves = Rev("r2", sql("ROLLBACK", "CREATE INDEX CONCURRENTLY i ON t (id)"))
    backend.put(revisions=[MAKES_T, leaves])
    for revision in ("r1", "head"):
        assert alembic(backend.folder, backend.database, "upgrade", revision).returncode == 0
    expected = snapshot(backend.database)
    backend.empty()
    assert backend.invoke({"revision": "r1"}).error_type is None

    assert backend.invoke().error_type is None
    assert snapshot(backend.database) == expected


@pytest.mark.stress
@pytest.mark.parametrize(
    "body",
    [
        sql("CREATE TABLE a (id int)", "SAVEPOINT s", "CREATE TABLE b (id int)", "ROLLBACK TO SAVEPOINT s"),
        *(
            pytest.param(body, marks=pytest.mark.stress)
            for body in (
                sql("CREATE TABLE a (id int)", "COMMIT", "BEGIN", "CREATE TABLE b (id int)", "ROLLBACK"),
                sql("COMMENT ON TABLE t IS 'x; ROLLBACK;'"),
                sql("CREATE TABLE w (id int)") + OTHER_CONNECTION + sql("CREATE TABLE k (id int)"),
            )
        ),
    ],
)
def test_other_rollbacks_are_as_under_alembic(backend: Backend, body: str) -> None:
    backend.put(revisions=[MAKES_T, Rev("r2", body), Rev("r3", sql("SELECT 1"))])
    assert alembic(backend.folder, backend.database, "upgrade", "head").returncode == 0
    expected = snapshot(backend.database)
    backend.empty()

    assert backend.invoke().error_type is None
    assert snapshot(backend.database) == expected


DRY_RUN = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    try:
        with context.begin_transaction() as transaction:
            context.run_migrations()
            {}
    except (LookupError, AssertionError):
        pass
"""


@pytest.mark.parametrize(
    "ends",
    [
        "transaction.rollback()",
        pytest.param("connection.rollback()", marks=pytest.mark.stress),
        pytest.param("raise LookupError", marks=pytest.mark.stress),
        pytest.param("assert not connection", marks=pytest.mark.stress),
        pytest.param("sys.exit(0)", marks=pytest.mark.stress),
        pytest.param("if connection: exit()", marks=pytest.mark.stress),
    ],
)
def test_a_dry_run_changes_nothing(backend: Backend, ends: str) -> None:
    backend.put(online(DRY_RUN.format(ends)))
    assert alembic(backend.folder, backend.database, "upgrade", "head").returncode == 0
    assert backend.tables() == []

    status, upgrade = backend.invoke({"action": "status"}), backend.invoke()

    assert len(status.payload["pending"]) == 3, status.payload
    assert upgrade.error_type == "ConfigurationError", upgrade.payload
    assert "did not commit" in upgrade.message
    assert backend.tables() == []


SECOND_BLOCK = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        {before}
        context.run_migrations()
        {after}
    with context.begin_transaction():
        context.execute("CREATE TABLE second_block (id int)")
"""


@pytest.mark.stress
@pytest.mark.parametrize(
    "block",
    [
        pytest.param(("context.execute('SET LOCAL work_mem = 65536')", ""), marks=pytest.mark.stress),
        ("", "if not connection: raise LookupError"),
    ],
)
def test_a_further_block_of_env_py_is_committed(backend: Backend, block: tuple[str, str]) -> None:
    backend.put(online(SECOND_BLOCK.format(before=block[0], after=block[1])))

    answer = backend.invoke()

    assert answer.payload["up_to_date"], answer.payload
    assert "second_block" in backend.tables()


@pytest.mark.stress
def test_what_handles_an_error_of_a_revision_lets_each_revision_be_committed(backend: Backend) -> None:
    handles = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        if not connection:
            raise LookupError
        try:
            context.run_migrations()
        except Exception:
            connection.rollback()
            raise
"""
    backend.put(online(handles), revisions=[MAKES_T, Rev("r2", sql("SELECT 1/0"))])

    answer = backend.invoke()

    assert answer.error_type == "MigrationFailed", answer.payload
    assert "t" in backend.tables()


def test_a_rollback_outside_of_env_py_s_source_is_no_success(backend: Backend) -> None:
    backend.put(online(DRY_RUN.format("import ending; ending.end(transaction)")), ending="def end(t): t.rollback()")

    answer = backend.invoke()

    assert answer.error_type == "ConfigurationError", answer.payload
    assert "but the function had committed them" in answer.message
    assert answer.message.endswith("the database is at c3")


def test_an_env_py_that_catches_a_revisions_error_may_use_the_connection(backend: Backend) -> None:
    catches = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    try:
        with context.begin_transaction():
            context.run_migrations()
    except ValueError:
        connection.execute(text("CREATE TABLE failures (id int)"))
        connection.commit()
        raise
"""
    body = "op.get_bind().rollback()\nraise ValueError('no')"
    backend.put(online(catches), [MAKES_T, Rev("r2", body)])

    answer = backend.invoke()

    assert "revision r2 (Revision r2) failed: ValueError: no" in answer.message, answer.payload
    assert backend.tables() == ["alembic_version", "failures", "t"]


@pytest.mark.stress
def test_where_each_revision_is_committed_a_rollback_is_as_under_alembic(backend: Backend) -> None:
    each = """
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""
    backend.put(
        online(each), [MAKES_T, Rev("r2", sql("CREATE TABLE a (id int)", "ROLLBACK", "CREATE TABLE b (id int)"))]
    )
    assert alembic(backend.folder, backend.database, "upgrade", "head").returncode == 0
    expected = snapshot(backend.database)
    backend.empty()

    assert backend.invoke().error_type is None
    assert snapshot(backend.database) == expected
