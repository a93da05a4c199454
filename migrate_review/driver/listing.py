"""Lists the revisions of a tree, with facts from their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import alembic
import sqlalchemy

from migrate_review.driver.failures import RefusedError, described, import_advice
from migrate_review.revisions.function_source import inserted_values, is_empty, upgrade_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.script import ScriptDirectory

    from migrate_review.driver.env_py import EnvPy


def tree(env_py: EnvPy) -> dict[str, Any]:
    """Return every revision, parents first.

    Alembic imports the revisions after env.py has begun, and some of them import modules that env.py has added to the
    path.
    """
    found: dict[str, Any] = {}

    def steps(*_: object) -> Sequence[Any]:
        try:
            found.update(_tree(env_py.script))
        except BaseException as error:
            folder = env_py.folder
            raise RefusedError(f"{described(error, folder)}{import_advice(error, folder)}") from error
        return ()

    versions = {"alembic": alembic.__version__, "sqlalchemy": sqlalchemy.__version__}
    return {**env_py.run(steps), **found, "versions": versions}


def _tree(script: ScriptDirectory) -> dict[str, Any]:
    parents_first = [*script.walk_revisions()][::-1]
    return {
        "heads": sorted(script.get_heads()),
        "revisions": [
            {
                "revision": each.revision,
                "description": each.doc,
                "parents": _ids(script, each.down_revision),
                "dependencies": _ids(script, each.dependencies),
                "path": each.path,
                **_read_functions(Path(each.path).read_bytes()),
            }
            for each in parents_first
        ],
    }


def _ids(script: ScriptDirectory, given: Any) -> list[str]:  # noqa: ANN401 - Alembic takes none, one or several
    """Return the full ids. Alembic also accepts labels and the beginnings of ids."""
    names = (given,) if isinstance(given, str) else tuple(given or ())
    return [each.revision for name in names for each in script.get_revisions(name)]


def _read_functions(source: bytes) -> dict[str, Any]:
    return {
        "upgrade_texts": upgrade_texts(source),
        "inserted": sorted(inserted_values(source)),
        "empty": {name: is_empty(source, name) for name in ("upgrade", "downgrade")},
    }
