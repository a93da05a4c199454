"""A role belongs to the server: what revisions create there is gone when the next review begins."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from migrate_review.measure import roles
from migrate_review.measure.session import reviewing
from migrate_review.revisions.tree import read_tree
from migrate_review.rules.case import Case
from migrate_review.rules.judge import judge
from tests.support.samples import chosen
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Server

TREE = [
    Rev(
        "creates",
        sql(
            "CREATE ROLE review_shop NOLOGIN",
            "CREATE TABLE t (id bigint PRIMARY KEY)",
            "GRANT SELECT ON t TO review_shop",
        ),
        sql("DROP TABLE t", "DROP ROLE review_shop"),
    ),
    Rev("adds", sql("ALTER TABLE t ADD a text"), sql("ALTER TABLE t DROP a")),
    Rev("grants", sql("GRANT UPDATE ON t TO review_reports"), sql("REVOKE UPDATE ON t FROM review_reports")),
    Rev("moves", sql("ALTER TABLE t SET TABLESPACE review_fast"), "pass", down="adds"),
]


@pytest.mark.stress
def test_a_role_that_a_revision_creates_is_in_no_later_reviews_way(tmp_path: Path, postgres_server: Server) -> None:
    folder = write_tree(tmp_path, TREE)
    for _ in range(2):
        with reviewing(folder, on=postgres_server, rows=3) as session:
            seen = {name: session.observe(name) for name in session.revisions}
        # The second branch begins from an empty database.
        assert [seen[name].upgrade.failure for name in ("creates", "adds")] == [None, None]
        assert {name for name in seen if seen[name].unmeasured} == {"grants", "moves"}
    assert "add to the file of --baseline" in seen["grants"].unmeasured[0]
    assert "no tablespace review_fast; review on a server that has it" in seen["moves"].unmeasured[0]
    with closing(postgres_server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'review_shop'")
        assert cursor.fetchall() == [(0,)]


def test_a_role_that_loses_something_is_found(
    tmp_path: Path, postgres_server: Server, pytestconfig: pytest.Config
) -> None:
    changes = {
        "nothing": sql("GRANT USAGE ON SCHEMA public TO review_clerks", "ALTER ROLE review_clerks CONNECTION LIMIT -1"),
        "login": sql("ALTER ROLE review_clerks NOLOGIN"),
        "member": sql("REVOKE pg_monitor FROM review_clerks"),
        "password": sql("ALTER ROLE review_clerks VALID UNTIL '2020-01-01'"),
        "itself": sql("DROP ROLE review_clerks"),
    }
    creates = sql("CREATE ROLE review_clerks LOGIN", "GRANT pg_monitor TO review_clerks")
    tree = [Rev("creates", creates, sql("DROP ROLE review_clerks"))]
    tree += [Rev(name, body, down="creates") for name, body in changes.items()]
    folder = write_tree(tmp_path, tree)
    found = {}
    for name in chosen(
        changes, {"nothing", "member", "itself"}, pytestconfig
    ):  # in a review each: what one does to the role stays until the next
        with reviewing(folder, on=postgres_server, rows=3) as session:
            seen = session.observe(name)
        [revision] = [each for each in read_tree(folder).revisions if each.id == name]
        found[name] = [one.message for one in judge(Case(seen, (), revision)) if one.rule == "role-restricted"]

    assert found.pop("nothing") == []
    lost = {"login": "LOGIN", "member": "the role pg_monitor", "password": "its valid password", "itself": "everything"}
    for name, messages in found.items():
        [message] = messages
        assert f"The role review_clerks loses {lost[name]} with this revision" in message


@pytest.mark.stress
def test_settings_of_a_new_role_and_a_view_that_becomes_another_relation_are_no_finding(
    tmp_path: Path, postgres_server: Server
) -> None:
    view = sql("CREATE TABLE t (id bigint PRIMARY KEY)", "CREATE VIEW shown AS SELECT id FROM t")
    bodies = {
        "setting": sql("CREATE ROLE review_jobs LOGIN", "ALTER ROLE review_jobs SET statement_timeout = 60000"),
        "filled": sql("DROP VIEW shown", "CREATE MATERIALIZED VIEW shown AS SELECT id FROM t"),
        "table": sql("DROP VIEW shown", "CREATE TABLE shown AS SELECT id FROM t"),
    }
    tree = [Rev("creates", view, sql("DROP TABLE t CASCADE"))]
    tree += [Rev(name, body, down="creates") for name, body in bodies.items()]
    folder = write_tree(tmp_path, tree)
    with reviewing(folder, on=postgres_server, rows=3) as session:
        seen = {name: session.observe(name) for name in bodies}
    revisions = {each.id: each for each in read_tree(folder).revisions}

    found = {one.rule for name in bodies for one in judge(Case(seen[name], (), revisions[name]))}

    assert all(each.upgrade.failure is None for each in seen.values())
    assert found.isdisjoint({"settings-changed", "rows-not-shown"})


def test_a_role_that_was_there_before_stays(postgres_server: Server) -> None:
    with closing(postgres_server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("CREATE ROLE review_stays; CREATE ROLE review_other; CREATE ROLE review_goes")
        try:
            text = "CREATE ROLE review_goes; GRANT review_stays TO review_goes"
            found = roles.created_by([text], postgres_server, frozenset({"review_stays"}))
            assert found is not None
            found.drop()
            cursor.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^review_(stays|other|goes)' ORDER BY 1")
            assert cursor.fetchall() == [("review_other",), ("review_stays",)]
        finally:
            cursor.execute("DROP ROLE review_stays; DROP ROLE review_other; DROP ROLE IF EXISTS review_goes")
    assert roles.created_by(["CREATE USER MAPPING FOR me SERVER s"], postgres_server, frozenset()) is None
