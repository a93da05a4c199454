"""The least that an env.py is: an address, a connection, a run."""

import os

import sqlalchemy
from alembic import context

with sqlalchemy.create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
