"""The comparison of schemas covers everything that a revision can make."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from migrate_review.measure.catalog import differences, read
from migrate_review.measure.server import database as review_database
from migrate_review.rows import contents

if TYPE_CHECKING:
    from localcloud.postgres import Server

GROUND = """
    CREATE TABLE t (id int PRIMARY KEY, a int, b text);
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE SEQUENCE counter;
    CREATE DOMAIN small AS int;
    CREATE VIEW v AS SELECT id FROM t;
    CREATE TABLE parts (id int) PARTITION BY RANGE (id)
"""

# Changes of that schema, and the beginnings of their differences.
CHANGES = {
    "CREATE TABLE u (id int)": "table u is left over",
    "CREATE SCHEMA s; CREATE TABLE s.u (id int)": "schema s is left over",
    "ALTER TABLE t ALTER a TYPE bigint": "column t.a was 'integer' and is now 'bigint'",
    "ALTER TABLE t ALTER a SET NOT NULL": "column t.a was 'integer' and is now 'integer NOT NULL'",
    "ALTER TABLE t ALTER a SET DEFAULT 7": "column t.a was 'integer' and is now 'integer DEFAULT 7'",
    "ALTER TABLE t ADD c int GENERATED ALWAYS AS (a + 1) STORED": "column t.c is left over",
    "ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0) NOT VALID": "constraint k of t is left over: CHECK",
    "CREATE INDEX i ON t (lower(b)) WHERE a > 0": "index i of t is left over: CREATE INDEX i ON public.t",
    "ALTER INDEX t_pkey RENAME TO pk": "constraint pk of t is left over: PRIMARY KEY (id)",
    "ALTER TYPE mood ADD VALUE 'fine'": "type mood had the labels sad, ok and now has sad, ok, fine",
    "CREATE OR REPLACE VIEW v AS SELECT id FROM t WHERE a > 0": "view v was ",
    "CREATE MATERIALIZED VIEW m AS SELECT 1 AS one": "materialized view m is left over",
    "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'": "function f() was ",
    "CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'": "procedure p() is left over",
    "CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)": "aggregate total(integer) is left over",
    "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()": "trigger g on t is left over",
    "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING": "rule r on t is left over",
    "CREATE POLICY y ON t USING (a > 0)": "policy y on t is left over",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY": "table settings t is left over: row level security",
    "ALTER TABLE t SET (fillfactor = 70)": "table settings t is left over: with fillfactor=70",
    "ALTER TABLE t SET UNLOGGED": "table settings t is left over: unlogged",
    "ALTER TABLE t REPLICA IDENTITY FULL": "table settings t is left over: replica identity f",
    "ALTER TABLE t ALTER b SET STORAGE EXTERNAL": "column settings t.b is left over: storage e",
    'ALTER TABLE t ALTER b TYPE text COLLATE "C"': 'column settings t.b is left over: collation "C"',
    "ALTER SEQUENCE counter INCREMENT 5": "sequence counter was ",
    "ALTER DOMAIN small ADD CONSTRAINT positive CHECK (VALUE > 0)": "type small was ",
    "CREATE TYPE pair AS (a int, b text)": "type pair is left over",
    "CREATE TYPE span AS RANGE (subtype = float8)": "type span is left over",
    "COMMENT ON COLUMN t.a IS 'note'": "comment on table column public.t.a is left over: note",
    "GRANT SELECT ON t TO PUBLIC": "privileges on t is left over",
    "GRANT UPDATE (a) ON t TO PUBLIC": "column settings t.a is left over: privileges ",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC": "default privileges of postgres on r is left over",
    "CREATE EXTENSION citext": "extension citext is left over",
    "CREATE STATISTICS x ON a, b FROM t": "statistics CREATE STATISTICS",
    "CREATE COLLATION german (provider = icu, locale = 'de')": "collation german is left over",
    "CREATE TABLE part PARTITION OF parts FOR VALUES FROM (1) TO (9)": "table part is left over",
    "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)": "operator public.===",
    "CREATE PUBLICATION news FOR TABLE t": "publication news is left over",
}

VERSION_TABLE = (None, "alembic_version")
_HAS_VIRTUAL = 18


@pytest.mark.xdist_group("review_catalog")
def test_every_kind_of_change_is_listed_and_nothing_else(postgres_server: Server) -> None:
    found = {}
    with review_database(postgres_server) as database, closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(GROUND)
        before = read(opened, VERSION_TABLE)
        for statement in CHANGES:
            cursor.execute(f"BEGIN; {statement}")
            found[statement] = differences(before, read(opened, VERSION_TABLE))
            cursor.execute("ROLLBACK")
            assert differences(before, read(opened, VERSION_TABLE)) == (), statement
    silent = [each for each, lines in found.items() if not any(line.startswith(CHANGES[each]) for line in lines)]
    assert {each: found[each] for each in silent} == {}


def test_long_texts_of_a_change_begin_where_they_differ(postgres_server: Server) -> None:
    with review_database(postgres_server) as database, closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("""CREATE TABLE t (a json NOT NULL DEFAULT '{"attributes": {}, "types": {}}')""")
        before = read(opened, VERSION_TABLE)

        cursor.execute("ALTER TABLE t ALTER a SET DEFAULT 'null'")

        (line,) = differences(before, read(opened, VERSION_TABLE))
    was, is_now = """…'{"attributes": {}, "types": {}}'::json""", "…'null'::json"
    assert line == f"column t.a was {was!r} and is now {is_now!r}"


def test_a_column_that_was_dropped_and_added_again_is_the_same(postgres_server: Server) -> None:
    with review_database(postgres_server) as database, closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(GROUND)
        before = read(opened, VERSION_TABLE)
        cursor.execute("ALTER TABLE t DROP a; ALTER TABLE t ADD a int; CREATE TABLE alembic_version (version_num text)")
        assert differences(before, read(opened, VERSION_TABLE)) == ()


def test_a_virtual_column_that_cannot_be_computed_is_no_content(
    postgres_server: Server, pytestconfig: pytest.Config
) -> None:
    if pytestconfig.getoption("--postgres") < _HAS_VIRTUAL:
        pytest.skip("virtual columns need PostgreSQL 18")
    with review_database(postgres_server) as database, closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute('CREATE TABLE t (id int, "O""dd" int GENERATED ALWAYS AS (1 / (id - id)) VIRTUAL)')
        cursor.execute("INSERT INTO t VALUES (1)")
        assert contents.read(opened, read(opened, VERSION_TABLE))["t"].rows == (("1",),)


@pytest.mark.parametrize(
    "statement, expected",
    [
        ("UPDATE t SET a = NULL WHERE a = 'x'", (0, 0, {"a": 1})),
        ("UPDATE t SET b = 'new' WHERE b IS NULL", None),
        ("DELETE FROM t WHERE a = 'x'", (1, 0, {})),
        ("DELETE FROM t; INSERT INTO t VALUES (3, 'p', 'q'), (4, 'r', 's')", (2, 2, {})),
    ],
)
def test_a_row_without_a_key_that_changed_is_not_lost(
    postgres_server: Server, statement: str, expected: tuple[int, int, dict[str, int]] | None
) -> None:
    with review_database(postgres_server) as database, closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n int, a text, b text); INSERT INTO t VALUES (1, 'x', 'y'), (2, 'z', NULL)")
        before = contents.read(opened, read(opened, VERSION_TABLE))
        cursor.execute(statement)
        changes = contents.changes(before, contents.read(opened, read(opened, VERSION_TABLE)))
    assert [(each.lost, each.added, each.changed) for each in changes] == ([expected] if expected else [])


def test_the_database_of_a_review_that_was_killed_is_dropped_by_the_next(postgres_server: Server) -> None:
    def there() -> set[str]:
        with closing(postgres_server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'review_%'")
            return {name for (name,) in cursor.fetchall()}

    abandoned = "review_0123456789ab"
    with closing(postgres_server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {abandoned}")
    folder = postgres_server.directory / "reviews"
    folder.mkdir(exist_ok=True)
    (folder / f"{abandoned}.lock").touch()
    with review_database(postgres_server) as one, review_database(postgres_server) as other:
        assert {one.name, other.name} <= there()
        assert abandoned not in there()
    assert not {one.name, other.name, abandoned} & there()
