"""A revision that commits without SQLAlchemy's knowledge is not retried, and its error has the reason."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import begin_at, execute, query
from tests.support.samples import sampled
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

ALTERS = sql("ALTER TABLE t1 ADD COLUMN x int")
COMMITS = {
    "COMMIT": sql("CREATE TABLE t2 (id int)", "COMMIT"),
    "comment": sql("CREATE TABLE t2 (id int)", "/* done */ END"),
    "procedure": sql("COMMIT", "CALL makes_t2()"),
    "driver": sql("CREATE TABLE t2 (id int)") + "\nop.get_bind().connection.dbapi_connection.commit()",
}
# The server refuses the COMMIT of another connection, as a deadlock.
REFUSED_ELSEWHERE = """
import os
with sa.create_engine(os.environ["DATABASE_URL"]).begin() as other:
    other.execute(sa.text("INSERT INTO checked VALUES (1)"))
"""
REFUSES = """
CREATE TABLE effects (id int);
CREATE TABLE checked (id int);
CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN RAISE deadlock_detected USING MESSAGE = ''no''; END';
CREATE CONSTRAINT TRIGGER refuses AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION refuses()
"""
ROLLS_BACK = """
try:
    with op.get_bind().begin_nested():
        op.execute("CREATE TABLE t2 (id int)")
        raise KeyError
except KeyError:
    op.execute("SELECT 1")
raise ValueError("no")
"""


@pytest.mark.parametrize("how", sampled(COMMITS, {"COMMIT"}))
def test_a_lock_timeout_after_it_is_not_retried_and_names_the_blocker(
    runner: Runner, database: Database, tmp_path: Path, how: str
) -> None:
    begin_at(database, "r1")
    execute(database, "CREATE TABLE t1 (id int)")
    execute(database, "CREATE PROCEDURE makes_t2() LANGUAGE plpgsql AS 'BEGIN CREATE TABLE t2 (id int); COMMIT; END'")
    tree = write_tree(tmp_path / "tree", [Rev("r1"), Rev("r2", f"{COMMITS[how]}\n{ALTERS}")])
    with closing(database.connect()) as blocker, blocker.cursor() as cursor:
        cursor.execute("SET application_name = 'the blocker'; BEGIN; LOCK TABLE t1 IN ACCESS SHARE MODE")

        answer = runner.invoke(tree, LOCK_TIMEOUT_MS="700", LOCK_RETRIES="5")

    assert answer.error_type == "LockTimeout", answer.payload
    assert "the blocker" in answer.message
    assert "it had committed part of its work" in answer.message
    [line] = runner.events("migration.failed")
    assert (line["partly_committed"], len(line["blocking_pids"])) == (True, 1)
    assert runner.events("revision.retried") == []
    assert query(database, "SELECT to_regclass('t2') IS NOT NULL, version_num FROM alembic_version") == [(True, "r1")]


@pytest.mark.parametrize("how", sampled(["COMMIT", "driver"], ["driver"]))
def test_the_error_after_it_names_it(runner: Runner, tmp_path: Path, how: str) -> None:
    tree = write_tree(tmp_path / "tree", [Rev("r1", f"{COMMITS[how]}\nraise ValueError('no')")])

    answer = runner.invoke(tree)

    assert answer.error_type == "MigrationFailed"
    assert "it had committed part of its work" in answer.message


@pytest.mark.stress
@pytest.mark.parametrize(
    "commits", sampled(["op.execute('COMMIT')", "op.get_bind().commit()"], ["op.execute('COMMIT')"])
)
def test_a_refused_commit_of_another_connection_does_not_hide_it(
    runner: Runner, database: Database, tmp_path: Path, commits: str
) -> None:
    execute(database, REFUSES)
    body = "\n".join([sql("INSERT INTO effects VALUES (1)"), commits, REFUSED_ELSEWHERE])

    answer = runner.invoke(write_tree(tmp_path / "tree", [Rev("r1", body)]))

    assert "it had committed part of its work" in answer.message, answer.payload
    assert query(database, "SELECT count(*) FROM effects") == [(1,)]


@pytest.mark.stress
def test_rolled_back_statements_are_not_committed(runner: Runner, tmp_path: Path) -> None:
    answer = runner.invoke(write_tree(tmp_path / "tree", [Rev("r1", ROLLS_BACK)]))

    assert answer.error_type == "MigrationFailed"
    assert "had committed" not in answer.message
    assert json.dumps(runner.events("migration.failed")).count("partly_committed") == 0


def test_a_connection_that_is_lost_after_work_is_opened_again(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    # Once: the sequence is not rolled back.
    execute(database, "CREATE SEQUENCE once")
    lost = "SELECT CASE WHEN nextval('once') = 1 THEN pg_terminate_backend(pg_backend_pid()) END"
    tree = write_tree(tmp_path / "tree", [Rev("r1", sql("CREATE TABLE t1 (id int)", lost))])

    result = runner.invoke(tree)

    assert result.error_type is None, result.payload
    assert result.payload["revision"] == "r1"
    assert len(runner.events("connection.retried")) == 1


@pytest.mark.parametrize(
    "calls",
    sampled(["CALL makes()", "DO $$BEGIN CREATE TABLE made (id int); COMMIT; RAISE 'no'; END$$"], ["CALL makes()"]),
)
def test_what_a_failed_procedure_committed_is_named(
    runner: Runner, database: Database, tmp_path: Path, calls: str
) -> None:
    execute(
        database,
        "CREATE PROCEDURE makes() LANGUAGE plpgsql AS"
        " 'BEGIN CREATE TABLE made (id int); COMMIT; RAISE lock_not_available; END'",
    )

    answer = runner.invoke(write_tree(tmp_path / "tree", [Rev("r1", sql("COMMIT", calls))]))

    assert "it had committed part of its work" in answer.message, answer.payload
    assert runner.events("revision.retried") == []
    assert query(database, "SELECT to_regclass('made') IS NOT NULL") == [(True,)]


def test_a_refused_commit_commits_nothing(runner: Runner, database: Database, tmp_path: Path) -> None:
    execute(database, REFUSES)
    body = sql("INSERT INTO effects VALUES (1)", "INSERT INTO checked VALUES (1)", "COMMIT")

    answer = runner.invoke(write_tree(tmp_path / "tree", [Rev("r1", body)]), LOCK_RETRIES="0")

    assert answer.error_type == "LockTimeout", answer.payload
    assert "committed part" not in answer.message
    assert query(database, "SELECT count(*) FROM effects") == [(0,)]


@pytest.mark.stress
def test_work_before_commit_and_chain_is_committed(runner: Runner, database: Database, tmp_path: Path) -> None:
    body = sql("CREATE TABLE made (id int)", "COMMIT AND CHAIN", "SELECT 1/0")

    answer = runner.invoke(write_tree(tmp_path / "tree", [Rev("r1", body)]))

    assert "it had committed part of its work" in answer.message, answer.payload
    assert query(database, "SELECT to_regclass('made') IS NOT NULL") == [(True,)]
