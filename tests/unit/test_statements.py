"""The text of a statement shows whether it ends the transaction."""

from __future__ import annotations

import pytest

from lambda_migrate.env_py.statements import end_of_transaction


@pytest.mark.parametrize(
    "text",
    [
        "ROLLBACK TO SAVEPOINT s",
        "ROLLBACK PREPARED 'x'",
        "COMMIT PREPARED 'x'",
        "SELECT 'x; ROLLBACK;'",
        "SELECT E'it\\'s; ROLLBACK;'",
        "PREPARE s AS SELECT 1",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
        "DO $x$BEGIN COMMIT; END$x$",
        "/* ; COMMIT; */ SELECT 1 -- ; COMMIT",
        "CREATE TEMP TABLE t (id int) ON COMMIT DROP",
        "BEGIN",
    ],
)
def test_it_does_not_end_the_transaction(text: str) -> None:
    assert end_of_transaction(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "rollback",
        "INSERT INTO t VALUES (';'); ABORT TRANSACTION",
        "ROLLBACK AND NO CHAIN;",
        "PREPARE TRANSACTION 'x'",
        "SELECT 'C:\\'; ROLLBACK; SELECT 'x'",
        "ROLLBACK; BEGIN; COMMIT",
    ],
)
def test_it_rolls_back_the_transaction(text: str) -> None:
    assert end_of_transaction(text) == "rollback"


@pytest.mark.parametrize("text", ["END", "commit work;", "/* x */ COMMIT -- y", "COMMIT AND CHAIN", "COMMIT; ROLLBACK"])
def test_it_commits_the_transaction(text: str) -> None:
    assert end_of_transaction(text) == "commit"
