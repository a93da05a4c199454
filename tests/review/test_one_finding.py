"""A finding is about the table that the statement changes, and each cause has one finding."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from migrate_review.measure.session import reviewing
from migrate_review.review import review
from migrate_review.revisions.tree import read_tree
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Server
    from migrate_review.rules.findings import Finding

pytestmark = pytest.mark.xdist_group("review-one-finding")

MEMBERS = Rev(
    "members",
    sql(
        "CREATE TABLE users (id serial PRIMARY KEY, name text)",
        "CREATE TABLE teams (id serial PRIMARY KEY, name text)",
        "CREATE TABLE members (team_id int NOT NULL CONSTRAINT fk_team REFERENCES teams,"
        " user_id int NOT NULL CONSTRAINT fk_user REFERENCES users, PRIMARY KEY (team_id, user_id))",
        "CREATE TABLE runs (id serial PRIMARY KEY)",
        "CREATE TABLE spaces (id uuid PRIMARY KEY)",
        "CREATE TABLE cases (id uuid PRIMARY KEY, space_id uuid NOT NULL)",
    ),
    sql(
        "DROP TABLE cases",
        "DROP TABLE spaces",
        "DROP TABLE runs",
        "DROP TABLE members",
        "DROP TABLE teams",
        "DROP TABLE users",
    ),
)


def findings(folder: Path, on: Server, revision: Rev) -> list[Finding]:
    """Review a revision of the tables above."""
    tree = read_tree(write_tree(folder, [MEMBERS, revision]))
    result = review(tree, tree.revisions, partial(reviewing, folder, on=on))
    return next(list(one.result.standing) for one in result.revisions if one.revision.id == revision.id)


def test_a_replaced_foreign_key_is_about_the_referring_table(tmp_path: Path, postgres_server: Server) -> None:
    def replaced(action: str) -> str:
        return sql(
            # Without a nested loop, PostgreSQL also reads all of the table that is referred to.
            "SET LOCAL enable_nestloop = off",
            "ALTER TABLE members DROP CONSTRAINT fk_user",
            "ALTER TABLE members DROP CONSTRAINT fk_team",
            f"ALTER TABLE members ADD CONSTRAINT fk_team FOREIGN KEY (team_id) REFERENCES teams{action}",
            f"ALTER TABLE members ADD CONSTRAINT fk_user FOREIGN KEY (user_id) REFERENCES users{action}",
        )

    found = findings(tmp_path, postgres_server, Rev("cascade", replaced(" ON DELETE CASCADE"), replaced("")))

    assert [one.message for one in found if one.rule == "adding-foreign-key-constraint"] == [
        f"Every write to members and to {other} waits while PostgreSQL looks up each row of members in {other}."
        for other in ("teams", "users")
    ]


def test_a_required_column_that_the_rows_refuse_has_one_finding(tmp_path: Path, postgres_server: Server) -> None:
    add = sql(
        "ALTER TABLE members ADD COLUMN run_id int NOT NULL",
        "ALTER TABLE members ADD CONSTRAINT fk_run FOREIGN KEY (run_id) REFERENCES runs",
        "CREATE INDEX ix_run ON members (run_id)",
    )

    found = findings(tmp_path, postgres_server, Rev("run", add, sql("ALTER TABLE members DROP COLUMN run_id")))

    assert [one.rule for one in found].count("adding-required-field") == 1
    # The foreign key was not measured, because the column before it failed on the rows.
    assert [one.message for one in found if "constraint" in one.rule] == [
        "Every write to members and to runs waits while PostgreSQL looks up each row of members in runs."
    ]


def test_the_values_of_rows_that_the_revision_deletes_need_not_be_allowed(
    tmp_path: Path, postgres_server: Server
) -> None:
    refer = sql(
        "DELETE FROM cases WHERE space_id NOT IN (SELECT id FROM spaces)",
        "ALTER TABLE cases ADD CONSTRAINT fk_space FOREIGN KEY (space_id) REFERENCES spaces",
    )

    found = findings(tmp_path, postgres_server, Rev("refer", refer, sql("ALTER TABLE cases DROP CONSTRAINT fk_space")))

    assert "rows-lost" in {one.rule for one in found}
    assert "writes-fail" not in {one.rule for one in found}
