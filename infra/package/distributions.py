"""Writes the distributions of a package: from the store, cut down to what runs, with their metadata true to it."""

from __future__ import annotations

import base64
import csv
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.package import contents, store
from infra.package.bytecode import find_interpreter
from infra.package.errors import PackageError
from infra.package.requirements import Pin, normal_name
from infra.package.store import DamagedEntryError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from infra.package.requirements import Requirements
    from infra.package.selection import Selection
    from infra.package.store import Entry
    from infra.package.target import Target

_ATTEMPTS = 3


@dataclass(frozen=True)
class Distribution:
    """An installed requirement and its share of the package's size."""

    name: str
    version: str
    size_bytes: int


@dataclass(frozen=True)
class Site:
    """The distributions as they were written: what each takes, and by path whose each file is and its SHA-256."""

    distributions: tuple[Distribution, ...]
    owners: Mapping[str, str]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Needs:
    """What decides over the files of distributions.

    ``services`` are those of AWS that the backend's code names, ``dialects`` those of other databases.
    """

    selection: Selection
    requirements: Requirements
    services: Collection[str]
    dialects: frozenset[str]


def write(pins: Sequence[Pin], target: Target, directory: Path, needs: Needs) -> Site:
    """Write these distributions into a folder. Raises `PackageError`."""
    for _ in range(_ATTEMPTS):
        entries = store.fetch(pins, target, find_interpreter(target), cwd=needs.requirements.backend)
        try:
            return _write(entries, directory, needs)
        except DamagedEntryError as error:
            error.remove()
    raise PackageError(f"{store.CACHE} does not keep what is written to it; remove that folder and build again")


def _write(entries: Sequence[Entry], directory: Path, needs: Needs) -> Site:
    theirs = needs.requirements.names
    services = _services(entries, needs)
    dialects = needs.dialects.union(*(entry.dialects for entry in entries))
    distributions: list[Distribution] = []
    owners: dict[str, str] = {}
    digests: dict[str, str] = {}
    for entry in entries:
        name = normal_name(entry.name)
        record: list[tuple[str, str, int]] = []
        for file in entry.files:
            ours = name not in theirs
            if not contents.is_packaged(name, file.path, ours=ours, services=services, dialects=dialects):
                continue
            stored = entry.read(file)
            content = contents.packaged_content(file.path, stored, services)
            path = directory / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if file.executable:
                path.chmod(0o755)
            digest = file.sha256 if content is stored else hashlib.sha256(content).hexdigest()
            owners[file.path], digests[file.path] = name, digest
            record.append((file.path, digest, len(content)))
        _write_record(directory, record)
        distributions.append(Distribution(entry.name, entry.version, sum(size for _, _, size in record)))
    return Site(tuple(sorted(distributions, key=lambda one: one.name.lower())), owners, digests)


def _services(entries: Iterable[Entry], needs: Needs) -> set[str] | None:
    """Return the services of AWS whose data the package needs; None: all."""
    theirs = needs.requirements.names
    named = {service for entry in entries if normal_name(entry.name) in theirs for service in entry.services}
    known = {service for entry in entries for file in entry.files if (service := contents.service_of(file.path))}
    return contents.services_used({*named, *needs.services}, needs.selection.aws_services, known)


def _write_record(directory: Path, files: Iterable[tuple[str, str, int]]) -> None:
    """List what is packaged of a distribution, in the form of its standard, for `importlib.metadata`."""
    rows = [
        (path, f"sha256={base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b'=').decode()}", size)
        for path, digest, size in files
    ]
    folder = next(path.partition("/")[0] for path, _, _ in rows if path.endswith(".dist-info/METADATA"))
    with (directory / folder / "RECORD").open("w", encoding="utf-8", newline="") as record:
        csv.writer(record, lineterminator="\n").writerows(sorted([*rows, (f"{folder}/RECORD", "", "")]))
