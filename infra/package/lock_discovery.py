"""Finds the lock or the requirements file of a backend, and which Pythons it is for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from infra.package import lock_readers
from infra.package.errors import PackageError
from infra.package.uv_tool import read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

UV_LOCK = "uv.lock"
LOCKS = (UV_LOCK, "requirements.txt", *lock_readers.READERS)
PYPROJECT = "pyproject.toml"
# With these settings of uv, its lock has other versions than the project's own table asks for.
_CHANGES_VERSIONS = frozenset({"constraint-dependencies", "override-dependencies", "exclude-dependencies"})
# A requirement with extras, such as shop[db], by which an extra of shop includes another.
_OWN_EXTRAS = re.compile(r"\s*([\w.-]+)\s*\[([^]]*)\]")


def find(backend: Path) -> Path:
    """Return a backend's lock: that of its uv workspace, its own, or the nearest one in the repository.

    Without any, it is the nearest pyproject.toml with dependencies. Raises `PackageError` if there is none either.
    """
    if lock := _of_workspace(backend):
        return lock
    folders = (backend, *_above(backend))
    for folder in folders:
        if found := next((folder / name for name in LOCKS if _is_lock(folder / name)), None):
            return found
    project = next(filter(_is_project, folders), backend) / PYPROJECT
    if lists_dependencies(project) and dependencies_of(project):
        return project
    raise PackageError(
        f"no lock and no requirements.txt in {backend} ({', '.join(LOCKS)}); write one with: {locking(backend)}"
    )


def _is_project(folder: Path) -> bool:
    """Return whether a folder is that of a project, whatever tool reads its dependencies."""
    pyproject = folder / PYPROJECT
    content: dict[str, Any] = read_toml(pyproject) if pyproject.is_file() else {}
    return "project" in content or "poetry" in _table(content, "tool") or (folder / "setup.py").is_file()


def _is_lock(file: Path) -> bool:
    """Return whether this is a lock. A uv.lock without a project is a leftover, which uv does not read."""
    return file.is_file() and (file.name != UV_LOCK or (file.parent / PYPROJECT).is_file())


def lists_dependencies(pyproject: Path) -> bool:
    """Return whether a project's own table has all that it takes to resolve its dependencies without a lock."""
    content: dict[str, Any] = read_toml(pyproject) if pyproject.is_file() else {}
    project = _project(content, pyproject)
    if "project" not in content or "dependencies" in project.get("dynamic", ()):
        return False
    uv, poetry = (_table(content, "tool", tool) for tool in ("uv", "poetry"))
    if not _CHANGES_VERSIONS.isdisjoint(uv) or not {"dependencies", "source"}.isdisjoint(poetry):
        return False
    return not _of_sources(pyproject, project.get("dependencies", ()))


def dependencies_of(pyproject: Path, extras: Sequence[str] = ()) -> list[str]:
    """Return the dependencies of a project, as its own table has them. Its extras may name each other.

    Raises `PackageError` for an unknown extra, or for one whose distributions only uv finds.
    """
    project = _project(read_toml(pyproject), pyproject)
    name = canonicalize_name(str(project.get("name", "")))
    optional = {canonicalize_name(extra): lines for extra, lines in project.get("optional-dependencies", {}).items()}
    found: list[str] = []
    seen: set[str] = set()
    lines, wanted = list(project.get("dependencies", ())), list(extras)
    while True:
        for line in lines:
            own = _OWN_EXTRAS.match(line)
            if own and canonicalize_name(own[1]) == name:
                wanted += [extra.strip() for extra in own[2].split(",")]
            else:
                found.append(line)
        if not wanted:
            break
        extra = wanted.pop(0)
        key = canonicalize_name(extra)
        if key not in optional:
            raise PackageError(f"extras names {extra}, which {pyproject.name} does not have; correct the name")
        lines = [] if key in seen else optional[key]
        seen.add(key)
    if extras and (sources := _of_sources(pyproject, found)):
        raise PackageError(f"{pyproject.name} takes {sources[0]} from tool.uv.sources; write a lock with: uv lock")
    return found


def _table(content: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return a table of a TOML file; empty if it is missing or no table."""
    found: Any = content
    for key in keys:
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _project(content: Mapping[str, Any], pyproject: Path) -> Mapping[str, Any]:
    """Return the [project] table. Raises `PackageError` if its dependencies are no lists of texts."""
    project = content.get("project", {})
    lists: list[Any] = []
    if isinstance(project, dict):
        optional = project.get("optional-dependencies", {})
        lists = [project.get("dependencies", []), *(optional.values() if isinstance(optional, dict) else [optional])]
    if not isinstance(project, dict) or not all(
        isinstance(lines, list) and all(isinstance(line, str) for line in lines) for lines in lists
    ):
        raise PackageError(f"{pyproject} has a [project] table that cannot be read: dependencies are lists of strings")
    return project


def _of_sources(pyproject: Path, lines: Sequence[str]) -> list[str]:
    """Return the dependencies that uv takes from a git repository or a folder. An index may have others of the name.

    The root of a workspace may have sources for its members.
    """
    files = [folder / PYPROJECT for folder in (pyproject.parent, *_above(pyproject.parent))]
    tables = [_table(read_toml(file), "tool", "uv", "sources") for file in files if file.is_file()]
    sources = {canonicalize_name(name) for table in tables for name in table}
    names = [canonicalize_name(found[0]) for found in map(re.compile(r"[\w.-]+").match, lines) if found]
    return [name for name in names if name in sources]


def named(backend: Path, file: str) -> Path:
    """Return the lock or requirements file with this path in the backend. Raises `PackageError` if it is not there."""
    lock = (backend / file).resolve()
    if not lock.is_file():
        raise PackageError(f"no file {file} in {backend}; name the backend's lock or requirements file")
    return lock


def project_of(lock: Path, backend: Path, *, by_name: bool) -> Path:
    """Return the folder of the project that a uv.lock is read for: a member of its workspace, or the lock's own."""
    member = not by_name and (backend / PYPROJECT).is_file() and "project" in read_toml(backend / PYPROJECT)
    return backend if member else lock.parent


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


def _above(backend: Path) -> Iterator[Path]:
    """Yield the folders above a backend up to the root of its repository."""
    above: list[Path] = []
    for folder in () if (backend / ".git").exists() else backend.parents:
        above.append(folder)
        if (folder / ".git").exists():
            yield from above
            return
    if (backend / PYPROJECT).is_file():  # outside of a repository, a lock may be that of a workspace
        yield from (folder for folder in above if (folder / UV_LOCK).is_file())


def locking(backend: Path) -> str:
    """Return the command that writes the lock of the tool that a backend is kept with."""
    pyproject = backend / PYPROJECT
    project = read_toml(pyproject) if pyproject.is_file() else {}
    if "poetry" in project.get("tool", {}) and "dependencies" not in project.get("project", {}):
        return "poetry lock"
    return "pipenv lock" if (backend / "Pipfile").is_file() else "uv lock"


def refuse_an_empty_lock(lock: Path, folder: Path) -> None:
    """Refuse what uv writes for a project whose dependencies are in Poetry's own table, which uv does not read."""
    if locking(folder) == "poetry lock":
        raise PackageError(
            f"{lock.name} is empty: {PYPROJECT} has its dependencies in [tool.poetry], which uv does not read; remove"
            f" {lock.name} and write a poetry.lock with: poetry lock"
        )


def python_of(lock: Path) -> str:
    """Return which Pythons a lock is for, as a specifier, with ``||`` between alternatives; empty for any."""
    # The version in a Pipfile.lock is the one that Pipenv ran with, and no bound.
    if lock.suffix not in {".lock", ".toml"} or lock.name == "Pipfile.lock":
        return ""
    content = read_toml(lock)
    metadata: dict[str, Any] = content.get("metadata", {})
    if lock.name == "pdm.lock":
        return "||".join(one.get("requires_python", "") for one in metadata.get("targets", ()))
    if lock.name == "poetry.lock":
        return "||".join(_of_poetry(part) for part in re.split(r"\s*\|\|?\s*", metadata.get("python-versions", "")))
    return str(content.get("project", content).get("requires-python", ""))


def _of_poetry(constraint: str) -> str:
    """Return a constraint in Poetry's own words as a specifier of the packaging standards."""
    return ",".join(filter(None, map(_specifier, re.split(r"\s*,\s*|(?<=[\w*])\s+(?=[<>=!^~])", constraint.strip()))))


def _specifier(part: str) -> str:
    operator, version = re.fullmatch(r"([<>=!~^]*)\s*(.*)", part).groups()  # type: ignore[union-attr]
    release = [int(number) for number in re.findall(r"\d+", version)] or [3]
    if operator == "^":
        return f">={version},<{release[0] + 1}"
    if operator == "~":
        upper = [release[0], release[1] + 1] if len(release) > 1 else [release[0] + 1]
        return f">={version},<{'.'.join(map(str, upper))}"
    if not operator:
        return "" if version in {"", "*"} else f"=={version}"
    return f"{operator}{version}"
