"""The record of ``--record``: a revision's locks, its requirements for rows, and the schema."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from lambda_migrate.database.schema import fingerprint
from migrate_review.measure.session import reviewing
from migrate_review.rules.facts import facts
from migrate_review.rules.type_changes import condition
from tests.support.samples import chosen, sampled
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from localcloud.postgres import Database, Server

pytestmark = pytest.mark.xdist_group("review-facts")

BASE = (
    """
CREATE TABLE parents (id bigint CONSTRAINT pk_parents PRIMARY KEY, "Code" text)
CREATE TABLE rows (id bigint CONSTRAINT pk_rows PRIMARY KEY, parent bigint, amount bigint, word varchar(20), at tsrange)
CREATE TABLE parts (id bigint, parent bigint) PARTITION BY RANGE (id)
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (1000)
CREATE TABLE parts_rest PARTITION OF parts DEFAULT
CREATE TABLE loose (id bigint, parent bigint)
CREATE TABLE spare (id bigint, parent bigint) PARTITION BY RANGE (id)
CREATE TYPE address AS (street text, town text)
CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad')
CREATE DOMAIN amount AS bigint
CREATE TABLE pairs (id bigint CONSTRAINT pk_pairs PRIMARY KEY, a bigint, b bigint, CONSTRAINT uq_pairs UNIQUE (a, b))
CREATE TABLE "Odd Names" (id bigint CONSTRAINT pk_odd PRIMARY KEY, "Pa" bigint, "Pb" bigint, home address, feeling mood,
 price amount, number text, room int4range, during tstzrange, CONSTRAINT late CHECK ("Pa" > 0))
CREATE TABLE heirs (extra text) INHERITS (pairs)
CREATE TYPE grade AS ENUM ('a', 'b', 'c')
CREATE DOMAIN number AS bigint
CREATE DOMAIN small AS number
CREATE TABLE typed (id bigint CONSTRAINT pk_typed PRIMARY KEY, grades grade[], ratio numeric, data json, n small,
 at timestamp CONSTRAINT uq_at UNIQUE, since timestamp CONSTRAINT ck_since CHECK (since > '2026-01-01 00:00'),
 word text)
CREATE UNIQUE INDEX uq_word ON typed (lower(word)) WHERE id > 0
CREATE COLLATION alike (provider = icu, locale = 'und-u-ks-level2', deterministic = false)
CREATE TABLE made (id bigint CONSTRAINT pk_made PRIMARY KEY, a bigint, b bigint, word text CONSTRAINT uq_made UNIQUE,
 total bigint GENERATED ALWAYS AS (a + b) STORED CONSTRAINT ck_total CHECK (total < 100), code text)
CREATE DOMAIN word AS text
CREATE TABLE worded (id bigint CONSTRAINT pk_worded PRIMARY KEY, word word, day date, during daterange,
 room int4range)
CREATE TABLE keyed (id bigint, code varchar(9), CONSTRAINT uq_keyed UNIQUE (id, code)) PARTITION BY LIST (code)
CREATE TABLE unkeyed (id bigint, code varchar(9))
CREATE TABLE named (name varchar(9) CONSTRAINT pk_named PRIMARY KEY)
CREATE TABLE naming (id bigint CONSTRAINT pk_naming PRIMARY KEY, name varchar(9) CONSTRAINT fk_name REFERENCES named)
CREATE TABLE halves (id bigint, kind bigint) PARTITION BY RANGE (id)
CREATE TABLE halves_rest PARTITION OF halves DEFAULT PARTITION BY LIST (kind)
CREATE TABLE halves_rest_1 PARTITION OF halves_rest FOR VALUES IN (1)
CREATE TABLE hashed (id bigint CONSTRAINT pk_hashed PRIMARY KEY) PARTITION BY HASH (id)
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0)
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1)
CREATE TABLE hashing (id bigint, hash bigint CONSTRAINT fk_hash REFERENCES hashed (id))
CREATE TABLE lines (id bigint CONSTRAINT pk_lines PRIMARY KEY, row_id bigint CONSTRAINT fk_row REFERENCES rows (id)
 ON DELETE CASCADE, text varchar(9))
""".replace("\n ", " ")
    .strip()
    .splitlines()
)
UNDO = """
DROP TABLE naming, named, unkeyed, keyed, worded, made
DROP TABLE hashing, halves, hashed, typed, loose, spare, lines, heirs, "Odd Names", pairs, parts, rows, parents
DROP DOMAIN amount, small, number, word
DROP COLLATION alike
DROP TYPE mood, grade, address
""".strip().splitlines()
GOOD = (
    """
INSERT INTO parents SELECT n, n FROM generate_series(1, 5) AS n
INSERT INTO rows SELECT n, n, n, n, tsrange('2026-01-01'::timestamp + day, '2026-01-02'::timestamp + day) FROM (SELECT
 n, n * interval '1 day' AS day FROM generate_series(1, 5) AS n) AS numbers
INSERT INTO parts SELECT n, n FROM generate_series(1, 5) AS n
INSERT INTO loose SELECT n, n FROM generate_series(1001, 1005) AS n
INSERT INTO pairs SELECT n, n, n FROM generate_series(1, 5) AS n
INSERT INTO "Odd Names" SELECT n, n, n, ROW(NULL::text, NULL::text)::address, 'ok', n, n, int4range(n, n + 1),
 tstzrange('2026-01-01', '2026-01-02') FROM
 generate_series(1, 5) AS n
INSERT INTO heirs SELECT n, n, n, 'x' FROM generate_series(6, 7) AS n
INSERT INTO made (id, a, b, word, code) SELECT n, n, n, n, n FROM generate_series(1, 5) AS n
INSERT INTO worded SELECT n, n, '2026-01-01', '[2026-01-01,2026-02-01)', int4range(n, n + 1) FROM
 generate_series(1, 5) AS n
INSERT INTO unkeyed SELECT n, 'a' FROM generate_series(1, 5) AS n
INSERT INTO named SELECT n FROM generate_series(1, 5) AS n
INSERT INTO naming SELECT n, n FROM generate_series(1, 5) AS n
INSERT INTO hashed SELECT n FROM generate_series(1, 5) AS n
INSERT INTO typed SELECT n, ARRAY['a', NULL]::grade[], n, '{"a": 1}', n, at, at, n FROM (SELECT n,
 '2026-02-01'::timestamp + n * interval '1 day' AS at FROM generate_series(1, 5) AS n) AS numbers
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
    "narrower_bounds": (
        (
            "ALTER TABLE parts DETACH PARTITION parts_1;"
            " ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (1) TO (3)"
        ),
        (
            "ALTER TABLE parts DETACH PARTITION parts_1;"
            " ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (1) TO (1000)"
        ),
        ("check", "parts_1", []), "SELECT 1", 3,
    ),
    "counted": (
        'ALTER TABLE "Odd Names" ADD "N.o" smallint GENERATED ALWAYS AS IDENTITY (START 32762)',
        'ALTER TABLE "Odd Names" DROP "N.o"',
        ("type", '"Odd Names"', ["N.o"]), 'INSERT INTO "Odd Names" (id) SELECT n FROM generate_series(6, 9) AS n', 3,
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
    "match_full": (
        ('ALTER TABLE "Odd Names" ADD CONSTRAINT fk FOREIGN KEY ("Pa", "Pb") REFERENCES pairs (a, b) MATCH FULL'
        " DEFERRABLE INITIALLY DEFERRED"),
        'ALTER TABLE "Odd Names" DROP CONSTRAINT fk', ("foreign_key", '"Odd Names"', ["Pa", "Pb"]),
        'UPDATE "Odd Names" SET "Pb" = CASE id WHEN 1 THEN NULL WHEN 2 THEN 77 ELSE "Pb" END', 2,
    ),
    "several_columns": (
        'ALTER TABLE "Odd Names" ADD CONSTRAINT fk FOREIGN KEY ("Pa", "Pb") REFERENCES pairs (a, b) ON UPDATE CASCADE',
        'ALTER TABLE "Odd Names" DROP CONSTRAINT fk', ("foreign_key", '"Odd Names"', ["Pa", "Pb"]),
        'UPDATE "Odd Names" SET "Pb" = CASE id WHEN 1 THEN NULL WHEN 2 THEN 77 ELSE "Pb" END', 1,
    ),
    "composite_not_null": (
        'ALTER TABLE "Odd Names" ALTER home SET NOT NULL', 'ALTER TABLE "Odd Names" ALTER home DROP NOT NULL',
        ("not_null", '"Odd Names"', ["home"]), 'UPDATE "Odd Names" SET home = NULL WHERE id = 1', 1,
    ),
    "composite_check": (
        "ALTER TABLE \"Odd Names\" ADD CONSTRAINT ck CHECK ((home).town <> 'x')",
        'ALTER TABLE "Odd Names" DROP CONSTRAINT ck', ("check", '"Odd Names"', ["home"]),
        "UPDATE \"Odd Names\" SET home = ROW('a', 'x')::address WHERE id < 3", 2,
    ),
    "quoted_index": (
        ('CREATE UNIQUE INDEX ix ON "Odd Names" ("Pa" DESC NULLS LAST) INCLUDE ("Pb") NULLS NOT DISTINCT'
        ' WITH (fillfactor = 70) WHERE "Pb" > 1'),
        "DROP INDEX ix", ("unique", '"Odd Names"', ["Pa"]), 'UPDATE "Odd Names" SET "Pa" = NULL', 1,
    ),
    "check_made_stricter": (
        'ALTER TABLE "Odd Names" DROP CONSTRAINT late, ADD CONSTRAINT late CHECK ("Pa" > 2)',
        'ALTER TABLE "Odd Names" DROP CONSTRAINT late, ADD CONSTRAINT late CHECK ("Pa" > 0)',
        ("check", '"Odd Names"', ["Pa"]), "SELECT 1", 2,
    ),
    "domain": (
        "ALTER DOMAIN amount ADD CONSTRAINT small CHECK (VALUE < 5)", "ALTER DOMAIN amount DROP CONSTRAINT small",
        ("check", '"Odd Names"', ["price"]), "SELECT 1", 1,
    ),
    "domain_not_null": (
        "ALTER DOMAIN amount SET NOT NULL", "ALTER DOMAIN amount DROP NOT NULL",
        ("check", '"Odd Names"', ["price"]), 'UPDATE "Odd Names" SET price = NULL WHERE id < 3', 2,
    ),
    "text_to_number": (
        'ALTER TABLE "Odd Names" ALTER number TYPE integer USING number::integer',
        'ALTER TABLE "Odd Names" ALTER number TYPE text',
        ("type", '"Odd Names"', ["number"]), "UPDATE \"Odd Names\" SET number = 'n/a' WHERE id < 4", 3,
    ),
    "fewer_labels": (
        ("ALTER TYPE mood RENAME TO old; CREATE TYPE mood AS ENUM ('ok', 'glad');"
        ' ALTER TABLE "Odd Names" ALTER feeling TYPE mood USING feeling::text::mood; DROP TYPE old'),
        ("ALTER TYPE mood RENAME TO new; CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');"
        ' ALTER TABLE "Odd Names" ALTER feeling TYPE mood USING feeling::text::mood; DROP TYPE new'),
        ("type", '"Odd Names"', ["feeling"]), "UPDATE \"Odd Names\" SET feeling = 'sad' WHERE id < 3", 2,
    ),
    "fewer_labels_in_arrays": (
        ("ALTER TYPE grade RENAME TO old; CREATE TYPE grade AS ENUM ('a', 'b');"
        " ALTER TABLE typed ALTER grades TYPE grade[] USING grades::text[]::grade[]; DROP TYPE old"),
        ("ALTER TYPE grade RENAME TO new; CREATE TYPE grade AS ENUM ('a', 'b', 'c');"
        " ALTER TABLE typed ALTER grades TYPE grade[] USING grades::text[]::grade[]; DROP TYPE new"),
        ("type", "typed", ["grades"]), "UPDATE typed SET grades = ARRAY['a', 'c']::grade[] WHERE id < 3", 2,
    ),
    "numbers_that_are_none": (
        "ALTER TABLE typed ALTER ratio TYPE numeric(5,2)", "ALTER TABLE typed ALTER ratio TYPE numeric",
        ("type", "typed", ["ratio"]),
        "UPDATE typed SET ratio = CASE id WHEN 1 THEN 'NaN' WHEN 2 THEN 'Infinity' WHEN 3 THEN 999.995 ELSE 1 END", 2,
    ),
    "json_to_jsonb": (
        "ALTER TABLE typed ALTER data TYPE jsonb", "ALTER TABLE typed ALTER data TYPE json",
        ("type", "typed", ["data"]), "UPDATE typed SET data = '\"\\u0000\"' WHERE id < 3", 2,
    ),
    "domain_of_a_domain": (
        "ALTER DOMAIN number ADD CONSTRAINT few CHECK (VALUE < 5)", "ALTER DOMAIN number DROP CONSTRAINT few",
        ("check", "typed", ["n"]), "SELECT 1", 1,
    ),
    "made_equal_by_a_type": (
        "ALTER TABLE typed ALTER at TYPE date", "ALTER TABLE typed ALTER at TYPE timestamp",
        ("unique", "typed", ["at"]), "UPDATE typed SET at = '2026-03-01'::timestamp + id * interval '1 hour'", 1,
    ),
    "made_equal_by_an_expression": (
        "ALTER TABLE typed ALTER word TYPE text USING left(word, 1)", "SELECT 1",
        ("unique", "typed", []), "UPDATE typed SET word = CASE id WHEN 1 THEN 'Xa' WHEN 2 THEN 'xb' ELSE word END", 1,
    ),
    "refused_after_a_type": (
        "ALTER TABLE typed ALTER since TYPE date", "ALTER TABLE typed ALTER since TYPE timestamp",
        ("check", "typed", ["since"]), "UPDATE typed SET since = '2026-01-01 05:00' WHERE id < 3", 2,
    ),
    "expressions_that_exclude": (
        "ALTER TABLE rows ADD CONSTRAINT ex EXCLUDE USING btree (lower(word) WITH =)",
        "ALTER TABLE rows DROP CONSTRAINT ex", ("exclusion", "rows", []),
        "UPDATE rows SET word = CASE id WHEN 1 THEN 'X' WHEN 2 THEN 'x' ELSE word END", 2,
    ),
    "only_the_parent_table": (
        "ALTER TABLE pairs ADD CONSTRAINT uq UNIQUE (b)", "ALTER TABLE pairs DROP CONSTRAINT uq",
        ("unique", "pairs", ["b"]),
        "UPDATE pairs SET b = CASE WHEN id IN (1, 2) THEN 1 WHEN id > 5 THEN 2 ELSE b END", 1,
    ),
    "renamed_and_new_columns": (
        ("ALTER TABLE pairs RENAME a TO first; ALTER TABLE pairs ADD plus bigint DEFAULT 3;"
        " ALTER TABLE pairs ADD CONSTRAINT ck CHECK (first + plus < 11)"),
        "ALTER TABLE pairs DROP CONSTRAINT ck; ALTER TABLE pairs DROP plus; ALTER TABLE pairs RENAME first TO a",
        ("check", "pairs", ["a", "plus"]), "UPDATE pairs SET a = 8 WHERE id = 1", 1,
    ),
    "attached": (
        "ALTER TABLE spare ATTACH PARTITION loose FOR VALUES FROM (1000) TO (2000)",
        "ALTER TABLE spare DETACH PARTITION loose",
        ("check", "loose", []), "UPDATE loose SET id = CASE id WHEN 1001 THEN 7 ELSE 2000 END WHERE id < 1004", 3,
    ),
    "referred_to_and_detached": (
        "ALTER TABLE hashed DETACH PARTITION hashed_0",
        "ALTER TABLE hashed ATTACH PARTITION hashed_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        ("foreign_key", "hashing", ["hash"]), "INSERT INTO hashing SELECT id, id FROM hashed_0 ORDER BY id LIMIT 2", 2,
    ),
    "beside_a_divided_default": (
        "CREATE TABLE halves_1 PARTITION OF halves FOR VALUES FROM (1) TO (5)", "DROP TABLE halves_1",
        ("check", "halves_rest", []), "INSERT INTO halves VALUES (2, 1), (9, 1)", 1,
    ),
    "beside_the_default": (
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (5000) TO (6000)", "DROP TABLE parts_2",
        ("check", "parts_rest", []), "INSERT INTO parts VALUES (5001, 1), (5002, 1), (7000, 1)", 2,
    ),
    "renamed_parent": (
        ("ALTER TABLE pairs RENAME TO couples; ALTER TABLE couples RENAME id TO number;"
        " ALTER TABLE rows ADD CONSTRAINT fk FOREIGN KEY (parent) REFERENCES couples (number)"),
        ("ALTER TABLE rows DROP CONSTRAINT fk; ALTER TABLE couples RENAME number TO id;"
        " ALTER TABLE couples RENAME TO pairs"),
        ("foreign_key", "rows", ["parent"]), "UPDATE rows SET parent = 77 WHERE id = 1", 1,
    ),
    "made_equal_by_a_collation": (
        "ALTER TABLE made ALTER word TYPE text COLLATE alike", "ALTER TABLE made ALTER word TYPE text",
        ("unique", "made", ["word"]), "UPDATE made SET word = CASE id WHEN 1 THEN 'a' WHEN 2 THEN 'A' ELSE word END", 1,
    ),
    "made_equal_by_spaces": (
        "ALTER TABLE made ALTER word TYPE char(9)", "ALTER TABLE made ALTER word TYPE text",
        ("unique", "made", ["word"]), "UPDATE made SET word = CASE id WHEN 1 THEN 'a' WHEN 2 THEN 'a ' ELSE word END",
        1,
    ),
    "another_expression": (
        "ALTER TABLE made ALTER total SET EXPRESSION AS (a * 30)",
        "ALTER TABLE made ALTER total SET EXPRESSION AS (a + b)",
        ("check", "made", ["total"]), "SELECT 1", 2,
    ),
    "computed_and_required": (
        "ALTER TABLE made ADD sum bigint GENERATED ALWAYS AS (coalesce(a, b)) STORED NOT NULL",
        "ALTER TABLE made DROP sum",
        ("not_null", "made", ["sum"]), "UPDATE made SET a = NULL, b = NULL WHERE id < 4", 3,
    ),
    "computed_and_too_long": (
        "ALTER TABLE made ADD short varchar(2) GENERATED ALWAYS AS (upper(code)) STORED", "ALTER TABLE made DROP short",
        ("type", "made", ["short"]), "UPDATE made SET code = 'abc' WHERE id < 4", 3,
    ),
    "word_in_a_domain": (
        "ALTER DOMAIN word ADD CONSTRAINT ck CHECK (VALUE <> 'VALUE')", "ALTER DOMAIN word DROP CONSTRAINT ck",
        ("check", "worded", ["word"]), "UPDATE worded SET word = 'VALUE' WHERE id < 3", 2,
    ),
    "domain_of_a_new_column": (
        "ALTER TABLE unkeyed ADD kind word DEFAULT 'x'; ALTER DOMAIN word ADD CONSTRAINT no_x CHECK (VALUE <> 'x')",
        "ALTER DOMAIN word DROP CONSTRAINT no_x; ALTER TABLE unkeyed DROP kind",
        ("check", "unkeyed", ["kind"]), "SELECT 1", 5,
    ),
    "late_dates": (
        "ALTER TABLE worded ALTER day TYPE timestamp", "ALTER TABLE worded ALTER day TYPE date",
        ("type", "worded", ["day"]),
        "UPDATE worded SET day = CASE id WHEN 1 THEN 'infinity'::date WHEN 2 THEN '5874897-12-31' ELSE day END", 1,
    ),
    "empty_periods": (
        "ALTER TABLE worded ADD CONSTRAINT uq UNIQUE (room, during WITHOUT OVERLAPS)",
        "ALTER TABLE worded DROP CONSTRAINT uq", ("unique", "worded", ["room", "during"]),
        "UPDATE worded SET during = 'empty' WHERE id < 3", 2,
    ),
    "one_partition_alone": (
        "ALTER TABLE parts_1 ALTER parent SET NOT NULL", "ALTER TABLE parts_1 ALTER parent DROP NOT NULL",
        ("not_null", "parts_1", ["parent"]), "UPDATE parts SET parent = NULL WHERE id = 1", 1,
    ),
    "references_that_change": (
        "ALTER TABLE named ALTER name TYPE varchar(9) USING lower(name)", "SELECT 1",
        ("foreign_key", "naming", ["name"]),
        "INSERT INTO named VALUES ('A'); UPDATE naming SET name = 'A' WHERE id < 3", 2,
    ),
    "references_to_partitions": (
        "ALTER TABLE rows ADD CONSTRAINT fk FOREIGN KEY (parent) REFERENCES hashed (id)",
        "ALTER TABLE rows DROP CONSTRAINT fk", ("foreign_key", "rows", ["parent"]),
        "UPDATE rows SET parent = 77 WHERE id = 1", 1,
    ),
    "keys_of_periods": (
        'ALTER TABLE "Odd Names" ADD CONSTRAINT uq UNIQUE (room, during WITHOUT OVERLAPS)',
        'ALTER TABLE "Odd Names" DROP CONSTRAINT uq', ("unique", '"Odd Names"', ["room", "during"]),
        "UPDATE \"Odd Names\" SET room = '[1,2)' WHERE id < 3", 2,
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
    "parents_first": (
        (
            "INSERT INTO parents SELECT DISTINCT parent FROM rows ON CONFLICT DO NOTHING;"
            " ALTER TABLE rows ADD CONSTRAINT fk FOREIGN KEY (parent) REFERENCES parents (id)"
        ),
        "ALTER TABLE rows DROP CONSTRAINT fk",
    ),
    "cascades_first": (
        "DELETE FROM rows WHERE id = -1; ALTER TABLE lines ALTER row_id SET NOT NULL",
        "ALTER TABLE lines ALTER row_id DROP NOT NULL",
    ),
    "longer": ("ALTER TABLE lines ALTER text TYPE varchar(20)", "ALTER TABLE lines ALTER text TYPE varchar(9)"),
    "leaf_first": (
        (
            "UPDATE parts_1 SET parent = NULL WHERE parent = 0;"
            " ALTER TABLE parts ADD CONSTRAINT fk FOREIGN KEY (parent) REFERENCES parents (id)"
        ),
        "ALTER TABLE parts DROP CONSTRAINT fk",
    ),
    "cuts_off": (
        "ALTER TABLE rows ALTER word TYPE varchar(3) USING word::varchar(3)",
        "ALTER TABLE rows ALTER word TYPE text",
    ),
    "converts": (
        "ALTER TABLE rows ALTER word TYPE varchar(2) USING left(word, 2)",
        "ALTER TABLE rows ALTER word TYPE text",
    ),
    "not_null_later": (
        "ALTER TABLE rows ADD CONSTRAINT filled NOT NULL parent NOT VALID",
        "ALTER TABLE rows DROP CONSTRAINT filled",
    ),
    "not_null_now": ("ALTER TABLE rows VALIDATE CONSTRAINT filled", "SELECT 1"),
    "refers": (
        "ALTER TABLE rows ADD boss bigint CONSTRAINT fk_boss REFERENCES parents (id)",
        "ALTER TABLE rows DROP boss",
    ),
    "rename_only": (
        "ALTER TABLE rows RENAME CONSTRAINT fk TO fk_parent; ALTER TABLE rows RENAME parent TO owner",
        "ALTER TABLE rows RENAME owner TO parent; ALTER TABLE rows RENAME CONSTRAINT fk_parent TO fk",
    ),
}


# Alone on the first one, too.
OTHERS = {
    "keyed_by_a_parent": (
        "ALTER TABLE keyed ATTACH PARTITION unkeyed FOR VALUES IN ('a', NULL)",
        "ALTER TABLE keyed DETACH PARTITION unkeyed; ALTER TABLE unkeyed DROP CONSTRAINT unkeyed_id_code_key",
    ),
    "other_parts": (
        (
            "ALTER TABLE keyed ATTACH PARTITION unkeyed FOR VALUES IN ('a'); ALTER TABLE keyed ALTER id SET NOT NULL"
        ),
        "ALTER TABLE keyed DETACH PARTITION unkeyed",
    ),
    "replaced_function": (
        (
            "CREATE FUNCTION fits(bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';"
            " ALTER TABLE rows ADD CONSTRAINT ck CHECK (fits(amount))"
        ),
        "ALTER TABLE rows DROP CONSTRAINT ck; DROP FUNCTION fits(bigint)",
    ),
    "names_swapped": (
        "ALTER TABLE pairs RENAME a TO c; ALTER TABLE pairs RENAME b TO a; ALTER TABLE pairs RENAME c TO b",
        "ALTER TABLE pairs RENAME a TO c; ALTER TABLE pairs RENAME b TO a; ALTER TABLE pairs RENAME c TO b",
    ),
    "unknown_keys": ("INSERT INTO lines (id, text) VALUES (-5, 'x')", "DELETE FROM lines WHERE id = -5"),
    "made_lower": ("UPDATE made SET word = lower(word)", "SELECT 1"),
    "filled_from_rows": (
        "CREATE TABLE copies (word text PRIMARY KEY); INSERT INTO copies SELECT word FROM made", "DROP TABLE copies",
    ),
    "converted": ("UPDATE made SET a = code::numeric", "SELECT 1"),
    "deleted": ("DELETE FROM named WHERE name = '?'", "SELECT 1"),
    "constants": ("UPDATE made SET code = 'free', a = 5 WHERE code IS NULL", "SELECT 1"),
    "new_table_alone": (
        "CREATE TABLE kinds (id bigint PRIMARY KEY); INSERT INTO kinds VALUES (1), (2)", "DROP TABLE kinds",
    ),
    "no_reference": ("UPDATE naming SET name = NULL WHERE id < 0", "SELECT 1"),
    "copied": ("CREATE TABLE copy AS SELECT * FROM made", "DROP TABLE copy"),
    "renamed_under_an_expression": (
        "ALTER TABLE made RENAME a TO first", "ALTER TABLE made RENAME first TO a",
    ),
    "joined_texts": ("UPDATE made SET code = coalesce(code, '') || ' ' || upper(word)", "SELECT 1"),
}  # fmt: skip


# The common kinds of check, and the revisions that the tests below name.
SAMPLE = {
    "not_null", "unique_index", "foreign_key", "smaller", "several_columns", "check_made_stricter",
    "made_equal_by_a_type", "keyed_by_a_parent", "other_parts", "names_swapped", "unknown_keys", "deleted",
    "renamed_under_an_expression",
}  # fmt: skip


# The first version of PostgreSQL that can run the revision, or the query of its check.
NEEDS = {
    "text_to_number": 16, "json_to_jsonb": 16, "another_expression": 17, "empty_periods": 18,
    "keys_of_periods": 18, "not_null_later": 18, "not_null_now": 18,
}  # fmt: skip


@pytest.fixture(scope="module")
def version(pytestconfig: pytest.Config) -> int:
    """The version of the server, for `--postgres`."""
    given: int = pytestconfig.getoption("--postgres")
    return given


def needs(name: str, version: int) -> None:
    """Skip a test of a revision that the server cannot run."""
    if version < NEEDS.get(name, 0):
        pytest.skip(f"{name} needs PostgreSQL {NEEDS[name]}")


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Server, version: int, pytestconfig: pytest.Config
) -> dict[str, dict[str, Any]]:
    """The facts of each revision, each on the schema that the ones before it left."""
    checks, others = chosen(CHECKS, SAMPLE, pytestconfig), chosen(OTHERS, SAMPLE, pytestconfig)
    alone = {name: each for name, each in checks.items() if version >= NEEDS.get(name, 0)}
    steps = {name: each for name, each in STEPS.items() if version >= NEEDS.get(name, 0)}
    revisions = [
        Rev("tables_", sql(*BASE), sql(*UNDO)),
        *(Rev(name, sql(up), sql(down)) for name, (up, down, *_) in alone.items()),
        *(Rev(name, sql(*up.split("; ")), sql(*down.split("; "))) for name, (up, down) in others.items()),
        *(Rev(name, sql(*up.split("; ")), sql(*down.split("; "))) for name, (up, down) in steps.items()),
    ]
    # Each revision of CHECKS and OTHERS stands on the first one alone.
    first = 1 + len(alone) + len(others)
    for place, revision in enumerate(revisions[1:first], start=1):
        revisions[place] = Rev(revision.id, revision.upgrade, revision.downgrade, down="tables_")
    revisions[first] = Rev(revisions[first].id, revisions[first].upgrade, revisions[first].downgrade, down="tables_")
    folder = write_tree(tmp_path_factory.mktemp("facts"), revisions)
    with reviewing(folder, on=postgres_server, rows=10, record=True) as session:
        found = {revision.id: facts(session.observe(revision.id)) for revision in revisions}
    return {id_: each for id_, each in found.items() if each is not None}


@pytest.mark.parametrize("name", sampled(CHECKS, SAMPLE))
def test_a_query_finds_the_rows_that_are_in_the_way_and_no_others(
    name: str, recorded: dict[str, dict[str, Any]], database: Database, version: int
) -> None:
    needs(name, version)
    _, _, expected, breaks, violations = CHECKS[name]
    [check, *_] = [each for each in recorded[name]["checks"] if each["check"] == expected[0]]
    assert (check["check"], check["table"], check["columns"]) == expected
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        for statement in (*BASE, *GOOD):
            cursor.execute(statement)
        counting = f"SELECT count(*) FROM ({check['query']}) AS found"  # noqa: S608 - what is tested
        cursor.execute(counting)
        assert cursor.fetchone() == (violations if breaks == "SELECT 1" else 0,), "rows that are right"
        cursor.execute(breaks)
        cursor.execute(counting)
        assert cursor.fetchone() == (violations,)


@pytest.mark.parametrize("old", ["smallint", "bigint", "numeric", "real", "double precision"])
def test_digits_are_counted_in_numbers_of_each_type(old: str, database: Database) -> None:
    refused = condition("n", old, "numeric(3,0)", None, None)
    values = f"(VALUES (999::{old}), (1000::{old}), (NULL::{old})) AS listed (n)"
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(f"SELECT n::int FROM {values} WHERE {refused}")  # noqa: S608 - what is tested
        assert cursor.fetchall() == [(1000,)]


def test_a_query_uses_the_names_from_before_the_revision(recorded: dict[str, dict[str, Any]]) -> None:
    [check] = recorded["renames"]["checks"]
    assert check["columns"] == ["amount"]
    assert '"amount"' in check["query"]


def test_rows_that_the_revision_itself_changes_first_are_marked(recorded: dict[str, dict[str, Any]]) -> None:
    assert [check["changed_before"] for check in recorded["cleans_first"]["checks"]] == [True]
    assert [check["changed_before"] for check in recorded["not_null"]["checks"]] == [False]


@pytest.mark.parametrize("name", ["parents_first", "leaf_first", "cascades_first"])
def test_rows_of_other_tables_that_decide_a_check_are_marked_too(
    name: str, recorded: dict[str, dict[str, Any]]
) -> None:
    [check] = recorded[name]["checks"]
    assert check["check"] == ("not_null" if name == "cascades_first" else "foreign_key")
    assert check["changed_before"] is True


def test_an_action_of_a_foreign_key_is_no_change_of_rows(recorded: dict[str, dict[str, Any]]) -> None:
    assert "ON UPDATE CASCADE" in CHECKS["several_columns"][0]
    assert [check["changed_before"] for check in recorded["several_columns"]["checks"]] == [False]


def test_a_type_change_is_checked_as_it_converts(recorded: dict[str, dict[str, Any]]) -> None:
    assert recorded["cuts_off"]["checks"] == [], "an explicit cast cuts the text off"
    assert recorded["longer"]["checks"] == []
    assert [(each["check"], each["query"]) for each in recorded["converts"]["checks"]] == [("type", None)]


def test_a_not_null_that_is_not_valid_is_checked_when_it_is_validated(
    recorded: dict[str, dict[str, Any]], version: int
) -> None:
    needs("not_null_later", version)
    assert recorded["not_null_later"]["checks"] == []
    assert [(each["check"], each["columns"]) for each in recorded["not_null_now"]["checks"]] == [
        ("not_null", ["parent"])
    ]


def test_a_new_column_has_its_default_in_all_rows(recorded: dict[str, dict[str, Any]]) -> None:
    [check] = recorded["refers"]["checks"]
    assert (check["check"], check["columns"]) == ("foreign_key", ["boss"])
    assert '(NULL)::bigint AS "boss"' in check["query"]


def test_an_attached_table_is_checked_for_what_its_new_parent_requires(
    recorded: dict[str, dict[str, Any]], database: Database
) -> None:
    found = {each["check"]: each["query"] for each in recorded["keyed_by_a_parent"]["checks"]}
    assert found.keys() == {"unique", "check"}
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        for statement in (*BASE, "INSERT INTO unkeyed VALUES (1, 'a'), (1, 'a'), (2, NULL), (3, 'b')"):
            cursor.execute(statement)
        for kind, count in {"unique": 1, "check": 1}.items():
            cursor.execute(f"SELECT count(*) FROM ({found[kind]}) AS found")  # noqa: S608 - what is tested
            assert cursor.fetchone() == (count,)


UNCHECKED = {
    "unknown_keys": ["lines"], "made_lower": ["made"], "filled_from_rows": ["copies"], "converted": ["made"],
    "deleted": ["named"], "constants": [], "new_table_alone": [], "joined_texts": [], "no_reference": [], "copied": [],
}  # fmt: skip


@pytest.mark.parametrize("name", sampled(UNCHECKED, SAMPLE))
def test_changes_of_rows_that_rows_may_refuse_are_named(name: str, recorded: dict[str, dict[str, Any]]) -> None:
    assert recorded[name]["unchecked"] == UNCHECKED[name]


@pytest.mark.parametrize("name", sampled(["replaced_function", "other_parts"], SAMPLE))
def test_a_result_that_the_revision_itself_may_change_is_marked(name: str, recorded: dict[str, dict[str, Any]]) -> None:
    assert True in [check["changed_before"] for check in recorded[name]["checks"]]


def test_columns_with_other_values_are_recorded_for_later_revisions(recorded: dict[str, dict[str, Any]]) -> None:
    assert recorded["made_equal_by_a_type"]["changed_columns"] == [["typed", "at"]]
    swapped = [[table, column] for table in ("heirs", "pairs") for column in "ab"]
    assert sorted(recorded["names_swapped"]["changed_columns"]) == swapped
    assert recorded["smaller"]["changed_columns"] == []
    assert recorded["other_parts"]["changes"] == ["keyed"]


@pytest.mark.parametrize("name", ["rename_only", "renamed_under_an_expression"])
def test_what_has_another_name_is_not_checked_again(name: str, recorded: dict[str, dict[str, Any]]) -> None:
    assert recorded[name]["checks"] == []


def test_a_constraint_is_checked_by_the_revision_that_validates_it(recorded: dict[str, dict[str, Any]]) -> None:
    assert recorded["not_valid"]["checks"] == []
    assert [check["name"] for check in recorded["validates"]["checks"]] == ["late"]


def test_a_column_that_is_required_at_once_is_refused_by_every_row(recorded: dict[str, dict[str, Any]]) -> None:
    [check] = recorded["requires"]["checks"]
    assert (check["check"], check["columns"], check["query"]) == ("not_null", ["required"], "SELECT * FROM rows")


def test_a_table_has_its_lock_the_blocked_work_and_the_reads_under_the_lock(
    recorded: dict[str, dict[str, Any]],
) -> None:
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
    for name in ("tables_", *(each for each in STEPS if each in recorded or each not in NEEDS)):
        schema = recorded[name]["schema"]
        assert schema["before"] == fingerprint(objects)
        objects |= {key: value for key, value in schema["changed"].items() if value is not None}
        objects = {key: value for key, value in objects.items() if schema["changed"].get(key, value) is not None}
        assert schema["after"] == fingerprint(objects)
    assert recorded["renames"]["schema"]["changed"].keys() == {
        "column rows.amount", "column rows.price", "constraint uq on rows",
    }  # fmt: skip
