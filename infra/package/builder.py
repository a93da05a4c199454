"""Builds a package in a temporary folder and renames it, so that it is always complete."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING

from infra.package import (
    checkpoints,
    contents,
    data_files,
    distributions,
    flask_app,
    function_code,
    libraries,
    limit,
    manifest,
    marker,
    own_folders,
    variables,
)
from infra.package.bytecode import compile_all, find_interpreter
from infra.package.distributions import Distribution, Needs
from infra.package.env_py import is_async
from infra.package.errors import PackageError
from infra.package.graph import Graph, read_graph
from infra.package.imports import Files, imported_names
from infra.package.layout import (
    BACKEND_LIBRARIES,
    LAMBDAS_LIBRARIES,
    LIBRARIES,
    Layout,
    about_found,
    check_tree,
    find_config,
    read_layout,
    search_folder,
)
from infra.package.requirements import read_requirements
from infra.package.resolving import backend_pins, function_pins, pins_of_lambda
from infra.package.selection import Selection
from infra.package.tracing import traced
from infra.package.uv_tool import Index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from infra.package.bytecode import Form, Interpreter
    from infra.package.package_platform import Platform

# An extra file of the package, from which Docker makes a container image of it.
IMAGE = Path(__file__).with_name("Dockerfile")

# Measured with CPython 3.13, one processor: the imports of a run with something to apply.
NO_BYTECODE = (
    "there is no Python 3.{minor} here to compile with, so each cold start compiles what it imports, which takes about"
    " 1.4 s longer; install one and build again: uv python install 3.{minor}"
)
_EVERYTHING = Selection()
# Lambda's runtime for Python contains these, so a backend may use them without locking them.
_LAMBDAS = ("boto3", "botocore")
# The earliest time in a zip archive. With one fixed time, two builds of the same code have the same bytes.
_EPOCH_S = 315_532_800


@dataclass(frozen=True)
class Package:
    """A finished package. ``revisions`` is their number; ``size_bytes`` is the unpacked size.

    ``digest`` is a SHA-256, in hexadecimal, of every file's path, mode and content. ``distributions`` are the backend's
    libraries and ``function_distributions`` the function's own. ``warnings`` are for the person who deploys it.
    ``database_env`` are the templates of DATABASE_ENV that the backend's variables suggest.
    """

    directory: Path
    digest: str
    size_bytes: int
    heads: tuple[str, ...]
    revisions: int
    distributions: tuple[Distribution, ...]
    function_distributions: tuple[Distribution, ...]
    warnings: tuple[str, ...] = ()
    database_env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def build(
    backend: Path,
    out: Path,
    platform: Platform,
    config: str | None = None,
    extra_files: Mapping[str, Path] = MappingProxyType({}),
    selection: Selection = _EVERYTHING,
) -> Package:
    """Build the package of a backend at ``out``. An older package there is replaced, and anything else refused.

    ``config`` is the Alembic configuration's path in the backend. By default it is searched. ``extra_files`` are more
    files to copy: their paths in the package, and their sources. The build runs no code of the backend, unless
    ``selection`` requires a trace. It raises `PackageError`, and then changes nothing.
    """
    if not backend.is_dir():
        raise PackageError(f"no folder {backend}; name the backend's folder")
    # The last part of `out` stays unresolved, because a link must be refused.
    backend, out = backend.resolve(), out.absolute().parent.resolve() / out.absolute().name
    _refuse_to_replace(out, backend)
    found = config or find_config(backend)
    requirements = read_requirements(
        backend,
        selection.dependency_group,
        selection.requirements,
        extras=selection.extras,
        exclude=selection.exclude,
        beside=search_folder(backend, found, is_named=config is not None),
    )
    layout = read_layout(backend, found, requirements.local_packages, is_named=config is not None)
    layout = replace(layout, flask_app=flask_app.find(layout, selection.environment))
    graph = graph_of(layout, backend, may_be_empty=selection.unfinished) if layout.in_backend else None
    own = own_folders.find(layout, requirements.names, platform.minor)
    layout = own.layout
    read = variables.find(own.files, own.reached)
    copies: Files = {
        **function_code.files(),
        **own.files,
        **data_files.named_files(layout, selection.package_files),
        **{PurePosixPath(path): file for path, file in extra_files.items()},
    }
    checkpoint = checkpoints.check(layout, graph, selection.environment)
    if not checkpoint.usable:
        copies = checkpoints.without_checkpoint(copies, layout)
    sources = _sources(copies)
    needs = Needs(
        services=set().union(*map(contents.services_named, sources)),
        wanted=selection.aws_services,
        dialects=frozenset().union(*map(contents.dialects_named, [*sources, *_settings(layout, selection)])),
    )
    locked = backend_pins(requirements, platform)
    pins = locked.pins
    # If the tree belongs to a distribution, its imports are unknown.
    omit_large_unused = selection.limited and layout.in_backend
    lambdas = _LAMBDAS if locked.names.isdisjoint(_LAMBDAS) and _imports_any(sources, _LAMBDAS) else ()

    with _staging(out) as staging:
        destination = libraries.Destination(staging, platform, needs, requirements)
        if selection.traced:
            imported = traced(copies, own, selection, destination, with_lambdas=bool(lambdas))
            pins = tuple(pin for pin in pins if pin.name in imported)
        ours = distributions.write(function_pins(platform), platform, staging, LIBRARIES, Needs(ours=True), Index())
        written = libraries.write(
            replace(locked, pins=pins),
            own.reached,
            destination,
            omit_large_unused=omit_large_unused,
            is_async=_is_async(layout),
            is_traced=selection.traced,
        )
        if lambdas and platform.python is None:
            # This machine's Python lacks the libraries of Lambda's Python.
            distributions.write(pins_of_lambda(platform), platform, staging, LAMBDAS_LIBRARIES, needs, Index())
        if graph is None:
            graph = graph_of(layout, staging / BACKEND_LIBRARIES)
        if selection.limited:
            files = (staging, *copies.values())
            if omit_large_unused and limit.exceeded_by(files):
                written = libraries.without_unused(written, destination, _texts(layout, selection, own, copies))
            limit.check(files, written.site, ours, written.loaded, is_traced=selection.traced)
        site = written.site
        interpreter = find_interpreter(platform)
        _write_code(copies, layout, staging, interpreter)
        manifest.write(staging, layout, graph, platform, written.drivers)
        marker.write_marker(staging)
        _normalise(staging)
        digest = _digest(staging, {**site.digests, **ours.digests})
        size = limit.size_of([staging])
        unpackaged = data_files.unpackaged_files(layout, copies)
    warnings = (
        *(() if config else about_found(backend, found)),
        *requirements.warnings,
        *locked.warnings,
        *written.warnings,
        *([data_files.warning(unpackaged)] if unpackaged else ()),
        *([checkpoint.warning] if checkpoint.warning else ()),
        *filter(None, [read.lacking(selection.environment, _url_variables(selection))]),
        *(() if interpreter else (NO_BYTECODE.format(minor=platform.minor),)),
    )
    return Package(
        out,
        digest,
        size,
        graph.heads,
        len(graph.revisions),
        site.distributions,
        ours.distributions,
        warnings,
        read.templates,
    )


def graph_of(layout: Layout, site: Path, *, may_be_empty: bool = False) -> Graph:
    """Read the revisions; ``site`` is where requirements are installed, if some of the tree belongs to one."""
    check_tree(site / layout.tree, site)
    locations = [site / location for location in layout.version_locations]
    # Alembic ignores missing folders without an error, and so all revisions that should be in them.
    if missing := next((location for location in locations if not location.is_dir()), None):
        raise PackageError(f"no folder {missing}; correct version_locations, or make it")
    ours = all(location.is_absolute() for location in layout.version_locations)
    return read_graph(
        locations,
        relative_to=layout.backend if ours else site,
        recursive=layout.recursive,
        sourceless=layout.sourceless,
        may_be_empty=may_be_empty,
    )


def _url_variables(selection: Selection) -> tuple[str, ...]:
    named = selection.environment.get("DATABASE_URL_ENV", "DATABASE_URL")
    return tuple(name.strip() for name in named.split(","))


def _refuse_to_replace(out: Path, backend: Path) -> None:
    if out == backend or out in backend.parents or out.is_symlink():
        raise PackageError(f"{out} cannot be replaced by a package; name another folder")
    if out.exists() and not (out / marker.MARKER).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise PackageError(f"{out} is not empty and was not built here; name another folder, or remove it yourself")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Provide a folder beside ``out`` that replaces it at the end, or is deleted after an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        staging = Path(scratch, "new")
        staging.mkdir()
        yield staging
        if out.exists():
            out.rename(Path(scratch, "old"))
        staging.rename(out)


def _sources(copies: Files) -> list[bytes]:
    """Read the backend's Python files."""
    files = (file for path, file in copies.items() if file.suffix == ".py" and not function_code.contains(path))
    return [file.read_bytes() for file in files]


def _imports_any(sources: Iterable[bytes], names: Collection[str]) -> bool:
    """Return whether any of these Python files imports one of these modules."""
    words = [name.encode() for name in names]
    return any(
        not imported_names(source).isdisjoint(names)
        for source in sources
        if any(word in source for word in words)  # most have none, and parsing takes long
    )


def _settings(layout: Layout, selection: Selection) -> list[bytes]:
    """Return the texts of settings that may contain a database's address."""
    return [file.read_bytes() for file in layout.config_files] + [
        value.encode() for value in selection.environment.values()
    ]


def _texts(layout: Layout, selection: Selection, own: own_folders.Own, copies: Files) -> list[bytes]:
    """Return the settings, and the modules that env.py loads: strings in them may name other modules."""
    modules = [copies[path].read_bytes() for path in own.reached.modules if path in copies]
    return [*_settings(layout, selection), *modules]


def _is_async(layout: Layout) -> bool:
    """Return whether env.py runs an event loop, or may do so because a distribution has it."""
    env_py = layout.tree / "env.py"
    return not env_py.is_absolute() or is_async(env_py.read_text(encoding="utf-8", errors="replace"))


def _write_code(copies: Files, layout: Layout, staging: Path, interpreter: Interpreter | None) -> None:
    """Write the function's code and the backend's, with bytecode if there is an interpreter."""
    function_code.write(staging, interpreter)
    backends = {path: source for path, source in copies.items() if not function_code.contains(path)}
    for relative, source in backends.items():
        _copy(source, staging / relative)
    if interpreter:
        # Alembic reads the docstring of a revision.
        python: dict[str, Form] = {str(path): "whole" for path in backends if path.suffix == ".py"}
        compile_all(staging, python, interpreter)
    for location in layout.version_locations:  # a folder without a revision has no file to copy
        (staging / layout.packaged(location)).mkdir(parents=True, exist_ok=True)


def _copy(source: Path, destination: Path) -> None:
    if destination.exists():
        raise PackageError(f"{source} cannot be packaged: {destination.name} is already there, from a requirement")
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, destination)  # with its mode, of which `_normalise` keeps the executable bit


def _normalise(directory: Path) -> None:
    """Set modes and times that do not depend on the machine."""
    for path in (directory, *directory.rglob("*")):
        executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (_EPOCH_S, _EPOCH_S))


def _digest(directory: Path, known: Mapping[str, str]) -> str:
    """Digest a package; ``known`` are the hashes of files that this build has written."""
    whole = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        relative = path.relative_to(directory).as_posix()
        content = known.get(relative) or hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{relative}\0{path.stat().st_mode:o}\0{content}\n".encode())
    return whole.hexdigest()
