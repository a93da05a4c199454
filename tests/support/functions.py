"""The packaged function under AWS's runtime client, with a tree of the test's own in place of the backend."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.package import manifest
from infra.package.builder import graph_of
from infra.package.errors import PackageError
from infra.package.layout import BACKEND_LIBRARIES, read_layout
from infra.package.package_platform import Platform
from lambda_migrate.revisions.manifest import GRAPH, MANIFEST, read_manifest
from localcloud.runtime_api import Answer, Function

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / ".local" / "runtime" / "bin" / "python"


def assemble(package: Path, backend: Path, out: Path, config: str = "alembic.ini") -> Path:
    """A package with another backend in it: links to the function's code and libraries, and a new manifest."""
    out.mkdir(parents=True)
    for entry in package.iterdir():
        if entry.name not in {"backend", MANIFEST, GRAPH}:
            (out / entry.name).symlink_to(entry)
    shutil.copytree(backend, out / "backend")
    shutil.copy(package / MANIFEST, out)
    describe(out, config)
    return out


def describe(package: Path, config: str = "alembic.ini") -> None:
    """Write the manifest of a package's present content.

    A tree that the builder would refuse gets no manifest, because tests cover such trees, too.
    """
    drivers: tuple[str, ...] = ()
    with suppress(OSError):
        drivers = read_manifest((package / MANIFEST).read_text(encoding="utf-8")).drivers
    for name in (MANIFEST, GRAPH):
        (package / name).unlink(missing_ok=True)
    with suppress(PackageError):
        layout = read_layout(package / "backend", config)
        manifest.write(package, layout, graph_of(layout, package / BACKEND_LIBRARIES), Platform(), drivers)


class Runner:
    """Starts functions for one test, with its database's secret, and checks each line that they log."""

    def __init__(self, package: Path, environment: Mapping[str, str], scratch: Path) -> None:
        self._package = package
        self.environment = dict(environment)
        self._scratch = scratch
        self._functions: list[Function] = []

    def start(self, backend: Path | None = None, *, timeout_s: float = 60, **environment: str | None) -> Function:
        """Start a function's process. ``environment`` adds variables; a value of None removes one."""
        package = self._package
        if backend is not None:
            package = self._scratch / f"package-{backend.name}"
            if not package.exists():
                assemble(self._package, backend, package, environment.get("ALEMBIC_CONFIG") or "alembic.ini")
        return self.start_package(package, timeout_s=timeout_s, **environment)

    def start_package(self, package: Path, *, timeout_s: float = 60, **environment: str | None) -> Function:
        """Start a function of a package that was built for the test."""
        variables = {**self.environment, **environment}
        function = Function(
            package,
            {name: value for name, value in variables.items() if value is not None},
            RUNTIME,
            timeout_s=timeout_s,
        )
        self._functions.append(function)
        return function

    def invoke(self, backend: Path | None = None, event: object = None, **environment: str | None) -> Answer:
        """Invoke a new function once."""
        function = self.start(backend, timeout_s=60, **environment)
        return function.invoke(event)

    def lines(self) -> Iterator[str]:
        """Return all lines that this test's functions have written."""
        for function in self._functions:
            yield from function.log()

    def answers(self) -> Iterator[str]:
        """Return all results and errors of this test's functions as text."""
        for function in self._functions:
            yield from function.sent

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the events in the log, all or of these kinds."""
        lines = [json.loads(line) for line in self.lines()]
        return [line for line in lines if "event" in line and (not names or line["event"] in names)]

    def close(self) -> None:
        """End every process."""
        for function in self._functions:
            function.close()
