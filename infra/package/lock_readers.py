"""Reads the locks of Poetry, PDM, Pipenv and PEP 751 as lines of a requirements file, each with its marker."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from infra.package.errors import PackageError
from infra.package.project_table import UV_LOCK
from infra.package.uv_tool import read_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    Table = Mapping[str, Any]

# The part of a marker with which the locks of Poetry and of PEP 751 restrict a distribution to an extra or a group.
_ABOUT_EXTRAS = re.compile(
    r"""extra\s*==\s*["'](?P<extra>[^"']+)["']|["'](?P<of_extras>[^"']+)["']\s+in\s+extras"""
    r"""|["'](?P<group>[^"']+)["']\s+in\s+dependency_groups"""
)
_ALWAYS = "python_version >= '3'"
_SOURCES = ("git", "revision", "ref", "subdirectory", "path", "url")


@dataclass(frozen=True)
class Chosen:
    """The part of a lock to read: its dependencies and these extras, or one group alone."""

    extras: tuple[str, ...] = ()
    group: str | None = None

    def has(self, groups: Iterable[str], main: str) -> bool:
        """Return whether a distribution of these groups is selected. ``main`` is the group of the dependencies."""
        wanted = {self.group} if self.group else {main, *self.extras}
        return not wanted.isdisjoint(groups)

    def marker(self, marker: str | None) -> str | None:
        """Return a marker without extras and groups, which this decides."""
        if not marker:
            return None

        def decided(found: re.Match[str]) -> str:
            name = found["extra"] or found["of_extras"] or found["group"]
            chosen = name == self.group if found["group"] else name in self.extras
            return f"python_version {'>=' if chosen else '<'} '3'"

        return _ABOUT_EXTRAS.sub(decided, marker)


def read_lock(lock: Path, extras: tuple[str, ...] = (), group: str | None = None) -> list[str]:
    """Return the lines of a lock that the backend needs at run time, without its groups for development.

    ``extras`` are added. A ``group`` replaces the dependencies. Raises `PackageError` if the lock cannot be read, or
    has no such group.
    """
    chosen = Chosen(extras, group)
    try:
        found = list(READERS[lock.name](lock, chosen))
    except (KeyError, TypeError, AttributeError, ValueError, InvalidRequirement) as error:
        raise PackageError(f"{lock.name} cannot be read: {type(error).__name__}: {error}") from error
    if group and not found:
        raise PackageError(f"dependency_group {group} has no distribution in {lock.name}; correct the name")
    return found


def versions(lock: Path) -> dict[str, str]:
    """Return the version of each distribution of an index in a whole lock, with all groups and extras.

    A distribution with several versions is left out. Raises `PackageError` if the lock cannot be read.
    """
    try:
        if lock.name == "Pipfile.lock":
            sections = json.loads(lock.read_text(encoding="utf-8"))
            packages = [
                {**one, "name": name, "version": one.get("version", "").removeprefix("==")}
                for section in ("default", "develop")
                for name, one in sections.get(section, {}).items()
            ]
        else:
            content = read_toml(lock)
            packages = content.get("package", content.get("packages", []))
        found: dict[str, set[str]] = {}
        for one in filter(_is_of_an_index, packages):
            found.setdefault(canonicalize_name(one["name"]), set()).add(one.get("version", ""))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PackageError(f"{lock.name} cannot be read: {type(error).__name__}: {error}") from error
    return {name: next(iter(several)) for name, several in found.items() if len(several) == 1 and "" not in several}


def wheel_sizes(lock: Path) -> dict[tuple[str, str], int]:
    """Return the bytes of the smallest wheel of each distribution and version, if the lock has them.

    A wheel is compressed, so the installed distribution is larger.
    """
    if lock.name not in {UV_LOCK, "pylock.toml"}:
        return {}
    content = read_toml(lock)
    found: dict[tuple[str, str], int] = {}
    for package in content.get("package", content.get("packages", [])):
        sizes = [wheel.get("size") for wheel in package.get("wheels", [])]
        if sizes and all(isinstance(size, int) for size in sizes):
            found[canonicalize_name(package["name"]), package.get("version", "")] = min(sizes)
    return found


def _is_of_an_index(package: Table) -> bool:
    source = package.get("source")
    if isinstance(source, dict):  # as uv and Poetry have it; "legacy" is Poetry's word for another index
        return "registry" in source or source.get("type") == "legacy"
    return not {"git", "path", "file", "url", "vcs", "directory", "archive"} & package.keys()


def _poetry(lock: Path, chosen: Chosen) -> Iterator[str]:
    content = read_toml(lock)
    packages = content.get("package", [])
    if any("groups" in package for package in packages):  # Poetry 2 records the groups of each distribution
        group = chosen.group or "main"
        theirs = (one for one in packages if group in one["groups"] and (chosen.extras or not one.get("optional")))
        found = {id(one): one.get("markers") for one in theirs}
        markers = {key: marker.get(group) if isinstance(marker, dict) else marker for key, marker in found.items()}
    else:
        extras = content.get("extras", {})
        lines = [line for extra in chosen.extras for line in extras.get(extra, ())]
        reached = _reached(packages, lock.parent / "pyproject.toml", lines, chosen.group)
        names = {id(one): canonicalize_name(one["name"]) for one in packages}
        markers = {key: reached[name] for key, name in names.items() if name in reached}
    for package in packages:
        if id(package) in markers:
            hashes = [one["hash"] for one in package.get("files", ())]
            marker = chosen.marker(markers[id(package)])
            yield _line(package["name"], package["version"], marker, hashes, _poetry_source(package.get("source", {})))


def _poetry_source(source: Table) -> Table:
    if source.get("type") != "git":
        return source if source.get("type") != "legacy" else {}  # that is Poetry's word for another index
    return {**source, "git": source["url"], "revision": source.get("resolved_reference") or source.get("reference")}


def _reached(
    packages: Iterable[Table], pyproject: Path, more: Iterable[str], group: str | None
) -> dict[str, str | None]:
    """Return the distributions that the project's dependencies reach in a lock of Poetry 1, which has no groups.

    Each has the markers of the dependencies that lead to it, or None if one of these has no marker.
    """
    by_name: dict[str, Table] = {canonicalize_name(package["name"]): package for package in packages}
    project = read_toml(pyproject)
    waiting = list(_roots(project) if group is None else _roots_of_group(project, group))
    waiting += [(canonicalize_name(found[0]), ()) for found in map(re.compile(r"[\w.-]+").match, more) if found]
    conditions: dict[str, set[str]] = {name: {""} for name, _ in waiting}
    reached: set[str] = set()
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        name, extras = waiting.pop()
        package = by_name.get(name)
        if package is None or (name, extras) in seen:
            continue
        seen.add((name, extras))
        reached.add(name)
        wanted = {
            canonicalize_name(Requirement(re.sub(r"\s*\(([^)]*)\)", r"\1", one)).name)
            for extra in extras
            for one in package.get("extras", {}).get(extra, ())
        }
        for dependency, how in package.get("dependencies", {}).items():
            several = how if isinstance(how, list) else [how]
            optional = all(isinstance(one, dict) and one.get("optional") for one in several)
            if not optional or canonicalize_name(dependency) in wanted:
                waiting.append((canonicalize_name(dependency), _extras(several)))
                theirs = {one.get("markers", "") if isinstance(one, dict) else "" for one in several}
                conditions.setdefault(canonicalize_name(dependency), set()).update(
                    _ABOUT_EXTRAS.sub(_ALWAYS, each) for each in theirs
                )
    return {
        name: None if "" in conditions[name] else " or ".join(f"({each})" for each in sorted(conditions[name]))
        for name in reached
    }


def _roots(project: Table) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in project.get("project", {}).get("dependencies", ()):
        requirement = Requirement(line)
        yield canonicalize_name(requirement.name), tuple(sorted(requirement.extras))
    for name, how in project.get("tool", {}).get("poetry", {}).get("dependencies", {}).items():
        several = how if isinstance(how, list) else [how]
        if name != "python" and not all(isinstance(one, dict) and one.get("optional") for one in several):
            yield canonicalize_name(name), _extras(several)


def _roots_of_group(project: Table, group: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    found = project.get("tool", {}).get("poetry", {}).get("group", {}).get(group, {}).get("dependencies", {})
    for name, how in found.items():
        yield canonicalize_name(name), _extras(how if isinstance(how, list) else [how])


def _extras(several: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({extra for one in several if isinstance(one, dict) for extra in one.get("extras", ())}))


def _pdm(lock: Path, chosen: Chosen) -> Iterator[str]:
    written: set[tuple[str, str]] = set()
    for package in read_toml(lock).get("package", []):
        key = (package["name"], package.get("version", ""))
        # An extra has its own entry.
        if chosen.has(package.get("groups", ["default"]), "default") and key not in written:
            written.add(key)
            hashes = [one["hash"] for one in package.get("files", ())]
            source = {name: package[name] for name in _SOURCES if name in package}
            yield _line(
                package["name"], package.get("version", ""), chosen.marker(package.get("marker")), hashes, source
            )


def _pipenv(lock: Path, chosen: Chosen) -> Iterator[str]:
    for name, package in json.loads(lock.read_text(encoding="utf-8")).get(chosen.group or "default", {}).items():
        source = {key: package[key] for key in (*_SOURCES, "file") if key in package}
        version = package.get("version", "").removeprefix("==")
        yield _line(name, version, package.get("markers"), package.get("hashes", ()), source)


def _pylock(lock: Path, chosen: Chosen) -> Iterator[str]:
    for package in read_toml(lock).get("packages", []):
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        hashes = [f"sha256:{one['hashes']['sha256']}" for one in files]
        source: Table = {}
        if "directory" in package:
            source = {"path": package["directory"]["path"]}
        elif "vcs" in package:
            vcs = package["vcs"]
            source = {**vcs, "git": vcs.get("url") or vcs["path"], "revision": vcs["commit-id"]}
        elif "archive" in package:
            source = package["archive"]
        yield _line(package["name"], package.get("version", ""), chosen.marker(package.get("marker")), hashes, source)


def _line(name: str, version: str, marker: str | None, hashes: Iterable[str], source: Table) -> str:
    condition = f" ; {marker}" if marker else ""
    if "git" in source:
        address = source["git"].removeprefix("git+")
        if "://" not in address:  # as ssh has it: git@host:owner/name
            address = f"ssh://{address.replace(':', '/', 1)}"
        revision = source.get("revision") or source.get("ref")
        folder = f"#subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
        return f"{name} @ git+{address}{f'@{revision}' if revision else ''}{folder}{condition}"
    if place := next((source[key] for key in ("path", "file", "url") if key in source), None):
        return f"{name} @ {place}{condition}" if "://" in place else f"./{place}"
    return " ".join((f"{name}=={version}{condition}", *(f"--hash={one}" for one in hashes)))


READERS: Mapping[str, Callable[[Path, Chosen], Iterator[str]]] = {
    "poetry.lock": _poetry,
    "pdm.lock": _pdm,
    "Pipfile.lock": _pipenv,
    "pylock.toml": _pylock,
}
