"""Writes the distributions of a package from the store, without files that never run, and updates their metadata."""

from __future__ import annotations

import base64
import csv
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from infra.package import contents, store
from infra.package.bytecode import find_interpreter
from infra.package.errors import PackageError
from infra.package.installed import standard_library
from infra.package.store import DamagedEntryError, Recipe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path, PurePosixPath

    from infra.package.package_platform import Platform
    from infra.package.resolving import Pin
    from infra.package.store import Entry
    from infra.package.uv_tool import Index

_ATTEMPTS = 3


@dataclass(frozen=True)
class Distribution:
    """An installed requirement and its share of the package's size."""

    name: str
    version: str
    size_bytes: int


@dataclass(frozen=True)
class Site:
    """The written distributions with their sizes, and the owner and SHA-256 of each file by its path.

    Paths are relative to the package. ``undeclared`` are the distributions that one imports without requiring them.
    """

    distributions: tuple[Distribution, ...]
    owners: Mapping[str, str]
    digests: Mapping[str, str]
    undeclared: Mapping[str, tuple[str, ...]]

    def with_(self, other: Site) -> Site:
        """Return these distributions and those of another site."""
        both = sorted((*self.distributions, *other.distributions), key=lambda one: one.name.lower())
        return Site(
            tuple(both),
            {**self.owners, **other.owners},
            {**self.digests, **other.digests},
            {**self.undeclared, **other.undeclared},
        )


@dataclass(frozen=True)
class Needs:
    """The facts that select the files of distributions.

    ``ours``: they are the function's own. ``services`` are the AWS services named in code, ``wanted`` those that must
    be there (None: all), ``dialects`` those of other databases.
    """

    ours: bool = False
    services: Collection[str] = ()
    wanted: tuple[str, ...] | None = ()
    dialects: frozenset[str] = frozenset()


def write(
    pins: Sequence[Pin], platform: Platform, package: Path, folder: PurePosixPath, needs: Needs, index: Index
) -> Site:
    """Write these distributions into a folder of a package. Raises `PackageError`."""
    recipe = Recipe(platform, find_interpreter(platform), folder.as_posix(), index)
    for _ in range(_ATTEMPTS):
        entries = store.fetch(pins, recipe)
        try:
            return _write(entries, package, folder, needs, standard_library(platform.minor))
        except DamagedEntryError as error:
            error.remove()
    raise PackageError(f"{store.CACHE} does not keep what is written to it; remove that folder and build again")


def _write(
    entries: Sequence[Entry], package: Path, folder: PurePosixPath, needs: Needs, unreachable: Collection[str]
) -> Site:
    """Write entries, without ``unreachable`` modules.

    The package's folders come before the standard library in sys.path, and site-packages after it. So an old backport,
    such as asyncio 3.4.3, would replace the standard library's module.
    """
    services = _services(entries, needs)
    dialects = needs.dialects.union(*(entry.dialects for entry in entries))
    directory = package / folder
    distributions: list[Distribution] = []
    owners: dict[str, str] = {}
    digests: dict[str, str] = {}
    for entry in entries:
        name = canonicalize_name(entry.name)
        record: list[tuple[str, str, int]] = []
        for file in entry.files:
            if file.path.partition("/")[0].partition(".")[0] in unreachable:
                continue
            if not contents.is_packaged(name, file.path, ours=needs.ours, services=services, dialects=dialects):
                continue
            stored = entry.read(file)
            packaged, content = contents.packaged(file.path, stored, services)
            path = directory / packaged
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if file.executable:
                path.chmod(0o755)
            digest = file.sha256 if content is stored else hashlib.sha256(content).hexdigest()
            whole = (folder / packaged).as_posix()
            owners[whole], digests[whole] = name, digest
            record.append((packaged, digest, len(content)))
        _write_record(directory, record)
        distributions.append(Distribution(entry.name, entry.version, sum(size for _, _, size in record)))
    undeclared = {str(canonicalize_name(entry.name)): entry.undeclared for entry in entries}
    return Site(tuple(sorted(distributions, key=lambda one: one.name.lower())), owners, digests, undeclared)


def _services(entries: Iterable[Entry], needs: Needs) -> set[str] | None:
    """Return the services of AWS whose data the package needs; None: all."""
    named = {service for entry in entries if not needs.ours for service in entry.services}
    known = {service for entry in entries for file in entry.files if (service := contents.service_of(file.path))}
    # Without botocore among them, the function uses that of Lambda, which has all services.
    wanted = needs.wanted if known else ()
    return contents.services_used({*named, *needs.services}, wanted, known)


def _write_record(directory: Path, files: Iterable[tuple[str, str, int]]) -> None:
    """List the packaged files of a distribution in its RECORD, for `importlib.metadata`."""
    rows = [
        (path, f"sha256={base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b'=').decode()}", size)
        for path, digest, size in files
    ]
    folder = next(path.partition("/")[0] for path, _, _ in rows if path.endswith(".dist-info/METADATA"))
    with (directory / folder / "RECORD").open("w", encoding="utf-8", newline="") as record:
        csv.writer(record, lineterminator="\n").writerows(sorted([*rows, (f"{folder}/RECORD", "", "")]))
