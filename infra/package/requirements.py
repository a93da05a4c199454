"""What a backend requires, as its lock or its requirements file has it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.package import locks
from infra.package.errors import PackageError
from infra.package.uv_tool import Index, index_of, read_toml, run_uv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UV = "uv.lock"
_LOCKS = (_UV, "requirements.txt", *locks.READERS)
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
PIN = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*===?\s*([^\s;\\,]+)")
_PYPROJECT = "pyproject.toml"
_INCLUDE = re.compile(r"(-r|-c|--requirement|--constraint)[ =]*(\S+)")
_FIND_LINKS = re.compile(r"(?:-f|--find-links)[ =]*(\S+)")
_INDEX = re.compile(r"(?:-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--trusted-host|--pre)\b.*")
_LOCAL = re.compile(r"(?:-e\s+|--editable[ =]+)?((?:\.|/|file:).*?)(?:\s+;.*)?")
_BY_URL = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*@\s*(\S+).*")


@dataclass(frozen=True)
class Requirements:
    """What a backend requires: lines of a requirements file, and folders of distributions that lie beside it.

    ``locked``: the lines are a whole lock, each with its marker, and nothing is to be resolved. ``index`` is where the
    distributions come from.
    """

    backend: Path
    lock: Path
    lines: tuple[str, ...]
    local_packages: tuple[Path, ...]
    locked: bool
    index: Index

    @property
    def names(self) -> frozenset[str]:
        """The distributions that the lines are about, in the normal form of their names."""
        return frozenset(normal_name(found[0]) for found in map(NAME.match, self.lines) if found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes two builds of this backend differ: lines of requirements.txt without a version or a hash."""
        if self.locked:
            return ()
        named = [line for line in self.lines if NAME.match(line)]
        loose = [line for line in named if not PIN.match(line) or "--hash" not in line]
        if not loose:
            return ()
        first = NAME.match(loose[0])
        name = first[0] if first else loose[0]
        count = f"{len(loose)} of {len(named)} requirements without an exact version or without hashes"
        advice = "write it with `uv pip compile --generate-hashes`, or use a uv.lock"
        return (f"{self.lock.name} has {count}, the first is {name}: another build may package other code; {advice}",)


def read_requirements(backend: Path, group: str | None = None, file: str | None = None) -> Requirements:
    """Read a backend's ``uv.lock``, or one of its dependency groups alone, or else its ``requirements.txt``.

    Without either, it reads the lock of another tool. ``file`` names a lock or a requirements file. Raises
    `PackageError` if there is none, or if it takes a distribution from where there is no wheel.
    """
    lock = _named(backend, file) if file else _lock_of(backend)
    locked = lock.name != "requirements.txt" and lock.name in _LOCKS
    if lock.name == _UV:
        chosen = ["--only-group", group] if group else ["--no-dev"]
        options = ["--no-emit-project", "--no-annotate", "--no-header"]
        folder = lock.parent if file else backend
        text = run_uv("export", "--frozen", *chosen, *options, cwd=folder)
        found = list(_logical_lines(text))
        if not found:
            _refuse_an_empty_lock(lock, folder)
    elif group:
        raise PackageError(f"dependency_group is for a uv.lock, and {backend} has none; write one with: uv lock")
    else:
        folder = lock.parent
        found = locks.read_lock(lock) if locked else list(_lines_of(lock))
    lines: list[str] = []
    local_packages: list[Path] = []
    for line in found:
        if package := _local_package(line, lock, folder):
            if package != backend:
                local_packages.append(package)
        else:
            lines.append(line)
    index = index_of(folder, tuple(line for line in lines if _INDEX.fullmatch(line)))
    kept = tuple(line for line in lines if not _INDEX.fullmatch(line))
    return Requirements(backend, lock, kept, tuple(local_packages), locked, index)


def _named(backend: Path, file: str) -> Path:
    lock = (backend / file).resolve()
    if not lock.is_file():
        raise PackageError(f"no file {file} in {backend}; name the backend's lock or requirements file")
    return lock


def _lock_of(backend: Path) -> Path:
    if found := next((backend / name for name in _LOCKS if (backend / name).is_file()), None):
        return found
    # A member of a uv workspace is locked at the workspace's root.
    if (backend / _PYPROJECT).is_file():
        for folder in backend.parents:
            if (folder / _UV).is_file():
                return folder / _UV
    raise PackageError(
        f"no lock and no requirements.txt in {backend} ({', '.join(_LOCKS)}); write one with: {_locking(backend)}"
    )


def _locking(backend: Path) -> str:
    """Return the command that writes the lock of the tool that a backend is kept with."""
    pyproject = backend / _PYPROJECT
    project = read_toml(pyproject) if pyproject.is_file() else {}
    if "poetry" in project.get("tool", {}) and "dependencies" not in project.get("project", {}):
        return "poetry lock"
    return "pipenv lock" if (backend / "Pipfile").is_file() else "uv lock"


def _refuse_an_empty_lock(lock: Path, folder: Path) -> None:
    """Refuse what uv writes for a project whose dependencies are in Poetry's own table, which uv does not read."""
    if _locking(folder) == "poetry lock":
        raise PackageError(
            f"{lock.name} is empty: {_PYPROJECT} has its dependencies in [tool.poetry], which uv does not read; remove"
            f" {lock.name} and write a poetry.lock with: poetry lock"
        )


def _lines_of(file: Path, including: tuple[Path, ...] = ()) -> Iterator[str]:
    """Yield the lines of a requirements file and of those that it includes."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise PackageError(f"{file.name} cannot be read: {error}") from error
    for line in _logical_lines(text):
        include = _INCLUDE.fullmatch(line)
        links = _FIND_LINKS.fullmatch(line)
        if include and include[1] in {"-r", "--requirement"} and "://" not in include[2]:
            other = (file.parent / include[2]).resolve()
            if other not in including:
                yield from _lines_of(other, (*including, file))
        elif include and "://" not in include[2]:
            yield f"{include[1]} {(file.parent / include[2]).resolve()}"
        elif links and "://" not in links[1]:
            yield f"--find-links {(file.parent / links[1]).resolve()}"
        else:
            yield line


def _logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file without comments; one that a backslash continues is one line."""
    for line in re.sub(r"\\\r?\n\s*", "", text).splitlines():
        if stripped := re.sub(r"(^|\s)#.*", "", line).strip():
            yield stripped


def _local_package(line: str, lock: Path, folder: Path) -> Path | None:
    """Return the folder that a requirement is taken from, if it is; refuse what cannot be had as a wheel."""
    by_url = _BY_URL.fullmatch(line)
    local = _LOCAL.fullmatch(by_url[2] if by_url else line)
    if local:
        for base in (lock.parent, folder):
            found = (base / local[1].removeprefix("file://")).resolve()
            if found.is_dir():
                return found
    source = by_url[2] if by_url else local[1] if local else line
    wheel = source.partition("#")[0].endswith(".whl") and source.startswith("https://")
    if local or line.startswith("-e") or (by_url and not wheel):
        name = by_url[1] if by_url else "a distribution"
        raise PackageError(
            f"{lock.name} takes {name} from {source}, which is no folder here and no wheel on a server; "
            "publish it as a wheel and lock that"
        )
    return None


def normal_name(name: str) -> str:
    """Return a distribution's name as the packaging specifications compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()
