"""Runs a backend's Alembic migrations from inside AWS Lambda."""
