"""Reviews Alembic revisions by running them on a real PostgreSQL with rows in it, and watching."""
