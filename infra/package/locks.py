"""Reads the locks of Poetry, PDM, Pipenv and PEP 751 as lines of a requirements file, each with its marker."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement

from infra.package.errors import PackageError
from infra.package.uv_tool import read_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    Table = Mapping[str, Any]


def read_lock(lock: Path) -> list[str]:
    """Return the lines of a lock: what the backend needs when it runs, without its groups for development.

    Raises `PackageError` if the lock cannot be read.
    """
    try:
        return list(READERS[lock.name](lock))
    except (KeyError, TypeError, AttributeError, ValueError, InvalidRequirement) as error:
        raise PackageError(f"{lock.name} cannot be read: {type(error).__name__}: {error}") from error


def _poetry(lock: Path) -> Iterator[str]:
    packages = read_toml(lock).get("package", [])
    if any("groups" in package for package in packages):  # Poetry 2 says which group each is for, and when
        main = (one for one in packages if "main" in one["groups"] and not one.get("optional"))
        chosen = {id(one): one.get("markers") for one in main}
        markers = {key: marker.get("main") if isinstance(marker, dict) else marker for key, marker in chosen.items()}
    else:
        reached = _reached(packages, lock.parent / "pyproject.toml")
        markers = {id(one): None for one in packages if _normal(one["name"]) in reached}
    for package in packages:
        if id(package) in markers:
            hashes = [one["hash"] for one in package.get("files", ())]
            yield _line(package["name"], package["version"], markers[id(package)], hashes, package.get("source", {}))


def _reached(packages: Iterable[Table], pyproject: Path) -> set[str]:
    """Return what the project's dependencies lead to in a lock of Poetry 1, which does not say it."""
    by_name: dict[str, Table] = {_normal(package["name"]): package for package in packages}
    waiting = list(_roots(read_toml(pyproject)))
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
            _normal(Requirement(re.sub(r"\s*\(([^)]*)\)", r"\1", one)).name)
            for extra in extras
            for one in package.get("extras", {}).get(extra, ())
        }
        for dependency, how in package.get("dependencies", {}).items():
            several = how if isinstance(how, list) else [how]
            optional = all(isinstance(one, dict) and one.get("optional") for one in several)
            if not optional or _normal(dependency) in wanted:
                waiting.append((_normal(dependency), _extras(several)))
    return reached


def _roots(project: Table) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in project.get("project", {}).get("dependencies", ()):
        requirement = Requirement(line)
        yield _normal(requirement.name), tuple(sorted(requirement.extras))
    for name, how in project.get("tool", {}).get("poetry", {}).get("dependencies", {}).items():
        several = how if isinstance(how, list) else [how]
        if name != "python" and not all(isinstance(one, dict) and one.get("optional") for one in several):
            yield _normal(name), _extras(several)


def _extras(several: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({extra for one in several if isinstance(one, dict) for extra in one.get("extras", ())}))


def _pdm(lock: Path) -> Iterator[str]:
    written: set[tuple[str, str]] = set()
    for package in read_toml(lock).get("package", []):
        key = (package["name"], package.get("version", ""))
        if "default" in package.get("groups", ["default"]) and key not in written:  # an extra has an entry of its own
            written.add(key)
            hashes = [one["hash"] for one in package.get("files", ())]
            source = {name: package[name] for name in ("git", "path", "url") if name in package}
            yield _line(package["name"], package.get("version", ""), package.get("marker"), hashes, source)


def _pipenv(lock: Path) -> Iterator[str]:
    for name, package in json.loads(lock.read_text(encoding="utf-8")).get("default", {}).items():
        source = {key: package[key] for key in ("git", "path", "file") if key in package}
        version = package.get("version", "").removeprefix("==")
        yield _line(name, version, package.get("markers"), package.get("hashes", ()), source)


def _pylock(lock: Path) -> Iterator[str]:
    for package in read_toml(lock).get("packages", []):
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        hashes = [f"sha256:{one['hashes']['sha256']}" for one in files]
        source: dict[str, str] = {}
        if "directory" in package:
            source = {"path": package["directory"]["path"]}
        elif "vcs" in package or "archive" in package:
            source = {"url": {**package.get("vcs", {}), **package.get("archive", {})}.get("url", "")}
        yield _line(package["name"], package.get("version", ""), package.get("marker"), hashes, source)


def _line(name: str, version: str, marker: str | None, hashes: Iterable[str], source: Table) -> str:
    place = next((source[key] for key in ("git", "path", "file", "url") if key in source), None)
    if place is not None and source.get("type") != "legacy":  # that is Poetry's word for another index
        return f"{name} @ {place}" if "://" in place else f"./{place}"
    condition = f" ; {marker}" if marker else ""
    return " ".join((f"{name}=={version}{condition}", *(f"--hash={one}" for one in hashes)))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


READERS: Mapping[str, Callable[[Path], Iterator[str]]] = {
    "poetry.lock": _poetry,
    "pdm.lock": _pdm,
    "Pipfile.lock": _pipenv,
    "pylock.toml": _pylock,
}
