"""The round trips of a run, which vary less than its time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.network import Network
from tests.support.bystander import begin_at, execute
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

# Opening the session, and reading the version table.
NOTHING_TO_DO = 2
# As plain Alembic: BEGIN with the statement, the statement, the version, COMMIT.
A_REVISION = 4


def trips(
    runner: Runner, database: Database, put_secret: Callable[[object], str], tree: Path, event: object = None
) -> list[int]:
    """The round trips of one cold run, by connection in the order of their opening."""
    with Network(("127.0.0.1", database.port)) as network:
        secret = put_secret(replace(database, port=network.port).secret)
        # So much time that the statement timeout need not be lowered as it passes.
        answer = runner.start(tree, timeout_s=900, DB_SECRET_ID=secret).invoke(event)
    assert answer.error_type is None, answer.payload
    return network.trips


def login(database: Database) -> int:
    """The round trips of connecting alone."""
    with Network(("127.0.0.1", database.port)) as network, closing(replace(database, port=network.port).connect()):
        pass
    return network.trips[0]


def test_finding_nothing_to_do_takes_two_round_trips_beside_the_login(
    runner: Runner, database: Database, put_secret: Callable[[object], str], tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree", [Rev("a1")])
    begin_at(database, "a1")

    assert trips(runner, database, put_secret, tree) == [login(database) + NOTHING_TO_DO]


def test_finding_nothing_to_do_in_a_schema_takes_no_more(
    runner: Runner, database: Database, put_secret: Callable[[object], str], tmp_path: Path
) -> None:
    event = {"target": {"schema": "acme"}}
    execute(database, "CREATE SCHEMA acme", "CREATE SCHEMA other", "CREATE TABLE other.alembic_version ()")
    tree = write_tree(tmp_path / "tree", [Rev("a1")])
    begin_at(database, "a1", "acme")

    assert trips(runner, database, put_secret, tree, event) == [login(database) + NOTHING_TO_DO]


@pytest.mark.stress
def test_a_revision_takes_no_more_round_trips_than_under_plain_alembic(
    runner: Runner, database: Database, put_secret: Callable[[object], str], tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree", [Rev(f"r{n}", sql(f"CREATE TABLE t{n} (id int)")) for n in range(9)])
    begin_at(database, "r0")

    one = trips(runner, database, put_secret, tree, {"revision": "+1"})
    five = trips(runner, database, put_secret, tree, {"revision": "+5"})

    assert len(one) == len(five) == len(["the lock's session", "env.py's"])
    assert five[1] - one[1] == (5 - 1) * A_REVISION
