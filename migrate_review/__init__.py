"""Reviews Alembic revisions: runs them on a real PostgreSQL with rows, and measures them."""
