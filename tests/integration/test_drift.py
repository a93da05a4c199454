"""A database is compared with the schema that the reviewer recorded for its revisions, also without models."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.schema import fingerprint, read_schema
from tests.support.bystander import execute, query
from tests.support.samples import sampled_by_name
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

CHECK = {"action": "check"}
REVISIONS = [
    Rev("a1", sql("CREATE TABLE users (id int PRIMARY KEY)", "CREATE TABLE days (id int) PARTITION BY RANGE (id)")),
    Rev(
        "b2",
        sql(
            "ALTER TABLE users ADD mail text",
            "CREATE INDEX ix_mail ON users (mail)",
            'CREATE INDEX "x on users.y" ON users (id)',
        ),
    ),
    Rev("c3", sql("CREATE TABLE made (id int)")),
]
MODELS = ENV_PY.replace(
    "target_metadata = None",
    "import sqlalchemy as sa\ntarget_metadata = sa.MetaData()\n"
    "sa.Table('users', target_metadata, sa.Column('id', sa.Integer, primary_key=True),"
    " sa.Column('mail', sa.Text, index=False), sa.Index('ix_mail', 'mail'), sa.Index('x on users.y', 'id'))\n"
    "sa.Table('days', target_metadata, sa.Column('id', sa.Integer))",
)


def objects(database: Database) -> Mapping[str, str]:
    with closing(database.connect()) as opened:
        return read_schema(opened).objects


@pytest.fixture
def tree(runner: Runner, database: Database, tmp_path: Path) -> Path:
    """A tree with its record, and the database at its second revision of three."""
    return recorded(runner, database, tmp_path, ENV_PY)


def recorded(runner: Runner, database: Database, tmp_path: Path, env_py: str) -> Path:
    function = runner.start(write_tree(tmp_path / "bare", REVISIONS[:2]))
    entries = {}
    before: Mapping[str, str] = {}
    for revision in ("a1", "b2"):
        function.invoke({"revision": revision})
        now = objects(database)
        changed = {name: now.get(name) for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
        measured = {
            "tables": [],
            "checks": [],
            "changes": [],
            "schema": {"changed": changed, "after": fingerprint(now)},
        }
        entries[revision] = {"sha256": "", "findings": [], "measured": measured}
        before = now
    tree = write_tree(tmp_path / "tree", REVISIONS[:2], env_py=env_py)
    text = json.dumps({"version": 2, "revisions": entries})
    (tree / "alembic" / "reviewed.json").write_text(text)
    return tree


@pytest.mark.parametrize(
    "given",
    sampled_by_name(
        {
            "no models": (ENV_PY, "of_others"),
            "models": (MODELS, "of_others"),
            "the name of a table": (ENV_PY, "users"),
        },
        {"no models"},
    ),
)
def test_a_check_of_an_unchanged_schema_is_equal(
    runner: Runner, database: Database, tmp_path: Path, given: tuple[str, str]
) -> None:
    env_py, schema = given
    tree = recorded(runner, database, tmp_path, env_py)
    # What the tree does not know is somebody else's.
    execute(
        database,
        f"CREATE SCHEMA {schema}",
        f"CREATE TABLE {schema}.mail (id int PRIMARY KEY)",
        f'CREATE INDEX "ix of users" ON {schema}.mail (id)',
        f"CREATE VIEW {schema}.id AS TABLE {schema}.mail",
    )
    if env_py == ENV_PY:
        # A job makes partitions at any time. Alembic's own comparison with models finds them.
        execute(
            database,
            'CREATE TABLE "of Day" PARTITION OF days FOR VALUES FROM (1) TO (2)',
            'CREATE INDEX ix_of_day ON "of Day" (id)',
            'ALTER TABLE "of Day" ADD CONSTRAINT positive CHECK (id > 0)',
        )

    answer = runner.invoke(tree, CHECK)

    assert (answer.payload["schema"], answer.payload["differences"]) == ("equal", [])


def test_a_check_names_the_objects_that_differ(runner: Runner, database: Database, tree: Path) -> None:
    execute(
        database,
        "ALTER TABLE users ADD extra int",
        "ALTER TABLE users ALTER mail TYPE varchar(9)",
        "DROP INDEX ix_mail",
    )

    answer = runner.invoke(tree, CHECK)

    assert answer.error_type == "DriftDetected"
    assert "differs from the tree at b2" in answer.message
    for difference in (
        "column users.extra is not in the tree",
        "column users.mail is defined otherwise",
        "index ix_mail on users is missing",
    ):
        assert difference in answer.message
    [line] = runner.events("migration.failed")
    assert len(line["differences"]) == 3


@pytest.mark.stress
def test_a_record_that_lacks_a_revision_shows_only_that_all_is_equal(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = recorded(runner, database, tmp_path, MODELS)
    file = tree / "alembic" / "reviewed.json"
    content = json.loads(file.read_text())
    del content["revisions"]["a1"]
    file.write_text(json.dumps(content))

    function = runner.start(tree)

    assert function.invoke(CHECK).payload["schema"] == "equal"
    # The models know nothing of it.
    execute(database, "CREATE FUNCTION extra() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    answer = function.invoke(CHECK).payload
    assert answer["schema"] == "unknown"
    assert "not every revision" in answer["reason"]


def test_an_enforced_preflight_refuses_a_database_with_drift(
    runner: Runner, database: Database, tree: Path, tmp_path: Path
) -> None:
    longer = write_tree(tmp_path / "longer", REVISIONS)
    (longer / "alembic" / "reviewed.json").write_text((tree / "alembic" / "reviewed.json").read_text())
    execute(database, "ALTER TABLE users ADD extra int")

    function = runner.start(longer)

    refused = function.invoke({"preflight": "enforce"})

    assert refused.error_type == "PreflightFailed"
    assert "at b2: column users.extra is not in the tree" in refused.message
    assert query(database, "SELECT to_regclass('made')") == [(None,)]
    assert function.invoke().payload["revision"] == "c3", "with warn it goes on"


@pytest.mark.stress
def test_an_enforced_preflight_lets_an_interrupted_revision_go_on(
    runner: Runner, database: Database, tree: Path, tmp_path: Path
) -> None:
    statements = "ALTER TABLE users ADD IF NOT EXISTS extra int", "CREATE INDEX CONCURRENTLY ix_extra ON users (extra)"
    body = "with op.get_context().autocommit_block():\n" + "".join(f"    op.execute({each!r})\n" for each in statements)
    longer = write_tree(tmp_path / "longer", [*REVISIONS[:2], Rev("c3", body)])
    content = json.loads((tree / "alembic" / "reviewed.json").read_text())
    before = objects(database)
    for statement in statements:
        execute(database, statement)
    after = objects(database)
    schema = {"changed": {name: after[name] for name in after.keys() - before.keys()}, "after": fingerprint(after)}
    facts = {"tables": [], "checks": [], "changes": [], "schema": schema}
    content["revisions"]["c3"] = {"sha256": "", "findings": [], "measured": facts}
    (longer / "alembic" / "reviewed.json").write_text(json.dumps(content))
    # So far it came.
    execute(database, "DROP INDEX ix_extra", "ALTER TABLE users ADD other int")

    function = runner.start(longer)
    refused = function.invoke({"preflight": "enforce"})
    execute(database, "ALTER TABLE users DROP other")
    finished = function.invoke({"preflight": "enforce"})

    assert refused.error_type == "PreflightFailed"
    assert "users.other is not in the tree" in refused.message
    assert "extra" not in refused.message
    assert (finished.error_type, finished.payload.get("revision")) == (None, "c3")
