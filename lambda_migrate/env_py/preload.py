"""Loads and compiles before the fork what each run's process needs, so that the process inherits it.

The imports take 240 ms of processor time, and the first use of SQLAlchemy's compiler takes 15 ms instead of 2. Both
happen while the function connects and takes the lock.

It loads no backend code, so nothing leaks between runs. It ignores errors; the process reports them.
"""

from __future__ import annotations

import io
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

import sqlalchemy
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.schema import CreateTable

from lambda_migrate.env_py import tree
from lambda_migrate.env_py.drivers import provide
from lambda_migrate.env_py.inputs import command_line_parser
from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from lambda_migrate.invocation.settings import Settings


def preload(settings: Settings) -> None:
    """Load the packaged graph and rehearse a migration, once in an execution environment."""
    with suppress(ConfigurationError):
        tree.packaged_graph(settings)
    with suppress(Exception):
        rehearse(settings.driver)


@lru_cache(maxsize=1)
def rehearse(driver: str) -> None:
    """Migrate without a database. SQLAlchemy's first statement of each kind takes as long as a whole revision."""
    command_line_parser().parse_args(["upgrade", "head"])
    provide(driver)
    # This imports the driver and everything that it registers on its connections.
    engine = sqlalchemy.create_engine(f"{driver}://")
    offline = {"as_sql": True, "output_buffer": io.StringIO()}
    migration = Operations(MigrationContext.configure(dialect=engine.dialect, opts=offline))
    migration.create_table("rehearsed", sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
    migration.add_column("rehearsed", sqlalchemy.Column("name", sqlalchemy.String(32), server_default=""))
    migration.create_index("rehearsed_name", "rehearsed", ["name"])
    migration.execute("SELECT 1")
    # The same statements as for Alembic's version table.
    table = sqlalchemy.Table("version", sqlalchemy.MetaData(), sqlalchemy.Column("number", sqlalchemy.String(32)))
    number: sqlalchemy.ColumnElement[str] = sqlalchemy.literal_column("'1'")
    changed = (
        table.insert().values(number=number),
        table.update().values(number=number).where(table.c.number == number),
        table.delete().where(table.c.number == number),
    )
    for statement in (CreateTable(table), table.select(), *changed):
        statement.compile(dialect=engine.dialect)
