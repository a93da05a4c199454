"""Puts a package together, beside its place first, so that there is a whole one or none."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from io import StringIO
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING

from infra.package.errors import PackageError
from infra.package.graph import Graph, read_graph
from infra.package.imports import backend_files
from infra.package.layout import Layout, check_tree, read_layout
from infra.package.requirements import install, read_requirements, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from infra.package.target import Target

# Lambda's limit for a function's unpacked code.
LARGEST_PACKAGE = 262_144_000
# Tells a package of ours from a folder that must not be replaced.
MARKER = ".lambda-migrate-package"

_CHECKOUT = Path(__file__).resolve().parents[2]
_FUNCTION = "lambda_migrate"
# What installers note about the machine; scripts, whose first line names its interpreter.
_INSTALLERS_NOTES = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
_INSTALLERS_FILES = ("bin", ".lock")
# The first moment that a zip archive can express, so that two builds of the same code are the same bytes.
_EPOCH_S = 315_532_800
_LARGEST_SHOWN = 5


@dataclass(frozen=True)
class Distribution:
    """An installed requirement and its share of the package's size."""

    name: str
    version: str
    size_bytes: int


@dataclass(frozen=True)
class Package:
    """A package that was built. ``revisions`` is how many there are; ``size_bytes`` is the unpacked size.

    ``digest`` is a SHA-256, in hexadecimal, of every file's path, mode and content.
    """

    directory: Path
    digest: str
    size_bytes: int
    heads: tuple[str, ...]
    revisions: int
    distributions: tuple[Distribution, ...]


def build(
    backend: Path,
    out: Path,
    target: Target,
    config: str = "alembic.ini",
    extra_files: Mapping[str, Path] = MappingProxyType({}),
) -> Package:
    """Build the package of a backend at ``out``, which is replaced if it is a package, and refused if it is not.

    ``config`` is the Alembic configuration's path in the backend. ``extra_files`` says what else to copy: paths in the
    package, and the files to put there. Nothing of the backend is run. Raises `PackageError`, and then leaves
    everything as it was.
    """
    if not backend.is_dir():
        raise PackageError(f"no folder {backend}; name the backend's folder")
    # The last part of `out` stays as it is: whether it is a link matters.
    backend, out = backend.resolve(), out.absolute().parent.resolve() / out.absolute().name
    _refuse_to_replace(out, backend)
    requirements = read_requirements(backend)
    layout = read_layout(backend, config, requirements.local_packages)
    graph = _graph(layout, backend) if layout.in_backend else None
    files = backend_files(layout)
    resolved = resolve(requirements, target)
    with _staging(out) as staging:
        install(resolved, target, staging, cwd=backend)
        _remove_traces_of_the_installer(staging)
        if graph is None:
            graph = _graph(layout, staging)
        distributions = _distributions(staging)
        (staging / MARKER).write_text("Built by infra.package, and replaced by its next build.\n", encoding="utf-8")
        copies: list[tuple[str | PurePosixPath, Path]] = [
            *_function_files().items(),
            *files.items(),
            *extra_files.items(),
        ]
        size = _size_of([*staging.rglob("*"), *(source for _, source in copies)])
        _refuse_what_is_too_large(size, distributions)
        for relative, source in copies:
            _copy(source, staging / relative)
        _normalise(staging)
        digest = _digest(staging)
    return Package(out, digest, size, graph.heads, len(graph.revisions), distributions)


def _graph(layout: Layout, site: Path) -> Graph:
    """Read the revisions; ``site`` is where requirements are installed, if some of the tree belongs to one."""
    check_tree(site / layout.tree, site)
    ours = all(location.is_absolute() for location in layout.version_locations)
    return read_graph(
        [site / location for location in layout.version_locations],
        relative_to=layout.backend if ours else site,
        recursive=layout.recursive,
    )


def _refuse_to_replace(out: Path, backend: Path) -> None:
    if out == backend or out in backend.parents or out.is_symlink():
        raise PackageError(f"{out} cannot be replaced by a package; name another folder")
    if out.exists() and not (out / MARKER).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise PackageError(f"{out} is not empty and was not built here; name another folder, or remove it yourself")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Lend a folder beside ``out`` that takes its place at the end, or is gone if anything failed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        staging = Path(scratch, "new")
        staging.mkdir()
        yield staging
        if out.exists():
            out.rename(Path(scratch, "old"))
        staging.rename(out)


def _remove_traces_of_the_installer(directory: Path) -> None:
    for name in _INSTALLERS_FILES:
        _remove(directory / name)
    for cache in [*directory.rglob("__pycache__")]:
        _remove(cache)
    for record in directory.glob("*.dist-info/RECORD"):
        for name in _INSTALLERS_NOTES:
            _remove(record.with_name(name))
        rows = csv.reader(StringIO(record.read_text(encoding="utf-8")))
        kept = StringIO()
        csv.writer(kept, lineterminator="\n").writerows(sorted(row for row in rows if (directory / row[0]).exists()))
        record.write_text(kept.getvalue(), encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _distributions(directory: Path) -> tuple[Distribution, ...]:
    installed = metadata.distributions(path=[str(directory)])
    return tuple(
        sorted(
            (
                Distribution(one.metadata["Name"], one.version, sum(file.size or 0 for file in one.files or ()))
                for one in installed
            ),
            key=lambda distribution: distribution.name.lower(),
        )
    )


def _function_files() -> dict[str, Path]:
    # Not through `files_below`: the certificates of the servers are public, and needed.
    files = {file.relative_to(_CHECKOUT): file for file in (_CHECKOUT / _FUNCTION).rglob("*") if file.is_file()}
    return {
        path.as_posix(): file
        for path, file in files.items()
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }


def _copy(source: Path, destination: Path) -> None:
    if destination.exists():
        raise PackageError(f"{source} cannot be packaged: {destination.name} is already there, from a requirement")
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, destination)  # with its mode, of which `_normalise` keeps the executable bit


def _size_of(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _normalise(directory: Path) -> None:
    """Give everything the modes and times that do not depend on the machine."""
    for path in (directory, *directory.rglob("*")):
        executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (_EPOCH_S, _EPOCH_S))


def _digest(directory: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(directory).as_posix()}\0{path.stat().st_mode:o}\0{content}\n".encode())
    return whole.hexdigest()


def _refuse_what_is_too_large(size: int, distributions: tuple[Distribution, ...]) -> None:
    if size <= LARGEST_PACKAGE:
        return
    largest = sorted(distributions, key=lambda distribution: -distribution.size_bytes)[:_LARGEST_SHOWN]
    listed = ", ".join(f"{one.name} {one.version} ({_megabytes(one.size_bytes)})" for one in largest)
    raise PackageError(
        f"the package would be {_megabytes(size)}, and Lambda takes {_megabytes(LARGEST_PACKAGE)}; "
        f"remove what migrations do not need. The largest distributions: {listed}"
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"
