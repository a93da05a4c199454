"""Runs uv, with the indexes of a backend and none of its other settings."""

from __future__ import annotations

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
    from collections.abc import Mapping

_toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


@dataclass(frozen=True)
class Index:
    """The source of a backend's distributions. ``settings`` is the text of a uv.toml.

    ``options`` are the lines of a requirements file that contain indexes.
    """

    settings: str = ""
    options: tuple[str, ...] = ()


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises `PackageError` if it cannot be read."""
    try:
        found: dict[str, Any] = _toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackageError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from error
    return found


def run_uv(
    *arguments: str,
    cwd: Path | None = None,
    index: Index | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run uv and return its output. Raises `PackageError` with uv's own message in one line.

    With an ``index``, uv reads no other configuration. ``environment`` are more variables for uv and its builds. They
    do not get the credentials by which a job of CI deploys.
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
            env={**_surroundings(), "UV_PYTHON_DOWNLOADS": "never", **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    if done.returncode:
        line = " ".join(done.stderr.removeprefix("error: ").split())
        raise PackageError(line or f"uv ended with {done.returncode}", done.stderr)
    return done.stdout


def _surroundings() -> dict[str, str]:
    """Return the variables for uv. It runs the code of distributions without a wheel with the same ones."""
    # The keyring of an index may need the account, such as that of AWS CodeArtifact.
    withheld = ("ACTIONS_",) if os.environ.get("UV_KEYRING_PROVIDER") == "subprocess" else ("ACTIONS_", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(withheld)}
