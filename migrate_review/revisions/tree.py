"""The revision files of a backend, read without running any of them."""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.package.errors import PackageError
from infra.package.layout import read_layout
from migrate_review.errors import ReviewError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Alembic's own rule for which files of a version directory are revisions.
_REVISION_FILE = re.compile(r"(?!\.#|__init__).*\.py")


@dataclass(frozen=True)
class Revision:
    """One revision file, from its text alone."""

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
        """What tells that the revision was changed: see `substance`."""
        return hashlib.sha256(substance(self.text).encode()).hexdigest()


@dataclass(frozen=True)
class Unreadable:
    """A file among the revisions that is none."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Tree:
    """A backend's revisions, each after those it builds on, and where they are kept."""

    backend: Path
    location: Path
    version_locations: tuple[Path, ...]
    revisions: tuple[Revision, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        """The ids of those that no other builds on, sorted."""
        return heads_of(self.revisions)

    def find(self, name: str) -> tuple[Revision, ...]:
        """Those that a person may mean: by id, by the beginning of an id, or as head."""
        if name in ("head", "heads"):
            return tuple(revision for revision in self.revisions if revision.id in self.heads)
        exact = tuple(revision for revision in self.revisions if revision.id == name)
        return exact or tuple(revision for revision in self.revisions if name and revision.id.startswith(name))


def substance(text: str) -> str:
    """A revision's text without what does not matter: line endings, blank lines and lines that are a comment.

    So a word that was added for its readers, such as an acknowledgement, is no change.
    """
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith(("#", "-- ")))


def heads_of(revisions: Iterable[Revision]) -> tuple[str, ...]:
    """The ids of those that no other builds on, sorted."""
    several = tuple(revisions)
    built_on = {parent for revision in several for parent in revision.down_revisions}
    return tuple(sorted(revision.id for revision in several if revision.id not in built_on))


def read_tree(backend: Path, config: str = "alembic.ini") -> Tree:
    """Read the revisions of the backend's tree.

    Raises `ReviewError` if there is no configuration, or it names what is not there.
    """
    try:
        layout = read_layout(backend.resolve(), config)
    except PackageError as error:
        raise ReviewError(str(error)) from error
    own = _own_modules(root.source for root in layout.import_roots)
    found: list[Revision] = []
    unreadable: list[Unreadable] = []
    for directory in layout.version_locations:
        for path in _files(directory, recursive=layout.recursive):
            read = read_revision(path, path.read_text(encoding="utf-8", errors="replace"), own)
            if isinstance(read, Unreadable):
                unreadable.append(read)
            else:
                found.append(read)
    return Tree(layout.backend, layout.tree, layout.version_locations, _in_order(found), tuple(unreadable))


def read_revision(path: Path, text: str, own: frozenset[str] = frozenset()) -> Revision | Unreadable:
    """Read one file; ``own`` are the names of the backend's modules."""
    try:
        module = ast.parse(text, path.name)
    except (SyntaxError, ValueError) as error:
        return Unreadable(path, f"{type(error).__name__}: {error}")
    values = dict(_assignments(module))
    ids, parents = _texts(values.get("revision")), _texts(values.get("down_revision"))
    if ids is None or len(ids) != 1 or parents is None:
        return Unreadable(path, "`revision` and `down_revision` are not written as strings")
    functions = {statement.name for statement in module.body if isinstance(statement, ast.FunctionDef)}
    return Revision(
        id=ids[0],
        down_revisions=parents,
        description=next(iter((ast.get_docstring(module) or "").splitlines()), ""),
        path=path,
        text=text,
        labelled=bool(_texts(values.get("branch_labels"))),
        has_downgrade="downgrade" in functions or "downgrade" in values or _imports_name(module, "downgrade"),
        imports_of_backend=tuple((name, line) for name, line in _imports(module) if name.partition(".")[0] in own),
    )


def _files(directory: Path, *, recursive: bool) -> Iterator[Path]:
    pattern = "**/*.py" if recursive else "*.py"
    return (path for path in sorted(directory.glob(pattern)) if is_revision_file(path))


def is_revision_file(path: Path) -> bool:
    """Tell by its name whether Alembic would take a file for a revision."""
    return _REVISION_FILE.fullmatch(path.name) is not None


def _own_modules(roots: Iterable[Path]) -> frozenset[str]:
    """The top-level names that can be imported from these folders, without the tree's, which is no package."""
    packages = (path for root in roots if root.is_dir() for path in root.iterdir())
    return frozenset(
        path.stem for path in packages if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file())
    ) - {"alembic"}


def _assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            yield statement.target.id, statement.value


def _texts(expression: ast.expr | None) -> tuple[str, ...] | None:
    """The strings in what Alembic takes as None, one string, or several; None if it is not written out."""
    if expression is None:
        return None
    try:
        value = ast.literal_eval(expression)
    except (ValueError, TypeError):
        return None
    several = (value,) if isinstance(value, str) else () if value is None else value
    if isinstance(several, (tuple, list, set)) and all(isinstance(text, str) for text in several):
        return tuple(several)
    return None


def _imports(module: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno


def _imports_name(module: ast.Module, name: str) -> bool:
    imported = (node for node in module.body if isinstance(node, ast.ImportFrom))
    return any((alias.asname or alias.name) in (name, "*") for node in imported for alias in node.names)


def _in_order(revisions: Iterable[Revision]) -> tuple[Revision, ...]:
    """Each after those that it builds on; those in a circle last."""
    waiting = {revision.id: revision for revision in revisions}
    ordered: dict[str, Revision] = {}
    while waiting:
        ready = [one for one in waiting.values() if not any(parent in waiting for parent in one.down_revisions)]
        for revision in ready or list(waiting.values()):
            ordered[revision.id] = waiting.pop(revision.id)
    return tuple(ordered.values())
