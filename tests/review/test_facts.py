"""What ``--record`` keeps of a revision for later steps: what it locks, what it requires of rows, and the schema."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from lambda_migrate.database.schema import fingerprint
from migrate_review.measure.session import reviewing
from migrate_review.rules.facts import facts
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from localcloud.postgres import Database, Server

pytestmark = pytest.mark.xdist_group("review-facts")

BASE = """
CREATE TABLE parents (id bigint CONSTRAINT pk_parents PRIMARY KEY, "Code" text)
CREATE TABLE rows (id bigint CONSTRAINT pk_rows PRIMARY KEY, parent bigint, amount bigint, word varchar(20), at tsrange)
CREATE TABLE parts (id bigint, parent bigint) PARTITION BY RANGE (id)
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (1000)
""".strip().splitlines()
GOOD = (
    """
INSERT INTO parents SELECT n, n FROM generate_series(1, 5) AS n
INSERT INTO rows SELECT n, n, n, n, tsrange('2026-01-01'::timestamp + day, '2026-01-02'::timestamp + day) FROM (SELECT
 n, n * interval '1 day' AS day FROM generate_series(1, 5) AS n) AS numbers
INSERT INTO parts SELECT n, n FROM generate_series(1, 5) AS n
""".replace("\n ", " ")
    .strip()
    .splitlines()
)
# What the revision does and undoes; the check that it implies; rows that are in the way, and how many are found.
CHECKS: dict[str, tuple[str, str, tuple[str, str, list[str]], str, int]] = {
    "not_null": (
        "ALTER TABLE rows ALTER parent SET NOT NULL", "ALTER TABLE rows ALTER parent DROP NOT NULL",
        ("not_null", "rows", ["parent"]), "UPDATE rows SET parent = NULL WHERE id < 3", 2,
    ),
    "unique": (
        "ALTER TABLE rows ADD CONSTRAINT uq UNIQUE (parent, word)", "ALTER TABLE rows DROP CONSTRAINT uq",
        ("unique", "rows", ["parent", "word"]), "UPDATE rows SET parent = 1, word = '1' WHERE id < 4", 1,
    ),
    "nulls_equal": (
        "ALTER TABLE rows ADD CONSTRAINT uq UNIQUE NULLS NOT DISTINCT (parent)", "ALTER TABLE rows DROP CONSTRAINT uq",
        ("unique", "rows", ["parent"]), "UPDATE rows SET parent = NULL WHERE id < 4", 1,
    ),
    "unique_index": (
        'CREATE UNIQUE INDEX ix ON rows (lower(word) COLLATE "C" DESC, (amount % 2)) WHERE amount < 4',
        "DROP INDEX ix",
        ("unique", "rows", []), "UPDATE rows SET word = CASE id WHEN 1 THEN 'X' ELSE 'x' END", 1,
    ),
    "foreign_key": (
        "ALTER TABLE rows ADD CONSTRAINT fk FOREIGN KEY (parent) REFERENCES parents (id)",
        "ALTER TABLE rows DROP CONSTRAINT fk",
        ("foreign_key", "rows", ["parent"]), "UPDATE rows SET parent = CASE id WHEN 1 THEN NULL ELSE 77 END", 4,
    ),
    "foreign_key_on_partitions": (
        "ALTER TABLE parts ADD CONSTRAINT fk FOREIGN KEY (parent) REFERENCES parents (id)",
        "ALTER TABLE parts DROP CONSTRAINT fk",
        ("foreign_key", "parts", ["parent"]), "UPDATE parts SET parent = 77 WHERE id = 1", 1,
    ),
    "check": (
        "ALTER TABLE rows ADD CONSTRAINT ck CHECK (amount > 1 OR word IN ('a', 'b'))",
        "ALTER TABLE rows DROP CONSTRAINT ck", ("check", "rows", ["amount", "word"]), "SELECT 1", 1,
    ),
    "exclusion": (
        "ALTER TABLE rows ADD CONSTRAINT ex EXCLUDE USING gist (at WITH &&) WHERE (id < 4)",
        "ALTER TABLE rows DROP CONSTRAINT ex", ("exclusion", "rows", ["at"]),
        "UPDATE rows SET at = tsrange('2026-01-01', '2027-01-01')", 3,
    ),
    "shorter": (
        "ALTER TABLE rows ALTER word TYPE varchar(3)", "ALTER TABLE rows ALTER word TYPE varchar(20)",
        ("type", "rows", ["word"]), "UPDATE rows SET word = CASE id WHEN 1 THEN 'abc   ' ELSE 'abcd' END", 4,
    ),
    "smaller": (
        "ALTER TABLE rows ALTER amount TYPE integer", "ALTER TABLE rows ALTER amount TYPE bigint",
        ("type", "rows", ["amount"]), "UPDATE rows SET amount = 2147483647 + id - 1", 4,
    ),
    "quoted": (
        'ALTER TABLE parents ADD CONSTRAINT ck CHECK ("Code" <> \'x\')', "ALTER TABLE parents DROP CONSTRAINT ck",
        ("check", "parents", ["Code"]), 'UPDATE parents SET "Code" = \'x\'', 5,
    ),
}  # fmt: skip
STEPS = {
    "renames": (
        "ALTER TABLE rows RENAME amount TO price; ALTER TABLE rows ADD CONSTRAINT uq UNIQUE (price)",
        "ALTER TABLE rows DROP CONSTRAINT uq; ALTER TABLE rows RENAME price TO amount",
    ),
    "cleans_first": (
        "DELETE FROM rows WHERE price = 0; ALTER TABLE rows ALTER price SET NOT NULL",
        "ALTER TABLE rows ALTER price DROP NOT NULL",
    ),
    "not_valid": (
        "ALTER TABLE rows ADD CONSTRAINT late CHECK (price > -99999999999) NOT VALID",
        "ALTER TABLE rows DROP CONSTRAINT late",
    ),
    "validates": ("ALTER TABLE rows VALIDATE CONSTRAINT late", "SELECT 1"),
    "requires": (
        "CREATE TABLE more (id bigint PRIMARY KEY); ALTER TABLE rows ADD required text NOT NULL",
        "ALTER TABLE rows DROP required; DROP TABLE more",
    ),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, postgres_server: Server) -> dict[str, dict[str, Any]]:
    """The facts of each revision, each on the schema that the ones before it left."""
    revisions = [
        Rev("tables_", sql(*BASE), sql("DROP TABLE parts", "DROP TABLE rows", "DROP TABLE parents")),
        *(Rev(name, sql(up), sql(down)) for name, (up, down, *_) in CHECKS.items()),
        *(Rev(name, sql(*up.split("; ")), sql(*down.split("; "))) for name, (up, down) in STEPS.items()),
    ]
    # Each revision of CHECKS stands on the first one alone.
    for place, revision in enumerate(revisions[1 : 1 + len(CHECKS)], start=1):
        revisions[place] = Rev(revision.id, revision.upgrade, revision.downgrade, down="tables_")
    first = 1 + len(CHECKS)
    revisions[first] = Rev(revisions[first].id, revisions[first].upgrade, revisions[first].downgrade, down="tables_")
    folder = write_tree(tmp_path_factory.mktemp("facts"), revisions)
    with reviewing(folder, on=postgres_server, rows=10, record=True) as session:
        found = {revision.id: facts(session.observe(revision.id)) for revision in revisions}
    return {id_: each for id_, each in found.items() if each is not None}


@pytest.mark.parametrize("name", CHECKS)
def test_a_query_finds_the_rows_that_are_in_the_way_and_no_others(
    name: str, recorded: dict[str, dict[str, Any]], database: Database
) -> None:
    _, _, expected, breaks, violations = CHECKS[name]
    [check] = recorded[name]["checks"]
    assert (check["check"], check["table"], check["columns"]) == expected
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        for statement in (*BASE, *GOOD):
            cursor.execute(statement)
        counting = f"SELECT count(*) FROM ({check['query']}) AS found"  # noqa: S608 - what is tested
        cursor.execute(counting)
        assert cursor.fetchone() == (1 if breaks == "SELECT 1" else 0,), "rows that are right"
        cursor.execute(breaks)
        cursor.execute(counting)
        assert cursor.fetchone() == (violations,)


def test_a_query_uses_the_names_from_before_the_revision(recorded: dict[str, dict[str, Any]]) -> None:
    [check] = recorded["renames"]["checks"]
    assert check["columns"] == ["amount"]
    assert '"amount"' in check["query"]


def test_rows_that_the_revision_itself_changes_first_are_marked(recorded: dict[str, dict[str, Any]]) -> None:
    assert [check["changed_before"] for check in recorded["cleans_first"]["checks"]] == [True]
    assert [check["changed_before"] for check in recorded["not_null"]["checks"]] == [False]


def test_a_constraint_is_checked_by_the_revision_that_validates_it(recorded: dict[str, dict[str, Any]]) -> None:
    assert recorded["not_valid"]["checks"] == []
    assert [check["name"] for check in recorded["validates"]["checks"]] == ["late"]


def test_a_column_that_is_required_at_once_is_refused_by_every_row(recorded: dict[str, dict[str, Any]]) -> None:
    [check] = recorded["requires"]["checks"]
    assert (check["check"], check["columns"], check["query"]) == ("not_null", ["required"], "SELECT * FROM rows")


def test_a_table_has_its_lock_what_that_blocks_and_what_is_read_meanwhile(recorded: dict[str, dict[str, Any]]) -> None:
    tables = {each["table"]: each for each in recorded["foreign_key"]["tables"]}
    assert {name: (each["lock"], each["blocks"]) for name, each in tables.items()} == {
        "parents": ("SHARE ROW EXCLUSIVE", "writes"),
        "rows": ("SHARE ROW EXCLUSIVE", "writes"),
    }
    assert tables["rows"]["reads_all"] is True
    assert "rows" in tables["parents"]["while_locked"]["reads"]
    [rewritten] = recorded["smaller"]["tables"]
    assert (rewritten["lock"], rewritten["blocks"], rewritten["rewrites"]) == (
        "ACCESS EXCLUSIVE", "reads and writes", True,
    )  # fmt: skip
    assert recorded["tables_"]["tables"] == [], "tables of its own are nobody's yet"


def test_the_schema_of_a_revision_follows_from_those_before_it(recorded: dict[str, dict[str, Any]]) -> None:
    assert recorded["tables_"]["schema"]["before"] == fingerprint({})
    objects: dict[str, str] = {}
    for name in ("tables_", *STEPS):
        schema = recorded[name]["schema"]
        assert schema["before"] == fingerprint(objects)
        objects |= {key: value for key, value in schema["changed"].items() if value is not None}
        objects = {key: value for key, value in objects.items() if schema["changed"].get(key, value) is not None}
        assert schema["after"] == fingerprint(objects)
    assert recorded["renames"]["schema"]["changed"].keys() == {
        "column rows.amount", "column rows.price", "constraint uq on rows",
    }  # fmt: skip
