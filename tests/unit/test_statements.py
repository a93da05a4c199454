"""The text of a statement shows whether it ends a transaction, or has an effect that ends with it."""

from __future__ import annotations

import pytest

from lambda_migrate.env_py.statements import called, commits, is_local, rolls_back


@pytest.mark.parametrize(
    "text",
    [
        "SET app.tenant = 'a'",
        "SET SESSION ROLE r",
        "SET LOCAL lock_timeout = '5s'",
        "SELECT set_config('statement_timeout', '5s', true)",
        "SELECT set_config('a', 'b', false)",
        "SELECT set_config('a', 'b', 'f'::bool), 1",
        "SELECT pg_advisory_lock(1)",
        "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1",
        "CREATE TEMP TABLE t (id int) ON COMMIT PRESERVE ROWS",
        "SAVEPOINT sa_savepoint_1",
        "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN SET LOCAL a.b = 1; END$$",
        "-- SET LOCAL\nSELECT 1",
        "ALTER TABLE lock ADD COLUMN locked boolean",
        "SELECT 1; SELECT 2",
    ],
)
def test_it_outlives_the_transaction(text: str) -> None:
    assert not is_local(text)


@pytest.mark.parametrize(
    "text", ["ROLLBACK TO SAVEPOINT s", "ROLLBACK PREPARED 'x'", "SELECT 'x; ROLLBACK;'", "PREPARE s AS SELECT 1"]
)
def test_it_does_not_roll_back_the_transaction(text: str) -> None:
    assert not rolls_back(text)


@pytest.mark.parametrize(
    "text",
    ["rollback", "INSERT INTO t VALUES (';'); ABORT TRANSACTION", "ROLLBACK AND NO CHAIN;", "PREPARE TRANSACTION 'x'"],
)
def test_it_rolls_back_the_transaction(text: str) -> None:
    assert rolls_back(text)


def test_it_commits_the_transaction() -> None:
    assert [commits(each) for each in ("END", "commit work;", "COMMIT PREPARED 'x'")] == [True, True, False]


def test_only_statements_that_act_call_a_function() -> None:
    assert called('SELECT a.f (1), "g"(2); CREATE INDEX i ON t (h(x)); DO $$BEGIN PERFORM k(); END$$') >= {
        "f",
        "g",
        "k",
    }
    assert called("CREATE INDEX i ON t (h(x))") == set()
