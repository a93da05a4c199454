"""The contestants that are commands, with their defaults: the alembic CLI, dbmate, Django and yoyo."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from benchmarks import histories
from benchmarks.ground import BENCH, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.ground import Ground
    from benchmarks.histories import Change
    from localcloud.postgres import Database

ALEMBIC = "alembic CLI"
DBMATE = "dbmate"
DJANGO = "Django migrate"
YOYO = "yoyo"

_BIN = BENCH / "peers" / "bin"
_DBMATE_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_LONGEST_S = 300

# The statements after which a tool's last change is pending again.
_FORGET = {
    ALEMBIC: "UPDATE alembic_version SET version_num = '{before}'",
    DBMATE: "DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)",
    DJANGO: "DELETE FROM django_migrations WHERE id = (SELECT max(id) FROM django_migrations)",
    YOYO: "DELETE FROM _yoyo_migration WHERE migration_id = (SELECT max(migration_id) FROM _yoyo_migration)",
}
_WRITERS = {
    ALEMBIC: histories.write_alembic,
    DBMATE: histories.write_dbmate,
    DJANGO: histories.write_django,
    YOYO: histories.write_yoyo,
}
NAMES = tuple(_WRITERS)
# The options with which a tool marks everything as applied. yoyo needs half a minute for a thousand revisions.
_MARK: dict[str, dict[str, tuple[str, ...]]] = {
    ALEMBIC: {"upgrade": ("stamp",)},
    DJANGO: {"migrate": ("migrate", "--fake")},
    YOYO: {"apply": ("mark",)},
}


@dataclass(frozen=True)
class Tool:
    """A command with its own kind of history, and the database that it migrates."""

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command. Its output goes to a file beside its history."""
        with self.folder.with_suffix(".log").open("wb") as log:
            return subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the command ends. Raise `RuntimeError` with its output if it failed."""
        # Python's wait() with a timeout looks every 50 ms, which would be a part of the measured time.
        limit = threading.Timer(_LONGEST_S, process.kill)
        limit.start()
        try:
            code = process.wait()
        finally:
            limit.cancel()
        if code != 0:
            output = self.folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{self.name} failed: {output[-2000:]}")

    def run(self) -> float:
        """Return the seconds that the command takes."""
        began = time.perf_counter()
        self.finish(self.start())
        return time.perf_counter() - began


def bring_to_head(tool: Tool) -> None:
    """Make a tool's own table contain all changes, without applying them if the tool can."""
    instead = _MARK.get(tool.name, {})
    command = [word for part in tool.command for word in instead.get(part, (part,))]
    replace(tool, command=tuple(command)).run()


def forget_last(name: str, history: Sequence[Change]) -> tuple[str, ...]:
    """Return the statements that revert a tool's database by one change."""
    before = history[-2].revision
    return (f"DROP TABLE IF EXISTS {histories.LAST_TABLE}", _FORGET[name].format(before=before))


def tool(ground: Ground, name: str, label: str, history: Sequence[Change], database: Database) -> Tool:
    """Return one of the four. ``label`` distinguishes histories."""
    folder = ground.scratch / f"{name.split(maxsplit=1)[0].lower()}-{label}"
    if not folder.exists():
        _WRITERS[name](folder, history)
    return Tool(name, _command(name, database), folder, _environment(name, database))


def tools(ground: Ground, label: str, history: Sequence[Change]) -> dict[str, tuple[Tool, Database]]:
    """Return all of them, each with its own empty database."""
    found = {}
    for name in NAMES:
        database = ground.database(f"{label}_{name.split(maxsplit=1)[0]}")
        found[name] = (tool(ground, name, label, history, database), database)
    return found


def dbmate_package() -> Path:
    """Return the folder of npm's dbmate for this machine: the program itself, without the wrapper that starts Node."""
    machine = _DBMATE_MACHINES[platform.machine().lower()]
    return ROOT / "node_modules" / "@dbmate" / f"{platform.system().lower()}-{machine}"


def _command(name: str, database: Database) -> tuple[str, ...]:
    if name == ALEMBIC:
        return (str(_BIN / "alembic"), "upgrade", "head")
    if name == DBMATE:
        # The schema dump needs pg_dump, and is meant for a developer's machine.
        return (str(dbmate_package() / "bin" / "dbmate"), "--no-dump-schema", "--migrations-dir", ".", "migrate")
    if name == DJANGO:
        return (str(_BIN / "python"), "-m", "django", "migrate", "--settings", "settings", "--verbosity", "0")
    url = f"postgresql://{quote(database.user)}:{quote(database.password)}@{database.host}:{database.port}"
    return (str(_BIN / "yoyo"), "apply", "--batch", "--no-config-file", "--database", f"{url}/{database.name}", ".")


def _environment(name: str, database: Database) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(BENCH),  # no settings of a user
        # SQLAlchemy needs the driver's name, and Go does not accept it.
        "DATABASE_URL": database.url.replace("+psycopg2", "") if name == DBMATE else database.url,
        "PGHOST": database.host,
        "PGPORT": str(database.port),
        "PGDATABASE": database.name,
        "PGUSER": database.user,
        "PGPASSWORD": database.password,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(database.ca),
    }
