"""The packaged revisions, read without Alembic."""
