"""The account that runs PostgreSQL, and a folder that it can use.

PostgreSQL refuses to run as root. In a container, where root is often the only user, it runs as `nobody`, who often
cannot enter the checkout's folder.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from localcloud import files, locks
from localcloud.errors import LocalCloudError

_NAME = "nobody"


class ProcessAccount(TypedDict, total=False):
    """The arguments of `subprocess` that make a child run as another account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class UnixAccount:
    """An account of this machine, by its ids."""

    user: int
    group: int

    def as_process(self) -> ProcessAccount:
        """Return the arguments that make `subprocess` run a child as this account."""
        return {"user": self.user, "group": self.group, "extra_groups": []}


def unprivileged() -> UnixAccount | None:
    """Return the account to run servers as, or None for the present user. PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(_NAME)
    except KeyError:
        raise LocalCloudError(
            f"PostgreSQL does not run as root and this machine has no account {_NAME!r}; run this as another user."
        ) from None
    # macOS has -2 as nobody's ids. System calls take them for 2**32 - 2.
    return UnixAccount(entry.pw_uid % 2**32, entry.pw_gid % 2**32)


def usable_folder(local: Path, directory: Path) -> Path:
    """Return a folder that the server's account can use: `directory` itself, if possible.

    Otherwise it is a folder below the system's temporary one, recorded in the folder `local`, with the same lifetime.
    The returned folder exists.
    """
    directory.mkdir(parents=True, exist_ok=True)
    account = unprivileged()
    if account is None or _can_enter(account, directory):
        return directory
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    folder = _outside(local, account) / f"{directory.name}-{digest}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    return folder


def remove(local: Path, directory: Path) -> None:
    """Remove `directory` and its replacement elsewhere."""
    if directory.exists():
        elsewhere = usable_folder(local, directory)
        shutil.rmtree(elsewhere, ignore_errors=True)
        if elsewhere != directory:
            shutil.rmtree(directory, ignore_errors=True)


def remove_outside(local: Path) -> None:
    """Remove every folder outside `local` that replaces one inside."""
    note = local / "outside"
    with locks.exclusive(local / "outside.lock"):
        if note.exists():
            shutil.rmtree(note.read_text(encoding="utf-8"), ignore_errors=True)
            note.unlink()


def _can_enter(account: UnixAccount, directory: Path) -> bool:
    # Only an attempt takes every parent, access list and mount into account.
    attempt = subprocess.run(
        ["/bin/sh", "-c", 'cd -- "$1"', "sh", directory],
        stderr=subprocess.DEVNULL,
        cwd="/",
        check=False,
        **account.as_process(),
    )
    return attempt.returncode == 0


def _outside(local: Path, account: UnixAccount) -> Path:
    note = local / "outside"
    with locks.exclusive(local / "outside.lock"):
        if note.exists() and (remembered := Path(note.read_text(encoding="utf-8"))).is_dir():
            return remembered
        for parent in dict.fromkeys((tempfile.gettempdir(), "/var/tmp", "/tmp")):  # noqa: S108 - made by mkdtemp
            if not _can_enter(account, Path(parent)):
                continue
            folder = Path(tempfile.mkdtemp(prefix="localcloud-", dir=parent))
            folder.chmod(0o711)
            files.write_private(note, str(folder))
            return folder
    raise LocalCloudError(
        f"PostgreSQL runs as {_NAME} when you are root, and neither {local} nor a temporary folder is open to {_NAME}; "
        "run this as another user, or move the checkout to a folder that all users can enter."
    )
