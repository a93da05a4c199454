"""Making a checkpoint: its content, the items that it refuses, and how the builder packages it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from infra.package import checkpoints
from infra.package.builder import graph_of
from infra.package.errors import PackageError
from infra.package.layout import read_layout
from lambda_migrate.revisions.checkpoint import DESCRIPTION, SCRIPT, read_checkpoint
from migrate_review.checkpoint.making import IncompleteCheckpointError
from tests.support.bystander import query
from tests.support.checkout import ROOT
from tests.support.checkpoints import checkpoint, held, replayed
from tests.support.plain_alembic import alembic
from tests.support.trees import ENV_PY, Rev, sql, write_revision, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database

pytestmark = pytest.mark.xdist_group("checkpoint")
STRESS = pytest.mark.stress
UNCARRIED = Rev(
    "a1",
    sql(
        "CREATE TABLE tokens (value uuid DEFAULT gen_random_uuid())",
        "INSERT INTO tokens DEFAULT VALUES",
        "CREATE TABLE days (value date)",
        "INSERT INTO days VALUES (current_date)",
        "CREATE TABLE kept (value date DEFAULT current_date)",
        "INSERT INTO kept VALUES ('2001-02-03')",
        "CREATE ROLE checkpoint_owner",
        "CREATE TABLE owned (id int)",
        "ALTER TABLE owned OWNER TO checkpoint_owner",
        "GRANT SELECT ON kept TO made_by_others",
        "CREATE SCHEMA audit",
        "CREATE TABLE audit.log (id int)",
        "SELECT lo_create(0)",
        "SET work_mem = '5MB'",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "GRANT made_by_others TO checkpoint_owner",
        "ALTER ROLE made_by_others CREATEDB",
        "GRANT SET ON PARAMETER log_statement TO made_by_others",
        # The name of the database differs, so revisions read it.
        """DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET TimeZone = UTC', current_database());
            EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
            EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'of the application');
            EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 20', current_database());
            EXECUTE format('ALTER DATABASE %I OWNER TO checkpoint_owner', current_database());
        END $$""",
    ),
)
REFUSED = (
    "database:comment",
    "database:connection-limit",
    "database:owner",
    "database:privileges",
    "large-objects",
    "owner:checkpoint_owner",
    "parameter:log_statement",
    "publication:everything",
    "role-attributes:made_by_others",
    "role-member:checkpoint_owner",
    "role:checkpoint_owner",
    "rows:days",
    "rows:tokens",
    "schema:audit",
    "session:work_mem",
    "setting:TimeZone",
)


def test_items_that_it_cannot_contain_are_refused_unless_each_is_allowed(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "refused", [UNCARRIED])

    with pytest.raises(IncompleteCheckpointError) as refused:
        checkpoint(folder, allow=("rows", "owner:*", "audit"))

    assert [item.name for item in sorted(refused.value.items, key=lambda item: item.name)] == [
        name for name in REFUSED if name.partition(":")[0] not in {"rows", "owner"} and name != "schema:audit"
    ]
    assert not (folder / "alembic" / DESCRIPTION).exists()


@STRESS
def test_allowed_items_are_left_out(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "allowed", [UNCARRIED])

    made = checkpoint(folder, allow=REFUSED)

    assert made.checkpoint.roles == ("checkpoint_owner", "made_by_others")
    assert made.checkpoint.schemas == ("audit",)
    assert read_checkpoint(folder / "alembic") == made.checkpoint


@STRESS
def test_a_materialized_view_that_is_out_of_date_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    statements = (
        "CREATE TABLE a (id int)",
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM a",
        "INSERT INTO a VALUES (1)",
    )
    folder = write_tree(tmp_path / "stale", [Rev("a1", sql(*statements))])

    with pytest.raises(IncompleteCheckpointError) as refused:
        checkpoint(folder)

    assert [item.name for item in refused.value.items] == ["rows:counted"]
    assert checkpoint(folder, allow=["counted"]).checkpoint.any_schema


def test_the_builder_packages_it_refuses_another_and_warns_of_an_old_one(seeded: Path, tmp_path: Path) -> None:
    def checked(folder: Path) -> checkpoints.Checked:
        layout = read_layout(folder)
        return checkpoints.check(layout, graph_of(layout, folder))

    assert checked(seeded) == (True, None)

    changed = shutil.copytree(seeded, tmp_path / "changed")
    (changed / "alembic" / "env.py").write_text(ENV_PY + "\n# another\n")
    usable, warning = checked(changed)
    assert not usable
    assert "env.py has changed" in str(warning)

    edited = shutil.copytree(seeded, tmp_path / "edited")
    revision = edited / "alembic" / "versions" / "a1_.py"
    revision.write_text(revision.read_text().replace("0.1", "0.2"))
    with pytest.raises(PackageError, match="revision a1 has changed since the checkpoint was made"):
        checked(edited)

    lacking = shutil.copytree(seeded, tmp_path / "lacking")
    (lacking / "alembic" / "versions" / "c3_.py").unlink()
    with pytest.raises(PackageError, match="contains revision c3, which the tree does not have"):
        checked(lacking)

    layout = read_layout(seeded)
    usable, warning = checkpoints.check(layout, graph_of(layout, seeded), {"LOCK_TIMEOUT_MS", "FLAG", "FURTHER"})
    assert not usable
    assert "no stage had the variable FURTHER" in str(warning)

    old = shutil.copytree(seeded, tmp_path / "old")
    before: str | tuple[str, ...] = ("b2", "c3")
    for number in range(50):
        write_revision(old / "alembic" / "versions", Rev(f"z{number:03}"), before)
        before = f"z{number:03}"
    usable, warning = checked(old)
    assert usable
    assert "50 revisions have come since" in str(warning)


@STRESS
def test_the_documented_recipe_does_the_same(database: Database, later: Path) -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    recipe = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert recipe is not None
    names: dict[str, Any] = {"__file__": str(later / "conftest.py")}
    wanted = replayed(later, database)

    exec(recipe[1], names)  # noqa: S102 - our own page
    with closing(psycopg2.connect(database.url.replace("+psycopg2", ""))) as connection:
        names["begin_with_checkpoint"](connection)

    assert query(database, "SELECT version_num FROM alembic_version ORDER BY 1") == [("b2",), ("c3",)]
    assert alembic(later, database, "upgrade", "heads").returncode == 0
    assert held(database) == wanted


@pytest.mark.stress
def test_the_command_writes_it_and_prints_json(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "small", [Rev("a1", sql("CREATE TABLE a (id int)")), Rev("b2")])
    command = [
        sys.executable,
        "-m",
        "migrate_cli",
        "checkpoint",
        "--backend",
        str(folder),
        "--postgres",
        "18",
        "--json",
    ]

    ended = subprocess.run([*command, "--at", "a1"], capture_output=True, text=True, check=True)

    document = json.loads(ended.stdout)
    tree = folder / "alembic"
    found = read_checkpoint(tree)
    assert found is not None
    assert document == {
        "revision": "a1",
        "revisions": 1,
        "fingerprint": found.fingerprint,
        "any_schema": True,
        "allowed": [],
        "remarks": [],
        "files": [str(tree / DESCRIPTION), str(tree / SCRIPT)],
    }
