"""Finds folders that the backend imports from, but that the configuration does not name.

Its env.py adds them to ``sys.path``, its project is installed from them, or its container has them in ``PYTHONPATH``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.package import import_graph
from infra.package.imports import backend_files
from infra.package.installed import LAMBDAS, may_provide, standard_library, surely
from infra.package.layout import BACKEND, BACKEND_LIBRARIES, ImportRoot
from infra.package.project_table import folders_above
from infra.package.sources import folders_below

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path, PurePosixPath

    from infra.package.import_graph import Reached
    from infra.package.imports import Files
    from infra.package.layout import Layout

_DEEPEST = 3
_ROUNDS = 5


@dataclass(frozen=True)
class Own:
    """The backend's own files, and a layout with all folders from which they import."""

    layout: Layout
    files: Files
    reached: Reached


def find(layout: Layout, locked: Collection[str], minor: int) -> Own:
    """Return the backend's files that its tree needs, for Python 3.``minor``; ``locked`` are its distributions."""
    elsewhere = standard_library(minor) | LAMBDAS
    for _ in range(_ROUNDS):
        files = backend_files(layout)
        found = import_graph.read(files, layout)
        foreign = [one for one in surely(found.foreign) if one.imported.top not in elsewhere]
        names = {one.imported.top for one in foreign if not any(may_provide(name, [one]) for name in locked)}
        folders = {folder for name in sorted(names) if (folder := _folder_of(name, layout))}
        if not folders:
            break
        # A folder keeps its place if env.py adds it to the path. Otherwise its files go among the libraries.
        roots = [ImportRoot(folder, _place(folder, layout, found)) for folder in sorted(folders)]
        layout = replace(layout, import_roots=(*layout.import_roots, *roots))
    return Own(layout, files, found)


def _place(folder: Path, layout: Layout, found: Reached) -> PurePosixPath:
    if found.changes_the_path:
        return BACKEND / folder.relative_to(layout.backend).as_posix()
    return BACKEND_LIBRARIES


@dataclass(frozen=True)
class Beside:
    """A folder of the backend's repository, outside of the backend, and the folder that contains both."""

    folder: Path
    repository: Path


def beside(backend: Path, name: str) -> Beside | None:
    """Return the folder of the backend's repository from which a module outside of the backend can be imported."""
    for above in folders_above(backend):
        if folder := next((each for each in folders_below(above, _DEEPEST) if _has(each, name)), None):
            return Beside(folder, above)
    return None


def _folder_of(name: str, layout: Layout) -> Path | None:
    known = {root.source for root in layout.import_roots}
    below = folders_below(layout.backend, _DEEPEST)
    return next((folder for folder in below if folder not in known and _has(folder, name)), None)


def _has(folder: Path, name: str) -> bool:
    return (folder / name / "__init__.py").is_file() or (folder / f"{name}.py").is_file()
