"""The function's statements in env.py's session take each name from pg_catalog, or are refused."""

from __future__ import annotations

import pytest

from lambda_migrate.database.qualified import qualified


def test_each_name_is_taken_from_pg_catalog() -> None:
    sql = "SELECT quote_ident(relname) FROM pg_class WHERE (oid = :one) AND (relname <> 'a = b'::text)"

    assert qualified(sql) == (
        "SELECT pg_catalog.quote_ident(relname) FROM pg_catalog.pg_class WHERE (oid OPERATOR(pg_catalog.=) :one)"
        " AND (relname OPERATOR(pg_catalog.<>) 'a = b'::pg_catalog.text)"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT oid IN (1)",
        "SELECT oid BETWEEN 1 AND 2",
        "SELECT relname LIKE 'a'",
        "SELECT nullif(oid, 1)",
        "SELECT oid IS DISTINCT FROM 1",
        "SELECT CASE oid WHEN 1 THEN 2 END",
        "SELECT oid # 1",
        # Before PostgreSQL 14, its body names operators without a schema.
        "SELECT obj_description(oid, 'pg_class')",
    ],
)
def test_what_cannot_be_qualified_is_refused(sql: str) -> None:
    with pytest.raises(ValueError, match="cannot be qualified"):
        qualified(sql)
