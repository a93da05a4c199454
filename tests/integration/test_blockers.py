"""Sessions that hold a migration's tables, and causes that delay any run on the server."""

from __future__ import annotations

import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg2
import pytest
from psycopg2.extras import LogicalReplicationConnection

from lambda_migrate.database import blockers as limits
from lambda_migrate.database.blockers import blockers, holdups
from localcloud import postgres
from tests.support.bystander import administer, execute, query
from tests.support.checkout import ROOT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from psycopg2.extensions import connection

    from localcloud.postgres import Database, Server

EXCLUSIVE, CONCURRENTLY = "ACCESS EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"


@pytest.fixture
def opened(database: Database) -> Iterator[connection]:
    """The connection of the queries."""
    execute(database, "CREATE TABLE users (id int PRIMARY KEY)", "CREATE TABLE other (id int)")
    with closing(database.connect()) as asking:
        asking.autocommit = True
        yield asking


def ask_on(opened: connection) -> Callable[..., list[tuple[Any, ...]]]:
    def ask(sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with opened.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    return ask


def found(opened: connection, mode: str = EXCLUSIVE, table: str = "users") -> list[tuple[str, str, str]]:
    """Wait until a session blocks for longer than the threshold, and return the blockers."""
    for _ in range(40):
        seen = blockers(ask_on(opened), {table: mode})
        if seen:
            break
        time.sleep(0.1)
    return [(each["kind"], each["application_name"], each["table"]) for each in seen]


@contextmanager
def holding(database: Database, *statements: str) -> Iterator[connection]:
    """Another session that holds what these statements lock."""
    with closing(database.connect()) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        cursor.execute("SET application_name = 'report'")
        for statement in statements:
            cursor.execute(statement)
        yield holder


def test_a_session_that_is_idle_in_a_transaction(opened: connection, database: Database) -> None:
    with holding(database, "SELECT FROM users"):
        assert found(opened) == [("idle in transaction", "report", "users")]
        assert blockers(ask_on(opened), {"other": EXCLUSIVE}) == []
        assert blockers(ask_on(opened), {"users": "SHARE"}) == [], "a reader is in no writer's way"


def test_a_long_transaction_an_index_build_and_a_vacuum(opened: connection, database: Database) -> None:
    execute(
        database, "CREATE FUNCTION slow(id int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT pg_sleep(9); SELECT 1'"
    )
    execute(database, "INSERT INTO users SELECT generate_series(1, 5000)")

    def run(statement: str) -> None:
        with suppress(psycopg2.Error), closing(database.connect()) as busy, busy.cursor() as cursor:
            busy.autocommit = True
            cursor.execute("SET application_name = 'report'")
            for each in statement.split("; "):
                cursor.execute(each)

    for statement, kind in (
        ("SELECT pg_sleep(9) FROM users", "transaction"),
        ("CREATE INDEX CONCURRENTLY ON users (slow(id))", "index build"),
        ("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1; VACUUM users", "vacuum"),
    ):
        working = threading.Thread(target=run, args=(statement,))
        working.start()
        try:
            assert found(opened) == [(kind, "report", "users")]
        finally:
            with opened.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'report' AND datname = current_database()"
                )
            working.join()


def test_a_prepared_transaction(opened: connection, database: Database) -> None:
    with holding(database, "INSERT INTO users VALUES (1)") as holder, holder.cursor() as cursor:
        cursor.execute("PREPARE TRANSACTION 'left_over'")
        try:
            assert found(opened) == [("prepared transaction", "prepared transaction left_over", "users")]
        finally:
            execute_alone(database, "ROLLBACK PREPARED 'left_over'")


def execute_alone(database: Database, statement: str) -> None:
    with closing(database.connect()) as alone, alone.cursor() as cursor:
        alone.autocommit = True
        cursor.execute(statement)


def test_an_index_that_is_built_concurrently_waits_for_every_snapshot(opened: connection, database: Database) -> None:
    with holding(database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM other"):
        assert found(opened, CONCURRENTLY) == [("old snapshot", "report", "users")]
        assert blockers(ask_on(opened), {"users": EXCLUSIVE}) == []


def test_a_partition_that_is_held_is_its_tables(opened: connection, database: Database) -> None:
    execute(
        database, "CREATE TABLE parts (id int) PARTITION BY LIST (id)", "CREATE TABLE one PARTITION OF parts DEFAULT"
    )
    with holding(database, "SELECT FROM one"):
        assert found(opened, table="parts") == [("idle in transaction", "report", "parts")]


def test_a_lock_timeout_of_none_for_the_role(opened: connection, database: Database, postgres_server: Server) -> None:
    assert holdups(ask_on(opened), ["users"]) == []

    administer(postgres_server, f'ALTER ROLE "{database.user}" SET lock_timeout = 0')

    [found] = holdups(ask_on(opened), ["users"])
    assert found["kind"] == "lock_timeout"
    assert database.user in found["message"]


def test_a_replication_slot_that_nobody_reads(
    opened: connection, database: Database, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = f"slot_{database.user[:20]}"
    administer(postgres_server, f"SELECT pg_create_physical_replication_slot('{slot}', true)")
    try:
        execute(database, "INSERT INTO other SELECT generate_series(1, 50000)")
        assert not any(slot in each["message"] for each in holdups(ask_on(opened), []))
        monkeypatch.setattr(limits, "BEHIND_BYTES", 1 << 20)
        kinds = [(each["kind"], slot in each["message"]) for each in holdups(ask_on(opened), [])]
        assert ("replication slot", True) in kinds
    finally:
        administer(postgres_server, f"SELECT pg_drop_replication_slot('{slot}')")


def test_a_replica_that_is_behind(database: Database, postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    superuser = postgres_server.database(database.name)
    execute(superuser, "CREATE TABLE other (id int)")
    [(position, since)] = query(superuser, "SELECT pg_current_wal_lsn(), pg_current_wal_lsn() - '0/0'::pg_lsn")
    name = f"replica of {database.name}"
    # A connection of this kind is admitted like one of the database's own. It replicates the whole server all the same.
    address = f"{superuser.url.replace('+psycopg2', '')}&application_name={quote(name)}"
    with (
        closing(psycopg2.connect(address, connection_factory=LogicalReplicationConnection)) as replica,
        replica.cursor() as walsender,
        closing(superuser.connect()) as asking,
    ):
        cursor: Any = walsender
        cursor.start_replication_expert(f"START_REPLICATION PHYSICAL {position}")
        reported = dict.fromkeys(("write_lsn", "flush_lsn", "apply_lsn"), int(since))
        cursor.send_feedback(**reported, force=True)
        execute(superuser, "INSERT INTO other SELECT generate_series(1, 50000)")

        def behind() -> list[str]:
            messages = [each["message"] for each in holdups(ask_on(asking), [])]
            return [message for message in messages if name in message]

        with monkeypatch.context() as lower:
            lower.setattr(limits, "BEHIND_BYTES", 1 << 20)
            [message] = eventually(behind)
        assert message.startswith(f"replica {name} is behind by ")
        assert not any(name in each["message"] for each in holdups(ask_on(asking), []))


@pytest.mark.stress
def test_an_autovacuum_that_prevents_wraparound(tmp_path: Path) -> None:
    server = postgres.start(ROOT, tmp_path / "postgres", durable=False)
    try:
        superuser = server.database("postgres")
        execute(
            superuser,
            "ALTER SYSTEM SET autovacuum = on",
            "ALTER SYSTEM SET autovacuum_naptime = 1",
            "SELECT pg_reload_conf()",
            "CREATE TABLE users (id int) WITH (autovacuum_freeze_max_age = 100000, autovacuum_vacuum_cost_limit = 1,"
            " autovacuum_vacuum_cost_delay = 100)",
            "INSERT INTO users SELECT generate_series(1, 200000)",
            "CREATE TABLE old (id int)",
            # Each block that can be rolled back alone takes a transaction id.
            "DO $$ BEGIN FOR i IN 1 .. 110000 LOOP BEGIN INSERT INTO old VALUES (i); EXCEPTION WHEN others THEN"
            " END; END LOOP; END $$",
        )
        with closing(superuser.connect()) as asking:
            assert eventually(lambda: blockers(ask_on(asking), {"users": EXCLUSIVE}))[0]["kind"] == "vacuum"
    finally:
        postgres.remove(ROOT, tmp_path / "postgres")


def test_a_lock_table_that_is_too_small_for_the_partitions(
    opened: connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert holdups(ask_on(opened), ["users"]) == []
    execute(database, "CREATE TABLE parts (id int) PARTITION BY RANGE (id)")
    execute(
        database, *(f"CREATE TABLE part_{n} PARTITION OF parts FOR VALUES FROM ({n}) TO ({n + 1})" for n in range(20))
    )

    monkeypatch.setattr(limits, "FREE_LOCKS", 0.001)
    [found] = holdups(ask_on(opened), ["parts"])

    assert found["kind"] == "lock table"
    assert "lock 21 tables and indexes" in found["message"]
    assert "max_locks_per_transaction" in found["message"]
