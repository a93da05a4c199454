"""The modules that are loaded before the fork. A failure would only make runs slower, so tests look for it."""

from __future__ import annotations

from lambda_migrate.env_py.preload import rehearse


def test_the_rehearsal_ends_without_an_error() -> None:
    rehearse("postgresql+psycopg2")
