"""Many functions at once on one database: each revision is applied once, and no run fails."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from lambda_migrate.database.common import LOCK_CLASS, WORKER_LOCK_CLASS
from lambda_migrate.invocation.invocation import application_name
from localcloud import postgres
from tests.support.bystander import administer, execute, query
from tests.support.ledger import (
    applied_ids,
    concurrent_index,
    empty,
    is_running,
    lock_holders,
    reached,
    write_ledger,
)
from tests.support.samples import sampled_by_name
from tests.support.trees import sql
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner


def test_every_revision_is_applied_exactly_once_and_every_caller_gets_ok(
    runner: Runner,
    database: Database,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    # A slow one, so that the others are waiting, and a concurrent index, which a waiter with a snapshot would block.
    tree = write_ledger(tmp_path / "tree", 6, instead={2: sql("SELECT pg_sleep(1)"), 4: concurrent_index("ix", "t01")})
    functions = [runner.start(tree, timeout_s=280) for _ in range(rounds(3, 20))]

    waits = []
    for _ in range(rounds(1, 10)):
        empty(database)
        requests = {function.start() for function in functions}
        answers = [function.result() for function in functions]

        assert {answer.error_type for answer in answers} == {None}, [answer.payload for answer in answers]
        assert reached(database) == 6
        counted = Counter(revision for answer in answers for revision in applied_ids(answer))
        assert counted == Counter(f"r{number:02}" for number in range(1, 7))
        assert {answer.payload["revision"] for answer in answers} == {"r06"}
        waits += [answer.payload["lock_wait_ms"] for answer in answers]
        waiting = [line for line in runner.events("lock.waiting") if line["function_request_id"] in requests]
        assert waiting
        for line in waiting:
            assert any(request in line["message"] for request in requests - {line["function_request_id"]}), line
    figure(f"{len(functions)} functions at once, {len(waits)} runs ok, longest wait {max(waits) / 1000:.1f} s")


@pytest.mark.stress
def test_the_error_of_a_run_that_cannot_wait_names_the_holder_of_the_lock(
    runner: Runner, database: Database, tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    tree = write_ledger(tmp_path / "tree", 3, instead={2: sql("SELECT pg_sleep(6)")})
    functions = [runner.start(tree, MIGRATION_LOCK_TIMEOUT_S="0.5") for _ in range(rounds(2, 20))]
    holder = runner.start(tree)
    holding = holder.start()
    eventually(lambda: lock_holders(database), of="the migration lock being held")

    for function in functions:
        function.start()
    answers = [function.result() for function in functions]

    assert {answer.error_type for answer in answers} == {"MigrationLocked"}
    for answer in answers:
        assert holding in answer.message
        assert "since 20" in answer.message
    assert holder.result().error_type is None
    assert reached(database) == 3


@pytest.fixture
def stranger(postgres_server: Server, database: Database) -> Iterator[Database]:
    """The database, as another role sees it that may only connect."""
    name = f"{database.name}_other"
    administer(postgres_server, f"CREATE ROLE {name} LOGIN PASSWORD 'pw-{name}'")
    administer(postgres_server, f"GRANT CONNECT ON DATABASE {database.name} TO {name}")
    yield postgres_server.database(database.name, name, f"pw-{name}")
    administer(postgres_server, f"REVOKE CONNECT ON DATABASE {database.name} FROM {name}", f"DROP ROLE {name}")


@pytest.mark.stress
@pytest.mark.parametrize(
    "lock_class",
    sampled_by_name({"of a run": LOCK_CLASS, "of its revisions": WORKER_LOCK_CLASS}, {"of its revisions"}),
)
def test_the_error_says_that_the_holder_is_no_run_of_this_function(
    runner: Runner, stranger: Database, tmp_path: Path, lock_class: int
) -> None:
    function = runner.start(write_ledger(tmp_path / "tree", 1), MIGRATION_LOCK_TIMEOUT_S="0.5")

    with closing(stranger.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        # Any role may choose the name of a run.
        run = application_name("template-saas-api-migrate-lambda-test", str(uuid4()))
        cursor.execute("SET application_name = %s", (run,))
        cursor.execute("SELECT pg_advisory_lock(%s, 0)", (lock_class,))
        by_a_session = function.invoke()
        cursor.execute("SELECT pg_advisory_unlock_all()")
        for statement in ("BEGIN", f"SELECT pg_advisory_xact_lock({lock_class}, 0)", "PREPARE TRANSACTION 'held'"):
            cursor.execute(statement)
        by_a_transaction = function.invoke()
        cursor.execute("ROLLBACK PREPARED 'held'")
        pid = connection.info.backend_pid

    for answer in (by_a_session, by_a_transaction):
        assert answer.error_type == "MigrationLocked"
        assert "no run of this function holds the migration lock" in answer.message
        assert f"login {stranger.user}, since" in answer.message
    assert f"pg_terminate_backend({pid})" in by_a_session.message
    assert "prepared transaction 'held' (login" in by_a_transaction.message
    assert "ROLLBACK PREPARED" in by_a_transaction.message
    assert function.invoke().error_type is None


def test_looking_does_not_wait_for_the_lock(runner: Runner, database: Database, tmp_path: Path) -> None:
    tree = write_ledger(tmp_path / "tree", 3, instead={2: sql("SELECT pg_sleep(6)")})
    viewer = runner.start(tree)
    viewer.invoke({"action": "history"})
    holder = runner.start(tree)
    holding = holder.start()
    eventually(lambda: is_running(database, "pg_sleep"))

    status = viewer.invoke({"action": "status"})
    plan = viewer.invoke({"action": "plan"})

    # Still there: neither has waited for its end.
    assert lock_holders(database)
    assert holding in status.payload["lock"]["holder"]
    assert [entry["revision"] for entry in plan.payload["plan"]] == ["r02", "r03"]
    assert holder.result().error_type is None


@pytest.mark.stress
@pytest.mark.parametrize("target", sampled_by_name({"named": {"schema": "public"}, "by default": {}}, {"named"}))
def test_a_schema_has_one_lock_whether_a_request_names_it_or_not(
    runner: Runner, database: Database, tmp_path: Path, target: dict[str, str]
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: sql("SELECT pg_sleep(2)")})
    first, second = runner.start(tree), runner.start(tree)

    first.start({"target": {"schema": "public"}} if not target else None)
    eventually(lambda: is_running(database, "pg_sleep"))
    waited = second.invoke({"target": target} if target else None).payload

    assert first.result().error_type is None
    assert waited["lock_wait_ms"] > 0
    assert query(database, "SELECT number FROM ledger ORDER BY 1") == [(1,), (2,)]


def test_roles_with_schemas_of_their_own_by_default_wait_for_who_names_one(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: sql("SELECT pg_sleep(2)")})
    execute(database, "CREATE SCHEMA tenant", f'ALTER ROLE "{database.user}" SET search_path = tenant')
    first, second = runner.start(tree), runner.start(tree)

    first.start()
    eventually(lambda: is_running(database, "pg_sleep"))
    waited = second.invoke({"target": {"schema": "tenant"}}).payload

    assert first.result().error_type is None
    assert waited["lock_wait_ms"] > 0
    assert query(database, "SELECT number FROM tenant.ledger ORDER BY 1") == [(1,), (2,)]


def test_a_lock_that_no_run_holds_is_named_as_such(
    runner: Runner, database: Database, postgres_server: Server, tmp_path: Path
) -> None:
    """Any role that may connect can take an advisory lock, and can choose any name for its session."""
    tree = write_ledger(tmp_path / "tree", 1)
    other = f"{database.name}_other"
    postgres.create_role(postgres_server, other, "password")
    administer(postgres_server, f'GRANT CONNECT ON DATABASE "{database.name}" TO "{other}"')
    stranger = replace(database, user=other, password="password")
    function = runner.start(tree, MIGRATION_LOCK_TIMEOUT_S="1")
    run = application_name("template-saas-api-migrate-lambda-test", str(uuid4()))
    try:
        for login, name in ((stranger, "psql"), (stranger, run), (database, "psql")):
            with closing(login.connect()) as holder, holder.cursor() as cursor:
                cursor.execute("SELECT set_config('application_name', %s, false)", (name,))
                cursor.execute("SELECT pg_advisory_lock(%s, 0)", (LOCK_CLASS,))
                pid = holder.info.backend_pid
                answer = function.invoke()
            assert answer.error_type == "MigrationLocked"
            assert "a session that is no run of this function holds the migration lock" in answer.message
            assert f"{name} (pid {pid}, login {login.user}," in answer.message
            assert "any role may take an advisory lock" in answer.message
        with closing(database.connect()) as holder, holder.cursor() as cursor:
            cursor.execute("SELECT set_config('application_name', %s, false)", (run,))
            cursor.execute("SELECT pg_advisory_lock(%s, 0)", (LOCK_CLASS,))
            answer = function.invoke()
        assert answer.message.startswith("another run holds the migration lock"), answer.message
    finally:
        administer(
            postgres_server, f'DROP OWNED BY "{other}"', f'REVOKE ALL ON DATABASE "{database.name}" FROM "{other}"'
        )
        administer(postgres_server, f'DROP ROLE "{other}"')
