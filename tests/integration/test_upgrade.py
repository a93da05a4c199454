"""What an upgrade does to a real database, and its result for the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import begin_at, query
from tests.support.samples import sampled
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner


def version(database: Database) -> str | None:
    rows = query(database, "SELECT version_num FROM alembic_version")
    return str(rows[0][0]) if rows else None


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "three",
        [
            Rev("a1", sql("CREATE TABLE a (id int)"), description="Add a"),
            Rev("b2", sql("CREATE TABLE b (id int)"), description="Add b"),
            Rev("c3", sql("CREATE TABLE c (id int)"), description="Add c"),
        ],
    )


@pytest.mark.parametrize(
    "event", sampled([None, {}, {"action": "upgrade"}, {"action": "upgrade", "revision": "head"}], [None])
)
def test_an_empty_database_is_brought_to_head(
    runner: Runner, database: Database, three: Path, event: dict[str, str] | None
) -> None:
    answer = runner.invoke(three, event)

    assert answer.error_type is None, answer.payload
    result = answer.payload
    assert result.pop("duration_ms") >= 0
    for applied in result["applied"]:
        assert applied.pop("duration_ms") >= 0
    assert result == {
        "status": "ok",
        "action": "upgrade",
        "stage": "test",
        "database": database.name,
        "schema": None,
        "previous_revision": None,
        "revision": "c3",
        "up_to_date": True,
        "applied": [
            {"revision": "a1", "description": "Add a"},
            {"revision": "b2", "description": "Add b"},
            {"revision": "c3", "description": "Add c"},
        ],
        "pending": [],
        "attempts": 1,
        "lock_wait_ms": 0,
        "request_id": answer.request_id,
    }
    assert version(database) == "c3"


@pytest.mark.stress
def test_a_second_run_finds_nothing_to_apply(runner: Runner, three: Path) -> None:
    function = runner.start(three)
    function.invoke()

    result = function.invoke().payload

    assert (result["applied"], result["pending"], result["up_to_date"]) == ([], [], True)
    assert result["previous_revision"] == result["revision"] == "c3"
    assert runner.events("migration.noop")


@pytest.mark.stress
@pytest.mark.parametrize(
    "wanted,reached,left",
    [("+1", "a1", ["b2", "c3"]), pytest.param("b2", "b2", ["c3"], marks=pytest.mark.stress)],
)
def test_an_upgrade_may_stop_short_of_head(
    runner: Runner, three: Path, wanted: str, reached: str, left: list[str]
) -> None:
    result = runner.invoke(three, {"action": "upgrade", "revision": wanted}).payload

    assert result["revision"] == reached
    assert result["up_to_date"] is False
    assert [revision["revision"] for revision in result["pending"]] == left


def test_a_failing_revision_leaves_the_database_at_the_last_good_one(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_tree(
        tmp_path / "failing",
        [
            Rev("a1", sql("CREATE TABLE a (id int PRIMARY KEY)")),
            Rev("b2", sql("INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (1)"), description="Fill a"),
            Rev("c3", sql("CREATE TABLE c (id int)")),
        ],
    )

    answer = runner.invoke(tree)

    assert answer.error_type == "MigrationFailed"
    assert "revision b2 (Fill a)" in answer.message
    assert "SQLSTATE 23505" in answer.message
    assert "the database is at a1" in answer.message
    assert "\n" not in answer.message
    assert version(database) == "a1"
    assert query(database, "SELECT count(*) FROM a") == [(0,)]
    [failed] = runner.events("migration.failed")
    assert failed["error_type"] == "MigrationFailed"
    assert (failed["revision"], failed["sqlstate"], failed["constraint"]) == ("b2", "23505", "a_pkey")
    assert failed["statement"] == "INSERT INTO a VALUES (1)"
    assert (failed["applied"], failed["pending"]) == (["a1"], ["b2", "c3"])
    assert failed["detail"] == "Key (id)=(1) already exists."
    code = (tree / failed["file"]).read_text().splitlines()
    assert code[failed["line"] - 1].strip() == sql("INSERT INTO a VALUES (1)")


@pytest.mark.stress
def test_the_place_of_a_python_error_is_the_backends_own_line(runner: Runner, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", [Rev("a1", "import json\njson.loads('{')")])

    runner.invoke(tree)

    [failed] = runner.events("migration.failed")
    assert (tree / failed["file"]).read_text().splitlines()[failed["line"] - 1].strip() == "json.loads('{')"


def test_a_run_after_a_failure_continues_at_the_failed_revision(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    revisions = [Rev("a1", sql("CREATE TABLE a (id int)")), Rev("b2", sql("SELECT 1 / 0"))]
    runner.invoke(write_tree(tmp_path / "broken", revisions))
    mended = write_tree(tmp_path / "mended", [revisions[0], Rev("b2", sql("CREATE TABLE b (id int)"))])

    result = runner.invoke(mended).payload

    assert (result["previous_revision"], result["revision"]) == ("a1", "b2")
    assert [applied["revision"] for applied in result["applied"]] == ["b2"]
    assert version(database) == "b2"


def test_a_database_ahead_of_the_package_is_left_alone(runner: Runner, database: Database, tmp_path: Path) -> None:
    begin_at(database, "c3")
    older = write_tree(tmp_path / "older", [Rev("a1"), Rev("b2")])

    answer = runner.invoke(older)

    assert answer.error_type == "UnknownRevision"
    assert "c3" in answer.message
    assert [line["revision"] for line in runner.events("migration.failed")] == ["c3"]
    assert version(database) == "c3"


@pytest.mark.stress
def test_a_database_ahead_of_the_package_may_be_meant(runner: Runner, database: Database, tmp_path: Path) -> None:
    begin_at(database, "c3")
    older = write_tree(tmp_path / "older", [Rev("a1"), Rev("b2")])

    result = runner.invoke(older, NEWER_DATABASE="ok").payload

    assert result["ahead"] is True
    assert (result["revision"], result["applied"]) == ("c3", [])
    assert version(database) == "c3"
    assert [line["level"] for line in runner.events("migration.ahead")] == ["WARNING"]


@pytest.mark.stress
def test_a_wrong_event_touches_nothing(runner: Runner, database: Database, three: Path) -> None:
    function = runner.start(three)

    for event in [{"action": "upgrade", "revison": "b2"}, {"action": "upgrad"}, ["upgrade"], {"revision": "nosuch"}]:
        answer = function.invoke(event)
        assert answer.error_type == "InvalidRequest", event
        assert "\n" not in answer.message
    assert query(database, "SELECT to_regclass('a')") == [(None,)]


def test_several_heads_want_heads(runner: Runner, tmp_path: Path) -> None:
    tree = write_tree(
        tmp_path / "branches",
        [Rev("a1"), Rev("b2", down="a1", branch_labels="left"), Rev("c3", down="a1", branch_labels="right")],
    )

    function = runner.start(tree)

    refused = function.invoke()
    result = function.invoke({"revision": "heads"}).payload

    assert refused.error_type == "ConfigurationError"
    assert "alembic merge" in refused.message
    assert result["revision"] == "b2,c3"


@pytest.mark.stress
def test_each_revision_is_logged_as_it_happens_and_counted_in_the_metrics(runner: Runner, three: Path) -> None:
    runner.invoke(three)

    assert [line["event"] for line in runner.events()] == [
        "migration.started",
        "lock.acquired",
        *["revision.started", "revision.applied"] * 3,
        "migration.finished",
    ]
    assert all(line["stage"] == "test" and line["function_request_id"] for line in runner.events())
    [metrics] = [line for line in runner.lines() if '"_aws"' in line]
    assert '"Namespace":"template-saas/migrate","Dimensions":[["stage"],["stage","service"]]' in metrics
    assert '"RevisionsApplied":[3.0]' in metrics
    assert '"MigrationFailures":[0.0]' in metrics
