"""The text of a statement shows whether it ends the transaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_migrate.env_py.statements import end_of_transaction, split


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
        "PREPARE transaction AS SELECT 1",
        "/* a /* b */ ; ROLLBACK; */ SELECT 1",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END",
        "SELECT $a$ ; COMMIT; $b$ ; COMMIT; $a$",
        "/* ; COMMIT",
        "SELECT 1 AS a$b$; SELECT $$; ROLLBACK; $$",
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
        "CREATE FUNCTION f() RETURNS int LANGUAGE SQL BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 1 END; END; ROLLBACK",
        "-- begin atomic\nROLLBACK",
        "ROLLBACK; CREATE TABLE x (c text DEFAULT 'BEGIN ATOMIC')",
        "/* a /* b */ */ ROLLBACK",
    ],
)
def test_it_rolls_back_the_transaction(text: str) -> None:
    assert end_of_transaction(text) == "rollback"


@pytest.mark.parametrize("text", ["END", "commit work;", "/* x */ COMMIT -- y", "COMMIT AND CHAIN", "COMMIT; ROLLBACK"])
def test_it_commits_the_transaction(text: str) -> None:
    assert end_of_transaction(text) == "commit"


@given(
    st.lists(
        st.sampled_from(["'", '"', "$$", "$a$", "/*", "*/", "--", "\n", ";", "e'", "\\", "BEGIN ATOMIC", "END", "x "])
    )
)
def test_statements_have_all_of_the_text(parts: list[str]) -> None:
    text = "".join(parts)
    assert ";".join(split(text)) == text


@pytest.mark.parametrize("part", ["/* ", "$t{}$ ", "a/* ", "'", "e'\\", "; "])
def test_a_long_text_of_any_form_is_read(part: str) -> None:
    # A quadratic reading takes minutes.
    assert end_of_transaction("".join(part.format(number) for number in range(100_000)) + " COMMIT") in {None, "commit"}
