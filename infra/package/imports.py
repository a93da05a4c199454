"""Finds the backend's files that its migrations need: the Alembic tree and its imports."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from infra.package.layout import BACKEND, Layout
from infra.package.sources import files_below, is_left_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

Files = dict[PurePosixPath, Path]

_IMPORTING_CALLS = (b"import_module", b"__import__")
_IMPORT = re.compile(r"^\s*(?:import|from)\s+(\w+)", re.MULTILINE)


def backend_files(layout: Layout) -> Files:
    """Return the backend's files for the package: each path in the package, and the file to copy.

    An imported package of the backend is copied whole: revisions read .sql and .json files in it, and the imports at
    run time are unknown.
    """
    files: Files = {}
    for directory in (layout.tree, *layout.version_locations):
        # The tree contains most version locations, but not one with a hidden name, such as ".versions".
        if directory.is_absolute() and layout.packaged(directory) not in {path.parent for path in files}:
            files.update(_tree_files(directory, layout))
    files |= {BACKEND / file.relative_to(layout.backend).as_posix(): file for file in layout.config_files}
    if layout.flask_app is not None:
        files.update(_module_files(layout.flask_app, layout))
    unread = list(files.values())
    unseen = _own_names(layout) - sys.stdlib_module_names
    while unread:
        for name in sorted(_imported(unread.pop(), unseen)):
            unseen.remove(name)
            imported = _find(name, layout)
            unread.extend(path for destination, path in imported.items() if destination not in files)
            files.update(imported)
    return files


def _module_files(file: Path, layout: Layout) -> Files:
    """Return the files of the backend's module, with the whole package that it is part of."""
    relative = file.relative_to(layout.backend)
    package = _find(relative.parts[0], layout) if len(relative.parts) > 1 else {}
    return {BACKEND / relative.as_posix(): file, **package}


def _tree_files(directory: Path, layout: Layout) -> Files:
    if not directory.is_dir():  # a version location without files, which git does not keep
        return {}
    return _files(directory, layout.packaged(directory), layout)


def _files(directory: Path, destination: PurePosixPath, layout: Layout) -> Files:
    """Return the files of a folder that may be packaged, without the tests of the backend and of the tree."""
    tests = {layout.backend / "test", layout.backend / "tests", layout.tree / "tests"}
    below = files_below(directory, inside=(layout.backend, *layout.local_packages))
    return {destination / relative: file for relative, file in below if tests.isdisjoint(file.parents)}


def _own_names(layout: Layout) -> set[str]:
    """Return the names under which the backend's own modules may be imported."""
    below = (path for root in layout.import_roots if root.source.is_dir() for path in root.source.iterdir())
    return {path.stem for path in below if path.stem.isidentifier()}


def _imported(path: Path, among: AbstractSet[str]) -> set[str]:
    """Return the top-level names among these that a file imports."""
    if path.suffix != ".py":
        return set()
    source = path.read_bytes()
    # Quick check, because most revisions contain none of these names. Text that is not ASCII may spell one differently.
    if source.isascii() and not any(name.encode() in source for name in among):
        return set()
    return imported_names(source) & among


def imported_names(source: bytes) -> set[str]:
    """Return the top-level names that a Python file imports anywhere in it."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):  # it may be valid for the platform's Python, if that is newer
        return set(_IMPORT.findall(source.decode(errors="replace")))
    names: set[str] = set()
    # Most files have no call that imports, and then expressions, which are most of a file, need not be searched.
    by_call = any(word in source for word in _IMPORTING_CALLS)
    for node in ast.walk(module) if by_call else _statements(module):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            names.update(_imported_by_call(node))
    return {name.partition(".")[0] for name in names}


def _statements(module: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements of a module that can contain imports, at any depth."""
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting.extend(getattr(node, block, ()))


def _imported_by_call(call: ast.Call) -> Iterator[str]:
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    argument = call.args[0]
    if function in {"import_module", "__import__"} and isinstance(argument, ast.Constant):
        yield str(argument.value)


def _find(name: str, layout: Layout) -> Files:
    """Return the files of the backend's own package or module of this name, or none if it is not the backend's.

    Folders without ``__init__.py`` are one package together, unless a folder with it or a module has the name.
    """
    portions: Files = {}
    for root in layout.import_roots:
        package, module = root.source / name, root.source / f"{name}.py"
        is_regular = (package / "__init__.py").is_file()
        if module.is_file() and not is_regular:
            return {root.destination / module.name: module}
        if package.is_dir() and not is_left_out(package):
            files = _files(package, root.destination / name, layout)
            if is_regular:
                return files
            if any(path.suffix == ".py" for path in files):
                portions = {**files, **portions}
    return portions
