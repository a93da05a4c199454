"""The next run finishes a revision with autocommit statements, wherever the function was killed in it.

env.py kills its function itself, right before or right after a statement of a chosen number. So the tests cover each
boundary between two statements, and no test depends on time.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bystander import administer, execute, query
from tests.support.ledger import empty, sessions
from tests.support.trees import ENV_PY, Rev, autocommit, sql, write_tree
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

# KILL_AT is a number of half statements: an even one kills before a statement runs, an odd one after it has run.
# KILL_AFTER is a number of statements outside a transaction: it kills when that many have run.
KILLER = """
import os, re, signal, time
import sqlalchemy
halves = alone = 0
def half(connection, cursor, statement, *_):
    global halves
    if str(halves) == os.environ.get("KILL_AT"):
        end()
    halves += 1
def whole(connection, cursor, statement, *_):
    global alone
    alone += bool(re.search(r"CONCURRENTLY|VALUE '|DATABASE", statement))
    if str(alone) == os.environ.get("KILL_AFTER"):
        end()
def end():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", half)
sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", half)
sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", whole)
"""


PREPARED = (
    "CREATE SCHEMA s",
    "CREATE TABLE s.a (id int, name text, other int)",
    "CREATE INDEX old ON s.a (other)",
    "CREATE INDEX again ON s.a (id)",
    "CREATE TYPE s.mood AS ENUM ('low', 'high')",
    "CREATE TABLE s.p (id int) PARTITION BY LIST (id)",
    "CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES IN (1)",
)
# One statement each: after the last one, only the version is left to be written.
LAST = {
    "an index": "CREATE INDEX CONCURRENTLY new ON s.a (id)",
    "an enum value": "ALTER TYPE s.mood ADD VALUE 'middle' BEFORE 'high'",
    "a partition": "ALTER TABLE s.p DETACH PARTITION s.p1 CONCURRENTLY",
    "an index dropped": "/* no longer used */ DROP INDEX CONCURRENTLY s.old",
    "a unique index of expressions": "CREATE UNIQUE INDEX CONCURRENTLY newest ON s.a (lower(a.name) DESC, (id % 7))"
    " INCLUDE (other) NULLS NOT DISTINCT WITH (fillfactor = 70) WHERE name LIKE 'a%' AND id > 0",
    "an index without a name": "CREATE INDEX CONCURRENTLY ON s.a (id, other)",
    "an index built again": "REINDEX INDEX CONCURRENTLY s.again",
    "a table's indexes built again": "REINDEX (VERBOSE, CONCURRENTLY) TABLE s.a",
    "an enum value renamed": "ALTER TYPE s.mood RENAME VALUE 'low' TO 'bottom'",
}
SEVERAL = [
    "CREATE INDEX CONCURRENTLY new ON s.a (id)",
    "ALTER TYPE s.mood ADD VALUE 'middle' BEFORE 'high'",
    "ALTER TYPE s.mood ADD VALUE 'almost' BEFORE 'high'",
    "DROP INDEX CONCURRENTLY s.old",
    "ALTER TABLE s.p DETACH PARTITION s.p1 CONCURRENTLY",
    "VACUUM s.a",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS newer ON s.a (name)",
]
# A revision that does something in a transaction before each of two blocks, and something after them.
MIXED = "\n".join(
    [
        sql("ALTER TABLE s.a ADD COLUMN added int", "SET LOCAL work_mem = '8MB'", "CREATE TABLE s.b (id int)"),
        autocommit(SEVERAL[0], SEVERAL[1]),
        sql("ALTER TABLE s.a ALTER COLUMN added SET DEFAULT 5", "ALTER TABLE s.b ADD CONSTRAINT one UNIQUE (id)"),
        autocommit(SEVERAL[3]),
        sql("INSERT INTO s.a VALUES (3, 'three')"),
    ]
)
STATE = """
SELECT 'index', indexrelid::regclass::text, indisvalid::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = 's.a'::regclass
UNION ALL SELECT 'value', enumlabel, (row_number() OVER (ORDER BY enumsortorder))::text, '' FROM pg_enum
WHERE enumtypid = 's.mood'::regtype
UNION ALL SELECT 'partition', inhrelid::regclass::text, '', '' FROM pg_inherits
UNION ALL SELECT 'version', version_num, '', '' FROM alembic_version
UNION ALL SELECT 'comment', obj_description('alembic_version'::regclass), '', ''
UNION ALL SELECT 'column', attname, atttypid::regtype::text, '' FROM pg_attribute
WHERE attrelid = 's.a'::regclass AND attnum > 0
UNION ALL SELECT 'row', (SELECT string_agg(concat_ws(' ', id, name), ', ' ORDER BY id) FROM s.a), '', ''
ORDER BY 1, 2
"""


def reset(database: Database) -> None:
    execute(database, "DROP SCHEMA IF EXISTS s CASCADE")
    empty(database)
    execute(database, *PREPARED)


def revisions(*bodies: list[str]) -> list[Rev]:
    return [Rev(f"r{number:02}", autocommit(*statements)) for number, statements in enumerate(bodies, 1)]


def killed_and_finished(runner: Runner, database: Database, tree: Path, variable: str, kills: int | None) -> int:
    """Kill a run at the first boundary, the second and so on, and let the next run finish each time.

    Without a number of ``kills``, kill at each boundary until a run ends by itself. Return the number of kills.
    """
    survivor = runner.start(tree)
    reset(database)
    answer = survivor.invoke()
    assert answer.error_type is None, answer.payload
    wanted = query(database, STATE)
    done = 0
    while kills is None or done < kills:
        reset(database)
        environment: dict[str, Any] = {variable: str(done + (variable == "KILL_AFTER"))}
        with runner.start(tree, **environment) as function:
            if function.invoke().error_type is None:
                break
        done += 1

        answer = survivor.invoke()

        assert answer.error_type is None, (done, answer.payload)
        assert query(database, STATE) == wanted, done
    return done


def test_each_statement_that_had_finished(
    runner: Runner, database: Database, tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    bodies = [[statement] for statement in LAST.values()][: rounds(3, len(LAST))]
    tree = write_tree(tmp_path / "tree", revisions(*bodies), env_py=KILLER + ENV_PY)

    assert killed_and_finished(runner, database, tree, "KILL_AFTER", len(bodies)) == len(bodies)

    whys = [line["message"] for line in runner.events("statement.skipped")]
    # To build an index again does no harm.
    assert len(whys) == sum("REINDEX" not in statement for [statement] in bodies)
    assert any("the index s.new exists with the same definition" in why for why in whys)


class TestWhatWasCommittedBeforeABlock:
    def test_is_not_run_again(self, runner: Runner, database: Database, tmp_path: Path) -> None:
        tree = write_tree(tmp_path / "tree", [Rev("r01", MIXED)], env_py=KILLER + ENV_PY)

        assert killed_and_finished(runner, database, tree, "KILL_AFTER", 3) == 3

        whys = [line["message"] for line in runner.events("statement.skipped")]
        assert sum("its transaction was committed" in why for why in whys) == 2 + 2 + 4

    @pytest.fixture
    def interrupted(self, runner: Runner, database: Database, tmp_path: Path) -> Callable[[Rev], Path]:
        """A tree with one revision, whose run was killed after the first statement of its block."""

        def interrupt(revision: Rev) -> Path:
            reset(database)
            execute(database, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
            execute(database, "COMMENT ON TABLE alembic_version IS 'lambda_migrate: 100% ours'")
            tree = write_tree(tmp_path / "tree", [revision], env_py=KILLER + ENV_PY)
            with runner.start(tree, KILL_AFTER="1") as function:
                function.invoke()
            return tree

        return interrupt

    def adds(self, column: str, *others: str, revision: str = "r01") -> Rev:
        return Rev(revision, f"{sql(f'ALTER TABLE s.a ADD COLUMN {column} int', *others)}\n{autocommit(SEVERAL[0])}")

    @pytest.mark.stress
    def test_leaves_the_table_s_own_comment(
        self, runner: Runner, database: Database, interrupted: Callable[[Rev], Path]
    ) -> None:
        tree = interrupted(self.adds("added"))
        [(comment,)] = query(database, "SELECT obj_description('alembic_version'::regclass)")

        assert runner.invoke(tree).error_type is None

        assert comment.startswith("lambda_migrate: 100% ours\nlambda_migrate: {")
        assert query(database, "SELECT obj_description('alembic_version'::regclass)") == [
            ("lambda_migrate: 100% ours",)
        ]

    @pytest.mark.parametrize(
        "undo",
        [
            "ALTER TABLE s.a DROP COLUMN added",
            pytest.param("DROP TABLE s.b", marks=pytest.mark.stress),
            pytest.param("ALTER TABLE s.a ALTER added DROP DEFAULT", marks=pytest.mark.stress),
        ],
    )
    def test_is_run_again_if_it_was_undone_by_hand(
        self, runner: Runner, database: Database, interrupted: Callable[[Rev], Path], undo: str
    ) -> None:
        revision = self.adds("added", "CREATE TABLE s.b (id int)", "ALTER TABLE s.a ALTER added SET DEFAULT 7")
        tree = interrupted(revision)
        execute(database, undo)

        answer = runner.invoke(tree)

        is_whole = "DROP COLUMN" in undo
        assert (answer.error_type, runner.events("statement.skipped")) == ("MigrationFailed", [])
        assert ('relation "b" already exists' if is_whole else 'column "added" of relation') in answer.message

    @pytest.mark.parametrize(
        "other",
        [
            "UPDATE s.a SET id = 1",
            *(
                pytest.param(each, marks=pytest.mark.stress)
                for each in (
                    "CREATE INDEX ix ON s.a (added)",
                    "CREATE TABLE s.b AS SELECT 1 AS id",
                    "SELECT pg_notify('a', 'b')",
                    "DO $$ BEGIN END $$",
                )
            ),
        ],
    )
    def test_is_run_again_if_the_catalog_does_not_show_all_of_it(
        self, runner: Runner, interrupted: Callable[[Rev], Path], other: str
    ) -> None:
        answer = runner.invoke(interrupted(self.adds("added", other)))

        assert (answer.error_type, runner.events("statement.skipped")) == ("MigrationFailed", [])
        assert 'column "added" of relation "a" already exists (the revision commits' in answer.message

    @pytest.mark.stress
    def test_is_run_again_if_the_revision_has_changed(
        self, runner: Runner, database: Database, interrupted: Callable[[Rev], Path]
    ) -> None:
        tree = interrupted(self.adds("added", "CREATE TABLE s.b (id int)")).with_name("changed")
        changed = self.adds("added", "ALTER TABLE s.a ADD COLUMN another int")
        write_tree(tree, [changed], env_py=KILLER + ENV_PY)

        answer = runner.invoke(tree)

        # The first statement was skipped, and taken back with the attempt.
        assert answer.error_type == "MigrationFailed"
        assert 'column "added" of relation "a" already exists' in answer.message
        assert query(database, "SELECT count(*) FROM pg_attribute WHERE attname = 'another'") == [(0,)]

    @pytest.mark.stress
    def test_is_not_skipped_in_another_step(self, runner: Runner, interrupted: Callable[[Rev], Path]) -> None:
        tree = interrupted(self.adds("added")).with_name("changed")
        write_tree(tree, [self.adds("added", revision="r02")], env_py=KILLER + ENV_PY)

        answer = runner.invoke(tree)

        assert (answer.error_type, runner.events("statement.skipped")) == ("MigrationFailed", [])


@pytest.mark.stress
@pytest.mark.parametrize(
    "bodies",
    [[autocommit(each) for each in LAST.values()], [autocommit(*SEVERAL)], [MIXED]],
    ids=["each", "several", "mixed"],
)
def test_each_boundary(
    runner: Runner, database: Database, tmp_path: Path, bodies: list[str], figure: Callable[[str], None]
) -> None:
    revisions = [Rev(f"r{number:02}", body) for number, body in enumerate(bodies, 1)]
    tree = write_tree(tmp_path / "tree", revisions, env_py=KILLER + ENV_PY)

    kills = killed_and_finished(runner, database, tree, "KILL_AT", None)

    # Before and after each statement, and the one that writes the version of each revision.
    assert kills >= 2 * sum(body.count("op.execute(") + 1 for body in bodies)
    figure(f"{kills} kills, one at each boundary between two statements")


@pytest.mark.parametrize(
    "prepared,statement,words",
    [
        ("CREATE INDEX new ON s.a (other)", LAST["an index"], ("USING btree (other)", "USING btree (id)")),
        pytest.param(
            "CREATE UNIQUE INDEX new ON s.a (id)",
            LAST["an index"],
            ("CREATE UNIQUE INDEX", "CREATE INDEX new"),
            marks=pytest.mark.stress,
        ),
        pytest.param(
            "CREATE INDEX new ON s.a (id) WHERE id > 0",
            LAST["an index"],
            ("WHERE (id > 0)", "USING btree (id)"),
            marks=pytest.mark.stress,
        ),
        pytest.param(
            "ALTER TYPE s.mood ADD VALUE 'middle'",
            LAST["an enum value"],
            ("low, high, middle", "BEFORE 'high'"),
            marks=pytest.mark.stress,
        ),
    ],
)
def test_another_definition_of_the_same_name_is_an_error_that_shows_both(
    runner: Runner, database: Database, tmp_path: Path, prepared: str, statement: str, words: tuple[str, ...]
) -> None:
    reset(database)
    execute(database, prepared)

    answer = runner.invoke(write_tree(tmp_path / "tree", revisions([statement])))

    assert answer.error_type == "MigrationFailed", answer.payload
    for text in ("already exists", "the database has", "the revision wants", *words):
        assert text in answer.message


@pytest.mark.stress
def test_if_not_exists_is_left_to_postgresql(runner: Runner, database: Database, tmp_path: Path) -> None:
    reset(database)
    execute(database, "CREATE INDEX newer ON s.a (other)")
    lenient = "CREATE INDEX CONCURRENTLY IF NOT EXISTS newer ON s.a (name)"

    assert runner.invoke(write_tree(tmp_path / "tree", revisions([lenient]))).error_type is None
    assert not runner.events("statement.skipped")


OF_ITS_OWN = """
own = op.get_bind().engine.execution_options(isolation_level="AUTOCOMMIT").connect()
with own:
    own.execute(sa.text("ALTER TYPE s.mood ADD VALUE 'middle'"))
"""


@pytest.mark.stress
def test_a_statement_on_another_connection_of_the_revision(runner: Runner, database: Database, tmp_path: Path) -> None:
    reset(database)
    execute(database, "ALTER TYPE s.mood ADD VALUE 'middle'")

    answer = runner.invoke(write_tree(tmp_path / "tree", [Rev("r1", OF_ITS_OWN)]))

    assert answer.error_type is None, answer.payload
    assert len(runner.events("statement.skipped")) == 1


HALF_DONE = {
    "REINDEX": (LAST["an index built again"], "INSERT INTO s.a VALUES (1)"),
    "DETACH": (LAST["a partition"], "SELECT FROM s.p"),
}


@pytest.mark.stress
@pytest.mark.parametrize("how", sorted(HALF_DONE))
def test_half_finished_work_is_finished(runner: Runner, database: Database, tmp_path: Path, how: str) -> None:
    statement, holds_up = HALF_DONE[how]
    reset(database)
    tree = write_tree(tmp_path / "tree", revisions([statement]))
    with closing(database.connect()) as other, other.cursor() as cursor:
        cursor.execute(f"BEGIN; {holds_up}")
        function = runner.start(tree, LOCK_TIMEOUT_MS="60000")
        request = function.start()
        eventually(lambda: query(database, HALF) != [(0,)])
        function.kill()
        eventually(lambda: not sessions(database, request))
        assert query(database, HALF) == [(1,)]
        cursor.execute("COMMIT")

    answer = runner.invoke(tree)

    assert answer.error_type is None, answer.payload
    assert query(database, HALF) == [(0,)]
    assert query(database, "SELECT count(*) FROM pg_inherits WHERE inhparent = 's.p'::regclass") == [(how != "DETACH",)]


HALF = """
SELECT count(*) FROM (
    SELECT FROM pg_index WHERE NOT indisvalid UNION ALL SELECT FROM pg_inherits WHERE inhdetachpending
) AS half
"""


@pytest.mark.stress
def test_a_database_that_had_been_created(
    runner: Runner, database: Database, postgres_server: Server, tmp_path: Path
) -> None:
    other = f"{database.name}_other"
    administer(postgres_server, f'ALTER ROLE "{database.user}" CREATEDB')
    creates = write_tree(tmp_path / "creates", revisions([f"CREATE DATABASE {other}"]), env_py=KILLER + ENV_PY)
    try:
        runner.invoke(creates, KILL_AFTER="1")
        assert query(database, "SELECT count(*) FROM pg_database WHERE datname = %s", (other,)) == [(1,)]
        assert runner.invoke(creates).error_type is None
    finally:
        administer(postgres_server, f"DROP DATABASE IF EXISTS {other}")
