"""Installs and compiles each distribution once for all builds, below ``.local/cache``, in a folder named by a hash.

uv's cache alone is not enough, because compiling and stripping take longer than installing. A build of the reference
backend takes 1.5 s of processor time with this store, and 7 s without it and with uv's cache.

A build writes an entry into a temporary folder and renames it, so an entry is always complete. A build waits while
another one makes the same entries. When a file is packaged, its hash is compared with the entry's notes. A damaged
entry is made again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import sysconfig
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from infra.package import bytecode, contents
from infra.package.errors import PackageError
from infra.package.from_source import install_built
from infra.package.resolving import install

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from infra.package.bytecode import Interpreter
    from infra.package.package_platform import Platform
    from infra.package.resolving import Pin
    from infra.package.uv_tool import Index

CACHE = Path(__file__).resolve().parents[2] / ".local" / "cache" / "package"
# Enough for the distributions of a few stages. Those whose last use is the oldest are removed first.
LARGEST_CACHE_BYTES = 2 * 2**30
# After this time, a temporary folder belongs to a killed build.
_ABANDONED_S = 86_400
# An entry that was used within this time is not removed, because a parallel build may use it.
_IN_USE_S = 3600

# Older distributions import setuptools' module pkg_resources without requiring setuptools.
SETUPTOOLS = "setuptools"
_PKG_RESOURCES = re.compile(rb"^(?:import|from) pkg_resources\b", re.MULTILINE)
_FOR_EVERY_SERVICE = ("boto3/", "botocore/", "s3transfer/", "awscli/")
_ATTEMPTS = 3
_NOTES = "notes.json"
_FILES = "files"
# Files in which installers record facts about the machine, and scripts, whose first line has its interpreter's path.
_INSTALLERS_NOTES = re.compile(r"[^/]+\.dist-info/(INSTALLER|REQUESTED|direct_url\.json|uv_cache\.json)")
_INSTALLERS_FILES = ("bin/", ".lock")
# The code that determines the bytes of an entry, besides the distribution.
_RECIPE = (Path(__file__), Path(contents.__file__), bytecode.SCRIPT)


@dataclass(frozen=True)
class StoredFile:
    """A file of an entry: its path in the package, its content's SHA-256, its size, and whether it can be run."""

    path: str
    sha256: str
    size: int
    executable: bool


@dataclass(frozen=True)
class Entry:
    """A distribution in the store. ``services`` are those of AWS that its code names, ``dialects`` SQLAlchemy's.

    ``undeclared`` are the distributions that it imports without requiring them.
    """

    directory: Path
    name: str
    version: str
    files: tuple[StoredFile, ...]
    services: tuple[str, ...]
    dialects: tuple[str, ...]
    undeclared: tuple[str, ...]

    def read(self, file: StoredFile) -> bytes:
        """Return the content of a file. Raises `DamagedEntryError` if it has changed."""
        try:
            content = (self.directory / _FILES / file.path).read_bytes()
        except OSError as error:
            raise DamagedEntryError(self) from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise DamagedEntryError(self)
        return content


class DamagedEntryError(Exception):
    """An entry has changed and must be made again."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(f"{entry.directory} is damaged")
        self.entry = entry

    def remove(self) -> None:
        """Take the entry out of the store."""
        shutil.rmtree(self.entry.directory, ignore_errors=True)


@dataclass(frozen=True)
class Recipe:
    """The settings for installing and compiling distributions, for the package's folder of this name.

    Without an interpreter, nothing is compiled.
    """

    platform: Platform
    interpreter: Interpreter | None
    folder: str
    index: Index


def fetch(pins: Sequence[Pin], recipe: Recipe) -> list[Entry]:
    """Return the entry of each pinned distribution, after installing and compiling the missing ones."""
    directories = {pin: CACHE / _key(pin, recipe) for pin in pins}
    for _ in range(_ATTEMPTS):  # another build may remove an entry to keep the store small
        found = {pin: _read(directory) for pin, directory in directories.items()}
        missing = {pin: directories[pin] for pin, entry in found.items() if entry is None}
        if not missing:
            return [entry for entry in found.values() if entry is not None]
        CACHE.mkdir(parents=True, exist_ok=True)
        with _exclusive(missing.values()), tempfile.TemporaryDirectory(prefix=".making-", dir=CACHE) as scratch:
            if needed := {pin: directory for pin, directory in missing.items() if not directory.exists()}:
                _make(needed, recipe, Path(scratch))
        _forget_what_was_not_used(keep=set(directories.values()))
    names = ", ".join(pin.name for pin in missing)
    raise PackageError(f"{names} could not be kept in {CACHE}; remove that folder and build again")


@contextmanager
def _exclusive(directories: Iterable[Path]) -> Iterator[None]:
    """Wait while another build makes the same entries."""
    lock = CACHE / f".{hashlib.sha256(json.dumps(sorted(map(str, directories))).encode()).hexdigest()[:32]}.lock"
    with lock.open("w") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        # The lock file stays. Otherwise a waiting build would lock a deleted file, and the next build a new one.
        yield


def _key(pin: Pin, recipe: Recipe) -> str:
    machine = recipe.platform.architecture or sysconfig.get_platform()
    compiler = recipe.interpreter.version if recipe.interpreter else None
    code = [hashlib.sha256(file.read_bytes()).hexdigest() for file in _RECIPE]
    whole = json.dumps([pin.line, pin.built, recipe.platform.minor, machine, compiler, recipe.folder, code])
    return f"{pin.name}-{hashlib.sha256(whole.encode()).hexdigest()[:32]}"


def _read(directory: Path) -> Entry | None:
    try:
        notes = json.loads((directory / _NOTES).read_text(encoding="utf-8"))
        files = tuple(StoredFile(**file) for file in notes["files"])
        named = (tuple(notes[kind]) for kind in ("services", "dialects", "undeclared"))
        entry = Entry(directory, notes["name"], notes["version"], files, *named)
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(directory, ignore_errors=True)
        return None
    with suppress(OSError):  # another user's file, or another build has just removed it
        os.utime(directory)
    return entry


def _make(directories: Mapping[Pin, Path], recipe: Recipe, scratch: Path) -> None:
    site = scratch / "site"
    if wheels := [pin for pin in directories if not pin.built]:
        install(wheels, recipe.platform, site, recipe.index)
    for pin in directories:
        if pin.built:
            install_built(pin, recipe.platform, site, recipe.index)
    records = {_normal_name(record): record for record in sorted(site.glob("*.dist-info/RECORD"))}
    paths = {pin: _recorded(site, records[pin.name]) for pin in directories if pin.name in records}
    named = {pin: _named_in_code(site, pin.name, below) for pin, below in paths.items()}
    if recipe.interpreter:
        python = {
            path: contents.bytecode_form(pin.name, path)
            for pin, below in paths.items()
            for path in below
            if path.endswith(".py")
        }
        bytecode.compile_all(site, python, recipe.interpreter, recipe.folder)
    for pin, below in paths.items():
        made = scratch / pin.name
        record = records[pin.name]
        metadata = (site / record.parent.name / "METADATA").read_text(encoding="utf-8", errors="replace")
        notes = {
            "name": _header(metadata, "Name"),
            "version": _header(metadata, "Version"),
            "files": [asdict(_move(site, made / _FILES, path, pin.name)) for path in _with_bytecode(site, below)],
            **named[pin],
        }
        (made / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
        with suppress(OSError):  # another build was faster
            made.rename(directories[pin])


def _normal_name(record: Path) -> str:
    return canonicalize_name(record.parent.name.removesuffix(".dist-info").rpartition("-")[0])


def _header(metadata: str, name: str) -> str:
    found = re.search(rf"^{name}: *(.*?) *$", metadata, re.MULTILINE)
    return found[1] if found else ""


def _recorded(site: Path, record: Path) -> list[str]:
    """Return the paths that a distribution has installed, without those that depend on this machine."""
    rows = csv.reader(StringIO(record.read_text(encoding="utf-8")))
    paths = {row[0] for row in rows if row} - {record.relative_to(site).as_posix()}
    return sorted(
        path
        for path in paths
        if not path.startswith(("..", "/", *_INSTALLERS_FILES))
        and not _INSTALLERS_NOTES.fullmatch(path)
        and "__pycache__" not in path.split("/")
        and (site / path).is_file()
    )


def _named_in_code(site: Path, distribution: str, paths: Iterable[str]) -> dict[str, list[str]]:
    sources = {path: (site / path).read_bytes() for path in paths if path.endswith(".py")}
    # Skip boto3/botocore (they mention services only in examples) and SQLAlchemy (it ships every dialect).
    theirs = (source for path, source in sources.items() if not path.startswith(_FOR_EVERY_SERVICE))
    users = () if contents.is_known(distribution) else sources.values()
    return {
        "services": sorted(set().union(*map(contents.services_named, theirs))),
        "dialects": sorted(set().union(*map(contents.dialects_named, users))),
        "undeclared": [SETUPTOOLS] if any(map(_PKG_RESOURCES.search, sources.values())) else [],
    }


def _with_bytecode(site: Path, paths: Iterable[str]) -> Iterable[str]:
    for path in paths:
        if (site / path).exists():
            yield path
        if path.endswith(".py"):
            folder, _, name = path.rpartition("/")
            if (site / f"{path}c").exists():
                yield f"{path}c"
            for cached in (site / folder / "__pycache__").glob(f"{name.removesuffix('.py')}.cpython-*.pyc"):
                yield cached.relative_to(site).as_posix()


def _move(site: Path, to: Path, path: str, distribution: str) -> StoredFile:
    source = site / path
    executable = bool(source.stat().st_mode & stat.S_IXUSR)
    content = source.read_bytes()
    if contents.is_known(distribution):
        content = contents.stored(path, content)
    destination = to / path
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_bytes(content)
    return StoredFile(path, hashlib.sha256(content).hexdigest(), len(content), executable)


def _forget_what_was_not_used(keep: set[Path]) -> None:
    """Keep the store below its largest size, and remove the folders of killed builds."""
    for making in CACHE.glob(".making-*"):
        with suppress(OSError):  # another build has just finished with it
            if time.time() - making.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(making, ignore_errors=True)
    used = [
        (directory.stat().st_mtime, _size(directory), directory)
        for directory in CACHE.glob("[!.]*")
        if directory.is_dir()
    ]
    total = sum(size for _, size, _ in used)
    for used_s, size, directory in sorted(used):
        if total <= LARGEST_CACHE_BYTES or time.time() - used_s < _IN_USE_S:
            return
        if directory not in keep:
            shutil.rmtree(directory, ignore_errors=True)
            total -= size


def _size(directory: Path) -> int:
    entry = _read_notes(directory)
    return sum(file["size"] for file in entry.get("files", ()))


def _read_notes(directory: Path) -> dict[str, list[dict[str, int]]]:
    try:
        notes: dict[str, list[dict[str, int]]] = json.loads((directory / _NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes
