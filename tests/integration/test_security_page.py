"""The SQL in docs/security.md and the tutorial can be pasted, and the doctor finds nothing wrong with its roles."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import administer, execute, query
from tests.support.functions import ROOT
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner


@pytest.mark.parametrize("source", ["security.md", pytest.param("first-deployment.md", marks=pytest.mark.stress)])
def test_the_layout_of_roles(
    runner: Runner,
    postgres_server: Server,
    database: Database,
    put_secret: Callable[[object], str],
    tmp_path: Path,
    source: str,
) -> None:
    name = f"{database.name}_pasted"
    page = (ROOT / "docs" / source).read_text(encoding="utf-8")
    on_the_server, in_the_database, *_ = (
        [statement.strip() for statement in block.replace("shop", name).split(";") if statement.strip()]
        for block in re.findall(r"```sql\n(.*?)```", re.sub(r"(?m)^--.*\n", "", page), re.DOTALL)
    )
    migrator = replace(database, name=name, user=f"{name}_migrator", password="<password 1>")
    try:
        administer(postgres_server, *on_the_server)
        execute(postgres_server.database(name), *in_the_database)
        function = runner.start(
            write_tree(tmp_path / "tree", [Rev("a1", sql("CREATE TABLE a (id serial)"))]),
            DB_SECRET_ID=put_secret(migrator.secret),
            UNTRUSTED_SCHEMA="refuse",
        )

        report = function.invoke({"action": "doctor"}).payload
        assert (report["healthy"], function.invoke().error_type) == (True, None), report
        as_application = replace(migrator, user=f"{name}_app", password="<password 2>")
        execute(as_application, "INSERT INTO a DEFAULT VALUES")
        assert query(as_application, "SELECT tableowner::text FROM pg_tables WHERE tablename = 'a'") == [
            (f"{name}_owner",)
        ]
    finally:
        administer(postgres_server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        for role in ("migrator", "app", "owner"):
            administer(postgres_server, f"DROP ROLE IF EXISTS {name}_{role}")
