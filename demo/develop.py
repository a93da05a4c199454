"""`make revision`, `make upgrade`, `make current`: the backend's Alembic, on a database for developing on this machine.

Run as ``python -m demo.develop``. The database is one of its own on the server that `make migrate` uses, so that
what autogenerate compares the models with does not depend on what was deployed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from localcloud import cloud
from localcloud.errors import LocalCloudError
from migrate_review.checkpoint.beginning import begin

ROOT = Path(__file__).resolve().parent.parent
BACKEND = ROOT / "back"


def main(arguments: list[str] | None = None) -> int:
    """Run one command of Alembic's in the backend's folder.

    Returns:
        0 if it succeeded, 1 otherwise. Its own last line says why.

    """
    parser = argparse.ArgumentParser(prog="python -m demo.develop", description=__doc__)
    parser.add_argument(
        "command",
        choices=["revision", "upgrade", "current"],
        help="write a revision from what has changed in the models; bring the database to head; show where it is",
    )
    parser.add_argument("description", nargs="?", default="", help="what a revision changes, in a few words")
    options = parser.parse_args(arguments)
    alembic = {
        # As one word: a description may begin with a dash.
        "revision": ["revision", "--autogenerate", f"--message={options.description}"],
        "upgrade": ["upgrade", "head"],
        "current": ["current"],
    }[options.command]
    try:
        database = cloud.development(ROOT)
    except LocalCloudError as error:
        print(f"localcloud: {error}", file=sys.stderr)
        return 1
    if options.command == "upgrade" and os.environ.get("CHECKPOINT") != "off":
        begun = begin(BACKEND / "alembic.ini", database)
        if begun is not None:
            print(begun)
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *alembic],
        cwd=BACKEND,
        env={**os.environ, "DATABASE_URL": database.url},
        check=False,
    )
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
