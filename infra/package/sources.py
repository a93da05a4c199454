"""Selects the files of a backend that may go into a package."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from infra.package.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Folders of any depth. `env` and `venv` are good names for a Python package too, see `is_left_out`.
_FOLDERS = (".*", "__pycache__", "node_modules", "*.egg-info", "*.dist-info")
_ENVIRONMENTS = ("env", "venv")
_CREDENTIALS = (".*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "id_rsa*", "id_ed25519*", "id_ecdsa*")
_STATE = ("*.pyc", "*.pyo", "*.db", "*.sqlite", "*.sqlite3", "*.db-*", "*.sqlite*-*", "*.log")
_DOCKER = ("Dockerfile*", "*.Dockerfile", "docker-compose*.y*ml", "compose.y*ml", "compose.*.y*ml")
_FILES = (*_CREDENTIALS, *_STATE, *_DOCKER)


def is_left_out(path: Path) -> bool:
    """Return whether a file or folder never goes into a package, even if code imports it.

    All hidden files are left out: ``.env``, ``.git``, ``.netrc``, caches and editors' settings.
    """
    if not path.is_dir():
        return _matches(path.name, _FILES)
    if (path / "pyvenv.cfg").exists() or _matches(path.name, _FOLDERS):
        return True
    return path.name in _ENVIRONMENTS and not (path / "__init__.py").exists()


def files_below(directory: Path, *, inside: Sequence[Path]) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the files of a folder that may be packaged, with their paths relative to it.

    It follows symbolic links to targets ``inside`` one of these folders, and skips a link to a folder above itself.
    Raises `PackageError` for a link to any other target.
    """
    yield from _walk(directory, PurePosixPath(), above=(), inside=[folder.resolve() for folder in inside])


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and those below it that may be packaged, the nearest first. It does not follow links."""
    level = [folder]
    for _ in range(depth + 1):
        yield from level
        entries = (entry for each in level for entry in sorted(each.iterdir()))
        level = [entry for entry in entries if entry.is_dir() and not entry.is_symlink() and not is_left_out(entry)]


def _walk(
    directory: Path, relative: PurePosixPath, *, above: tuple[Path, ...], inside: Sequence[Path]
) -> Iterator[tuple[PurePosixPath, Path]]:
    real_directory = directory.resolve()
    if real_directory in above:
        return
    for entry in sorted(directory.iterdir()):
        if is_left_out(entry):
            continue
        if entry.is_symlink() and not _may_follow(entry, inside):
            continue
        if entry.is_dir():
            yield from _walk(entry, relative / entry.name, above=(*above, real_directory), inside=inside)
        elif entry.is_file():  # not a socket, a pipe or a broken link
            yield relative / entry.name, entry


def _may_follow(link: Path, inside: Sequence[Path]) -> bool:
    # Not Path.resolve: before Python 3.13 it raises for a link to itself.
    target = Path(os.path.realpath(link))
    folder = next((folder for folder in inside if target.is_relative_to(folder)), None)
    if folder is None:
        raise PackageError(f"{link} is a link that leads out of the backend, to {target}; copy the files instead")
    # A link with a harmless name must not add a file whose own name is left out.
    below = target.relative_to(folder).parts
    return not any(is_left_out(folder.joinpath(*below[: depth + 1])) for depth in range(len(below)))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
