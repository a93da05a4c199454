"""Reads the revision files of a backend, without running any of them."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.package.errors import PackageError
from infra.package.layout import read_layout
from infra.package.revision_file import Problem, ProblemKind, assignments, is_revision_file, read_revision_file
from migrate_review.errors import ReviewError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class RevisionSource:
    """One revision with its source text. Its file is not run."""

    id: str
    down_revisions: tuple[str, ...]
    description: str
    path: Path
    text: str
    labelled: bool = False
    has_downgrade: bool = True
    imports_of_backend: tuple[tuple[str, int], ...] = ()

    @property
    def sha256(self) -> str:
        """Return the hash of the revision's `substance`."""
        return hashlib.sha256(substance(self.text).encode()).hexdigest()


@dataclass(frozen=True)
class Unreadable:
    """A file in a version directory that cannot be read as a revision."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Tree:
    """A backend's revisions, parents first, and their folders."""

    backend: Path
    location: Path
    version_locations: tuple[Path, ...]
    revisions: tuple[RevisionSource, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        """The sorted ids of the revisions without children."""
        return heads_of(self.revisions)

    def find(self, name: str) -> tuple[RevisionSource, ...]:
        """Return the revisions that match a name: an id, the beginning of an id, or ``head``."""
        if name in ("head", "heads"):
            return tuple(revision for revision in self.revisions if revision.id in self.heads)
        exact = tuple(revision for revision in self.revisions if revision.id == name)
        return exact or tuple(revision for revision in self.revisions if name and revision.id.startswith(name))


def substance(text: str) -> str:
    """Return a revision's text without trailing spaces, blank lines and comment lines.

    A comment, such as an acknowledgement, does not change it.
    """
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith(("#", "-- ")))


def heads_of(revisions: Iterable[RevisionSource]) -> tuple[str, ...]:
    """Return the sorted ids of the revisions without children."""
    several = tuple(revisions)
    built_on = {parent for revision in several for parent in revision.down_revisions}
    return tuple(sorted(revision.id for revision in several if revision.id not in built_on))


def read_tree(backend: Path, config: str = "alembic.ini") -> Tree:
    """Return the revisions of the backend's tree.

    Raises:
        ReviewError: there is no configuration, or it names a folder that does not exist.
    """
    try:
        layout = read_layout(backend.resolve(), config)
    except PackageError as error:
        raise ReviewError(str(error)) from error
    own = _own_modules(root.source for root in layout.import_roots)
    found: list[RevisionSource] = []
    unreadable: list[Unreadable] = []
    for directory in layout.version_locations:
        for path in _files(directory, recursive=layout.recursive):
            read = read_revision(path, path.read_text(encoding="utf-8", errors="replace"), own)
            if isinstance(read, Unreadable):
                unreadable.append(read)
            else:
                found.append(read)
    return Tree(layout.backend, layout.tree, layout.version_locations, _in_order(found), tuple(unreadable))


def working_folder(backend: Path, config: Path) -> Path:
    """Return the folder in which the alembic command runs, as the builder of the package chooses it."""
    try:
        return read_layout(backend, config.relative_to(backend).as_posix()).working_folder
    except PackageError:
        return config.parent  # the driver reports the error


def read_revision(path: Path, text: str, own: frozenset[str] = frozenset()) -> RevisionSource | Unreadable:
    """Return the revision in one file. ``own`` are the names of the backend's modules."""
    read = read_revision_file(text, path.name)
    if isinstance(read, Problem):
        if read.kind is ProblemKind.SYNTAX:
            return Unreadable(path, f"{type(read.error).__name__}: {read.error}")
        return Unreadable(path, "`revision` and `down_revision` are not written as strings")
    return RevisionSource(
        id=read.id,
        down_revisions=read.down_revisions,
        description=next(iter(read.docstring.splitlines()), ""),
        path=path,
        text=text,
        labelled=bool(read.branch_labels),
        has_downgrade=_has_downgrade(read.module),
        imports_of_backend=tuple((name, line) for name, line in _imports(read.module) if name.partition(".")[0] in own),
    )


def _has_downgrade(module: ast.Module) -> bool:
    """Return whether a module defines, assigns or imports ``downgrade``, or imports every name of another module."""
    names = {statement.name for statement in module.body if isinstance(statement, ast.FunctionDef)}
    names.update(name for name, _ in assignments(module))
    imported = (statement for statement in module.body if isinstance(statement, ast.ImportFrom))
    names.update(alias.asname or alias.name for statement in imported for alias in statement.names)
    return not names.isdisjoint({"downgrade", "*"})


def _files(directory: Path, *, recursive: bool) -> Iterator[Path]:
    pattern = "**/*.py" if recursive else "*.py"
    return (path for path in sorted(directory.glob(pattern)) if is_revision_file(path.name))


def _own_modules(roots: Iterable[Path]) -> frozenset[str]:
    """Return the top-level names that can be imported from these folders, except Alembic's own."""
    packages = (path for root in roots if root.is_dir() for path in root.iterdir())
    return frozenset(
        path.stem for path in packages if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file())
    ) - {"alembic"}


def _imports(module: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno


def _in_order(revisions: Iterable[RevisionSource]) -> tuple[RevisionSource, ...]:
    """Return the revisions, parents first.

    The builder refuses a missing parent and a cycle. A review reports them as findings, so here a missing parent is
    ignored and a cycle comes last.
    """
    waiting = {revision.id: revision for revision in revisions}
    ordered: dict[str, RevisionSource] = {}
    while waiting:
        ready = [one for one in waiting.values() if not any(parent in waiting for parent in one.down_revisions)]
        for revision in ready or list(waiting.values()):
            ordered[revision.id] = waiting.pop(revision.id)
    return tuple(ordered.values())
