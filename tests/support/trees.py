"""Small Alembic trees in the usual form, for tests."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENV_PY = """
from logging.config import fileConfig
import os
from sqlalchemy import create_engine, pool
from alembic import context

config = context.config
fileConfig(config.config_file_name)
target_metadata = None


def run_migrations_offline():
    context.configure(
        url=os.environ["DATABASE_URL"], target_metadata=target_metadata, literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online():
    connectable = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
    with connectable.connect() as connection:
        context.configure(connection=connection, target_metadata=target_metadata)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
"""

ALEMBIC_INI = """
[alembic]
script_location = %(here)s/alembic
prepend_sys_path = .

[loggers]
keys = root,alembic

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = WARNING
handlers = console
qualname =

[logger_alembic]
level = INFO
handlers =
qualname = alembic

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(levelname)-5.5s [%(name)s] %(message)s
datefmt = %H:%M:%S
"""


@dataclass(frozen=True)
class Rev:
    """One revision: its id, what ``upgrade`` and ``downgrade`` do, and its parents (by default the one before it)."""

    id: str
    upgrade: str = "pass"
    downgrade: str = "pass"
    down: str | tuple[str, ...] | None = "previous"
    description: str = ""
    branch_labels: str | None = None
    depends_on: str | None = None


def sql(*statements: str) -> str:
    """The body of a function that executes these statements."""
    return "\n".join(f"op.execute({statement!r})" for statement in statements)


def write_tree(
    folder: Path, revisions: Sequence[Rev], *, env_py: str = ENV_PY, ini: str = ALEMBIC_INI, tree: str = "alembic"
) -> Path:
    """Write a backend's folder with an Alembic tree of these revisions, and return the folder."""
    versions = folder / tree / "versions"
    versions.mkdir(parents=True)
    (folder / "alembic.ini").write_text(ini.lstrip())
    (folder / tree / "env.py").write_text(env_py.lstrip())
    (folder / tree / "script.py.mako").write_text("")
    previous: str | None = None
    for revision in revisions:
        down = previous if revision.down == "previous" else revision.down
        write_revision(versions, revision, down)
        previous = revision.id
    return folder


def write_revision(versions: Path, revision: Rev, down: str | tuple[str, ...] | None) -> None:
    """Write one revision's file."""
    body = f'''"""{revision.description or f"Revision {revision.id}"}"""
import os, sys, time
from alembic import context, op
import sqlalchemy as sa

revision = {revision.id!r}
down_revision = {down!r}
branch_labels = {revision.branch_labels!r}
depends_on = {revision.depends_on!r}


def upgrade():
{textwrap.indent(textwrap.dedent(revision.upgrade), "    ")}


def downgrade():
{textwrap.indent(textwrap.dedent(revision.downgrade), "    ")}
'''
    (versions / f"{revision.id}_.py").write_text(body)


def autocommit(*statements: str) -> str:
    return "with op.get_context().autocommit_block():\n" + textwrap.indent(sql(*statements), "    ")
