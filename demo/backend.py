"""The backend for a target of the Makefile: back/, or the one in ``BACKEND``.

Another backend gets its own database, its own libraries, and the variables of stage local and of a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infra.package.builder import Package, build
from infra.package.package_platform import Platform
from infra.package.selection import Selection
from lambda_migrate.database.credentials import Credentials
from lambda_migrate.revisions.manifest import defaults
from localcloud import cloud
from migrate_cli import stages

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from localcloud.postgres import Database

ROOT = Path(__file__).resolve().parent.parent
BACK = ROOT / "back"
# PostgreSQL limits names to 63 bytes.
_LONGEST_NAME = 40
_VARIABLE = re.compile(
    r"""\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^#\n]*?))\s*(?:#.*)?"""
)


class BackendError(Exception):
    """The backend or its file of variables does not exist. The message is one line."""


@dataclass(frozen=True)
class Backend:
    """A backend's folder, and its variables besides the database's address."""

    folder: Path
    environment: Mapping[str, str] = field(repr=False)

    @property
    def is_ours(self) -> bool:
        """Return whether it is the reference backend of this checkout."""
        return self.folder == BACK

    @property
    def database(self) -> str:
        """Return the name of its database, which differs for each backend on this machine."""
        if self.is_ours:
            return cloud.DATABASE
        plain = re.sub(r"[^a-z0-9]+", "_", self.folder.name.lower()).strip("_") or "backend"
        return f"{plain[:_LONGEST_NAME]}_{hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]}"

    def package(self, name: str, *, unfinished: bool = False) -> Package:
        """Build its package for this machine below ``.local/package``. With ``unfinished`` it may have no revision yet.

        Raises `PackageError`.
        """
        stage = stages.project().stage(stages.LOCAL)
        selection = Selection(
            dependency_group=stage.dependency_group,
            extras=tuple(stage.extras),
            exclude=tuple(stage.exclude),
            requirements=stage.requirements_file,
            package_files=tuple(stage.package_files),
            environment=self.environment,
            limited=False,
            unfinished=unfinished,
        )
        return build(self.folder, ROOT / ".local" / "package" / name, Platform(), stage.alembic_config, {}, selection)

    def driver(self, built: Package) -> str:
        """Return the DB_DRIVER for env.py, as the function would set it: the backend's own, or the one in its lock."""
        found = defaults(built.directory).get("DB_DRIVER", "postgresql+psycopg2")
        return self.environment.get("DB_DRIVER") or found

    def with_database_env(self, suggested: Mapping[str, str]) -> dict[str, str]:
        """Return its variables, with the suggested DATABASE_ENV if it has none."""
        if not suggested or "DATABASE_ENV" in self.environment:
            return dict(self.environment)
        return {**self.environment, "DATABASE_ENV": json.dumps(dict(suggested))}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that select a backend."""
    parser.add_argument("--backend", default="", help="the backend's folder (default: back)")
    parser.add_argument("--env", default="", help="a file of variables for the backend, such as its .env")


def chosen(options: argparse.Namespace) -> Backend:
    """Return the backend that the options select. Raises `BackendError` if it does not exist."""
    folder = Path(options.backend).expanduser().resolve() if options.backend else BACK
    if not folder.is_dir():
        raise BackendError(f"there is no folder {folder}; pass the backend's folder as BACKEND")
    environment = dict(stages.project().stage(stages.LOCAL).environment)
    return Backend(folder, {**environment, **(_read(Path(options.env).expanduser()) if options.env else {})})


def _read(file: Path) -> dict[str, str]:
    """Return the variables in a file such as .env."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BackendError(f"{file} cannot be read: {error}; pass a file of variables as ENV") from None
    found = (_VARIABLE.fullmatch(line) for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return {one[1]: one[2] or one[3] or one[4] or "" for one in found if one}


def address(database: Database, driver: str, templates: str) -> dict[str, str]:
    """Return the variables that give alembic's own command a database, as the function would set them."""
    credentials = Credentials(
        database.host,
        database.port,
        database.name,
        database.user,
        database.password,
        database.sslmode,
        database.ca,
    )
    values = credentials.placeholders(driver)
    filled = {
        name: re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)
        for name, text in (json.loads(templates) if templates else {}).items()
    }
    return {
        "DATABASE_URL": values["url"],
        **filled,
        "PGSSLMODE": credentials.sslmode,
        "PGSSLROOTCERT": str(credentials.sslrootcert),
    }
