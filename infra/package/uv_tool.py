"""Runs uv, with the indexes of a backend and none of its other settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uv

from infra.package.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

# The settings that say where distributions come from. Others, such as overrides, have decided what the lock holds; uv
# would apply them again to what comes from the lock.
_OF_INDEXES = (
    "allow-insecure-host", "extra-index-url", "find-links", "index", "index-strategy", "index-url", "keyring-provider",
    "native-tls", "no-index",
)  # fmt: skip


@dataclass(frozen=True)
class Index:
    """Where a backend's distributions come from: ``settings`` is the text of a uv.toml.

    ``options`` are the lines of a requirements file that name indexes.
    """

    settings: str = ""
    options: tuple[str, ...] = ()


def index_of(folder: Path, options: tuple[str, ...] = ()) -> Index:
    """Return the indexes that uv would use in a folder, by its configuration files."""
    settings: dict[str, Any] = {}
    for base, found in (*_of_machine(), *_of_project(folder)):
        for name in _OF_INDEXES:
            if name in found:
                settings[name] = _usable(name, found[name], base)
    # TOML takes a table's keys after all others, so the list of tables is last.
    tables = settings.pop("index", [])
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for table in tables:
        lines += ["[[index]]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return Index("\n".join(lines), options)


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds. Raises `PackageError` if it cannot be read."""
    try:
        found: dict[str, Any] = _toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackageError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from error
    return found


def _of_machine() -> Iterator[tuple[Path, Mapping[str, Any]]]:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    named = os.environ.get("UV_CONFIG_FILE")
    for path in (Path("/etc/uv/uv.toml"), home / "uv" / "uv.toml", *([Path(named)] if named else [])):
        if path.is_file():
            yield path.parent, read_toml(path)


def _of_project(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the settings of the nearest project: uv.toml, or else a pyproject.toml that has a [tool.uv]."""
    for each in (folder, *folder.parents):
        if (each / "uv.toml").is_file():
            yield each, read_toml(each / "uv.toml")
            return
        if (each / "pyproject.toml").is_file():
            found = read_toml(each / "pyproject.toml").get("tool", {}).get("uv")
            if found is not None:
                yield each, found
                return


def _usable(name: str, value: Any, base: Path) -> Any:  # noqa: ANN401 - TOML
    """Return a setting that means the same in another folder."""
    if name == "index":
        # An index that is only for some distributions is asked for all here. Hashes tell theirs from others.
        kept = [{key: one for key, one in table.items() if key in {"name", "url", "default"}} for table in value]
        return [{**table, "url": _absolute(table["url"], base)} for table in kept if "url" in table]
    if name in {"find-links", "extra-index-url"}:
        return [_absolute(one, base) for one in ([value] if isinstance(value, str) else value)]
    return _absolute(value, base) if name == "index-url" else value


def _absolute(place: str, base: Path) -> str:
    return place if "://" in place or Path(place).is_absolute() else str(base / place)


def run_uv(*arguments: str, cwd: Path | None = None, index: Index | None = None) -> str:
    """Run uv and return what it prints. Raises `PackageError` with uv's own words, in one line.

    With an ``index``, uv reads no other configuration.
    """
    with tempfile.TemporaryDirectory() as scratch:
        options: tuple[str, ...] = ()
        if index is not None:
            config = Path(scratch, "uv.toml")
            config.write_text(index.settings, encoding="utf-8")
            options = ("--config-file", str(config))
        done = subprocess.run(
            [uv.find_uv_bin(), *arguments, *options, "--quiet", "--color", "never"],
            cwd=cwd or scratch,
            env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise PackageError(" ".join(done.stderr.removeprefix("error: ").split()) or f"uv ended with {done.returncode}")
    return done.stdout
