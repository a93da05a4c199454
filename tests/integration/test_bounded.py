"""Answers and logs stay small and correct with any version table and any amount of output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import execute, query
from tests.support.samples import in_two_sets
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

ACTIONS = ({"action": "status"}, {"action": "upgrade"}, {"action": "plan"}, {"action": "check"})
TEXT = "CREATE TABLE alembic_version (version_num text)"
# What a version table may hold that is no revision of any package, and the words for it.
WRONG = {
    "many rows": (
        [TEXT, "INSERT INTO alembic_version SELECT 'r' || n FROM generate_series(1, 300000) n"],
        "1,000 rows",
    ),
    "many long ids": (
        [TEXT, "INSERT INTO alembic_version SELECT repeat('r', 240) || n FROM generate_series(1000, 1999) n"],
        "1,000 rows with 244,000 characters",
    ),
    "rows of the head": ([TEXT, "INSERT INTO alembic_version SELECT 'b2' FROM generate_series(1, 3)"], "'b2' twice"),
    "a huge cell": ([TEXT, "INSERT INTO alembic_version VALUES (repeat('x', 7000000))"], "7,000,000 characters"),
    "null": ([TEXT, "INSERT INTO alembic_version VALUES (NULL)"], "NULL"),
    "null beside the head": ([TEXT, "INSERT INTO alembic_version VALUES ('b2'), (NULL)"], "NULL"),
    "a number": (
        ["CREATE TABLE alembic_version (version_num integer)", "INSERT INTO alembic_version VALUES (7)"],
        "a value of type int",
    ),
    "a date that Python does not have": (
        ["CREATE TABLE alembic_version (version_num date)", "INSERT INTO alembic_version VALUES ('0044-03-15 BC')"],
        "year -44 is out of range",
    ),
    "bytes": (
        ["CREATE TABLE alembic_version (version_num bytea)", "INSERT INTO alembic_version VALUES ('b2')"],
        "a value of type",
    ),
    "an empty text": ([TEXT, "INSERT INTO alembic_version VALUES ('')"], "an empty text"),
    "a sentence": ([TEXT, "INSERT INTO alembic_version VALUES ('drop me; please')"], "cannot be a revision"),
    "a control character": ([TEXT, r"INSERT INTO alembic_version VALUES (E'b2\n')"], "cannot be a revision"),
    "a word of Alembic": ([TEXT, "INSERT INTO alembic_version VALUES ('head')"], "cannot be a revision"),
    "an expression": ([TEXT, "INSERT INTO alembic_version VALUES ('b2@head')"], "cannot be a revision"),
}
WRONG_SAMPLE = ("many rows", "null beside the head", "a number", "a sentence")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)")), Rev("b2", sql("CREATE TABLE b (id int)"))]
    )


@pytest.mark.parametrize("kinds", in_two_sets(WRONG, WRONG_SAMPLE))
def test_an_invalid_version_table_is_an_error_and_stays_unchanged(
    runner: Runner, database: Database, tree: Path, kinds: list[tuple[list[str], str]]
) -> None:
    # With this, a database at an unknown revision would count as success.
    function = runner.start(tree, NEWER_DATABASE="ok")
    held = "SELECT count(*), md5(string_agg(version_num::text, ',' ORDER BY version_num)) FROM alembic_version"

    for statements, part in kinds:
        execute(database, "DROP TABLE IF EXISTS alembic_version", *statements)
        before = query(database, held)
        for event in ACTIONS:
            answer = function.invoke(event)
            assert answer.error_type == "ConfigurationError", (statements, event, answer.payload)
            assert part in answer.message, (statements, event)
            assert "alembic_version" in answer.message or "env.py failed" in answer.message
        assert query(database, held) == before, statements
    report = function.invoke({"action": "doctor"}).payload

    assert {step["step"]: step["ok"] for step in report["steps"]}["version table"] is False
    assert query(database, "SELECT to_regclass('a'), to_regclass('b')") == [(None, None)]
    assert max(map(len, runner.answers())) < 10_000
    assert max(map(len, runner.lines())) < 10_000


def test_the_beginning_of_an_id_is_not_that_revision(runner: Runner, database: Database, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", [Rev("abcdef0001"), Rev("abcdef0002")])
    execute(database, TEXT, "INSERT INTO alembic_version VALUES ('abcdef000')")

    function = runner.start(tree)
    answer = function.invoke()
    execute(database, "UPDATE alembic_version SET version_num = 'abcdef0002x'")
    longer = function.invoke()
    execute(database, "UPDATE alembic_version SET version_num = 'abcdef0'")
    write_tree(tmp_path / "one", [Rev("abcdef0001")])
    prefix = runner.invoke(tmp_path / "one")

    assert (answer.error_type, longer.error_type, prefix.error_type) == ("UnknownRevision",) * 3


def test_a_revision_that_breaks_the_version_table_is_no_success(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    """The function reads the version table again when env.py's process has ended."""
    floods = "INSERT INTO alembic_version SELECT 'r' || n FROM generate_series(1, 5000) n"
    tree = write_tree(tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id int)", floods))])

    answer = runner.invoke(tree)

    assert (answer.error_type, "1,000 rows" in answer.message) == ("ConfigurationError", True), answer.payload
    assert query(database, "SELECT to_regclass('a') IS NOT NULL") == [(True,)]


# --- what a backend prints ---


@pytest.mark.stress
def test_the_output_of_a_run_is_limited_and_the_rest_is_counted(runner: Runner, tmp_path: Path) -> None:
    noisy = "import sys\nfor n in range(700):\n    print('line', n)\nprint('last', file=sys.stderr)"
    tree = write_tree(tmp_path / "tree", [Rev("a1", noisy), Rev("b2", noisy)])
    function = runner.start(tree, BACKEND_OUTPUT_LINES="100")

    assert function.invoke().error_type is None
    output = runner.events("backend.output")
    assert len(output) == 101
    assert (output[0]["message"], output[99]["message"]) == ("line 0", "line 99")
    assert (output[100]["source"], output[100]["level"]) == ("lambda_migrate", "WARNING")
    assert output[100]["message"].startswith("1,302 further lines of output were not logged")
    assert "BACKEND_OUTPUT_LINES" in output[100]["message"]
    # Whatever concerns the revisions is logged in any case.
    assert len(runner.events("revision.applied")) == 2

    # Each run has its own limit.
    function.invoke({"action": "downgrade", "revision": "base"})
    assert len(runner.events("backend.output")) == 101


@pytest.mark.stress
def test_all_attempts_of_a_run_share_the_limit(runner: Runner, database: Database, tmp_path: Path) -> None:
    locked = "print('one')\nprint('two')\n" + sql("CREATE TABLE a ()", "DO $$ BEGIN RAISE lock_not_available; END $$")
    tree = write_tree(tmp_path / "tree", [Rev("a1", locked)])

    answer = runner.invoke(tree, LOCK_RETRIES="2", BACKEND_OUTPUT_LINES="3")

    assert answer.error_type == "LockTimeout"
    lines = [line["message"] for line in runner.events("backend.output") if line["source"] == "stdout"]
    assert lines == ["one", "two", "one"]
    assert query(database, "SELECT to_regclass('a')") == [(None,)]


@pytest.mark.stress
def test_a_line_without_an_end_is_cut(runner: Runner, tmp_path: Path) -> None:
    endless = "import sys\nfor n in range(300):\n    sys.stdout.write('x' * 1000)\nsys.stdout.flush()"
    tree = write_tree(tmp_path / "tree", [Rev("a1", endless)])

    assert runner.invoke(tree).error_type is None

    output = runner.events("backend.output")
    assert 2 <= len(output) <= 10
    assert max(len(line["message"]) for line in output) <= 2000


@pytest.mark.stress
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="CPython 3.13 does not compile such a docstring")
def test_a_description_that_utf_8_cannot_hold_does_not_break_the_answer(runner: Runner, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", [Rev("a1", description="half a pair")])
    (file,) = (tree / "alembic" / "versions").glob("*.py")
    file.write_text(file.read_text().replace("half a pair", "half a \\ud800 pair"))

    for action in ("history", "upgrade"):
        answer = runner.invoke(tree, {"action": action})
        assert answer.error_type is None, answer.payload
        assert "pair" in json.dumps(answer.payload)
