"""What is loaded before the fork; that it fails would only be seen as runs that are slower."""

from __future__ import annotations

from lambda_migrate.env_py.preload import rehearse


def test_the_rehearsal_comes_to_its_end() -> None:
    rehearse("postgresql+psycopg2")
