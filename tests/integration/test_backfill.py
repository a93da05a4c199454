"""back/backfill.py changes every row exactly once, after any interruption, in the function and under plain Alembic."""

from __future__ import annotations

import datetime as dt
import importlib.util
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import closing
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
import sqlalchemy
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, given, settings

from infra.package.imports import backend_files
from infra.package.layout import read_layout
from tests.support.bystander import execute, query
from tests.support.checkout import ROOT
from tests.support.processes import killing
from tests.support.samples import sampled_by_name
from tests.support.trees import Rev, sql, write_tree
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

SOURCE = ROOT / "back" / "backfill.py"
PROGRESS = "alembic_version_backfill"

# Not one that may be repeated on a row.
COUNTS = "UPDATE work SET seen = seen + 1 WHERE {batch}"
COUNTS_DOWN = "UPDATE work SET seen = seen - 1 WHERE {batch}"


def call(statement: str = COUNTS, table: str = "work", **options: object) -> str:
    """The body of a revision's function with a backfill."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return f"from backfill import backfill\nbackfill({table!r}, {statement!r}{given})"


def write_backfill(folder: Path, upgrade: str, downgrade: str = "pass", *, rows: int) -> Path:
    """A backend with the file copied into it, a table, a backfill, and a revision after it."""
    makes = sql(
        "CREATE TABLE work (id int PRIMARY KEY, seen int NOT NULL DEFAULT 0)",
        f"INSERT INTO work SELECT n FROM generate_series(1, {rows}) n",  # noqa: S608 - a number
        "ANALYZE work",
    )
    revisions = [
        Rev("a1", makes, sql("DROP TABLE work")),
        Rev("b2", upgrade, downgrade, description="Backfill"),
        Rev("c3", sql("CREATE TABLE after ()"), sql("DROP TABLE after")),
    ]
    shutil.copy(SOURCE, write_tree(folder, revisions))
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "alembic", *arguments]


def alembic(tree: Path, database: Database, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the alembic command in an environment without this project."""
    return subprocess.run(
        command(*arguments), cwd=tree, env=environment(database), capture_output=True, text=True, check=False
    )


def environment(database: Database) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": ""}


def seen(database: Database) -> dict[int, int]:
    """Return the number of rows for each number of changes."""
    return dict(query(database, "SELECT seen, count(*) FROM work GROUP BY seen"))


def looked_at(database: Database) -> int:
    """Return the backfill's stored position: 0 before the first batch and after the last one."""
    if not exists(database, PROGRESS):
        return 0
    return sum(row[0] for row in query(database, f"SELECT looked_at FROM {PROGRESS}"))  # noqa: S608 - our name


def exists(database: Database, table: str) -> bool:
    return query(database, "SELECT to_regclass(%s) IS NOT NULL", (table,)) == [(True,)]


def version(database: Database) -> str:
    [[found]] = query(database, "SELECT version_num FROM alembic_version")
    return str(found)


# --- under plain Alembic ---


@pytest.mark.stress
def test_alembic_alone_goes_up_down_and_up_again_and_leaves_nothing_behind(database: Database, tmp_path: Path) -> None:
    alone = "import importlib.util\nassert importlib.util.find_spec('lambda_migrate') is None\n"
    tree = write_backfill(tmp_path / "tree", alone + call(pause=0), call(COUNTS_DOWN, pause=0), rows=2500)

    up = alembic(tree, database, "upgrade", "head")

    assert up.returncode == 0, up.stderr
    assert seen(database) == {1: 2500}
    assert "backfill of work: finished, 2,500 of about 2,500 rows looked at, 2,500 changed" in up.stderr
    for target, expected in (("a1", {0: 2500}), ("head", {1: 2500})):
        moved = alembic(tree, database, "upgrade" if target == "head" else "downgrade", target)
        assert moved.returncode == 0, moved.stderr
        assert seen(database) == expected
        assert not exists(database, PROGRESS)


@pytest.mark.stress
def test_a_kill_at_any_moment_leaves_a_run_that_the_next_one_finishes(database: Database, tmp_path: Path) -> None:
    rows = 60000
    tree = write_backfill(tmp_path / "tree", call(batch_size=25, pause=0.002), rows=rows)
    assert alembic(tree, database, "upgrade", "a1").returncode == 0
    stopped_at = [0]
    for number in range(60):
        with killing(
            subprocess.Popen(command("upgrade", "head"), cwd=tree, env=environment(database), stderr=subprocess.DEVNULL)
        ) as running:
            eventually(lambda: looked_at(database) > stopped_at[-1])
            time.sleep(random.Random(number).uniform(0, 0.1))  # noqa: S311 - the moment is what is tried
            running.kill()
        stopped_at.append(looked_at(database))

    last = alembic(tree, database, "upgrade", "head")

    assert last.returncode == 0, last.stderr
    assert 0 < stopped_at[-1] < rows
    assert seen(database) == {1: rows}
    assert version(database) == "c3"
    assert not exists(database, PROGRESS)


@pytest.mark.stress
def test_offline_it_is_a_comment_about_the_online_run(database: Database, tmp_path: Path) -> None:
    tree = write_backfill(tmp_path / "tree", call(batch_size=500), rows=1)

    output = alembic(tree, database, "upgrade", "a1:b2", "--sql")

    assert output.returncode == 0, output.stderr
    assert (
        "-- Online in batches of 500, each in a transaction of its own.\nUPDATE work SET seen = seen + 1 WHERE true;"
        in output.stdout
    )


WRONG = {
    "another table": (
        call(table="wrok"),
        "ValueError: backfill of wrok: there is no table wrok; is its schema missing?",
    ),
    "another column": (
        call("UPDATE work SET sene = 1 WHERE {batch}"),
        'column "sene" of relation "work" does not exist',
    ),
    "no batch": (call("UPDATE work SET seen = 1"), "ValueError: backfill of work: the statement has no {batch}"),
    "its own table": (call(table="alembic_version_backfill"), "there is no table alembic_version_backfill"),
    "a long pause": (call(pause=60), "pause must be 0 to 10 seconds, not 60"),
    "no rows": (call(batch_size=0), "batch_size must be 1 or more, not 0"),
    "not the first": (
        sql("CREATE TABLE keyless (id int)") + "\n" + call(table="keyless"),
        "its revision does something before it",
    ),
    "not the only one": (call() + "\n" + call(COUNTS_DOWN), "its revision has one already; give it its own"),
}


@pytest.mark.stress
@pytest.mark.parametrize("use", sampled_by_name(WRONG, {"not the first"}))
def test_wrong_use_raises_an_error_and_leaves_no_trace(
    database: Database, tmp_path: Path, use: tuple[str, str]
) -> None:
    upgrade, error = use
    tree = write_backfill(tmp_path / "tree", upgrade, rows=3)
    assert alembic(tree, database, "upgrade", "a1").returncode == 0

    done = alembic(tree, database, "upgrade", "head")

    assert done.returncode == 1
    assert error in done.stderr
    assert version(database) == "a1"


# --- in this process, where a test can look at each moment ---


class Interrupted(Exception):  # noqa: N818 - what stops a run here is no error of anybody's
    """Ends the run between two batches."""


@pytest.fixture
def backfill(monkeypatch: pytest.MonkeyPatch) -> Backfill:
    spec = importlib.util.spec_from_file_location("backfill_of_the_backend", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return Backfill(module)


class Backfill:
    """Calls the backfill as a revision does, and a function of the test in each pause."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401 - a file that is no module of ours
        self.module = module
        self._clock = module.time

    def __call__(
        self,
        connection: sqlalchemy.Connection,
        statement: str = COUNTS,
        table: str = "work",
        *,
        in_pause: Callable[[float], object] = bool,
        **options: Any,  # noqa: ANN401 - the function's own
    ) -> None:
        self.module.time = SimpleNamespace(sleep=in_pause, monotonic=self._clock.monotonic)
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), Operations.context(context):
            self.module.backfill(table, statement, **options)


@pytest.fixture
def connection(database: Database) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(database.url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def work(database: Database) -> Callable[[int], None]:
    def make(rows: int) -> None:
        execute(
            database,
            "CREATE TABLE work (id int PRIMARY KEY, seen int NOT NULL DEFAULT 0)",
            f"INSERT INTO work SELECT n * 10 FROM generate_series(1, {rows}) n",  # noqa: S608 - a number
        )

    return make


def test_nothing_is_locked_between_two_batches(
    backfill: Backfill, connection: sqlalchemy.Connection, database: Database, work: Callable[[int], None]
) -> None:
    work(50)
    pauses = []

    def in_pause(_: float) -> None:
        execute(database, "BEGIN; LOCK TABLE work IN ACCESS EXCLUSIVE MODE NOWAIT; COMMIT")
        pauses.append(looked_at(database))

    backfill(connection, in_pause=in_pause, batch_size=20)

    assert pauses == [20, 40]
    assert seen(database) == {1: 50}


def test_rows_that_come_and_go_meanwhile_are_seen_at_most_once_and_never_endlessly(
    backfill: Backfill, connection: sqlalchemy.Connection, database: Database, work: Callable[[int], None]
) -> None:
    work(50)
    pauses = iter(range(1000))

    def in_pause(_: float) -> None:
        number = next(pauses)
        behind, ahead, beyond = 5 + number, 495 - number, 1000 + number
        query(database, "INSERT INTO work VALUES (%s), (%s), (%s) ON CONFLICT DO NOTHING", (behind, ahead, beyond))
        execute(database, "DELETE FROM work WHERE id IN (10, 300, 500)")

    backfill(connection, in_pause=in_pause, batch_size=5)

    assert next(pauses) < 50
    assert query(database, "SELECT count(*) FROM work WHERE id % 10 = 0 AND id <= 500 AND seen <> 1 AND id > 11") == [
        (0,)
    ]
    assert set(seen(database)) == {0, 1}
    assert query(database, "SELECT max(seen) FROM work WHERE id >= 1000") == [(0,)]


def test_an_empty_table_is_finished_at_once(
    backfill: Backfill, connection: sqlalchemy.Connection, database: Database, work: Callable[[int], None]
) -> None:
    work(0)

    backfill(connection)

    assert not exists(database, PROGRESS)


def test_a_table_without_a_primary_key_is_refused(
    backfill: Backfill, connection: sqlalchemy.Connection, database: Database
) -> None:
    execute(database, "CREATE TABLE work (id int, seen int)")

    with pytest.raises(ValueError, match="backfill of work: it has no primary key to go along"):
        backfill(connection)


def test_names_that_need_quotes_and_a_schema_are_taken_as_they_are(
    backfill: Backfill, connection: sqlalchemy.Connection, database: Database
) -> None:
    execute(
        database,
        'CREATE SCHEMA "My :app"',
        'CREATE TABLE "My :app"."Order" ("Key :1" int PRIMARY KEY, seen int DEFAULT 0)',
        'INSERT INTO "My :app"."Order" SELECT generate_series(1, 7)',
    )

    backfill(
        connection,
        'UPDATE "My \\:app"."Order" SET seen = seen + 1 WHERE {batch}',
        "Order",
        schema="My :app",
        batch_size=2,
    )

    assert query(database, 'SELECT DISTINCT seen FROM "My :app"."Order"') == [(1,)]


def test_batches_of_another_run_are_not_repeated(
    backfill: Backfill, connection: sqlalchemy.Connection, database: Database, work: Callable[[int], None]
) -> None:
    work(30)
    engine = sqlalchemy.create_engine(database.url, poolclass=sqlalchemy.NullPool)

    def in_pause(_: float) -> None:
        with engine.connect() as other:
            backfill(other, batch_size=10)

    with pytest.raises(RuntimeError, match="another run has finished it"):
        backfill(connection, in_pause=in_pause, batch_size=10)

    assert seen(database) == {1: 30}


def interrupted_after(batches: int) -> Callable[[float], None]:
    left = iter(range(batches - 1))

    def in_pause(_: float) -> None:
        if next(left, None) is None:
            raise Interrupted

    return in_pause


def test_a_statement_that_was_edited_under_way_is_refused(
    backfill: Backfill, connection: sqlalchemy.Connection, database: Database, work: Callable[[int], None]
) -> None:
    work(30)
    with pytest.raises(Interrupted):
        backfill(connection, in_pause=interrupted_after(2), batch_size=10)

    with pytest.raises(RuntimeError) as refused:
        backfill(connection, COUNTS_DOWN, batch_size=10)

    assert str(refused.value) == (
        "backfill of work: another one was left unfinished, after 20 rows up to the key [200]. Finish that one first,"
        f" or give it up with DROP TABLE {PROGRESS}. Its statement is: {COUNTS}"
    )
    assert seen(database) == {1: 20, 0: 10}


def test_a_batch_that_waits_too_long_for_a_lock_is_repeated(
    backfill: Backfill,
    connection: sqlalchemy.Connection,
    database: Database,
    work: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    work(30)
    connection.exec_driver_sql("SET lock_timeout = '50ms'")
    connection.commit()
    caplog.set_level(logging.INFO, "alembic.backfill")
    with closing(database.connect()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; SELECT FROM work WHERE id = 150 FOR UPDATE")

        def in_pause(_: float) -> None:
            if "waiting for a lock" in caplog.text:
                cursor.execute("ROLLBACK")

        backfill(connection, in_pause=in_pause, batch_size=10)

    assert "waiting for a lock; 10" in caplog.text
    assert seen(database) == {1: 30}


def test_a_lock_that_does_not_come_is_an_error_in_the_end(
    backfill: Backfill, connection: sqlalchemy.Connection, database: Database, work: Callable[[int], None]
) -> None:
    work(30)
    connection.exec_driver_sql("SET lock_timeout = '20ms'")
    connection.commit()
    with closing(database.connect()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; SELECT FROM work WHERE id = 150 FOR UPDATE")

        with pytest.raises(sqlalchemy.exc.OperationalError, match="lock timeout"):
            backfill(connection, batch_size=10)

    assert seen(database) == {1: 10, 0: 20}


@pytest.mark.parametrize("given,expected", [("0", "3s"), ("70ms", "70ms")])
def test_no_batch_waits_for_a_lock_without_end(
    backfill: Backfill,
    connection: sqlalchemy.Connection,
    database: Database,
    work: Callable[[int], None],
    given: str,
    expected: str,
) -> None:
    work(3)
    connection.exec_driver_sql(f"SET lock_timeout = '{given}'")
    connection.commit()

    statement = "UPDATE work SET seen = 1 WHERE current_setting('lock_timeout') = '%s' AND {batch}"
    backfill(connection, statement % expected)

    assert seen(database) == {1: 3}


@pytest.mark.parametrize(
    "statement,left",
    [
        ("DELETE FROM work WHERE id % 20 = 0 AND {batch}", 15),
        ("INSERT INTO archive SELECT id FROM work WHERE {batch}", 30),
        ("UPDATE work SET seen = 1 FROM archive WHERE archive.id <> work.id AND {batch}", 30),
        ("UPDATE work SET seen = ('{\"a\"\\:1}'::jsonb ->> 'a')::int WHERE {batch}", 30),
    ],
)
def test_any_statement_with_a_condition_can_be_taken(
    backfill: Backfill,
    connection: sqlalchemy.Connection,
    database: Database,
    work: Callable[[int], None],
    statement: str,
    left: int,
) -> None:
    work(30)
    execute(database, "CREATE TABLE archive (id int)", "INSERT INTO archive VALUES (0)")

    backfill(connection, statement, batch_size=7)

    assert query(database, "SELECT count(*) FROM work") == [(left,)]
    if statement.startswith("UPDATE"):
        assert seen(database) == {1: 30}
    if statement.startswith("INSERT"):
        assert query(database, "SELECT count(*), count(DISTINCT id) FROM archive") == [(31, 31)]


# PostgreSQL's texts hold everything but NUL.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
MOMENTS = st.datetimes(
    # PostgreSQL's time zones reach into the year before and after.
    min_value=dt.datetime(1, 1, 3),  # noqa: DTZ001 - of some strategies' columns
    max_value=dt.datetime(9999, 12, 29),  # noqa: DTZ001
)
KEYS: dict[str, st.SearchStrategy[Any]] = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "uuid": st.uuids().map(str),
    "text": TEXTS,
    'text COLLATE "C"': TEXTS,
    "varchar(5)": TEXTS,
    "numeric": st.decimals(allow_nan=False, allow_infinity=False) | st.just(Decimal("0.1234567890123456789")),
    "double precision": st.floats(allow_nan=False),
    "timestamptz": MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.timezone.utc)),
    "timestamp": MOMENTS,
    "date": st.dates(),
    "bytea": st.binary(max_size=4),
    "boolean": st.booleans(),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The types of a primary key of one to three columns, and rows."""
    types = draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=3))
    return types, draw(st.lists(st.tuples(*(KEYS[kind] for kind in types)), max_size=12))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=tables(),
    batch_size=st.integers(1, 5),
    batches=st.integers(1, 4),
    style=st.sampled_from(["ISO", "German", "SQL, DMY", "Postgres, MDY"]),
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns"]),
)
def test_any_key_an_interruption_and_another_sessions_formats_keep_it_to_once_a_row(
    backfill: Backfill,
    connection: sqlalchemy.Connection,
    database: Database,
    table: tuple[list[str], list[tuple[Any, ...]]],
    batch_size: int,
    batches: int,
    style: str,
    zone: str,
) -> None:
    types, rows = table
    names = [f"k{number}" for number in range(len(types))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))
    with closing(database.connect()) as made, made.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS work; DROP TABLE IF EXISTS {PROGRESS}")
        cursor.execute(f"CREATE TABLE work ({columns}, seen int DEFAULT 0, PRIMARY KEY ({', '.join(names)}))")
        for row in rows:
            cursor.execute(
                f"INSERT INTO work VALUES ({', '.join(['%s'] * len(row))}) ON CONFLICT DO NOTHING",  # noqa: S608
                row,
            )
    connection.exec_driver_sql(f"SET DateStyle = '{style}'; SET TimeZone = '{zone}'")
    connection.commit()

    try:
        backfill(connection, in_pause=interrupted_after(batches), batch_size=batch_size)
    except Interrupted:
        connection.exec_driver_sql("SET DateStyle = 'Postgres, DMY'; SET TimeZone = 'Pacific/Chatham'")
        connection.commit()
        backfill(connection, batch_size=batch_size)

    assert set(seen(database)) <= {1}
    assert not exists(database, PROGRESS)


# --- in the packaged function ---


def test_the_package_holds_the_file_when_a_revision_imports_it(tmp_path: Path) -> None:
    tree = write_backfill(tmp_path / "tree", call(), rows=1)

    packaged = {path.as_posix() for path in backend_files(read_layout(tree, "alembic.ini"))}

    assert "backend/backfill.py" in packaged


def test_out_of_time_it_is_incomplete_and_each_invocation_continues(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_backfill(tmp_path / "tree", call(batch_size=1, pause=0.1), rows=35)
    function = runner.start(tree, timeout_s=4, DEADLINE_RESERVE_MS="2000")
    function.invoke({"action": "history"})

    answers = [function.invoke()]
    between = [looked_at(database)]
    while answers[-1].error_type == "MigrationIncomplete" and len(answers) < 10:
        answers.append(function.invoke())
        between.append(looked_at(database))

    assert answers[-1].error_type is None, answers[-1].payload
    assert len(answers) > 1
    assert answers[0].duration_s < 4
    assert f"1 applied, 2 left, the next is b2 (Backfill) (backfill of work: {between[0]}" in answers[0].message
    assert between[:-1] == sorted(set(between[:-1]))
    assert seen(database) == {1: 35}
    assert version(database) == "c3"
    output = [line["message"] for line in runner.events("backend.output") if line["source"] == "alembic.backfill"]
    assert f"backfill of work: goes on behind the key [{between[0]}]" in output
    assert output[-1].startswith("backfill of work: finished, 35")
    assert output[-1].endswith("35 changed")


def test_a_lost_connection_is_gone_on_from_in_the_same_invocation(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_backfill(tmp_path / "tree", call(batch_size=10, pause=0.02), rows=500)
    function = runner.start(tree)
    function.start()
    eventually(lambda: looked_at(database) > 50)

    # env.py's session holds the shared lock of who works under the migration lock.
    execute(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )

    answer = function.result()
    assert answer.error_type is None, answer.payload
    assert runner.events("connection.retried")
    assert seen(database) == {1: 500}


def test_a_function_that_is_killed_leaves_a_backfill_that_the_next_one_finishes(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_backfill(tmp_path / "tree", call(batch_size=10, pause=0.02), rows=500)
    function = runner.start(tree)
    function.start()
    eventually(lambda: looked_at(database) > 50)
    function.kill()

    answer = runner.invoke(tree)

    assert answer.error_type is None, answer.payload
    assert seen(database) == {1: 500}


def test_a_failure_after_a_backfill_does_not_repeat_the_backfill(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    follows = call(pause=0) + "\n" + sql("CREATE TABLE taken ()")
    function = runner.start(write_backfill(tmp_path / "tree", follows, rows=30))
    function.invoke({"revision": "a1"})
    execute(database, "CREATE TABLE taken ()")

    failed = function.invoke()
    execute(database, "DROP TABLE taken")
    answer = function.invoke()

    assert failed.error_type == "MigrationFailed"
    assert "the database is at a1" in failed.message
    assert answer.error_type is None, answer.payload
    assert seen(database) == {1: 30}
    assert not exists(database, PROGRESS)


@pytest.mark.stress
def test_a_plan_shows_a_backfill(runner: Runner, database: Database, tmp_path: Path) -> None:
    function = runner.start(write_backfill(tmp_path / "tree", call(), rows=3))
    function.invoke({"revision": "a1"})

    planned = function.invoke({"action": "plan"}).payload["plan"]

    assert "UPDATE work SET seen = seen + 1 WHERE true;" in planned[0]["sql"]
    assert seen(database) == {0: 3}
