"""A checkpoint that fails or is killed leaves nothing; extensions that the server lacks."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import query
from tests.support.checkpoints import checkpoint, spoil
from tests.support.trees import Rev, sql, write_tree
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

pytestmark = pytest.mark.xdist_group("checkpoint")
STRESS = pytest.mark.stress


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that makes a trusted extension and one that only a superuser may make, with its checkpoint."""
    first = Rev("a1", sql("CREATE EXTENSION citext", "CREATE TABLE mails (address citext PRIMARY KEY)"))
    second = Rev("b2", sql("CREATE EXTENSION file_fdw"))
    folder = write_tree(tmp_path_factory.mktemp("extended") / "extended", [first, second])
    checkpoint(folder)
    return folder


def test_a_failed_checkpoint_leaves_nothing(runner: Runner, database: Database, seeded: Path, tmp_path: Path) -> None:
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
