"""Suggested fixes have the right names, are Python, and run."""

from __future__ import annotations

import ast
import re
import textwrap
from typing import TYPE_CHECKING

import pytest

from migrate_review.measure.session import reviewing
from migrate_review.revisions.tree import read_tree
from migrate_review.rules import squawk
from migrate_review.rules.case import Case, scripts
from migrate_review.rules.judge import judge
from migrate_review.rules.names import Identifier, Relation, fix, shown
from migrate_review.rules.rule import Theme
from migrate_review.rules.rulebook import RULES
from tests.support.samples import chosen, sampled
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Server
    from migrate_review.rules.findings import Finding

pytestmark = pytest.mark.xdist_group("review-fixes")

# Names that need quotes, a schema that has to be written out, and a table in partitions.
BASE = [
    'CREATE SCHEMA "Audit"',
    'CREATE TABLE "user" (id bigint CONSTRAINT pk_user PRIMARY KEY, "order" text, email text NOT NULL, parent int)',
    'CREATE TABLE "Audit"."Log" (id bigint CONSTRAINT "PK log" PRIMARY KEY, "user" bigint, at time, n integer)',
    "CREATE TABLE parts (id bigint, at date, owner bigint) PARTITION BY RANGE (at)",
    "CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2026-01-01')",
    "CREATE TABLE \"Audit\".parts_new PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)",
    "CREATE TYPE mood AS ENUM ('sad', 'fine')",
    'CREATE TABLE "Moods" (id bigint CONSTRAINT pk_moods PRIMARY KEY, m mood NOT NULL)',
    "CREATE DOMAIN small AS int",
    "CREATE TABLE smalls (id bigint CONSTRAINT pk_smalls PRIMARY KEY, s small)",
    'CREATE TABLE kids (id int CONSTRAINT pk_kids PRIMARY KEY, of bigint CONSTRAINT fk_kids REFERENCES "user", n int)',
    "CREATE INDEX ix_kids ON kids (of)",
    "CREATE TABLE counted (id serial CONSTRAINT pk_counted PRIMARY KEY)",
    'CREATE TABLE counts (id bigint CONSTRAINT pk_counts PRIMARY KEY, "Of" int CONSTRAINT fk_c REFERENCES counted)',
    'CREATE TABLE "Audit".seen (id bigint CONSTRAINT pk_seen PRIMARY KEY, since timestamp)',
]
# What the revision does, the rule whose fix is run in its place, and what the fix has to leave.
CASES: dict[str, tuple[list[str], str, str]] = {
    "index": (['CREATE INDEX "ix Order" ON "user" ("order")'], "require-concurrent-index-creation", "ix Order"),
    "index_expression": (
        ['CREATE UNIQUE INDEX ux ON "Audit"."Log" (("user" + 1), lower(at::text)) WHERE n > 3'],
        "require-concurrent-index-creation", "ux",
    ),
    "index_partitioned": (["CREATE INDEX ix_parts ON parts (owner)"], "require-concurrent-index-creation", "ix_parts"),
    "unique": (['ALTER TABLE "user" ADD CONSTRAINT "UQ" UNIQUE ("order")'], "disallowed-unique-constraint", "UQ"),
    "foreign_key": (
        ['ALTER TABLE "Audit"."Log" ADD CONSTRAINT fk FOREIGN KEY ("user") REFERENCES "user" (id)'],
        "adding-foreign-key-constraint", "fk",
    ),
    "foreign_key_partitioned": (
        ['ALTER TABLE parts ADD CONSTRAINT fk FOREIGN KEY (owner) REFERENCES "user" (id)'],
        "adding-foreign-key-constraint", "fk",
    ),
    "foreign_key_index_partitioned": (
        ['ALTER TABLE parts ADD CONSTRAINT fk FOREIGN KEY (owner) REFERENCES "user" (id)'],
        "foreign-key-without-index", "ix_parts_owner",
    ),
    "foreign_key_index": (
        ['ALTER TABLE "Audit"."Log" ADD CONSTRAINT fk FOREIGN KEY ("user") REFERENCES "user" (id)'],
        "foreign-key-without-index", "ix_Log_user",
    ),
    "check": (
        ["ALTER TABLE \"Audit\".\"Log\" ADD CONSTRAINT ck CHECK (at > '10:30' OR \"user\" > 0)"],
        "constraint-missing-not-valid", "ck",
    ),
    "not_null": (['ALTER TABLE "user" ALTER "order" SET NOT NULL'], "adding-not-nullable-field", ""),
    "default": (['ALTER TABLE "user" ADD "Token" uuid DEFAULT gen_random_uuid()'], "adding-field-with-default", ""),
    "type": (['ALTER TABLE "Audit"."Log" ALTER n TYPE bigint'], "changing-column-type", ""),
    "enum": (
        [
            'ALTER TYPE "public"."mood" RENAME TO "mood_old"', "CREATE TYPE mood AS ENUM ('sad', 'fine', 'it''s')",
            'ALTER TABLE "Moods" ALTER m TYPE mood USING m::text::mood', "DROP TYPE mood_old",
        ],
        "changing-column-type", "",
    ),
    "domain": (["ALTER DOMAIN small ADD CONSTRAINT ck CHECK (VALUE > -99999999)"],
               "ban-alter-domain-with-add-constraint", ""),
    "backfill": (["UPDATE \"user\" SET email = 'a' || id WHERE email <> 'x:y'"], "backfill-in-one-transaction", ""),
    "reindex": (['REINDEX TABLE "Audit"."Log"'], "require-concurrent-reindex", ""),
    "unnamed": (['ALTER TABLE "user" ADD CHECK (id > -99999999)'], "unnamed-constraint", "ck_user_id"),
    "values_lost": (['ALTER TABLE "Audit"."Log" DROP COLUMN "user"'], "values-lost", ""),
    "rename": (['ALTER TABLE "Audit"."Log" RENAME TO "Logs"'], "renaming-table", ""),
    "foreign_key_in_place_of_one": (
        ['ALTER TABLE kids DROP CONSTRAINT fk_kids, ADD CONSTRAINT fk_kids FOREIGN KEY (of) REFERENCES "user" (id)'],
        "adding-foreign-key-constraint", "fk_kids",
    ),
    "foreign_key_on_new_column": (
        [
            "ALTER TABLE kids ADD s bigint, ADD CONSTRAINT fk_s FOREIGN KEY (s) REFERENCES smalls NOT VALID",
            "ALTER TABLE kids VALIDATE CONSTRAINT fk_s",
        ],
        "constraint-missing-not-valid", "fk_s",
    ),
    "primary_key_in_place_of_one": (
        ['ALTER TABLE "Moods" DROP CONSTRAINT pk_moods, ADD CONSTRAINT "PK Moods" PRIMARY KEY (id)'],
        "adding-serial-primary-key-field", "PK Moods",
    ),
    "time_zone": (['ALTER TABLE "Audit".seen ALTER since TYPE timestamptz'], "time-zone-assumed", ""),
    "rows_lost": (['DELETE FROM "Audit".seen'], "rows-lost", ""),
}  # fmt: skip
# What the revision does, and what a finding says of it.
NAMED: dict[str, tuple[list[str], str]] = {
    "key_made_wider": (["ALTER TABLE counted ALTER id TYPE bigint"], "counts.Of has only 32 bits"),
    "key_made_wider_with_sequence": (
        ["ALTER TABLE counted ALTER id TYPE bigint"], "counted.id has only 32 bits"
    ),
    "foreign_key_replaced": (
        ['ALTER TABLE kids DROP CONSTRAINT fk_kids, ADD CONSTRAINT fk_kids FOREIGN KEY (of) REFERENCES "user" (id)'],
        'looks up each row of kids in "user"',
    ),
    "index_replaced": (["DROP INDEX ix_kids", "CREATE INDEX ix_kids ON kids (of, n)"], "builds the index ix_kids"),
    "new_column_required": (
        [
            "ALTER TABLE kids ADD a int, ADD b int", "UPDATE kids SET a = 1, b = 1",
            "ALTER TABLE kids ALTER b SET NOT NULL", "ALTER TABLE kids ALTER a SET NOT NULL",
        ],
        "for a NULL in a.",
    ),
    "check_of_one_partition": (
        ["ALTER TABLE parts_old ADD CONSTRAINT ck CHECK (owner > -99999999)"],
        "Other sessions wait for parts_old while PostgreSQL checks ck on all its rows.",
    ),
}  # fmt: skip
DOWN = {
    "values_lost": 'ALTER TABLE "Audit"."Log" ADD COLUMN "user" bigint',
    "rename": 'ALTER TABLE "Audit"."Logs" RENAME TO "Log"',
}


# An index and a constraint on partitions; each kind of constraint; a type, rows, and what is lost.
SAMPLE = {
    "index_expression", "index_partitioned", "unique", "foreign_key_partitioned", "check",
    "not_null", "enum", "backfill", "values_lost", "primary_key_in_place_of_one",
}  # fmt: skip


@pytest.fixture(scope="module")
def cases(pytestconfig: pytest.Config) -> list[str]:
    """The cases of CASES that this run tries."""
    return [*chosen(CASES, SAMPLE, pytestconfig)]


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Server, pytestconfig: pytest.Config
) -> dict[str, list[Finding]]:
    """The findings on each case."""
    revisions = [Rev("begins", sql(*BASE))]
    bodies = {name: up for name, (up, *_) in (*CASES.items(), *NAMED.items())}
    revisions += [
        Rev(name, sql(*up), sql(DOWN.get(name, "SELECT 1")), down="begins")
        for name, up in chosen(bodies, SAMPLE, pytestconfig).items()
    ]
    return findings(write_tree(tmp_path_factory.mktemp("cases"), revisions), postgres_server)


def findings(folder: Path, server: Server) -> dict[str, list[Finding]]:
    judged: dict[str, list[Finding]] = {}
    with reviewing(folder, on=server, rows=12) as session:
        for revision in read_tree(folder).revisions:
            seen = session.observe(revision.id)
            remarks = squawk.remarks(scripts({revision.id: seen}))
            both = (remarks[revision.id, direction] for direction in ("upgrade", "downgrade"))
            up, down = both
            judged[revision.id] = list(judge(Case(seen, up, revision, down)))
    return judged


@pytest.fixture(scope="module")
def run(
    cases: list[str], found: dict[str, list[Finding]], tmp_path_factory: pytest.TempPathFactory, postgres_server: Server
) -> dict[str, tuple[str | None, set[str]]]:
    """The error of each case's fix as a revision, if any, and the constraints and indexes that it leaves."""
    revisions = [Rev("begins", sql(*BASE))]
    for name in cases:
        [code] = [one.fix for one in found[name] if one.rule == CASES[name][1]]
        revisions.append(Rev(name, f"{code}\npass", "pass", down="begins"))
    ended: dict[str, tuple[str | None, set[str]]] = {}
    with reviewing(write_tree(tmp_path_factory.mktemp("fixes"), revisions), on=postgres_server, rows=3) as session:
        for name in cases:
            seen = session.observe(name)
            tables = seen.after.tables if seen.after else ()
            parts = {each.name for table in tables for each in table.constraints}
            parts |= {each.name for table in tables for each in table.indexes}
            ended[name] = (seen.upgrade.failure, parts)
    return ended


@pytest.mark.parametrize("name", sampled(CASES, SAMPLE))
def test_a_fix_runs_and_leaves_what_the_revision_wanted(
    name: str, run: dict[str, tuple[str | None, set[str]]], found: dict[str, list[Finding]]
) -> None:
    failure, parts = run[name]
    _, rule, wanted = CASES[name]
    assert failure is None, [one.fix for one in found[name] if one.rule == rule]
    assert not wanted or wanted in parts


@pytest.mark.parametrize("name", sampled(NAMED, SAMPLE))
def test_a_finding_names_what_it_is_about(name: str, found: dict[str, list[Finding]]) -> None:
    _, text = NAMED[name]
    assert any(text in one.message for one in found[name]), [one.message for one in found[name]]


def test_no_fix_leaves_anything_open(found: dict[str, list[Finding]]) -> None:
    for several in found.values():
        for one in several:
            assert "..." not in one.fix + one.message, one
            ast.parse(one.fix)


def test_a_problem_of_all_partitions_is_one_finding(found: dict[str, list[Finding]]) -> None:
    for name in ("index_partitioned", "foreign_key_partitioned"):
        rules = [one.rule for one in found[name]]
        assert len(rules) == len(set(rules)), rules
        hazards = [one.message for one in found[name] if not one.rule.startswith("upgrade-")]
        assert not re.search(r"parts_(old|new)", " ".join(hazards))


def test_no_rule_leaves_anything_open() -> None:
    for rule in RULES.values():
        assert "..." not in f"{rule.hazard}{rule.fix}{rule.bad}{rule.good}", rule.name


def test_every_rule_names_its_measurements_and_shows_a_bad_and_a_good_example() -> None:
    # What shows in all revisions together cannot be shown by one.
    of_one = [rule for rule in RULES.values() if rule.theme is not Theme.GRAPH]
    assert {rule.name for rule in RULES.values() if not rule.measured} == set()
    assert {rule.name for rule in of_one if not (rule.bad and rule.good)} == set()


@pytest.mark.parametrize(
    "template, expected",
    [
        ('op.drop_table("{table}"{table_schema})', 'op.drop_table("user", schema="Audit")'),
        ('op.execute("DROP TABLE {table}")', 'op.execute(\'DROP TABLE "Audit"."user"\')'),
        ('op.drop_column("{plain}", "{column}"{plain_schema})', 'op.drop_column("t", "Order")'),
        ('op.execute("ALTER TABLE {plain} DROP {column}")', "op.execute('ALTER TABLE t DROP \"Order\"')"),
        ("# about {table}.{column}", '# about "Audit"."user"."Order"'),
    ],
)
def test_a_name_is_as_its_place_needs_it(template: str, expected: str) -> None:
    names = {"table": '"Audit"."user"', "plain": Relation("t"), "column": "Order"}
    assert fix(template, names) == expected


@pytest.mark.parametrize(
    "written, name",
    [('"public"."mood"', "mood"), ("Public.Mood", "mood"), ('"Mood"', '"Mood"'), ('a."user"', 'a."user"')],
)
def test_a_name_in_sql_is_known_however_it_is_written(written: str, name: str) -> None:
    assert shown(written) == name


def test_a_reserved_word_is_quoted() -> None:
    assert [Identifier(name).sql for name in ("user", "users", "Users", 'a"b')] == [
        '"user"', "users", '"Users"', '"a""b"',
    ]  # fmt: skip


UNDONE = """
op.execute('CREATE TABLE fresh (id bigint PRIMARY KEY)')
op.execute('ALTER TABLE "user" ADD COLUMN added text DEFAULT now()::text')
op.execute('ALTER TABLE "user" ALTER email TYPE varchar(99)')
op.execute('ALTER TABLE "user" ALTER email DROP NOT NULL')
op.execute('ALTER TABLE "user" RENAME COLUMN parent TO mother')
op.execute('ALTER TABLE "Audit"."Log" DROP COLUMN n')
op.execute('ALTER TABLE "Audit"."Log" DROP CONSTRAINT "PK log"')
op.execute('CREATE INDEX ix ON "Audit"."Log" (at)')
op.execute('DROP TABLE smalls')
op.execute('CREATE VIEW shown AS SELECT id FROM "user"')
op.execute('CREATE SEQUENCE "Counts"')
op.execute("CREATE TYPE other AS ENUM ('a')")
op.execute('CREATE TABLE a_parent (id bigint PRIMARY KEY)')
op.execute('CREATE TABLE "B child" (id bigint PRIMARY KEY, of bigint REFERENCES a_parent)')
op.execute('CREATE VIEW a_first AS SELECT id FROM "B child"')
op.execute('CREATE VIEW z_last AS SELECT id FROM a_first')
op.execute('CREATE TABLE months (id bigint, at date) PARTITION BY RANGE (at)')
op.execute('CREATE TABLE months_rest PARTITION OF months DEFAULT')
op.execute('CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$')
op.execute('CREATE TRIGGER "Same" BEFORE INSERT ON "user" FOR EACH ROW EXECUTE FUNCTION same()')
op.execute('CREATE SCHEMA "Extra"')
op.execute('CREATE SEQUENCE "Extra".numbers')
op.execute('CREATE POLICY reads ON kids FOR SELECT USING (true)')
"""


@pytest.mark.stress
def test_the_fix_of_an_incomplete_downgrade_restores_the_schema(tmp_path: Path, postgres_server: Server) -> None:
    revisions = [Rev("begins", sql(*BASE)), Rev("changes", UNDONE)]
    [lacks] = [
        one
        for one in findings(write_tree(tmp_path / "lacks", revisions), postgres_server)["changes"]
        if one.rule in ("downgrade-empty", "downgrade-incomplete")
    ]
    body = textwrap.dedent(lacks.fix.partition("\n")[2])
    revisions[1] = Rev("changes", UNDONE, body)
    restored = findings(write_tree(tmp_path / "has", revisions), postgres_server)["changes"]
    broken = {"downgrade-empty", "downgrade-incomplete", "downgrade-fails", "upgrade-not-repeatable"}
    assert [one for one in restored if one.rule in broken] == []
