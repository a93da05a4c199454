"""`make review`: `migrate review` of a backend, with the libraries of its lock and the variables that it needs.

Run as ``python -m demo.review``. The checkout's own backend needs neither.
"""

from __future__ import annotations

import argparse
import os
import sys

from demo import backend
from demo.backend import ROOT, BackendError
from infra.package.errors import PackageError


def main() -> None:
    """Become `migrate review`, or exit with 1 if the backend cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m demo.review", description=__doc__)
    backend.add_arguments(parser)
    options, arguments = parser.parse_known_args()
    environment = dict(os.environ)
    try:
        one = backend.chosen(options)
        if not one.is_ours:
            built = one.package("review")
            libraries = [str(built.directory / "backend-libraries"), os.environ.get("PYTHONPATH", "")]
            environment |= {
                "DB_DRIVER": one.driver(built),
                **one.with_database_env(built.database_env),
                "PYTHONPATH": os.pathsep.join(libraries),
            }
            arguments += ["--backend", str(one.folder), "--python", sys.executable]
    except (BackendError, PackageError) as error:
        sys.exit(f"error: {error}")
    os.chdir(ROOT)
    os.execvpe("migrate", ["migrate", "review", *arguments], environment)  # noqa: S606, S607 - of this checkout


if __name__ == "__main__":
    main()
