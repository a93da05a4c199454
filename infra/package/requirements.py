"""Reads a backend's requirements from its lock or its requirements file."""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from infra.package import lock_discovery, lock_readers, project_table
from infra.package.errors import PackageError
from infra.package.indexes import index_of
from infra.package.lock_discovery import LOCKS
from infra.package.project_table import PYPROJECT, UV_LOCK
from infra.package.uv_messages import listed
from infra.package.uv_tool import Index, run_uv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
PIN = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*===?\s*([^\s;\\,]+)")
_INCLUDE = re.compile(r"(-r|-c|--requirement|--constraint)[ =]*(\S+)")
_FIND_LINKS = re.compile(r"(?:-f|--find-links)[ =]*(\S+)")
_INDEX = re.compile(r"(?:-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--trusted-host|--pre)\b.*")
_LOCAL = re.compile(r"(?:-e\s+|--editable[ =]+)?((?:\.|/|file:).*?)(?:\s+;.*)?")
_BY_URL = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*@\s*(\S+).*")
_GIT = re.compile(r"(?:-e\s+|--editable[ =]+)?(git\+(?:https?|ssh|git|file)://\S+)")
_EGG = re.compile(r"#(?:.*&)?egg=([\w.-]+)")
_EXTRAS = re.compile(r"\[([^]]*)\]\s*$")
_WHEEL = re.compile(r"([\w.]+)-[^-]+(?:-[^-]+){3,4}\.whl")
_SDIST = re.compile(r"([\w.-]+?)-\d[^-]*\.(?:tar\.gz|zip|tar\.bz2)")


@dataclass(frozen=True)
class Requirements:
    """The requirements of a backend: lines of a requirements file, and folders of local distributions.

    ``locked`` is True if the lines are a whole lock, each with its marker, and need no resolution. ``index`` is the
    source of the distributions, ``python`` the Python versions of the lock, and ``exclude`` the distributions to leave
    out. ``elsewhere`` has the versions in the whole lock, with its other groups and extras. ``unread`` are the folders
    whose dependencies are known only after a build.
    """

    backend: Path
    lock: Path
    lines: tuple[str, ...]
    local_packages: tuple[Path, ...]
    locked: bool
    index: Index
    python: str = ""
    exclude: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Return the normalised names of the distributions in the lines."""
        return frozenset(canonicalize_name(found[0]) for found in map(NAME.match, self.lines) if found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return warnings about loose requirements, with which two builds may differ, and about unread folders."""
        if self.locked:
            return ()
        return (
            *self._about_loose_lines(),
            *(
                f"{self.lock.name} takes {folder}, whose dependencies are not in a [project] table; list them in"
                f" {self.lock.name}"
                for folder in self.unread
            ),
        )

    def extra_with(self, is_wanted: Callable[[str], bool]) -> str:
        """Return the smallest extra of the project with the most wanted distributions, or an empty text."""
        if not self.locked and self.lock.name != PYPROJECT:  # a requirements file has no extras
            return ""
        try:
            extras = project_table.extras_of(self.backend if (self.backend / PYPROJECT).is_file() else self.lock.parent)
        except PackageError:  # only the tool that made the lock can read them
            return ""
        wanted = {extra: sum(map(is_wanted, names)) for extra, names in extras.items()}
        best = max(wanted, key=lambda extra: (wanted[extra], -len(extras[extra])), default="")
        return best if wanted.get(best) else ""

    def _about_loose_lines(self) -> tuple[str, ...]:
        named = [line for line in self.lines if NAME.match(line)]
        loose = [line for line in named if not PIN.match(line) or "--hash" not in line]
        if not loose:
            return ()
        first = NAME.match(loose[0])
        name = first[0] if first else loose[0]
        count = f"{len(loose)} of {len(named)} requirements without an exact version or without hashes"
        advice = "write it with `uv pip compile --generate-hashes`, or use a uv.lock"
        if self.lock.name == PYPROJECT:
            advice = f"write a lock with: {lock_discovery.locking(self.lock.parent)}"
        return (f"{self.lock.name} has {count}, the first is {name}: another build may package other code; {advice}",)


def read_requirements(
    backend: Path,
    group: str | None = None,
    file: str | None = None,
    *,
    extras: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    beside: Path | None = None,
) -> Requirements:
    """Read a backend's lock, or one of its dependency groups alone, or else its ``requirements.txt``.

    Without one, it may be that of the repository, and without any the dependencies in its pyproject.toml. ``file``
    names a lock or a requirements file, ``extras`` are added to the dependencies, and distributions in ``exclude`` are
    left out. Without ``file``, the search begins in the folder ``beside``, by default in the backend. Raises
    `PackageError` if there is no lock, or if it takes a distribution from a missing folder.
    """
    unread: list[str] = []
    lock = lock_discovery.named(backend, file) if file else lock_discovery.find(backend, beside)
    locked = lock.name != "requirements.txt" and lock.name in LOCKS
    folder = lock.parent
    if lock.name == UV_LOCK:
        folder = lock.parent if file else lock_discovery.project_of(lock, backend, beside)
        found = _exported(lock, folder, extras, group)
    elif locked:
        found = lock_readers.read_lock(lock, extras, group)
    elif lock.name == PYPROJECT:
        _refuse_without_a_lock(backend, dependency_group=group)
        found = project_table.dependencies_of(lock, extras)
    else:
        _refuse_without_a_lock(backend, dependency_group=group, extras=extras)
        found = list(_lines_of(lock))
        theirs, unread = _of_local_folders(found, lock)
        found += theirs
    lines: list[str] = []
    local_packages: list[Path] = []
    for line in found:
        if package := _local_package(line, lock, folder):
            if package != backend:
                local_packages.append(package)
        else:
            lines.append(_from_source(line, lock, folder))
    excluded = tuple(map(canonicalize_name, exclude))
    if locked:
        _refuse_unknown(excluded, lines, lock)
    index = index_of(lock, folder, tuple(line for line in lines if _INDEX.fullmatch(line)))
    kept = tuple(line for line in lines if not _INDEX.fullmatch(line) and required_name(line) not in excluded)
    python = lock_discovery.python_of(lock)
    elsewhere = lock_readers.versions(lock) if locked else {}
    return Requirements(
        backend, lock, kept, tuple(local_packages), locked, index, python, excluded, elsewhere, tuple(unread)
    )


def _refuse_without_a_lock(backend: Path, **settings: object) -> None:
    for name, value in settings.items():
        if value:
            raise PackageError(f"{name} is for a uv.lock, and {backend} has none; write one with: uv lock")


def _exported(lock: Path, folder: Path, extras: tuple[str, ...], group: str | None) -> list[str]:
    """Return the lines of a uv.lock."""
    if group:
        chosen = ["--only-group", group]
    else:
        chosen = ["--no-dev", *(word for extra in extras for word in ("--extra", extra))]
    options = ["--no-emit-project", "--no-annotate", "--no-header"]
    found = list(_logical_lines(run_uv("export", "--frozen", *chosen, *options, cwd=folder)))
    if not found:
        lock_discovery.refuse_an_empty_lock(lock, folder)
    return found


def _of_local_folders(lines: Sequence[str], lock: Path) -> tuple[list[str], list[str]]:
    """Return the dependencies of the folders that a requirements file takes, and the folders that do not list theirs.

    pip installs a folder with its dependencies. The build copies its files, so it needs the dependencies as lines.
    """
    folders = [(line, folder) for line in lines if (folder := _local_package(line, lock, lock.parent))]
    # An index may have another distribution with the name of one of these folders.
    named = set(map(required_name, lines))
    named |= {name for _, folder in folders for name in (project_table.name_of(folder), canonicalize_name(folder.name))}
    found, unread = list[str](), list[str]()
    for line, folder in folders:
        pyproject = folder / PYPROJECT
        if not project_table.lists_dependencies(pyproject):
            unread.append(line)
            continue
        address, _, marker = line.partition(" ;")
        extras = _EXTRAS.search(address) or _EXTRAS.search(address.partition("@")[0])
        chosen = tuple(extra.strip() for extra in extras[1].split(",")) if extras else ()
        theirs = project_table.dependencies_of(pyproject, chosen)
        found += [_with_marker(one, marker.strip()) for one in theirs if required_name(one) not in named]
    return found, unread


def _with_marker(line: str, marker: str) -> str:
    """Return a requirement that applies only if this marker holds, too."""
    if not marker:
        return line
    try:
        requirement = Requirement(line)
        both = f"({requirement.marker}) and ({marker})" if requirement.marker else marker
        requirement.marker = Marker(both)
    except (InvalidRequirement, InvalidMarker) as error:
        raise PackageError(f"{line} with the marker {marker} cannot be read: {error}") from error
    return str(requirement)


def _refuse_unknown(exclude: tuple[str, ...], lines: list[str], lock: Path) -> None:
    unknown = sorted(set(exclude) - set(map(required_name, lines)))
    if unknown:
        raise PackageError(f"exclude names {listed(unknown)}, which {lock.name} does not have; correct the name")


def required_name(line: str) -> str:
    """Return the normalised name of the distribution that a line requires, or an empty text."""
    found = NAME.match(line)
    return canonicalize_name(found[0]) if found else ""


def _lines_of(file: Path, including: tuple[Path, ...] = ()) -> Iterator[str]:
    """Yield the lines of a requirements file and of those that it includes."""
    try:
        content = file.read_bytes()
        # PowerShell's `pip freeze > requirements.txt` writes UTF-16. pip reads it, too.
        text = content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
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
    """Yield the lines of a requirements file without comments, with continued lines joined."""
    for line in re.sub(r"\\\r?\n\s*", "", text).splitlines():
        if stripped := re.sub(r"(^|\s)#.*", "", line).strip():
            yield stripped


def _local_package(line: str, lock: Path, folder: Path) -> Path | None:
    """Return the local folder of a requirement, or None if it is not a folder."""
    by_url = _BY_URL.fullmatch(line)
    local = _LOCAL.fullmatch(by_url[2] if by_url else line)
    return _find(_EXTRAS.sub("", local[1]), lock, folder, directory=True) if local else None


def _from_source(line: str, lock: Path, folder: Path) -> str:
    """Return a requirement with its name and an absolute address, if it is taken from an address or a file."""
    if git := _GIT.match(line):
        egg = _EGG.search(git[1])
        name = egg[1] if egg else git[1].partition("#")[0].rpartition("/")[2].partition("@")[0].removesuffix(".git")
        return f"{name} @ {git[1]}"
    by_url = _BY_URL.fullmatch(line)
    local = _LOCAL.fullmatch(by_url[2] if by_url else line)
    if local is None:
        if line.startswith(("-e", "--editable")):
            raise PackageError(f"{lock.name} has {line}, which is neither a folder nor a git repository")
        return line
    path = local[1].partition("#")[0].partition(" --hash")[0].strip()
    file = _find(path, lock, folder, directory=False)
    named = _WHEEL.fullmatch(file.name) or _SDIST.fullmatch(file.name) if file else None
    if file is None or named is None:
        name = by_url[1] if by_url else "a distribution"
        raise PackageError(
            f"{lock.name} takes {name} from {local[1]}, which is no folder here and no wheel on a server; "
            "publish it as a wheel and lock that"
        )
    return f"{by_url[1] if by_url else named[1]} @ {file.as_uri()}"


def _find(path: str, lock: Path, folder: Path, *, directory: bool) -> Path | None:
    for base in (lock.parent, folder):
        found = (base / path.removeprefix("file://")).resolve()
        if found.is_dir() if directory else found.is_file():
            return found
    return None


def is_source(line: str) -> bool:
    """Return whether a requirement comes from a repository, or from a source archive at an address."""
    by_url = _BY_URL.fullmatch(line)
    return by_url is not None and not by_url[2].partition("#")[0].endswith(".whl")
