"""Writes and reads a package's marker: the file that identifies a folder as a package, and lists its files."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKER = ".lambda-migrate-package"
_FIRST_LINE = "Built by infra.package, and replaced by its next build."
_SHOWN = 3
_CACHE = "__pycache__"


def write_marker(package: Path) -> None:
    """Write the marker, with the list of the files that the package has now."""
    listed = zlib.compress("\n".join(_files(package)).encode(), 9)
    text = f"{_FIRST_LINE}\n{base64.b64encode(listed).decode()}\n"
    (package / MARKER).write_text(text, encoding="utf-8")


def foreign_files(package: Path) -> list[str]:
    """Return the files in a package that its build did not write, or all files if its list cannot be read.

    Python's caches do not count, because running the package writes some.
    """
    try:
        _, listed, *_ = (package / MARKER).read_text(encoding="utf-8").splitlines()
        written = {MARKER, *zlib.decompress(base64.b64decode(listed)).decode().split("\n")}
    except (OSError, ValueError, zlib.error):
        written = {MARKER}
    return [name for name in _files(package) if name not in written and not _is_cached(Path(name))]


def _is_cached(file: Path) -> bool:
    return file.suffix == ".pyc" and _CACHE in file.parts


def shown(names: Sequence[str]) -> str:
    """Return the first names for a message."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{rest}"


def _files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir() or path.is_symlink())
