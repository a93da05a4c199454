"""The files of a checkpoint: reading returns what was written, and refuses anything else."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from infra.package.variables import names_in
from lambda_migrate.env_py import emptiness
from lambda_migrate.invocation.settings import VARIABLES
from lambda_migrate.revisions.checkpoint import (
    DESCRIPTION,
    HOME,
    LOGIN,
    SCRIPT,
    Checkpoint,
    NotedTable,
    Surroundings,
    in_session,
    placed,
    read_checkpoint,
    read_script,
    to_text,
)
from migrate_review.checkpoint.items import Item
from migrate_review.checkpoint.replaying import Replayed

TEXT = f"CREATE TABLE {HOME}.a (id int);\n"
WHOLE = Checkpoint(
    heads=("b2", "c3"),
    revisions={"a1": "0" * 64, "b2": "1" * 64, "c3": "2" * 64},
    files={"env.py": "3" * 64},
    x_arguments="5" * 64,
    variables={"FLAG": "6" * 64, "OTHER": None},
    tables=(NotedTable(None, "", "alembic_version", ("b2", "c3")), NotedTable("two", "two", "versions", ("a1",))),
    acts_as=None,
    home="public",
    any_schema=True,
    time_zone=None,
    schemas=("two",),
    schemas_before=("three",),
    extensions={"citext": "", "pgcrypto": "extensions"},
    roles=("reader",),
    revokes=True,
    postgresql=(15, 18),
    fingerprint="4" * 64,
    rows={"a": 2},
    allowed=("rows:a",),
    script_sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
)
FOUND = emptiness.Found(
    schema="public",
    quoted_schema="public",
    holds_objects=False,
    public_may_create=False,
    version_table_exists=False,
    role="app",
    quoted_role="app",
    server_version=180000,
    time_zone="Europe/Berlin",
    extensions={"plpgsql": "pg_catalog"},
    roles=["reader"],
    schemas={"three": False},
)


def test_a_written_checkpoint_is_read_again(tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION).write_text(to_text(WHOLE))
    (tmp_path / SCRIPT).write_text(TEXT)

    assert read_checkpoint(tmp_path) == WHOLE
    assert WHOLE.revision == "b2,c3"
    assert read_script(tmp_path, WHOLE) == TEXT


def test_a_tree_without_one_has_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0}', json.dumps({"format": 2, "heads": []})])
def test_another_document_is_none_of_this_format(tmp_path: Path, text: str) -> None:
    (tmp_path / DESCRIPTION).write_text(text)

    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own messages, too
        read_checkpoint(tmp_path)


def test_another_script_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / SCRIPT).write_text(TEXT + "DROP TABLE a;")

    with pytest.raises(ValueError, match=r"checkpoint\.sql is not the one"):
        read_script(tmp_path, WHOLE)


def test_a_script_is_placed_in_a_schema_and_leaves_no_setting_behind() -> None:
    script = placed(f"{TEXT}ALTER DEFAULT PRIVILEGES FOR ROLE {LOGIN} GRANT SELECT ON TABLES TO x;", '"Two-2"', "app")
    before = {"check_function_bodies": "on", "search_path": '"it\'s", "a\\\\b"'}

    begin, text, end = in_session(script, before)

    assert 'CREATE TABLE "Two-2".a' in text
    assert "FOR ROLE app GRANT" in text
    assert "set_config('check_function_bodies', E'off', true)" in begin
    assert "set_config('search_path', E'pg_catalog, pg_temp', true)" in begin
    assert "set_config('check_function_bodies', E'on', true)" in end
    assert """set_config('search_path', E'"it''s", "a\\\\\\\\b"', true)""" in end


@pytest.mark.parametrize(
    "change,why",
    [
        ({"schema": None, "quoted_schema": None}, "does not exist yet"),
        ({"holds_objects": True}, "the schema public holds objects"),
        ({"public_may_create": True}, "every role may create"),
        ({"schema": "it's"}, "has a quote"),
        ({"server_version": 140012}, "verified on PostgreSQL 15 and later"),
        ({"schemas": {"two": False, "three": False}}, "the schema two exists already"),
        ({"schemas": {"two": True, "three": False}}, "the schema two holds objects"),
        ({"schemas": {"three": True}}, "the schema three holds objects"),
        ({"schemas": {}}, "the schema three does not exist"),
        ({"roles": []}, "the role reader does not exist"),
        ({"extensions": {"citext": "extensions"}}, "the extension citext is in the schema extensions"),
        ({"extensions": {"pgcrypto": "public"}}, "the extension pgcrypto is in the schema public"),
    ],
)
def test_a_difference_from_the_place_where_it_was_made_is_a_reason_to_replay(
    change: dict[str, object], why: str
) -> None:
    assert [*emptiness.reasons(WHOLE, FOUND)] == []
    assert any(why in reason for reason in emptiness.reasons(WHOLE, replace(FOUND, **change)))  # type: ignore[arg-type]


def test_a_checkpoint_may_need_its_schema_or_its_time_zone() -> None:
    bound = replace(WHOLE, any_schema=False, time_zone="UTC")

    assert [*emptiness.reasons(bound, replace(FOUND, time_zone="Etc/UTC"))] == []
    assert "time zone is Europe/Berlin" in next(emptiness.reasons(bound, FOUND))
    elsewhere = replace(FOUND, schema="tenant", time_zone="UTC")
    assert next(emptiness.reasons(bound, elsewhere)) == "it is for the schema public only"


def test_variables_and_arguments_are_compared_without_addresses_and_secrets() -> None:
    made = Surroundings(
        {"a": "1", "b": "{host}"}, {"FLAG": "on", "URL": "x", "API_KEY": "k"}, {"H": "{host}"}, ("URL",)
    )
    noted = replace(WHOLE, x_arguments=made.x_digest, variables=made.noted(["FLAG", "OTHER", "URL", "API_KEY", "H"]))

    assert set(noted.variables) == {"FLAG", "OTHER", "API_KEY"}
    assert noted.variables["OTHER"] is None
    assert noted.variables["API_KEY"] == "set"
    assert made.differ_from(noted) is None
    for other in (
        replace(made, x_arguments={"b": "{host}", "a": "1"}),
        replace(made, environ={**made.environ, "FLAG": "off"}),
        replace(made, environ={**made.environ, "OTHER": ""}),
        replace(made, environ={"FLAG": "on"}),
        replace(made, templates={"FURTHER": "1"}),
    ):
        assert other.differ_from(noted) is not None
    for same in (
        replace(made, environ={**made.environ, "URL": "y", "API_KEY": "l", "UNREAD": "1"}),
        replace(made, templates={"H": "{port}", "FLAG": "on"}),
    ):
        assert same.differ_from(noted) is None


@pytest.mark.parametrize(
    "text,names",
    [
        ("import os\nos.environ['one']\nos.getenv('two')", {"one", "two"}),
        ("from os import environ as e\nif 'FLAG' in e or e.get('A' + x): pass", {"FLAG"}),
        ("op.execute('SELECT')", set()),
    ],
)
def test_the_variables_that_a_file_may_read_are_found(text: str, names: set[str]) -> None:
    assert names_in(text) == names


def test_the_settings_of_the_function_are_those_of_the_contract() -> None:
    page = (Path(__file__).parents[2] / "docs" / "contract.md").read_text(encoding="utf-8")
    section = page.partition("\n## Environment variables\n")[2].partition("\n### ")[0]

    assert set(re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)) == VARIABLES


@pytest.mark.parametrize("pattern", ["rows:users", "rows", "row*", "users", "rows:*", "*"])
def test_an_item_is_named_by_its_name_its_kind_or_a_pattern(pattern: str) -> None:
    assert Item("rows:users", "").is_named_by([pattern])
    assert not Item("role:users_", "").is_named_by(["rows", "users"])


@pytest.mark.parametrize("name", ["DB_PWD", "API_AUTH", "APP_TOKEN", "PASSWORD_SALT", "PRIVATE_PEM"])
def test_a_checkpoint_has_no_hash_of_a_variable_that_may_be_a_secret(name: str) -> None:
    surroundings = Surroundings({}, {name: "guessable", "AUTHOR": "Ann"}, {}, ())

    noted = surroundings.noted([name, "AUTHOR"])

    assert noted[name] == "set"
    assert noted["AUTHOR"] == hashlib.sha256(b"Ann").hexdigest()


@pytest.mark.parametrize(
    "before,after,left",
    [
        ({"settings": {"work_mem": "8MB"}}, {"settings": {"work_mem": "8MB"}}, []),
        ({"settings": None}, {"settings": {"work_mem": "8MB"}}, ["work_mem"]),
        ({"settings": {"work_mem": "4MB"}}, {"settings": {"work_mem": "8MB"}}, ["work_mem"]),
        # RESET of what env.py has set
        ({"settings": {"work_mem": "8MB"}}, {"settings": None}, ["work_mem"]),
        ({"role": "shop"}, {"role": "owner"}, ["role"]),
        ({"temporary": 0}, {"temporary": 1}, ["temporary objects"]),
    ],
)
def test_what_revisions_leave_in_their_session_is_found(
    before: dict[str, object], after: dict[str, object], left: list[str]
) -> None:
    usual = {"settings": {}, "role": "shop", "temporary": 0}
    replayed = Replayed(WHOLE.tables[:1], ({**usual, **before},), ({**usual, **after},), steps=1)

    assert replayed.left_in_session() == left
