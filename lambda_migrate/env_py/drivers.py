"""Lends the function's own psycopg2 to a backend whose libraries have none."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lambda_migrate import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

PSYCOPG2 = "postgresql+psycopg2"


class _Lent(MetaPathFinder):
    """Finds psycopg2, and nothing else, among the function's libraries."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(LIBRARIES)]) if name == "psycopg2" else None


def provide(driver: str) -> None:
    """Make the driver of a SQLAlchemy URL importable, if it is psycopg2 and the backend's libraries lack it."""
    if driver in {PSYCOPG2, "postgresql"} and find_spec("psycopg2") is None:
        sys.meta_path.append(_Lent())
