"""Starts and stops both servers of the local stage, and makes its database."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localcloud import account, emulator, files, locks, postgres

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

DATABASE = "template_saas"
# The database for writing revisions. It does not change with a deployment.
DEVELOPMENT = "template_saas_dev"
# The function's login is the migrator.
ROLES = postgres.Roles(owner="app_owner", migrator="app_migrator", application="app")


@dataclass(frozen=True)
class Cloud:
    """The local stage: `database` holds the credentials for its secret."""

    server: postgres.Server
    emulator: emulator.Emulator
    database: postgres.Database


def up(root: Path, name: str = DATABASE) -> Cloud:
    """Start the servers that do not run, and return the stage with the database of this name. A second caller waits.

    Raises:
        LocalCloudError: a server could not be started. The text has the reason.
    """
    with _guard(root), ThreadPoolExecutor(max_workers=1) as executor:
        aws = executor.submit(emulator.start, root, _emulator_directory(root))
        server = postgres.start(root, _postgres_directory(root))
        database = _database(root, server, name)
        return Cloud(server, aws.result(), database)


def development(root: Path, name: str = DEVELOPMENT) -> postgres.Database:
    """Start PostgreSQL alone, if it does not run, and return a database for development.

    Raises:
        LocalCloudError: it could not be started. The text has the reason.
    """
    with _guard(root):
        return _database(root, postgres.start(root, _postgres_directory(root)), name)


def down(root: Path) -> None:
    """Stop both servers; data and state stay."""
    with _guard(root), ThreadPoolExecutor(max_workers=1) as executor:
        aws = executor.submit(emulator.stop, _emulator_directory(root))
        postgres.stop(_postgres_directory(root))
        aws.result()


def clean(root: Path) -> None:
    """Stop both servers and delete their data."""
    with _guard(root):
        emulator.remove(_emulator_directory(root))
        postgres.remove(root, _postgres_directory(root))
        account.remove_outside(root / ".local")


def status(root: Path) -> dict[str, bool]:
    """Return which servers run, by name."""
    return {
        "PostgreSQL": postgres.is_running(_postgres_directory(root)),
        "AWS emulator": emulator.is_running(_emulator_directory(root)),
    }


def running_emulator(root: Path) -> emulator.Emulator | None:
    """Return the local stage's AWS, or None if it does not run."""
    return emulator.running(_emulator_directory(root))


def _database(root: Path, server: postgres.Server, name: str) -> postgres.Database:
    """Return a database with the migrator's login. Make it and its roles if they are missing."""
    passwords = {role: _password(root, server, role) for role in (ROLES.migrator, ROLES.application)}
    postgres.create_database(server, name, ROLES.migrator)
    postgres.lay_out_roles(server, name, ROLES)
    return server.database(name, ROLES.migrator, passwords[ROLES.migrator])


def _password(root: Path, server: postgres.Server, role: str) -> str:
    """Return the password of a role. Make the role if it is missing."""
    note = _postgres_directory(root) / f"{role}.json"
    if not note.exists():
        files.write_private(note, json.dumps({"password": secrets.token_urlsafe(24)}))
    password: str = json.loads(note.read_text(encoding="utf-8"))["password"]
    postgres.create_role(server, role, password)
    return password


def _guard(root: Path) -> AbstractContextManager[None]:
    return locks.exclusive(root / ".local" / "cloud.lock")


def _postgres_directory(root: Path) -> Path:
    return root / ".local" / "postgres"


def _emulator_directory(root: Path) -> Path:
    return root / ".local" / "emulator"
