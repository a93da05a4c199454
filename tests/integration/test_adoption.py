"""A database that was made without Alembic is adopted by a stamp that first verifies its schema."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from lambda_migrate.database.schema import fingerprint, read_schema
from tests.support.bystander import execute, query
from tests.support.samples import sampled
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

FIRST = "CREATE TABLE orders (id integer PRIMARY KEY, note text)"
SECOND = "CREATE INDEX notes ON orders (note)"
REVISIONS = [Rev("a1", sql(FIRST)), Rev("b2", sql(SECOND))]

MODELS = ENV_PY.replace(
    "target_metadata = None",
    "import sqlalchemy as sa\ntarget_metadata = sa.MetaData()\n"
    "sa.Table('orders', target_metadata, sa.Column('id', sa.Integer, primary_key=True),\n"
    "         sa.Column('note', sa.Text), sa.Index('notes', 'note'))",
)


def objects(database: Database) -> dict[str, str]:
    with closing(database.connect()) as connection:
        return dict(read_schema(connection).objects)


def record(tree: Path, database: Database, *statements: str, only: tuple[str, ...] = ("a1", "b2")) -> None:
    """Make the schema by hand, and write beside env.py what the reviewer records of the revisions that make it."""
    entries: dict[str, Any] = {}
    before = objects(database)
    for revision, statement in zip(("a1", "b2"), statements, strict=True):
        execute(database, statement)
        after = objects(database)
        changed = {
            name: after.get(name) for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        }
        schema = {"before": fingerprint(before), "after": fingerprint(after), "changed": changed}
        measured = {"tables": [], "checks": [], "changes": [], "schema": schema}
        entries[revision] = {"sha256": "", "reviewed": True, "findings": [], "measured": measured}
        before = after
    (tree / "alembic" / "reviewed.json").write_text(
        json.dumps({"version": 2, "revisions": {name: entries[name] for name in only}})
    )


def is_stamped(database: Database) -> bool:
    return query(database, "SELECT to_regclass('alembic_version') IS NOT NULL") == [(True,)]


def stamp(revision: str) -> dict[str, Any]:
    return {"action": "stamp", "revision": revision, "verify": True}


@pytest.mark.parametrize("revision", sampled(["head", "b2"], {"head"}))
def test_a_database_with_the_recorded_schema_is_adopted_without_allow_downgrade(
    runner: Runner, tmp_path: Path, database: Database, revision: str
) -> None:
    tree = write_tree(tmp_path / "tree", REVISIONS)
    record(tree, database, FIRST, SECOND)

    function = runner.start(tree)

    result = function.invoke(stamp(revision)).payload

    assert (result["revision"], result["up_to_date"], result["verified"]) == ("b2", True, "fingerprint")
    assert function.invoke().payload["applied"] == []


@pytest.mark.stress
def test_a_database_at_an_earlier_revision_is_adopted_there_and_upgraded(
    runner: Runner, tmp_path: Path, database: Database
) -> None:
    tree = write_tree(tmp_path / "tree", REVISIONS)
    record(tree, database, FIRST, SECOND)
    execute(database, "DROP INDEX notes")

    function = runner.start(tree)

    upgrade = function.invoke()
    assert (upgrade.error_type, upgrade.message.endswith("; the database is at base")) == ("MigrationFailed", True)
    assert 'relation "orders" already exists (if these objects were made without Alembic' in upgrade.message
    assert "`migrate stamp REVISION --verify` (docs/adopting.md)" in upgrade.message
    assert function.invoke(stamp("a1")).payload["revision"] == "a1"
    assert [each["revision"] for each in function.invoke().payload["applied"]] == ["b2"]


@pytest.mark.parametrize(
    "change,difference",
    [
        ("DROP INDEX notes", "index notes on orders is missing"),
        pytest.param("CREATE TABLE more (id integer)", "table more is not in the tree", marks=pytest.mark.stress),
        ("ALTER TABLE orders ALTER note SET NOT NULL", "column orders.note is defined otherwise"),
    ],
)
def test_a_database_with_another_schema_is_refused_and_not_stamped(
    runner: Runner, tmp_path: Path, database: Database, change: str, difference: str
) -> None:
    tree = write_tree(tmp_path / "tree", REVISIONS)
    record(tree, database, FIRST, SECOND)
    execute(database, change)

    answer = runner.invoke(tree, stamp("head"), ALLOW_DOWNGRADE="true")

    assert answer.error_type == "DriftDetected"
    assert difference in answer.message
    assert not is_stamped(database)


@pytest.mark.stress
def test_a_difference_is_seen_also_where_not_all_revisions_were_recorded(
    runner: Runner, tmp_path: Path, database: Database
) -> None:
    tree = write_tree(tmp_path / "tree", REVISIONS)
    record(tree, database, FIRST, SECOND, only=("b2",))
    function = runner.start(tree)
    assert function.invoke(stamp("b2")).payload["verified"] == "fingerprint"
    execute(database, "DROP TABLE alembic_version", "ALTER TABLE orders ADD more integer")

    answer = function.invoke(stamp("b2"))

    assert answer.error_type == "DriftDetected"
    assert not is_stamped(database)


def test_where_nothing_is_recorded_the_models_are_compared(runner: Runner, tmp_path: Path, database: Database) -> None:
    tree = write_tree(tmp_path / "tree", REVISIONS, env_py=MODELS)
    execute(database, FIRST)

    function = runner.start(tree)

    refused = function.invoke(stamp("head"))
    assert (refused.error_type, is_stamped(database)) == ("DriftDetected", False)
    assert "notes" in refused.message

    execute(database, SECOND)
    adopted = function.invoke(stamp("head")).payload
    assert (adopted["revision"], adopted["verified"]) == ("b2", "models")


def test_the_models_show_nothing_of_an_earlier_revision(runner: Runner, tmp_path: Path, database: Database) -> None:
    tree = write_tree(tmp_path / "tree", REVISIONS, env_py=MODELS)
    execute(database, FIRST)

    answer = runner.invoke(tree, stamp("a1"))

    assert answer.error_type == "ConfigurationError"
    assert "migrate review a1 --record" in answer.message
    assert not is_stamped(database)


@pytest.mark.parametrize("revision", sampled(["base", "nowhere"], {"nowhere"}))
def test_a_revision_that_the_package_lacks_cannot_be_verified(
    runner: Runner, tmp_path: Path, database: Database, revision: str
) -> None:
    answer = runner.invoke(write_tree(tmp_path / "tree", REVISIONS), stamp(revision))

    assert answer.error_type == "InvalidRequest"
    assert not is_stamped(database)


def test_a_schema_that_could_not_be_read_is_not_taken_for_another(
    runner: Runner, tmp_path: Path, database: Database
) -> None:
    tree = write_tree(tmp_path / "tree", REVISIONS)
    record(tree, database, FIRST, "CREATE VIEW shown AS SELECT id FROM orders")

    with closing(database.connect()) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        cursor.execute("LOCK TABLE shown IN ACCESS EXCLUSIVE MODE")
        answer = runner.invoke(tree, stamp("head"))

    assert answer.error_type == "MigrationLocked"
    assert "could not be compared: canceling statement due to lock timeout" in answer.message
    assert not is_stamped(database)


def test_schemas_that_the_revisions_make_cannot_be_compared_for_one_schema(
    runner: Runner, tmp_path: Path, database: Database
) -> None:
    tree = write_tree(tmp_path / "tree", REVISIONS)
    record(tree, database, FIRST, "CREATE SCHEMA more")

    answer = runner.invoke(tree, {**stamp("head"), "target": {"schema": "public"}})

    assert answer.error_type == "ConfigurationError"
    assert "could not be compared: the revisions make schemas of their own" in answer.message
    assert not is_stamped(database)
