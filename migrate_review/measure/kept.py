"""Keeps databases in the state before a revision, so that the revision's next review begins there.

The key of a state is the content of everything that determines it: the revisions, env.py, its imports from the backend,
the settings, the versions of PostgreSQL and Alembic, the number of rows, and the reviewer's own code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from localcloud import locks
from migrate_review.measure import server as servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg2.extensions import connection

_PREFIX = "kept_"
# A developer works on few revisions at a time, each with a state without rows and one with them. Each is some 50 MB.
_MOST = 6
_IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
_OWN_CODE = Path(__file__).resolve().parents[1]


@dataclass
class Kept:
    """The kept databases of the server to which ``admin`` is connected. ``directory`` has the server's files.

    ``setting`` contains everything besides the revisions that determines a state.
    """

    admin: connection
    directory: Path
    backend: Path
    setting: Mapping[str, Any]
    _base: str = field(init=False)

    def __post_init__(self) -> None:
        content = hashlib.sha256(json.dumps(self.setting, sort_keys=True, default=str).encode())
        for path in sorted(_OWN_CODE.glob("rows/*.py")) + sorted(_OWN_CODE.glob("measure/*.py")):
            content.update(path.read_bytes())
        self._base = content.hexdigest()

    def find(self, files: Sequence[Path]) -> tuple[int, str] | None:
        """Return the kept state with the most of these revisions, from the first one on: their number, its database."""
        known = self._names()
        if not known:
            return None
        names = [*self._states(files)]
        for count in range(len(names), 0, -1):
            if names[count - 1] in known:
                os.utime(self._lock(names[count - 1]))
                return count, names[count - 1]
        return None

    def keep(self, files: Sequence[Path], database: str) -> None:
        """Keep a copy of the database, in which the revisions of these files are applied."""
        *_, name = self._states(files)
        with locks.exclusive(self._lock(name)):
            if name not in self._names():
                servers.recreate(self.admin, name, database)
        self._forget_old(name)

    def with_rows(self, revision: str, files: Sequence[Path]) -> str:
        """Return the name of the state before a revision with its rows, which depend on all files of the tree."""
        *_, name = self._states(files)
        return f"{name}_{hashlib.sha256(revision.encode()).hexdigest()[:12]}"

    def has(self, name: str) -> bool:
        """Return whether a state is kept. This counts as a use of the state."""
        found = name in self._names()
        if found:
            os.utime(self._lock(name))
        return found

    def keep_as(self, name: str, database: str) -> None:
        """Keep a copy of the database under this name, in place of an earlier one."""
        with locks.exclusive(self._lock(name)):
            servers.recreate(self.admin, name, database)
        self._forget_old(name)

    def _states(self, files: Sequence[Path]) -> Iterator[str]:
        """Yield the name of the state after each revision."""
        content = hashlib.sha256(self._base.encode())
        imported: set[str] = set()
        for file in files:
            data = file.read_bytes()
            content.update(f"{file.name}\n{len(data)}\n".encode() + data)
            for module in sorted(set(_IMPORT.findall(data.decode(errors="replace"))) - imported):
                imported.add(module)
                for path in self._files_of(module):
                    content.update(path.read_bytes())
            yield f"{_PREFIX}{content.hexdigest()[:24]}"

    def _files_of(self, module: str) -> list[Path]:
        """Return the files of a module in the backend's folder, and no files for any other module."""
        folder = self.backend / module
        alone = self.backend / f"{module}.py"
        if folder.is_dir() and module != "alembic":
            return sorted(folder.rglob("*.py"))
        return [alone] if alone.is_file() else []

    def _names(self) -> set[str]:
        with self.admin.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (_PREFIX,))
            return {name for (name,) in cursor.fetchall()}

    def _lock(self, name: str) -> Path:
        folder = self.directory / "reviews"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.lock"
        if not path.exists():
            path.touch()  # its time is that of the last use
        return path

    def _forget_old(self, newest: str) -> None:
        """Drop the databases whose last use is the oldest."""
        used = sorted(self._names() - {newest}, key=lambda name: self._lock(name).stat().st_mtime, reverse=True)
        for name in used[_MOST - 1 :]:
            with locks.exclusive(self._lock(name)):
                with self.admin.cursor() as cursor:
                    cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
                self._lock(name).unlink(missing_ok=True)
