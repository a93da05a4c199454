"""Which distributions a backend's migrations import, found by running its tree on this machine, without a database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from infra.package import contents, distributions
from infra.package.errors import PackageError
from infra.package.imports import Files, imported_names
from infra.package.requirements import normal_name, resolve
from infra.package.target import Target

if TYPE_CHECKING:
    from infra.package.distributions import Needs, Site
    from infra.package.layout import Layout

_SCRIPT = Path(__file__).with_name("trace_imports.py")
_LONGEST_S = 120
# Nobody imports these by name before there is a connection or a time zone, and without them there is none.
_ALWAYS = frozenset(
    {"asyncpg", "greenlet", "pg8000", "psycopg", "psycopg-binary", "psycopg-c", "psycopg-pool", "psycopg2", "tzdata"}
)


def traced(copies: Files, layout: Layout, needs: Needs) -> frozenset[str]:
    """Return the distributions that the tree imports, in the normal form of their names, and what is always needed.

    ``copies`` are the files of the backend and of the function. The backend's code runs here, with the variables of
    this process, and with the address of a database that is not there. Raises `PackageError` if it cannot run.
    """
    host = Target()
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch).resolve()
        site = distributions.write(resolve(needs.requirements, host), host, package, needs)
        for relative, source in copies.items():
            (package / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, package / relative)
        found = _run(package, layout.packaged(layout.config_files[0]).as_posix(), dict(needs.selection.environment))
    names = {site.owners[file] for file in found["files"] if file in site.owners}
    names |= {normal_name(name) for name in found["metadata"]}
    names |= _named_in_the_tree(copies, layout, site)
    known = {name for name in site.owners.values() if contents.is_known(name)}
    return frozenset(names | known | _ALWAYS)


def _run(package: Path, config: str, environment: dict[str, str]) -> dict[str, list[str]]:
    try:
        done = subprocess.run(
            [sys.executable, "-s", "-S", "-B", "-c", _SCRIPT.read_text(encoding="utf-8"), str(package), config],
            cwd=package,
            env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **environment},
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


def _named_in_the_tree(copies: Files, layout: Layout, site: Site) -> set[str]:
    """Return what env.py and the revisions import anywhere, as in an upgrade() that the trace does not run."""
    folders = [layout.packaged(folder) for folder in (layout.tree, *layout.version_locations)]
    python = [(path, file) for path, file in copies.items() if path.suffix == ".py"]
    files = [file for path, file in python if any(path.is_relative_to(folder) for folder in folders)]
    names = set().union(*(imported_names(file.read_bytes()) for file in files))
    return {owner for path, owner in site.owners.items() if path.split("/")[0].partition(".")[0] in names}
