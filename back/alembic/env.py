import os
from logging.config import fileConfig

from sqlalchemy import engine_from_config
from sqlalchemy import pool

from alembic import context
from alembic.util import CommandError

from app import migration_lock, revising
from app.models import Base

# this is the Alembic Config object, which provides
# access to the values within the .ini file in use.
config = context.config

# Interpret the config file for Python logging.
# This line sets up loggers basically.
if config.config_file_name is not None:
    fileConfig(config.config_file_name)

# What the alembic command is used wrongly for gets an answer of one line.
revising.tell_in_one_line()
revising.check_description(config)
revising.check_folder_is_writable(config)

# add your model's MetaData object here
# for 'autogenerate' support
target_metadata = Base.metadata

# other values from the config, defined by the needs of env.py,
# can be acquired:
# my_important_option = config.get_main_option("my_important_option")
# ... etc.

# The URL stays out of the ini file, whose values are interpolated: a "%" in
# a password would break them.
try:
    database_url = os.environ["DATABASE_URL"]
except KeyError:
    raise CommandError(
        "DATABASE_URL is not set; it names the database to migrate, as in "
        "postgresql+psycopg2://user:password@host:5432/name"
    ) from None


def run_migrations_offline() -> None:
    """Run migrations in 'offline' mode.

    This configures the context with just a URL
    and not an Engine, though an Engine is acceptable
    here as well.  By skipping the Engine creation
    we don't even need a DBAPI to be available.

    Calls to context.execute() here emit the given string to the
    script output.

    """
    context.configure(
        url=database_url,
        target_metadata=target_metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )

    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online() -> None:
    """Run migrations in 'online' mode.

    In this scenario we need to create an Engine
    and associate a connection with the context.

    """
    connectable = engine_from_config(
        config.get_section(config.config_ini_section, {})
        | {"sqlalchemy.url": database_url},
        prefix="sqlalchemy.",
        poolclass=pool.NullPool,
    )

    # Take turns with a server that starts: it migrates, too.
    with (
        migration_lock.held_by_command(config, connectable),
        connectable.connect() as connection,
    ):
        context.configure(
            connection=connection,
            target_metadata=target_metadata,
            process_revision_directives=revising.refuse_empty,
        )

        with context.begin_transaction():
            revising.check_database_is_at_head(context)
            context.run_migrations()


if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
