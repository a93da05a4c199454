"""Renders the SQL of a revision without running it, as Alembic's offline mode does."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def render(script: ScriptDirectory, revision: str, statements: list[dict[str, Any]]) -> None:
    """Append the statements of a revision's upgrade, each with whether it runs in a transaction.

    Raises whatever the revision raises without a database. What it wrote before that is in ``statements``.
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
