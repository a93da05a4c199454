"""Finds the lock or the requirements file of a backend, and the Python versions that it supports."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from infra.package import lock_readers, project_table
from infra.package.errors import PackageError
from infra.package.project_table import PYPROJECT, UV_LOCK, folders_above
from infra.package.uv_messages import listed
from infra.package.uv_tool import read_toml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOCKS = (UV_LOCK, "requirements.txt", *lock_readers.READERS)

# Requirements files with other names, such as requirements/prod.txt. Development tools have their own file beside it.
_OTHER_NAMES = ("requirements/*.txt", "reqs/*.txt", "requirements*.txt", "*requirements.txt")
_DEVELOPMENT = re.compile(
    r"(?<![a-z])(dev|develop|development|tests?|testing|lint|docs?|ci|local|tools?|types|typing|build|bench|e2e"
    r"|notebooks?|constraints?)(?![a-z])",
    re.IGNORECASE,
)
# A file for the backend's process names one of them, or includes a file that does.
_OF_A_BACKEND = re.compile(
    rb"^\s*(?:-r\b|--requirement\b|(?:sqlalchemy|alembic|sqlmodel|flask[-_](?:sqlalchemy|migrate))\b)",
    re.IGNORECASE | re.MULTILINE,
)
_INCLUDES = re.compile(rb"^\s*(?:-r|--requirement)\b", re.MULTILINE)
_NAMED = re.compile(rb"^\s*([A-Za-z0-9][\w.-]*)", re.MULTILINE | re.ASCII)
_PRODUCTION = re.compile(r"(?<![a-z])prod", re.IGNORECASE)


def find(backend: Path, beside: Path | None = None) -> Path:
    """Return a backend's lock: that of its uv workspace, or the nearest one in the repository.

    The search begins in the folder ``beside``, that of the backend's configuration, by default in the backend. Without
    any, it is the pyproject.toml of the nearest project, if that lists its dependencies.

    Raises:
        PackageError: there is no lock, and the nearest project can only be resolved by its own tool.
    """
    within = folders_within(backend, beside or backend)
    if lock := next(filter(None, map(_of_workspace, within)), None):
        return lock
    folders = (*within, *folders_above(backend))
    # A requirements file of the repository may belong to another part of it. The project's own list takes precedence.
    own = next(filter(project_table.is_project, within), backend) / PYPROJECT
    lists = project_table.dependencies_of(own) if project_table.lists_dependencies(own) else []
    for folder in folders:
        locks = (folder / name for name in LOCKS if _is_lock(folder / name))
        if found := next((lock for lock in locks if folder in within or _may_be_for(lock, lists)), None):
            return found
    project = next(filter(project_table.is_project, folders), backend) / PYPROJECT
    if project_table.lists_dependencies(project) and project_table.dependencies_of(project):
        return project
    others = next(filter(None, map(_other_names, within)), [])
    if len(others) == 1:
        return others[0]
    nothing = f"no lock and no requirements.txt in {backend} ({', '.join(LOCKS)})"
    if others:
        names = [file.relative_to(backend).as_posix() for file in others]
        raise PackageError(
            f"{nothing}, but {listed(names)}; name one in the stage's setting `requirements_file`: {names[0]} (for make"
            f" package: REQUIREMENTS={names[0]})"
        )
    raise PackageError(f"{nothing}; write one with: {locking(backend)}")


def _may_be_for(lock: Path, dependencies: Sequence[str]) -> bool:
    """Return whether a lock above a project may be for it. A requirements file must name each of its dependencies."""
    if lock.name != "requirements.txt":
        return True
    content = lock.read_bytes()
    named = {canonicalize_name(name.decode()) for name in _NAMED.findall(content)}
    return _INCLUDES.search(content) is not None or named.issuperset(project_table.names_in(dependencies))


def _other_names(folder: Path) -> list[Path]:
    """Return the requirements files of a folder with other names, without those for development."""
    found = [file for pattern in _OTHER_NAMES for file in sorted(folder.glob(pattern)) if file.is_file()]
    kept = [
        file
        for file in dict.fromkeys(found)
        if not _DEVELOPMENT.search(file.stem) and _OF_A_BACKEND.search(file.read_bytes())
    ]
    return sorted(kept, key=lambda file: not _PRODUCTION.search(file.stem))


def folders_within(backend: Path, folder: Path) -> tuple[Path, ...]:
    """Return a folder of the backend and those above it, up to the backend."""
    return tuple(one for one in (folder, *folder.parents) if one.is_relative_to(backend))


def project_within(backend: Path, folder: Path) -> Path:
    """Return the folder of the nearest project or lock at or above a folder of the backend, or else the backend."""
    return next(filter(is_project, folders_within(backend, folder)), backend)


def is_project(folder: Path) -> bool:
    """Return whether a folder is a project, or has a lock."""
    return project_table.is_project(folder) or any(_is_lock(folder / name) for name in LOCKS)


def _is_lock(file: Path) -> bool:
    """Return whether this is a lock. uv does not read a uv.lock without a project."""
    return file.is_file() and (file.name != UV_LOCK or (file.parent / PYPROJECT).is_file())


def named(backend: Path, file: str) -> Path:
    """Return the lock or requirements file with this path in the backend. Raises `PackageError` if it is not there."""
    lock = (backend / file).resolve()
    if not lock.is_file():
        raise PackageError(f"no file {file} in {backend}; name the backend's lock or requirements file")
    return lock


def project_of(lock: Path, backend: Path, beside: Path | None = None) -> Path:
    """Return the folder of the project that a uv.lock is read for: a member of its workspace, or the lock's own.

    The search for a member begins in the folder ``beside``, by default in the backend.
    """
    for folder in folders_within(backend, beside or backend):
        if folder == lock.parent:
            break
        pyproject = folder / PYPROJECT
        is_project = pyproject.is_file() and "project" in read_toml(pyproject)
        if is_project and (folder == backend or _of_workspace(folder) == lock):
            return folder
    return lock.parent


def _of_workspace(backend: Path) -> Path | None:
    """Return the lock of the uv workspace with this backend as a member, even if there are other locks."""
    if not (backend / PYPROJECT).is_file():
        return None
    for folder in backend.parents:
        pyproject, lock = folder / PYPROJECT, folder / UV_LOCK
        if not (pyproject.is_file() and lock.is_file()):
            continue
        workspace = read_toml(pyproject).get("tool", {}).get("uv", {}).get("workspace", {})
        members, excluded = (_folders(folder, workspace.get(key, ())) for key in ("members", "exclude"))
        if backend in members - excluded:
            return lock
    return None


def _folders(root: Path, patterns: list[str]) -> set[Path]:
    return {path.resolve() for pattern in patterns for path in root.glob(pattern) if path.is_dir()}


def locking(backend: Path) -> str:
    """Return the command that writes the lock, for the tool that manages a backend."""
    pyproject = backend / PYPROJECT
    project = read_toml(pyproject) if pyproject.is_file() else {}
    if "poetry" in project.get("tool", {}) and "dependencies" not in project.get("project", {}):
        return "poetry lock"
    return "pipenv lock" if (backend / "Pipfile").is_file() else "uv lock"


def refuse_an_empty_lock(lock: Path, folder: Path) -> None:
    """Refuse the empty lock that uv writes for a project with its dependencies in Poetry's table."""
    if locking(folder) == "poetry lock":
        raise PackageError(
            f"{lock.name} is empty: {PYPROJECT} has its dependencies in [tool.poetry], which uv does not read; remove"
            f" {lock.name} and write a poetry.lock with: poetry lock"
        )


def python_of(lock: Path) -> str:
    """Return the Python versions of a lock as a specifier, with ``||`` between alternatives, or empty for any."""
    # The version in a Pipfile.lock is the one with which Pipenv ran, and no limit.
    if lock.suffix not in {".lock", ".toml"} or lock.name == "Pipfile.lock":
        return ""
    if lock.name == PYPROJECT:
        return project_table.python_of(lock)
    content = read_toml(lock)
    metadata: dict[str, Any] = content.get("metadata", {})
    if lock.name == "pdm.lock":
        return "||".join(one.get("requires_python", "") for one in metadata.get("targets", ()))
    if lock.name == "poetry.lock":
        return project_table.pythons_of_poetry(metadata.get("python-versions", ""))
    return str(content.get("requires-python", ""))
