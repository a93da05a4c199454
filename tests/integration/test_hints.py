"""Errors of third-party libraries get a hint with the next step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import query
from tests.support.env_py.backend import Backend, online, package_with
from tests.support.samples import sampled
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner


@pytest.fixture(scope="session")
def package(package: Path, shared_run: Path) -> Path:
    """The package with the drivers that the reference backend does not need."""
    return package_with(package, "drivers.txt", shared_run / "package-drivers")


@pytest.fixture
def backend(runner: Runner, database: Database, tmp_path: Path) -> Backend:
    return Backend(runner, database, tmp_path)


# What holds in one transaction over all revisions, and not in one for each: the revisions, and words of the hint.
OF_EACH = {
    "an enum value that is used at once": (
        [
            sql("CREATE TYPE k AS ENUM ('a')", "CREATE TABLE t1 (k k)"),
            sql("ALTER TYPE k ADD VALUE IF NOT EXISTS 'b'", "INSERT INTO t1 VALUES ('b')"),
        ],
        "autocommit_block",
    ),
    "a row that the next revision makes right": (
        [
            sql(
                "CREATE TABLE t1 (id int PRIMARY KEY)",
                "CREATE TABLE t2 (id int REFERENCES t1 DEFERRABLE INITIALLY DEFERRED)",
            ),
            sql("INSERT INTO t2 VALUES (1)"),
            sql("INSERT INTO t1 VALUES (1)"),
        ],
        "a deferred constraint",
    ),
    "a temporary table": (
        [
            sql("CREATE TABLE t1 (id int)", "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT 1 AS id"),
            sql("INSERT INTO t1 SELECT id FROM kept"),
        ],
        "ON COMMIT DROP",
    ),
    "a cursor": (
        [sql("CREATE TABLE t1 (id int)", "DECLARE rows CURSOR FOR SELECT 1"), sql("FETCH rows")],
        "WITH HOLD",
    ),
}


@pytest.mark.parametrize(
    "what",
    sampled(sorted(OF_EACH), {"a row that the next revision makes right"}),
)
def test_what_would_hold_in_one_transaction_over_all_revisions(backend: Backend, what: str) -> None:
    bodies, words = OF_EACH[what]
    revisions = [Rev(f"r{number}", body) for number, body in enumerate(bodies, 1)]

    answer = backend.run(revisions=revisions)

    assert answer.error_type == "MigrationFailed", answer.payload
    assert "revision r2 " in answer.message
    assert words in answer.message
    assert "commits each revision on its own" in answer.message
    assert "committed part" not in answer.message
    assert backend.version() == ["r1"]


@pytest.mark.stress
def test_what_an_interrupted_run_has_committed_before_an_autocommit_block(backend: Backend) -> None:
    block = "\nwith op.get_context().autocommit_block():\n    op.execute('CREATE INDEX CONCURRENTLY ix ON t1 (b)')"
    adds = Rev("b2", sql("ALTER TABLE t1 ADD COLUMN b int") + block)
    backend.put(revisions=[Rev("a1", sql("CREATE TABLE t1 (a int)")), adds])
    backend.invoke({"revision": "a1"})
    backend.execute("ALTER TABLE t1 ADD COLUMN b int")

    message = backend.invoke().message

    assert 'column "b" of relation "t1" already exists (the revision commits what it does before its' in message
    assert "undo it by hand and invoke again" in message


# Files that are not packaged, and the hint.
FILES = {
    "./spec/api.yaml": ' (if the backend has this file, package it; in the stage: "package_files": ["spec/**"])',
    "keys.txt": ' (if the backend has this file, package it; in the stage: "package_files": ["keys.txt"])',
    "/nowhere/keys.txt": "",
}


@pytest.mark.stress
@pytest.mark.parametrize("name", sampled(FILES, {"./spec/api.yaml"}))
def test_a_file_that_is_not_packaged_is_no_lost_connection(backend: Backend, name: str) -> None:
    hint = FILES[name]

    message = backend.refused(f"open({name!r})\n{ENV_PY}")
    cause = f"FileNotFoundError: [Errno 2] No such file or directory: {name!r}"
    assert message == f"ConfigurationError: env.py failed before any revision ran: {cause}{hint}"


@pytest.mark.stress
def test_an_ordinary_error_gets_no_hint(backend: Backend) -> None:
    answer = backend.run(revisions=[Rev("r1", sql("CREATE TABLE u (id int UNIQUE)", "INSERT INTO u VALUES (1), (1)"))])

    assert answer.error_type == "MigrationFailed"
    assert "on its own" not in answer.message


# `hidden` is str(url), with the driver that is named.
LOGS_IN = {
    "psycopg2": "create_engine(hidden('postgresql+psycopg2')).connect()",
    "psycopg": "create_engine(hidden('postgresql+psycopg')).connect()",
    "asyncpg": "asyncio.run(create_async_engine(hidden('postgresql+asyncpg')).connect().start())",
    "psycopg2 alone": "psycopg2.connect(hidden('postgresql'))",
    "the config's": "config.set_main_option('sqlalchemy.url', hidden('postgresql+psycopg2').replace('%', '%%'))\n"
    "sa.engine_from_config({'sqlalchemy.url': config.get_main_option('sqlalchemy.url')}).connect()",
}
HIDDEN = """
import asyncio, psycopg2
from sqlalchemy.ext.asyncio import create_async_engine
def hidden(driver):
    return str(sa.make_url(os.environ["DATABASE_URL"]).set(drivername=driver))
"""


@pytest.mark.stress
@pytest.mark.parametrize("driver", sampled(sorted(LOGS_IN), {"psycopg2"}))
def test_a_password_that_str_of_a_url_has_hidden(backend: Backend, driver: str) -> None:
    message = backend.refused(online(LOGS_IN[driver], HIDDEN))

    assert message.startswith("ConfigurationError: env.py failed before any revision ran: ")
    assert "render_as_string(hide_password=False)" in message


@pytest.mark.stress
def test_heads_without_labels_are_upgraded_to_and_head_is_refused(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tables = [sql(f"CREATE TABLE {name} (id int)") for name in ("a", "b", "c")]
    revisions = [Rev("r1", tables[0]), Rev("r2", tables[1], down="r1"), Rev("x1", tables[2], down="r1")]
    function = runner.start(write_tree(tmp_path / "tree", revisions))

    refused = function.invoke()
    status = function.invoke({"action": "status"})

    assert refused.error_type == "ConfigurationError"
    assert "2 heads (r2, x1) and `head` needs exactly one: request heads, or merge them" in refused.message
    assert status.payload["pending"][0]["revision"] == "r1"
    assert query(database, "SELECT to_regclass('a')") == [(None,)]

    assert function.invoke({"revision": "heads"}).payload["revision"] == "r2,x1"
    assert function.invoke({"action": "status"}).payload["up_to_date"] is True
    assert function.invoke({"revision": "heads"}).payload["applied"] == []


# The address made of the parts as they are, and the driver that gets it.
UNESCAPED = """
import asyncio
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
url = "{0}://" + os.environ["U"] + ":" + os.environ["P"] + "@" + os.environ["H"] + ":" + os.environ["N"] + "/postgres"
"""
CONNECTS = {
    "postgresql+psycopg2": "create_engine(url).connect()",
    "postgresql+asyncpg": "asyncio.run(create_async_engine(url).connect().start())",
}


@pytest.mark.stress
@pytest.mark.parametrize("driver", sampled(CONNECTS, {"postgresql+psycopg2"}))
def test_an_unescaped_password_in_an_address(runner: Runner, database: Database, tmp_path: Path, driver: str) -> None:
    parts = {"U": "{user}", "P": "{password}", "H": "{host}", "N": "{port}"}
    backend = Backend(runner, database, tmp_path, DATABASE_ENV=json.dumps(parts))
    env_py = f"import os\n{UNESCAPED.format(driver)}{CONNECTS[driver]}\n"

    assert "@" in database.password
    answer = backend.run(env_py)

    assert answer.error_type == "ConfigurationError", answer.payload
    assert "{password_quoted}" in answer.message
