"""Renders the SQL of a revision without running it, as Alembic's offline mode does."""

from __future__ import annotations

from contextlib import suppress
from io import StringIO
from typing import TYPE_CHECKING, Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.script import ScriptDirectory

    from migrate_review.driver.env_py import EnvPy


def render(env_py: EnvPy, revision: str) -> dict[str, Any]:
    """Return the SQL of a revision that cannot run, as ``alembic upgrade --sql`` writes it, without any database.

    The list ends where the revision needs a database.
    """
    statements: list[dict[str, Any]] = []

    def steps(*_: object) -> Sequence[Any]:
        with suppress(BaseException):
            _write_sql(env_py.script, revision, statements)
        return ()

    return {**env_py.run(steps), "statements": statements}


def _write_sql(script: ScriptDirectory, revision: str, statements: list[dict[str, Any]]) -> None:
    """Append the statements of a revision's upgrade, each with whether it runs in a transaction.

    It raises any error that the revision raises without a database. The statements before the error are in
    ``statements``.
    """
    context = MigrationContext.configure(
        dialect_name="postgresql",
        opts={"as_sql": True, "literal_binds": True, "transaction_per_migration": True, "output_buffer": StringIO()},
    )
    in_transaction = True

    def write(text: str) -> None:
        nonlocal in_transaction
        sql = text.strip().rstrip(";").strip()
        if sql.upper() in ("BEGIN", "COMMIT"):
            in_transaction = sql.upper() == "BEGIN"
        elif sql:
            statements.append({
                "sql": sql, "duration_ms": 0.0, "in_transaction": in_transaction,
                "locks": [], "scanned": [], "rewritten": [], "read": {}, "changed": {}, "idle_ms": 0.0,
            })  # fmt: skip

    context.impl.static_output = write  # type: ignore[method-assign]
    found = script.get_revision(revision)
    with Operations.context(context):
        found.module.upgrade()
