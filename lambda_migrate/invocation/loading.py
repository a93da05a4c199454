"""Imports modules when a run needs them, and not when an execution environment starts.

A cold start that finds nothing to do loads neither botocore's S3, Alembic, SQLAlchemy nor env.py. Callers name such
modules as text, here and in the table of `lambda_migrate.actions.perform`. A test checks that each lies in the same
package as the module that loads it, or below.
"""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def load(name: str) -> ModuleType:
    """Return a module, imported without garbage collection if this is its first use."""
    with loading():
        return import_module(name)


@contextmanager
def loading() -> Iterator[None]:
    """Suspend garbage collection while modules are imported: 265 instead of 310 ms for Alembic and boto3.

    Loaded modules live as long as the process, so they are frozen: later collections skip them. If nothing was loaded,
    as in a warm run, nothing is frozen.
    """
    enabled, loaded = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > loaded:
            gc.freeze()
        if enabled:
            gc.enable()
