"""Finds the distributions that a backend's migrations import: runs its tree on this machine, without a database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from infra.package import distributions, libraries
from infra.package.bytecode import find_interpreter
from infra.package.compatibility import allows
from infra.package.distributions import Needs
from infra.package.errors import PackageError
from infra.package.imports import Files, imported_names
from infra.package.layout import LAMBDAS_LIBRARIES, LIBRARIES
from infra.package.package_platform import Platform, this_machine
from infra.package.resolving import backend_pins, function_pins, pins_of_lambda
from infra.package.uv_tool import Index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.package.distributions import Site
    from infra.package.layout import Layout
    from infra.package.libraries import Destination
    from infra.package.own_folders import Own
    from infra.package.selection import Selection

_SCRIPT = Path(__file__).with_name("trace_imports.py")
_OPTIONS = ("-s", "-S", "-B", "-c", _SCRIPT.read_text(encoding="utf-8"))
_LONGEST_S = 120
# The variables that every program needs. None contains a token, a login or an address.
_KEPT = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "SYSTEMROOT"})
# The distributions that are imported only with a connection or a time zone, so the trace does not find them.
_ALWAYS = frozenset(
    {
        *("asyncpg", "greenlet", "pg8000", "psycopg", "psycopg-binary", "psycopg-c", "psycopg-pool", "psycopg2"),
        *("psycopg2-binary", "tzdata"),
    }
)
# The distributions of env.py's process, besides those that the trace itself loads.
_OF_ENV_PY = frozenset({"alembic", "mako", "markupsafe", "sqlalchemy", "typing-extensions"})


def traced(
    copies: Files,
    own: Own,
    selection: Selection,
    destination: Destination,
    *,
    with_lambdas: bool,
) -> frozenset[str]:
    """Return the distributions that the tree imports and those that are always needed, by their normal names.

    ``copies`` are the files of the backend and of the function. The backend's code runs here, with the variables of its
    stage, few of this process, and the address of a database that does not exist. With ``with_lambdas`` it has the
    libraries of Lambda's Python. Raises `PackageError` if it cannot run.
    """
    platform, requirements, needs = destination.platform, destination.requirements, destination.needs
    interpreter = find_interpreter(platform) if sys.platform == "linux" else None
    python = interpreter.executable if interpreter else sys.executable
    host = this_machine(platform.minor) if interpreter else Platform()
    if requirements.python and not allows(requirements.python, host.minor):
        raise PackageError(
            f"the tree cannot be traced: {requirements.lock.name} is for Python {requirements.python}, and there is no"
            f" Python 3.{platform.minor} here to run it with; install one: uv python install 3.{platform.minor}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch).resolve()
        locked = backend_pins(requirements, host)
        site = libraries.write(locked, own.reached, replace(destination, package=package, platform=host)).site
        # For a backend without a driver, because the function provides one.
        distributions.write(function_pins(host), host, package, LIBRARIES, Needs(ours=True), Index())
        if with_lambdas:
            distributions.write(pins_of_lambda(host), host, package, LAMBDAS_LIBRARIES, needs, Index())
        for relative, source in copies.items():
            (package / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, package / relative)
        driver = {"DB_DRIVER": f"postgresql+{locked.drivers[0]}"} if locked.drivers else {}
        environment = {**driver, **selection.environment}
        places = (own.layout.packaged(each) for each in (own.layout.config_files[0], own.layout.working_folder))
        found = _run([python, *_OPTIONS, str(package), *map(str, places)], package, environment)
    names = {site.owners[file] for file in found["files"] if file in site.owners}
    names |= {canonicalize_name(name) for name in found["metadata"]}
    names |= _named_in_the_tree(copies, own.layout, site)
    return frozenset(names | _OF_ENV_PY | _ALWAYS)


def _run(command: list[str], package: Path, environment: dict[str, str]) -> dict[str, list[str]]:
    try:
        done = subprocess.run(
            command,
            cwd=package,
            env=_surroundings(package, environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        raise PackageError(f"the tree could not be traced: it ran for more than {_LONGEST_S} s") from None
    try:
        found: dict[str, list[str]] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise PackageError(f"the tree could not be traced: {last}") from None
    if found["error"]:
        raise PackageError(
            f"the tree could not be traced: {found['error']}; set what its env.py needs in the stage's"
            " `environment`, or name a dependency_group instead"
        )
    return found


def _surroundings(home: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the backend's untrusted code, without the credentials of the build."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}
    nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    return {**kept, **nowhere, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(home), **environment}


def _named_in_the_tree(copies: Files, layout: Layout, site: Site) -> set[str]:
    """Return the modules that env.py and the revisions import anywhere, also in an upgrade(), which does not run."""
    folders = [layout.packaged(folder) for folder in (layout.tree, *layout.version_locations)]
    python = [(path, file) for path, file in copies.items() if path.suffix == ".py"]
    files = [file for path, file in python if any(path.is_relative_to(folder) for folder in folders)]
    names = set().union(*(imported_names(file.read_bytes()) for file in files))
    # A path begins with the folder of the backend's libraries.
    return {owner for path, owner in site.owners.items() if path.split("/")[1].partition(".")[0] in names}
