"""Applies the checkpoint beside env.py to an empty database, so that a developer's own Alembic continues from it.

The function does this on env.py's own connection. Here the login may differ from env.py's, so the objects could get
another owner. Therefore a checkpoint of an env.py that sets a role is not used.
"""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING

from infra.package import checkpoints
from infra.package.builder import graph_of
from infra.package.errors import PackageError
from infra.package.layout import read_layout
from lambda_migrate.env_py import emptiness
from lambda_migrate.revisions.checkpoint import (
    CURRENT_SETTINGS,
    Surroundings,
    in_session,
    placed,
    read_checkpoint,
    read_script,
)

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database


def apply_if_empty(config: Path, database: Database) -> str | None:
    """Apply the checkpoint of a backend if the database is empty. Return a message, or None if there is none."""
    try:
        layout = read_layout(config.parent, config.name)
        checked = checkpoints.check(layout, graph_of(layout, config.parent) if layout.in_backend else None)
    except PackageError as error:
        return f"the checkpoint is not used: {error}"
    if not checked.usable:
        return checked.warning
    found = read_checkpoint(layout.tree)
    assert found is not None  # noqa: S101 - it was checked a moment ago
    with closing(database.connect()) as opened, opened, opened.cursor() as cursor:
        opened.autocommit = False
        cursor.execute(emptiness.query(found, None, found.tables[0].name).replace("%", "%%"), ())
        [(text,)] = cursor.fetchall()
        session = emptiness.Found(**json.loads(text))
        if session.version_table_exists:
            return None
        # `make upgrade` runs Alembic without -x.
        surroundings = Surroundings({}, os.environ, {}, ("DATABASE_URL",))
        why = surroundings.differ_from(found) or next(emptiness.reasons(found, session), None)
        if found.acts_as is not None:
            why = "env.py acts as another role than its login"
        elif len(found.tables) > 1:
            why = "env.py has several version tables"
        if why is not None:
            return f"the checkpoint is not used, and every revision runs: {why}"
        script = placed(read_script(layout.tree, found), str(session.quoted_schema), session.quoted_role)
        cursor.execute(f"SELECT {CURRENT_SETTINGS}")
        [(settings,)] = cursor.fetchall()
        for text in in_session(script, json.loads(settings)):
            cursor.execute(text)
    return f"began with a checkpoint of {len(found.revisions)} revisions, at {found.revision}"
