"""Finds the files that revisions read outside the tree, and those of the setting ``package_files``."""

from __future__ import annotations

import ast
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from infra.package.errors import PackageError
from infra.package.layout import BACKEND, Layout
from infra.package.sources import files_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from infra.package.imports import Files

# Calls that read a file or list a folder.
_READS = re.compile(
    r"\b(open|read_text|read_bytes|glob|rglob|iterdir|listdir|scandir|walk|read_csv|loadtxt|parse|load)\s*\("
)
_LONGEST_NAME = 260
_SHOWN = 10


def named_files(layout: Layout, globs: Iterable[str]) -> Files:
    """Return the files of the backend that these patterns match, by their paths in the package.

    Raises `PackageError` for a pattern that matches none.
    """
    below = dict(files_below(layout.backend, inside=(layout.backend, *layout.local_packages)))
    found: Files = {}
    for glob in globs:
        matched = {path: file for path, file in below.items() if _matches(path, glob)}
        if not matched:
            raise PackageError(
                f"package_files: {glob} matches no file of {layout.backend} that may be packaged; write it relative to"
                " that folder, as in sql/*.sql"
            )
        found |= {BACKEND / path: file for path, file in matched.items()}
    return found


def unpackaged_files(layout: Layout, copies: Files) -> list[str]:
    """Return the files and folders that the tree reads and that are not in the package, relative to the backend.

    It searches the strings of the tree for their names, which may be split over several strings.
    """
    packaged = set(copies.values())
    below = files_below(layout.backend, inside=(layout.backend, *layout.local_packages))
    outside = [path for path, file in below if file not in packaged and path.suffix not in {".py", ".pyc"}]
    if not outside:
        return []
    found: set[str] = set()
    for file in _tree(layout, copies):
        found |= _read_by(file, outside, layout.backend)
    return sorted(found)


def warning(files: list[str]) -> str:
    """Return the line about files that are not in the package."""
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return (
        f"the tree names files that lie outside it and are not packaged: {', '.join(files[:_SHOWN])}{more}; if it reads"
        ' them, name them in the setting package_files, for example ["' + _pattern(files[0]) + '"]'
    )


def _pattern(path: str) -> str:
    return f"{path}**" if path.endswith("/") else path


def _matches(path: PurePosixPath, glob: str) -> bool:
    """Return whether a pattern matches a path. ``**`` matches any folders, and a folder's name all files in it."""
    text = glob.removeprefix("./").rstrip("/")
    pattern = "".join(
        {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
        for part in re.split(r"(\*\*/|\*\*|\*|\?)", text)
    )
    return re.fullmatch(f"{pattern}(?:/.*)?", path.as_posix()) is not None


def _tree(layout: Layout, copies: Files) -> Iterator[Path]:
    folders = [layout.packaged(folder) for folder in (layout.tree, *layout.version_locations)]
    for path, file in copies.items():
        if path.suffix == ".py" and any(path.is_relative_to(folder) for folder in folders):
            yield file


def _read_by(file: Path, outside: list[PurePosixPath], backend: Path) -> set[str]:
    source = file.read_text(encoding="utf-8", errors="replace")
    if not _READS.search(source):
        return set()
    texts = set(_texts(source))
    here = PurePosixPath(file.relative_to(backend).parent.as_posix()) if file.is_relative_to(backend) else None
    found: set[str] = set()
    for path in outside:
        if _is_named(path, texts):
            found.add(path.as_posix())
            continue
        # A folder above the tree does not count: its name is only a part of another path.
        folders = (each for each in path.parents if each.name and not (here and here.is_relative_to(each)))
        if folder := next((each for each in folders if _is_named(each, texts)), None):
            found.add(f"{folder.as_posix()}/")
    return found


def _texts(source: str) -> Iterator[str]:
    """Yield the strings in a file that may be names of files. Of an f-string, these are the constant parts."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < _LONGEST_NAME:
            text = node.value.replace("\\", "/").strip("/")
            while text.startswith(("../", "./")):
                text = text.partition("/")[2]
            if text and "\n" not in text:
                yield text


def _is_named(path: PurePosixPath, texts: set[str]) -> bool:
    """Return whether one of these texts is the end of a path."""
    parts = path.parts
    return any("/".join(parts[at:]) in texts for at in range(len(parts)))
