"""Reads and checks the graph of an Alembic tree's revisions, without running any of them."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.script.revision import Revision as AlembicRevision
from alembic.script.revision import RevisionError, RevisionMap

from infra.package.errors import PackageError
from infra.package.revision_file import Problem, ProblemKind, is_revision_file, read_revision_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class GraphRevision:
    """One revision of a graph.

    ``depends_on`` may hold ids and branch labels. ``description`` is Alembic's `Script.doc`. ``path`` is for messages:
    relative to the backend, or to the package's root if a requirement brings the revisions. ``file`` is the same file
    below its version directory, with links unresolved.
    """

    id: str
    down_revisions: tuple[str, ...]
    depends_on: tuple[str, ...]
    branch_labels: tuple[str, ...]
    description: str
    path: Path
    file: Path = field(default=Path(), compare=False)


@dataclass(frozen=True)
class Graph:
    """All revisions of a tree, parents first, and the sorted ids of its heads."""

    revisions: tuple[GraphRevision, ...]
    heads: tuple[str, ...]


def read_graph(
    directories: Sequence[Path],
    *,
    relative_to: Path,
    recursive: bool = False,
    sourceless: bool = False,
    may_be_empty: bool = False,
) -> Graph:
    """Return the graph of the revisions in these version directories.

    ``sourceless`` is Alembic's option of that name, with which it also loads bytecode without a source. With
    ``may_be_empty``, a graph without a revision is no error.

    Raises:
        PackageError: a file is not a revision, or Alembic could not load the graph.
    """
    files: dict[Path, Path] = {}
    for directory in directories:
        for file in _revision_files(directory, recursive=recursive):
            files.setdefault(file.resolve(), file)
    looked_in = ", ".join(_shown(directory, relative_to) for directory in directories)
    if not files and any(any(_revision_files(directory, recursive=True)) for directory in directories):
        raise PackageError(
            f"no revision in {looked_in}, but in folders below it; Alembic reads them with the option"
            " recursive_version_locations = true"
        )
    _refuse_bytecode_without_source(directories, files.values(), relative_to, sourceless=sourceless)
    if not files and not may_be_empty:
        raise PackageError(
            f"no revision in {looked_in}; write the first one: make revision BACKEND={shlex.quote(str(relative_to))}"
            ' m="...", or in the backend: alembic revision --autogenerate -m "..."'
        )
    by_id: dict[str, GraphRevision] = {}
    for path, file in files.items():
        revision = _read_revision(file, Path(_shown(path, relative_to)))
        if revision.id in by_id:
            raise PackageError(
                f"revision {revision.id} is defined twice, in {by_id[revision.id].path.as_posix()} and in "
                f"{revision.path.as_posix()}; give one of them another id"
            )
        by_id[revision.id] = revision
    ordered = _in_order(by_id)
    return Graph(revisions=ordered, heads=_checked_heads(ordered))


def _revision_files(directory: Path, *, recursive: bool) -> Iterator[Path]:
    for root, directories, files in os.walk(directory):
        yield from (Path(root, name) for name in sorted(files) if is_revision_file(name))
        if not recursive:
            return
        directories[:] = sorted(name for name in directories if not name.endswith("__pycache__"))


def _refuse_bytecode_without_source(
    directories: Sequence[Path], files: Collection[Path], relative_to: Path, *, sourceless: bool
) -> None:
    """Refuse revisions whose graph cannot be read without running them."""
    if files and not sourceless:
        return  # Alembic does not load bytecode either
    sources = {file.name.removesuffix(".py") for file in files} | {"__init__"}
    bytecode = (found for directory in directories for found in sorted(directory.rglob("*.py[co]")))
    if lone := next((found for found in bytecode if found.name.partition(".")[0] not in sources), None):
        raise PackageError(
            f"{_shown(lone, relative_to)} has no source: a sourceless tree cannot be packaged, because its graph cannot"
            " be read without running it; put the .py files into the backend"
        )


def _shown(path: Path, relative_to: Path) -> str:
    return Path(os.path.relpath(path, relative_to)).as_posix()


def _read_revision(file: Path, shown: Path) -> GraphRevision:
    read = read_revision_file(file.read_bytes())
    if isinstance(read, Problem):
        raise PackageError(_refusal(read, shown.as_posix())) from read.error
    if read.problems:
        raise PackageError(_refusal(read.problems[0], shown.as_posix()))
    return GraphRevision(
        id=read.id,
        down_revisions=read.down_revisions,
        depends_on=read.depends_on,
        branch_labels=read.branch_labels,
        description=read.docstring.strip().split("\n\n")[0],
        path=shown,
        file=file,
    )


def _refusal(problem: Problem, where: str) -> str:
    """Return the message for a file that is no revision, or whose graph is known only after running it."""
    location = where if problem.line is None else f"{where}:{problem.line}"
    if isinstance(problem.error, SyntaxError):
        reader = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        return f"{where}:{problem.line}: syntax error: {problem.error.msg} (as {reader} reads it); correct the revision"
    if problem.kind is ProblemKind.SYNTAX:
        return f"{where}: {problem.error}; correct the revision"
    if problem.kind is ProblemKind.MISSING:
        return (
            f"{where} does not define `{problem.variable}`; a version directory holds revisions only: "
            "correct the file, or move it elsewhere"
        )
    if problem.kind is ProblemKind.NOT_ONE_ID:
        return f"{location}: `{problem.variable}` must be one string"
    return (
        f"{location}: `{problem.variable}` cannot be read without running the file; "
        "write it as a string, a tuple of strings, or None"
    )


def _in_order(by_id: Mapping[str, GraphRevision]) -> tuple[GraphRevision, ...]:
    labels = {label: revision.id for revision in by_id.values() for label in revision.branch_labels}
    parents: dict[str, list[str]] = {}
    for revision in by_id.values():
        for name, ids, known in (
            ("down_revision", revision.down_revisions, by_id.keys()),
            ("depends_on", revision.depends_on, by_id.keys() | labels.keys()),
        ):
            for missing in (other for other in ids if other not in known):
                raise PackageError(
                    f"revision {revision.id} ({revision.path.as_posix()}) has {name} {missing}, which is not in the "
                    "tree; add that revision's file, or correct the id"
                )
        depends_on = (labels.get(name, name) for name in revision.depends_on)
        parents[revision.id] = [*revision.down_revisions, *depends_on]
    try:
        return tuple(by_id[id_] for id_ in TopologicalSorter(parents).static_order())
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise PackageError(f"the revisions form a cycle: {cycle}; correct a down_revision among them") from error


def _checked_heads(revisions: Iterable[GraphRevision]) -> tuple[str, ...]:
    """Return the heads.

    Raises:
        PackageError: Alembic cannot load the revisions.
    """
    try:
        # Alembic's own map spreads labels along a branch.
        alembic_map = RevisionMap(
            lambda: [
                AlembicRevision(revision.id, revision.down_revisions, revision.depends_on, revision.branch_labels)
                for revision in revisions
            ]
        )
        heads = [head for head in alembic_map.get_revisions("heads") if isinstance(head, AlembicRevision)]
    except RevisionError as error:
        raise PackageError(f"Alembic cannot load the revisions: {error}") from error
    return tuple(sorted(head.revision for head in heads))
