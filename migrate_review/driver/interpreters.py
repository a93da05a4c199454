"""Finds the interpreter that runs the backend's env.py, and returns the advice if it lacks a package."""

from __future__ import annotations

import sys
from pathlib import Path


def packages_advice(python: Path) -> str:
    """Return the advice for an interpreter that lacks a package of the backend."""
    return (
        f"{python} lacks a package of the backend: install the backend's requirements into .venv beside alembic.ini, or"
        " name an interpreter that has them with --python"
    )


def interpreter(backend: Path) -> Path:
    """Return the Python of the backend's .venv, or this one if there is none."""
    own = backend / ".venv" / "bin" / "python"
    return own if own.exists() else Path(sys.executable)
