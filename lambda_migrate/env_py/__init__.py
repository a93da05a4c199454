"""Code of the process in which env.py runs. Only this package imports Alembic and SQLAlchemy."""
