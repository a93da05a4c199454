"""`make revision`, `make upgrade`, `make current`: the backend's Alembic, with a development database.

Run as ``python -m demo.develop``. The database is separate from that of `make migrate`, so a deployment does not change
what autogenerate compares the models with. A backend other than back/ runs with the libraries of its own lock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from demo import backend
from demo.backend import ROOT, Backend, BackendError, address
from infra.package.errors import PackageError
from lambda_migrate.env_py.flask_app import needs_app
from localcloud import cloud
from localcloud.errors import LocalCloudError
from migrate_review.checkpoint.apply_locally import apply_if_empty


def main(arguments: list[str] | None = None) -> int:
    """Run an Alembic command in the backend's folder.

    Returns:
        0 if it succeeded, 1 otherwise. The command's last line has the reason.
    """
    parser = argparse.ArgumentParser(prog="python -m demo.develop", description=__doc__)
    parser.add_argument(
        "command",
        choices=["revision", "upgrade", "current"],
        help="write a revision from the models' changes; upgrade the database to head; show its revision",
    )
    backend.add_arguments(parser)
    parser.add_argument("description", nargs="?", default="", help="a short description of the revision")
    options = parser.parse_args(arguments)
    alembic = {
        # One argument, because a description may begin with a dash. The flask command has these options, too.
        "revision": ["revision", "--autogenerate", f"--message={options.description}"],
        "upgrade": ["upgrade", "head"],
        "current": ["current"],
    }[options.command]
    try:
        one = backend.chosen(options)
        return _ours(alembic) if one.is_ours else _another(one, alembic)
    except LocalCloudError as error:
        print(f"localcloud: {error}", file=sys.stderr)
    except (BackendError, PackageError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


def _ours(alembic: list[str]) -> int:
    """Run a command with the libraries of this checkout."""
    database = cloud.development(ROOT)
    if alembic[0] == "upgrade" and os.environ.get("CHECKPOINT") != "off":
        begun = apply_if_empty(backend.BACK / "alembic.ini", database)
        if begun is not None:
            print(begun)
    command = [sys.executable, "-m", "alembic", *alembic]
    environment = {**os.environ, "DATABASE_URL": database.url}
    return 1 if subprocess.run(command, cwd=backend.BACK, env=environment, check=False).returncode else 0


def _another(one: Backend, alembic: list[str]) -> int:
    """Run a command with the libraries of a backend's lock, on the backend's own database."""
    built = one.package("develop", unfinished=True)
    manifest = json.loads((built.directory / "manifest.json").read_text(encoding="utf-8"))
    variables = one.with_database_env(built.database_env)
    database = cloud.development(ROOT, f"{one.database}_dev")
    config = one.folder / Path(manifest["config"]).relative_to("backend")
    # The manifest has the folder only if it is not that of the configuration.
    folder = one.folder / Path(manifest["working_folder"] or Path(manifest["config"]).parent).relative_to("backend")
    path = [built.directory / "backend-libraries", config.parent]
    environment = {
        **os.environ,
        **variables,
        **address(database, one.driver(built), variables.get("DATABASE_ENV", "")),
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        # The developer's .env may have the address of another database. The function does not read it either.
        "FLASK_SKIP_DOTENV": "1",
    }
    if needs_app(built.directory / manifest["env"]):
        command = [sys.executable, "-m", "flask", "db", alembic[0], "--directory", str(config.parent), *alembic[1:]]
    else:
        command = [sys.executable, str(ROOT / "demo" / "alembic_command.py"), "--config", str(config), *alembic]
    return 1 if subprocess.run(command, cwd=folder, env=environment, check=False).returncode else 0


if __name__ == "__main__":
    sys.exit(main())
