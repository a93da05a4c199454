"""Follows the imports of the tree: the backend's modules that it reaches, and the names that they import.

It runs nothing. It reads the imports from the source, module by module, as Python would import them.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from infra.package.layout import BACKEND, BACKEND_LIBRARIES, Layout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import PurePosixPath

    from infra.package.imports import Files

# Code that imports modules whose names are not in the source.
_DYNAMIC = re.compile(rb"\b(pkgutil|walk_packages|iter_modules|run_path|spec_from_file_location)\b")
_CATCHES = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_IMPORTERS = frozenset({"import_module", "__import__"})
# The functions of a revision that Alembic calls.
_OF_A_REVISION = frozenset({"upgrade", "downgrade"})


class When(IntEnum):
    """When an import runs: each time the module is loaded, if a condition holds, or when a function is called."""

    ALWAYS = 0
    PERHAPS = 1
    IN_A_FUNCTION = 2


@dataclass(frozen=True)
class Import:
    """An absolute import: a dotted name, and the names after ``from``.

    ``certain`` is True if no condition and no ``try`` is between the import and its module or function.
    """

    name: str
    members: tuple[str, ...]
    level: int
    line: int
    when: When
    certain: bool

    @property
    def top(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Foreign:
    """An import of a module that is not the backend's. ``file`` is the path of the importing file in the package."""

    imported: Import
    file: PurePosixPath
    when: When

    @property
    def shown(self) -> str:
        """Return the file and the line, with the file's path in the backend."""
        parts = self.file.parts
        path = "/".join(parts[1:]) if parts[0] in {BACKEND.name, BACKEND_LIBRARIES.name} else self.file.as_posix()
        return f"{path}:{self.imported.line}"


@dataclass(frozen=True)
class Reached:
    """The modules of the backend that the tree loads, each with the time, and their imports of foreign modules."""

    modules: Mapping[PurePosixPath, When]
    foreign: tuple[Foreign, ...]
    changes_the_path: bool


def read(copies: Files, layout: Layout) -> Reached:
    """Follow the imports of env.py and of the revisions through the files that are packaged.

    If a module imports others by names that are not in its source, all packaged modules of the backend count as
    possibly reached.
    """
    return _Reader(copies, layout).read()


class _Reader:
    def __init__(self, copies: Files, layout: Layout) -> None:
        python = {path: file for path, file in copies.items() if path.suffix == ".py"}
        self._files = {path: file for path, file in python.items() if path.parts[0] in _OF_THE_BACKEND}
        self._folders = {parent for path in self._files for parent in path.parents}
        roots = [root.destination for root in layout.import_roots] + [BACKEND_LIBRARIES]
        # Python also searches the configuration's folder, in which the function runs env.py.
        self._roots = list(dict.fromkeys([layout.packaged(layout.config_files[0]).parent, *roots]))
        tree = layout.packaged(layout.tree)
        self._versions = list(map(layout.packaged, layout.version_locations))
        folders = [tree, *self._versions]
        self._first = [path for path in self._files if any(path.is_relative_to(folder) for folder in folders)]
        if layout.flask_app is not None:
            self._first.append(layout.packaged(layout.flask_app))
        # Alembic imports the package of "package:path".
        self._first += [path for parent in tree.parents if (path := parent / "__init__.py") in self._files]
        self._of_requirements = list(_trees_of_requirements(layout))
        self._imports: dict[PurePosixPath, tuple[Import, ...]] = {}
        self._dynamic = False
        self._changes_the_path = False

    def read(self) -> Reached:
        modules = self._follow(dict.fromkeys(self._first, When.ALWAYS))
        if self._dynamic:
            modules = self._follow({**dict.fromkeys(self._files, When.PERHAPS), **modules})
        foreign = [
            Foreign(one, path, max(when, one.when))
            for path, when in sorted(modules.items())
            for one in self._imports[path]
            if not one.level and not self._find(one, path)
        ]
        return Reached(modules, (*self._of_requirements, *foreign), self._changes_the_path)

    def _follow(self, modules: dict[PurePosixPath, When]) -> dict[PurePosixPath, When]:
        waiting = sorted(modules, key=lambda path: -modules[path])
        while waiting:
            path = waiting.pop()
            when = modules[path]
            for one in self._imports_of(path):
                reached = max(when, one.when)
                for found in self._find(one, path):
                    if found not in modules or reached < modules[found]:
                        modules[found] = reached
                        waiting.append(found)
        return modules

    def _imports_of(self, path: PurePosixPath) -> tuple[Import, ...]:
        if path not in self._imports:
            source = self._files[path].read_bytes()
            self._changes_the_path |= b"sys.path" in source
            is_revision = any(path.is_relative_to(folder) for folder in self._versions)
            imports, computed = imports_of(source, _OF_A_REVISION if is_revision else frozenset())
            self._dynamic |= computed or _DYNAMIC.search(source) is not None
            self._imports[path] = imports
        return self._imports[path]

    def _find(self, one: Import, importer: PurePosixPath) -> list[PurePosixPath]:
        """Return the modules of the backend that an import loads, packages included."""
        if one.level:
            base = importer.parent
            for _ in range(one.level - 1):
                base = base.parent
            bases: Sequence[PurePosixPath] = [base]
        else:
            bases = self._roots
        parts = one.name.split(".") if one.name else []
        for base in bases:
            # A folder without __init__.py is a package if the backend has no other module of that name.
            if found := list(self._below(base, parts, one.members)):
                return found
        return []

    def _below(self, base: PurePosixPath, parts: Sequence[str], members: Sequence[str]) -> Iterator[PurePosixPath]:
        for part in parts:
            base /= part
            if (init := base / "__init__.py") in self._files:
                yield init
            elif (module := base.with_name(f"{part}.py")) in self._files:
                yield module
                return
            elif base not in self._folders:
                return
        for member in members:
            if (module := base / f"{member}.py") in self._files:
                yield module
            elif (init := base / member / "__init__.py") in self._files:
                yield init


def _trees_of_requirements(layout: Layout) -> Iterator[Foreign]:
    """Yield imports of the tree and the revisions that belong to a requirement. No source may name them."""
    config = layout.config_files[0]
    lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    for path in (layout.tree, *layout.version_locations):
        if not path.is_absolute():
            line = next((number for number, text in enumerate(lines, 1) if path.parts[0] in text), 1)
            imported = Import(".".join(path.parts), (), 0, line, When.ALWAYS, certain=True)
            yield Foreign(imported, layout.packaged(config), When.ALWAYS)


_OF_THE_BACKEND = frozenset({BACKEND.name, BACKEND_LIBRARIES.name})


def imports_of(source: bytes, called: Collection[str]) -> tuple[tuple[Import, ...], bool]:
    """Return the imports of a Python file without those for type checkers, and whether it imports computed names.

    The bodies of the ``called`` functions count as code of the module.
    """
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):  # it may be valid for the platform's Python, if that is newer
        return (), True
    visitor = _Visitor(called)
    visitor.visit(module)
    return tuple(sorted(visitor.found, key=lambda one: one.line)), visitor.computed


@dataclass(frozen=True)
class _Condition:
    when: When
    certain: bool = True


class _Visitor:
    """Collects imports with an explicit stack, because code may be nested deeper than Python's recursion limit."""

    def __init__(self, called: Collection[str]) -> None:
        self.found: list[Import] = []
        self.computed = False
        self._called = called
        self._waiting: list[tuple[ast.AST, _Condition]] = []

    def visit(self, module: ast.Module) -> None:
        called = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name in self._called]
        self._later((node for node in module.body if node not in called), _Condition(When.ALWAYS))
        self._later((line for node in called for line in node.body), _Condition(When.ALWAYS))
        while self._waiting:
            self._visit(*self._waiting.pop())

    def _later(self, nodes: Iterable[ast.AST], when: _Condition) -> None:
        self._waiting += [(node, when) for node in nodes]

    def _visit(self, node: ast.AST, when: _Condition) -> None:
        perhaps = _Condition(max(when.when, When.PERHAPS), certain=False)
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            self.found += [Import(name, (), 0, node.lineno, when.when, when.certain) for name in names]
        elif isinstance(node, ast.ImportFrom):
            members = tuple(alias.name for alias in node.names)
            self.found.append(Import(node.module or "", members, node.level, node.lineno, when.when, when.certain))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            self._later(ast.iter_child_nodes(node), _Condition(When.IN_A_FUNCTION))
        elif isinstance(node, ast.If):
            for_type_checkers = _last_name(node.test) == "TYPE_CHECKING"
            self._later(() if for_type_checkers else (node.test, *node.body), perhaps)
            self._later(node.orelse, when if for_type_checkers else perhaps)
        elif isinstance(node, ast.Try):
            self._later(node.body, perhaps if any(map(_catches_imports, node.handlers)) else when)
            self._later([*node.handlers, *node.orelse], perhaps)
            self._later(node.finalbody, when)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            suppresses = any(_last_name(getattr(item.context_expr, "func", None)) == "suppress" for item in node.items)
            self._later(node.body, perhaps if suppresses else when)
        elif isinstance(node, ast.Call):
            self._visit_call(node)
            self._later(ast.iter_child_nodes(node), perhaps)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.While, ast.Match)):
            self._later(ast.iter_child_nodes(node), perhaps)
        else:
            self._later(ast.iter_child_nodes(node), when)

    def _visit_call(self, node: ast.Call) -> None:
        if _last_name(node.func) not in _IMPORTERS or not node.args:
            return
        name = node.args[0]
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            self.computed = True
        elif name.value and not name.value.startswith("."):
            self.found.append(Import(name.value, (), 0, node.lineno, When.PERHAPS, certain=False))


def _last_name(node: ast.AST | None) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def _catches_imports(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(_last_name(one) in _CATCHES for one in types)
