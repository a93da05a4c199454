"""The review connects with the PostgreSQL driver that the backend has, as its package does."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import alembic
import sqlalchemy
from uv import find_uv_bin

from migrate_review.measure.session import reviewing
from migrate_review.review import review
from migrate_review.revisions.tree import read_tree
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Server


def test_a_backend_with_psycopg_3_alone_needs_no_setting(tmp_path: Path, postgres_server: Server) -> None:
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [find_uv_bin(), "venv", "--quiet", "--no-project", "--python", sys.executable, tmp_path / "env"], check=True
    )
    wanted = (f"alembic=={alembic.__version__}", f"sqlalchemy=={sqlalchemy.__version__}", "psycopg[binary]==3.*")
    subprocess.run([find_uv_bin(), "pip", "install", "--quiet", "--python", python, *wanted], check=True)
    tree = read_tree(write_tree(tmp_path / "backend", [Rev("a1", sql("CREATE TABLE a (id bigint PRIMARY KEY)"))]))

    result = review(tree, tree.revisions, partial(reviewing, tmp_path / "backend", python=python, on=postgres_server))

    [reviewed] = result.revisions
    assert [one.rule for one in reviewed.result.standing if one.rule == "not-measured"] == []
