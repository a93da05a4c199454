"""Compares the models of env.py with the database, as ``alembic check`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.autogenerate import RevisionContext

from migrate_review.driver.env_py import described_models
from migrate_review.driver.failures import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.runtime.migration import MigrationContext

    from migrate_review.driver.env_py import EnvPy


def drift(env_py: EnvPy) -> dict[str, Any]:
    """Return the operations that autogenerate would write, one line for each. It uses the class of ``alembic check``.

    ``changed`` is True if a revision has changed the models of this process. Then another process must compare them.
    """
    differences: list[str] = []
    found = {"changed": False}

    def steps(heads: Any, context: MigrationContext) -> Sequence[Any]:  # noqa: ANN401
        models = context.opts.get("target_metadata")
        if models is not None and described_models(models) != env_py.models:
            found["changed"] = True
            return ()
        if models is None:
            raise RefusedError("env.py gives Alembic no target_metadata, so there are no models to compare")
        arguments = {
            "message": None, "autogenerate": True, "sql": False, "head": "heads", "splice": False,
            "branch_label": None, "version_path": None, "rev_id": None, "depends_on": None,
        }  # fmt: skip
        generation = RevisionContext(env_py.config(), env_py.script, arguments)
        generation.run_autogenerate(heads, context)
        for generated in generation.generated_revisions[-1:]:
            for operations in generated.upgrade_ops_list:
                differences.extend(_difference(each) for each in operations.as_diffs())
        return ()

    return {**env_py.run(steps), **found, "differences": differences}


def _difference(diff: Any) -> str:  # noqa: ANN401 - a tuple, or a list of them for one column
    """Return one line for a difference, which ``alembic check`` prints as a tuple of objects."""
    if isinstance(diff, list):
        return "; ".join(_difference(each) for each in diff)
    kind, *rest = diff
    if kind.startswith("modify_"):
        _, table, column, _, old, new = rest
        return f"{kind} {table}.{column}: {old!r} in the database, {new!r} in the models"
    if kind in {"add_column", "remove_column"}:
        return f"{kind} {rest[1]}.{rest[2].name}"
    subject = rest[0]
    table = getattr(subject, "table", None)
    name = getattr(subject, "name", None) or subject
    return f"{kind} {name}" if table is None or table is subject else f"{kind} {name} on {table.name}"
