"""The revisions of an Alembic tree, read from their source without running any of it."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.script.revision import Revision as AlembicRevision
from alembic.script.revision import RevisionError, RevisionMap

from infra.package.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# Alembic's own rule for which files of a version directory are revisions.
_REVISION_FILE = re.compile(r"(?!\.#|__init__).*\.py")
_VARIABLES = ("revision", "down_revision", "depends_on", "branch_labels")


@dataclass(frozen=True)
class Revision:
    """One revision file. ``depends_on`` may hold ids and branch labels; ``description`` is Alembic's `Script.doc`.

    ``path`` is for messages: relative to the backend, or to the package's root where a requirement brings the
    revisions. ``file`` is the same below its version directory, whatever links there are.
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
    """All revisions of a tree, each after those that it builds on, and the ids of its heads, sorted."""

    revisions: tuple[Revision, ...]
    heads: tuple[str, ...]


def read_graph(directories: Sequence[Path], *, relative_to: Path, recursive: bool = False) -> Graph:
    """Read and check the revisions in these version directories.

    Raises `PackageError` if a file is no revision, if the revisions do not form one graph that Alembic could load,
    or if there is a head too many.
    """
    files: dict[Path, Path] = {}
    for directory in directories:
        for file in _revision_files(directory, recursive=recursive):
            files.setdefault(file.resolve(), file)
    if not files:
        looked_in = ", ".join(_shown(directory, relative_to) for directory in directories)
        raise PackageError(f'no revision in {looked_in}; make the first one: alembic revision -m "..."')
    by_id: dict[str, Revision] = {}
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
        yield from (Path(root, name) for name in sorted(files) if _REVISION_FILE.fullmatch(name))
        if not recursive:
            return
        directories[:] = sorted(name for name in directories if not name.endswith("__pycache__"))


def _shown(path: Path, relative_to: Path) -> str:
    return Path(os.path.relpath(path, relative_to)).as_posix()


def _read_revision(file: Path, shown: Path) -> Revision:
    where = shown.as_posix()
    try:
        module = ast.parse(file.read_bytes())
    except SyntaxError as error:
        reader = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        raise PackageError(
            f"{where}:{error.lineno}: syntax error: {error.msg} (as {reader} reads it); correct the revision"
        ) from error
    except ValueError as error:  # a null byte
        raise PackageError(f"{where}: {error}; correct the revision") from error
    values = {name: value for name, value in _assignments(module) if name in _VARIABLES}
    for name in ("revision", "down_revision"):
        if name not in values:
            raise PackageError(
                f"{where} does not define `{name}`; a version directory holds revisions only: "
                "correct the file, or move it elsewhere"
            )
    texts = {name: _texts(value, name=name, where=where) for name, value in values.items()}
    if len(texts["revision"]) != 1:
        raise PackageError(f"{where}:{values['revision'].lineno}: `revision` must be one string")
    return Revision(
        id=texts["revision"][0],
        down_revisions=texts["down_revision"],
        depends_on=texts.get("depends_on", ()),
        branch_labels=texts.get("branch_labels", ()),
        description=(ast.get_docstring(module) or "").strip().split("\n\n")[0],
        path=shown,
        file=file,
    )


def _assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a module assigns at its top level, plain or annotated."""
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            yield statement.target.id, statement.value


def _texts(expression: ast.expr, *, name: str, where: str) -> tuple[str, ...]:
    """Return the strings in a value that Alembic takes as None, one string, or several."""
    try:
        value = ast.literal_eval(expression)
    except (ValueError, TypeError):
        value = ...
    several = (value,) if isinstance(value, str) else () if value is None else value
    if isinstance(several, (tuple, list, set)) and all(isinstance(text, str) for text in several):
        return tuple(several)
    raise PackageError(
        f"{where}:{expression.lineno}: `{name}` cannot be read without running the file; "
        "write it as a string, a tuple of strings, or None"
    )


def _in_order(by_id: Mapping[str, Revision]) -> tuple[Revision, ...]:
    labels = {label: revision.id for revision in by_id.values() for label in revision.branch_labels}
    parents: dict[str, list[str]] = {}
    for revision in by_id.values():
        for name, ids, known in (
            ("down_revision", revision.down_revisions, by_id.keys()),
            ("depends_on", revision.depends_on, by_id.keys() | labels.keys()),
        ):
            for missing in (other for other in ids if other not in known):
                raise PackageError(
                    f"revision {revision.id} ({revision.path.as_posix()}) says {name} {missing}, which is not in the "
                    "tree; add that revision's file, or correct the id"
                )
        depends_on = (labels.get(name, name) for name in revision.depends_on)
        parents[revision.id] = [*revision.down_revisions, *depends_on]
    try:
        return tuple(by_id[id_] for id_ in TopologicalSorter(parents).static_order())
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise PackageError(f"the revisions form a cycle: {cycle}; correct a down_revision among them") from error


def _checked_heads(revisions: Iterable[Revision]) -> tuple[str, ...]:
    """Return the heads, if a person can name each of them: all but one need a branch label that no other head has."""
    try:
        # Alembic's own map knows how labels spread along a branch.
        alembic_map = RevisionMap(
            lambda: [
                AlembicRevision(revision.id, revision.down_revisions, revision.depends_on, revision.branch_labels)
                for revision in revisions
            ]
        )
        heads = [head for head in alembic_map.get_revisions("heads") if isinstance(head, AlembicRevision)]
    except RevisionError as error:
        raise PackageError(f"Alembic cannot load the revisions: {error}") from error
    carriers = Counter(label for head in heads for label in head.branch_labels)
    unlabelled = sorted(head.revision for head in heads if 1 not in {carriers[label] for label in head.branch_labels})
    if len(unlabelled) > 1:
        raise PackageError(
            f"{len(unlabelled)} heads carry no branch label of their own: {', '.join(unlabelled)}; "
            f'merge them: alembic merge -m "Merge heads" {" ".join(unlabelled)}'
        )
    return tuple(sorted(head.revision for head in heads))
