"""The review reports what a revision did not run, and what it did on connections that the review does not see."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from migrate_review.driver import branches, plpgsql
from migrate_review.measure.session import reviewing
from tests.support.bystander import execute, query
from tests.support.samples import sampled
from tests.support.trees import Rev, sql, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from migrate_review.measure.session import Session

pytestmark = pytest.mark.xdist_group("review-left-out")

PEOPLE = Rev("people", sql("CREATE TABLE people (id bigint PRIMARY KEY, name text)"), sql("DROP TABLE people"))
ALL = "op.execute('UPDATE people SET name = name')"
FUNCTION = (
    "CREATE FUNCTION work() RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF {} THEN DELETE FROM people; END IF; END $$"
)

# Each with a part of the reason.
LEFT_OUT = {
    "condition_on_rows": (
        f"if op.get_bind().execute(sa.text('SELECT count(*) FROM people')).scalar() > 1000000:\n    {ALL}",  # noqa: S608 - constants
        "did not run line 14 (line 13: if op.get_bind()",
    ),
    "condition_on_the_environment": (f"if os.environ.get('NEVER_SET'):\n    {ALL}", "if os.environ.get('NEVER_SET')"),
    "branch_of_a_branch": (
        f"if len(sys.argv) > 99:\n    print()\nelif 1:\n    if len(sys.argv) > 98:\n        {ALL}",
        "did not run line 17 (line 16: if len(sys.argv) > 98)",
    ),
    "table_that_is_missing": (
        "if sa.inspect(op.get_bind()).has_table('old_people'):\n    op.drop_table('old_people')",
        "has_table('old_people')",
    ),
    "return_before_the_end": (
        f"if not op.get_bind().execute(sa.text('SELECT 1 FROM people WHERE id < -5')).first():\n    return\n{ALL}",  # noqa: S608 - constants
        "did not run line 15 (line 13 ended it)",
    ),
    "loop_over_no_row": (
        (
            "bind = op.get_bind()\nfor (key,) in bind.execute(sa.text('SELECT id FROM people WHERE id < -5')):\n"
            "    bind.execute(sa.text('UPDATE people SET name = name WHERE id = :key'), {'key': key})"
        ),
        "for ... in bind.execute",
    ),
    "error_that_is_caught": (
        (
            "try:\n    with op.get_bind().begin_nested():\n"
            "        op.execute('ALTER TABLE people ALTER name SET NOT NULL')\nexcept Exception:\n    pass"
        ),
        "caught the error of a statement: ALTER TABLE people ALTER name SET NOT NULL",
    ),
    "do_block": (
        sql("DO $$ BEGIN IF (SELECT count(*) FROM people) > 1000000 THEN DELETE FROM people; END IF; END $$"),
        "the DO block did not run: IF (SELECT count(*) FROM people) > 1000000 THEN",
    ),
    "do_block_of_several": (
        sql(
            "SELECT 1; DO $$ BEGIN IF true THEN PERFORM 1; END IF; END $$; -- the second\n"
            "DO $x$ BEGIN IF false THEN DELETE FROM people; END IF; END $x$; SELECT ';'"
        ),
        "the DO block did not run: IF false THEN",
    ),
    "do_block_that_catches": (
        sql("DO $$ BEGIN ALTER TABLE people ALTER name SET NOT NULL; EXCEPTION WHEN others THEN NULL; END $$"),
        "the DO block caught an error: EXCEPTION WHEN others",
    ),
    "connection_of_its_own": (
        "with op.get_bind().engine.begin() as other:\n    other.execute(sa.text('UPDATE people SET name = name'))",
        "opened another connection",
    ),
    "expression": ("len(sys.argv) > 99 and op.drop_table('people')", "op.drop_table('people') in line 13"),
    "conditional_expression": (
        "op.drop_table('people') if len(sys.argv) > 99 else None", "op.drop_table('people') in line 13"
    ),
    "comprehension": ("[op.execute(f'DROP TABLE {each}') for each in sys.argv[99:]]", "in line 13"),
    "inner_function": (
        "def work():\n    if len(sys.argv) > 99:\n        op.drop_table('people')\nwork()", "if len(sys.argv) > 99"
    ),
    "else_of_a_try": (
        (
            "try:\n    int('1')\nexcept ValueError:\n    pass\nelse:\n    if len(sys.argv) > 99:\n"
            "        op.drop_table('people')"
        ),
        "if len(sys.argv) > 99",
    ),
    "else_of_a_loop": (
        "for _ in ():\n    pass\nelse:\n    if len(sys.argv) > 99:\n        op.drop_table('people')",
        "if len(sys.argv) > 99",
    ),
    "function_of_the_revision": (
        sql(FUNCTION.format("false"), "SELECT work()", "DROP FUNCTION work()"),
        "the function work did not run: IF false THEN",
    ),
    "procedure_of_the_session": (
        sql(
            "CREATE PROCEDURE pg_temp.work() AS $$ BEGIN IF false THEN DROP TABLE people; END IF; END $$"
            " LANGUAGE plpgsql; CALL pg_temp.work()"
        ),
        "the function work did not run: IF false THEN",
    ),
    "table_that_does_not_exist": (
        sql("DROP TABLE IF EXISTS people_archive CASCADE"), "no table people_archive here",
    ),
    "tables_that_do_not_exist": (sql('DROP TABLE IF EXISTS people, public."Old"'), "no table Old here"),
    "column_that_does_not_exist": (
        "op.drop_column('people', 'nick', if_exists=True)", "people has no column nick here",
    ),
    "driver_connection": (
        (
            "import psycopg2\nurl = op.get_bind().engine.url.set(drivername='postgresql')\n"
            "for _ in range(2):\n    psycopg2.connect(url.render_as_string(False)).close()"
        ),
        "opened 2 more connections",
    ),
}  # fmt: skip
NOTHING_LEFT_OUT = {
    "branch_that_ran": f"if op.get_bind().execute(sa.text('SELECT 1 FROM people LIMIT 1')).first():\n    {ALL}",  # noqa: S608 - constants
    "other_dialects": (
        "if op.get_bind().dialect.name == 'sqlite':\n    op.execute('PRAGMA x')\n    return\nop.execute('SELECT 1')"
    ),
    "named_dialect": (
        "is_postgres = True\nif is_postgres:\n    op.execute('SELECT 1')\nelse:\n    op.execute('PRAGMA x')"
    ),
    "sql_files": "if context.is_offline_mode():\n    op.execute('SELECT 1')",
    "condition_that_works_on_nothing": "if len(sys.argv) > 99:\n    print('many')\nop.execute('SELECT 1')",
    "error_in_python": "try:\n    int('x')\nexcept ValueError:\n    op.execute('SELECT 1')",
    "there_already": (
        "try:\n    with op.get_bind().begin_nested():\n        op.execute('CREATE TABLE people (id int)')\n"
        "except Exception:\n    pass"
    ),
    "do_block_that_ran": sql(
        "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'mood') THEN"
        " CREATE TYPE mood AS ENUM ('fine'); END IF; END $$"
    ),
    "do_block_for_two_causes": sql(
        "DO $$ BEGIN CREATE TABLE people (id int); EXCEPTION WHEN duplicate_table OR duplicate_object THEN NULL; END $$"
    ),
    "do_block_for_what_is_there": sql(
        "DO $$ BEGIN CREATE TABLE people (id int); EXCEPTION WHEN duplicate_table THEN NULL; END $$"
    ),
    "batches_until_one_is_small": (
        "bind = op.get_bind()\nwhile True:\n"
        "    done = bind.execute(sa.text('UPDATE people SET name = name WHERE id < 10'))\n"
        "    if done.rowcount < 1000:\n        break\n    bind.execute(sa.text('SELECT pg_sleep(1)'))"
    ),
    "last_batch_after_the_loop": (
        "batch, bind = [], op.get_bind()\nstatement = sa.text('UPDATE people SET name = name WHERE id = :key')\n"
        "for key in range(5):\n    batch.append({'key': key})\n    if len(batch) > 1000:\n"
        "        bind.execute(statement, batch)\nif batch:\n    bind.execute(statement, batch)"
    ),
    "seed_that_is_there": (
        "if not op.get_bind().execute(sa.text('SELECT 1')).first():\n"
        "    op.execute(\"INSERT INTO people VALUES (1, 'x')\")"
    ),
    "do_block_that_grants": sql(
        "DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'rds_iam') THEN GRANT rds_iam TO public; END IF;"
        " END $$"
    ),
    "function_that_ran": sql(FUNCTION.format("true"), "SELECT work()", "DROP FUNCTION work()"),
    "function_that_is_not_called": sql(FUNCTION.format("false"), "DROP FUNCTION work()"),
    "function_that_stays": sql(FUNCTION.format("false"), "SELECT work()"),
    "function_that_is_replaced": sql("DROP FUNCTION IF EXISTS work()", FUNCTION.format("false"), "SELECT work()"),
    "function_of_other_parameters": sql(
        "CREATE FUNCTION work(a int) RETURNS int LANGUAGE sql RETURN a",
        FUNCTION.format("false"), "SELECT work()", "DROP FUNCTION work(int)",
    ),
    "function_that_returns_found": sql(
        "CREATE FUNCTION work() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN"
        " IF true THEN DELETE FROM people WHERE false; END IF; RETURN FOUND; END $$",
        "SELECT 1 / CASE WHEN work() THEN 0 ELSE 1 END", "DROP FUNCTION work()",
    ),
    "table_that_is_made_again": sql(
        "DROP TABLE IF EXISTS staff; CREATE TABLE staff (id int)", "DROP TABLE IF EXISTS staff"
    ),
    "temporary_table": sql("CREATE TEMP TABLE staged (id int)", "DROP TABLE IF EXISTS staged"),
    "column_that_exists": (
        "op.add_column('people', sa.Column('nick', sa.Text()))\nop.drop_column('people', 'nick', if_exists=True)"
    ),
    "autocommit": "with op.get_context().autocommit_block():\n    op.execute('VACUUM people')",
}  # fmt: skip


# A part of Python, of a block, of a function; a missing table and column; another connection; each in both ways.
SAMPLE = {
    "condition_on_rows", "return_before_the_end", "error_that_is_caught", "do_block_of_several",
    "do_block_that_catches", "expression", "function_of_the_revision", "tables_that_do_not_exist",
    "column_that_does_not_exist", "driver_connection",
    "branch_that_ran", "other_dialects", "there_already", "do_block_for_what_is_there", "seed_that_is_there",
    "batches_until_one_is_small", "function_that_is_replaced", "table_that_is_made_again", "column_that_exists",
    "autocommit",
}  # fmt: skip


@pytest.fixture(scope="module")
def session(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    bodies = {name: body for name, (body, _) in LEFT_OUT.items()} | NOTHING_LEFT_OUT
    down = sql("DROP TYPE IF EXISTS mood")
    several = [PEOPLE, *(Rev(name, body, down, down="people") for name, body in bodies.items())]
    folder = write_tree(tmp_path_factory.mktemp("left-out"), several)
    with reviewing(folder, on=postgres_server, rows=30) as opened:
        yield opened


@pytest.mark.parametrize("name", sampled(LEFT_OUT, SAMPLE))
def test_what_did_not_run_is_not_measured(session: Session, name: str) -> None:
    seen = session.observe(name)

    assert seen.upgrade.failure is None
    [reason] = seen.unmeasured
    assert LEFT_OUT[name][1] in reason


@pytest.mark.parametrize("name", sampled(NOTHING_LEFT_OUT, SAMPLE))
def test_what_ran_or_need_not_run_is_measured(session: Session, name: str) -> None:
    seen = session.observe(name)

    assert seen.upgrade.failure is None
    assert seen.unmeasured == ()


def test_the_sql_of_a_marked_block_is_reported_without_marks(session: Session) -> None:
    [statement] = session.observe("do_block").upgrade.statements

    assert f"op.execute({statement.sql!r})" == LEFT_OUT["do_block"][0]


BLOCK = """DO LANGUAGE plpgsql $body$
<<outer>>
DECLARE
    one record;
    count int := CASE WHEN true THEN 1 ELSE 2 END; -- IF this THEN that
    slash text := 'a\\';
    other text := E'IF it\\'s THEN';
    found_before boolean;
BEGIN
    PERFORM 1 FROM {table};
    found_before := FOUND;
    IF count = 2 THEN
        DELETE FROM {table};
    ELSIF NOT FOUND THEN
        INSERT INTO {table} VALUES (100);
    ELSE
        INSERT INTO {table} VALUES (200);
    END IF;
    FOR one IN SELECT CASE WHEN id > 1 THEN id ELSE 0 END AS id FROM {table} ORDER BY 1 LOOP
        CONTINUE WHEN one.id = 0;
        BEGIN
            UPDATE {table} SET id = CASE WHEN id = 200 THEN 300 ELSE id END WHERE id = one.id;
            PERFORM t.end FROM (SELECT 1 AS "end") t;
            CASE one.id WHEN 1 THEN DELETE FROM {table}; ELSE NULL; END CASE;
        EXCEPTION WHEN unique_violation OR check_violation THEN
            RAISE NOTICE 'END IF';
        END;
    END LOOP;
    MERGE INTO {table} t USING (SELECT 7 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id);
    WHILE count < 1 LOOP DELETE FROM {table}; END LOOP;
    IF found_before THEN RETURN; END IF;
    DELETE FROM {table};
END outer $body$;"""


@pytest.mark.parametrize("rows", [(1, 2), ()])
def test_a_marked_block_does_what_it_did_and_publishes_its_branches(database: Database, rows: tuple[int, ...]) -> None:
    found = []
    for table in ("plain", "with_marks"):
        execute(database, f"CREATE TABLE {table} (id int CHECK (id <> 1000))")
        for row in rows:
            execute(database, f"INSERT INTO {table} VALUES ({row})")  # noqa: S608 - constants
        text = BLOCK.format(table=table)
        marked = plpgsql.marked(text)
        assert marked is not None
        assert marked.unmarked(marked.sql) == text
        ran = query(
            database,
            f"{marked.sql if table == 'with_marks' else text}; SELECT current_setting('{marked.setting}', true)",
        )
        found.append(query(database, f"SELECT id FROM {table} ORDER BY id"))  # noqa: S608 - constants

    assert found[0] == found[1]
    assert marked is not None
    missed = marked.left_out(ran[0][0])
    assert any("IF count = 2 THEN" in each for each in missed)
    assert any("WHILE count < 1 LOOP" in each for each in missed)
    assert any("ELSIF NOT FOUND THEN" in each for each in missed) == bool(rows)
    assert not any("ORDER BY 1 LOOP" in each for each in missed)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "DO $$ BEGIN UPDATE t SET a = 1; END $$",
        "DO $$ BEGIN IF a THEN RAISE 'x'; END IF; END $$",
        "DO $$ BEGIN IF a THEN DELETE FROM t; END $$",
        "DO 'BEGIN IF a THEN DELETE FROM t; END IF; END'",
        "DO LANGUAGE plperl $$ if (a) { b } $$",
        "DO $$ #variable_conflict use_column BEGIN IF a THEN DELETE FROM t; END IF; END $$",
    ],
)
def test_other_statements_get_no_marks(text: str) -> None:
    marked = plpgsql.marked(text)
    assert marked is None or not marked.branches


@pytest.mark.stress
def test_parts_of_functions_that_are_not_called_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text(
        textwrap.dedent("""
            from unittest import runner as op

            def helper(bind):
                if False:
                    bind.execute("DELETE FROM a")

            def never(bind):
                if bind:
                    bind.execute("DELETE FROM b")

            def upgrade():
                helper(None)
                if False:
                    never(None)
        """)
    )
    module, found = branches.load(file)
    module.upgrade()

    assert found.left_out() == ["line 6 (line 5: if False)", "line 15 (line 14: if False)"]
