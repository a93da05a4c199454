"""Writes the same history of schema changes for each tool.

Ten revisions make a table: one creates it, seven add columns, one adds an index, one sets a default. The head creates
its own table, so one DROP leads to the state before it.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LAST_TABLE = "last_change"
VERSION_TABLE = "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"

_ALEMBIC_INI = """\
[alembic]
script_location = %(here)s/migrations
prepend_sys_path = .

[loggers]
keys = root,sqlalchemy,alembic

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = WARNING
handlers = console
qualname =

[logger_sqlalchemy]
level = WARNING
handlers =
qualname = sqlalchemy.engine

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

# Alembic's own template with another URL, and with one transaction for each migration, like the function.
_ENV_PY = """\
import os
from logging.config import fileConfig

from sqlalchemy import create_engine
from sqlalchemy import pool

from alembic import context

config = context.config

if config.config_file_name is not None:
    fileConfig(config.config_file_name)

target_metadata = None


def run_migrations_offline() -> None:
    context.configure(
        url=os.environ["DATABASE_URL"],
        target_metadata=target_metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online() -> None:
    connectable = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
    with connectable.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=target_metadata,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
"""

_REVISION_PY = '''\
"""{title}

Revision ID: {revision}
Revises: {down}
Create Date: 2026-01-01 00:00:00.000000

"""
from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa


# revision identifiers, used by Alembic.
revision: str = {revision!r}
down_revision: Union[str, Sequence[str], None] = {down!r}
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
{upgrade}


def downgrade() -> None:
    """Downgrade schema."""
    raise NotImplementedError
'''

_DJANGO_SETTINGS = """\
import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
        "NAME": os.environ["PGDATABASE"],
        "USER": os.environ["PGUSER"],
        "PASSWORD": os.environ["PGPASSWORD"],
    }
}
INSTALLED_APPS = ["changes"]
SECRET_KEY = "none"
USE_TZ = True
"""


@dataclass(frozen=True)
class Change:
    """One revision: its id, which sorts by age, its title, and the change as Alembic operations and as SQL."""

    revision: str
    title: str
    operations: str
    sql: str


def changes(count: int) -> tuple[Change, ...]:
    """Return a history of ``count`` revisions."""
    return (*(_change(number) for number in range(1, count)), _last(count))


def stamped(change: Change) -> tuple[str, ...]:
    """Return the statements that set Alembic's version table to this change."""
    return (
        VERSION_TABLE,
        "DELETE FROM alembic_version",
        f"INSERT INTO alembic_version VALUES ('{change.revision}')",  # noqa: S608 - we named it
    )


def busy_change(table: str) -> Change:
    """Return a change that adds a column to a table that an application uses."""
    return Change(
        "r00001",
        f"Add a column to {table}",
        f'op.add_column("{table}", sa.Column("more", sa.Integer(), nullable=True))',
        f"ALTER TABLE {table} ADD COLUMN more INTEGER",
    )


def _change(number: int) -> Change:
    table = f"things_{(number - 1) // 10:04}"
    column = f"c{number:05}"
    step = (number - 1) % 10
    if step == 0:
        title = f"Create {table}"
        operations = (
            f'op.create_table("{table}",\n'
            '    sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),\n'
            '    sa.Column("name", sa.Text(), nullable=False),\n'
            '    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),\n'
            '    sa.PrimaryKeyConstraint("id"),\n'
            ")"
        )
        sql = (
            f"CREATE TABLE {table} (id BIGINT GENERATED BY DEFAULT AS IDENTITY NOT NULL, name TEXT NOT NULL, "
            "created_at TIMESTAMP WITH TIME ZONE DEFAULT now(), PRIMARY KEY (id))"
        )
    elif step == 8:  # noqa: PLR2004 - the ninth of ten
        title = f"Index the names of {table}"
        operations = f'op.create_index("ix_{table}_name", "{table}", ["name"])'
        sql = f"CREATE INDEX ix_{table}_name ON {table} (name)"
    elif step == 9:  # noqa: PLR2004 - the tenth
        title = f"Give names of {table} a default"
        operations = f'op.alter_column("{table}", "name", server_default="")'
        sql = f"ALTER TABLE {table} ALTER COLUMN name SET DEFAULT ''"
    else:
        title = f"Add {column} to {table}"
        operations = f'op.add_column("{table}", sa.Column("{column}", sa.Integer(), nullable=True))'
        sql = f"ALTER TABLE {table} ADD COLUMN {column} INTEGER"
    return Change(f"r{number:05}", title, operations, sql)


def _last(number: int) -> Change:
    return Change(
        f"r{number:05}",
        f"Create {LAST_TABLE}",
        f'op.create_table("{LAST_TABLE}", sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),\n'
        '    sa.PrimaryKeyConstraint("id"))',
        f"CREATE TABLE {LAST_TABLE} (id BIGINT GENERATED BY DEFAULT AS IDENTITY NOT NULL, PRIMARY KEY (id))",
    )


def write_alembic(folder: Path, history: Sequence[Change]) -> None:
    """Write ``alembic.ini`` and, below ``migrations``, the files of `alembic init` and `alembic revision`."""
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (folder / "alembic.ini").write_text(_ALEMBIC_INI)
    (folder / "migrations" / "env.py").write_text(_ENV_PY)
    (folder / "migrations" / "script.py.mako").write_text("")
    down: str | None = None
    for change in history:
        text = _REVISION_PY.format(
            title=change.title,
            revision=change.revision,
            down=down,
            upgrade=textwrap.indent(change.operations, "    "),
        )
        (versions / f"{change.revision}_{_slug(change)}.py").write_text(text)
        down = change.revision


def write_bare(folder: Path, history: Sequence[Change]) -> None:
    """Write the files of the bare script."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "head").write_text(history[-1].revision)
    (folder / "changes.json").write_text(json.dumps([(change.revision, change.sql) for change in history]))


def write_dbmate(folder: Path, history: Sequence[Change]) -> None:
    """Write one SQL file for each change."""
    folder.mkdir(parents=True)
    for change in history:
        name = f"{change.revision[1:]}_{_slug(change)}.sql"
        (folder / name).write_text(f"-- migrate:up\n{change.sql};\n\n-- migrate:down\n")


def write_yoyo(folder: Path, history: Sequence[Change]) -> None:
    """Write one SQL file for each change. yoyo sorts them by name."""
    folder.mkdir(parents=True)
    for change in history:
        (folder / f"{change.revision[1:]}.{_slug(change)}.sql").write_text(f"-- {change.title}\n{change.sql};\n")


def write_django(folder: Path, history: Sequence[Change]) -> None:
    """Write a project with one application. RunSQL instead of models is the least work for Django."""
    migrations = folder / "changes" / "migrations"
    migrations.mkdir(parents=True)
    (folder / "settings.py").write_text(_DJANGO_SETTINGS)
    (folder / "changes" / "__init__.py").touch()
    (migrations / "__init__.py").touch()
    before = ""
    for change in history:
        name = f"{change.revision[1:]}_{_slug(change)}"
        needs = f'("changes", "{before}")' if before else ""
        (migrations / f"{name}.py").write_text(
            "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n"
            f"    dependencies = [{needs}]\n    operations = [migrations.RunSQL({change.sql!r})]\n"
        )
        before = name


def _slug(change: Change) -> str:
    return change.title.lower().replace(" ", "_")
