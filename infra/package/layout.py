"""Reads a backend's Alembic configuration, and finds the files that it names."""

from __future__ import annotations

import os
import re
from configparser import Error as IniError
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import lambda_migrate
from infra.package.alembic_options import AlembicOptions
from infra.package.errors import PackageError
from infra.package.lock_discovery import is_project, project_within
from infra.package.sources import folders_below
from infra.package.uv_messages import listed
from infra.package.uv_tool import read_toml
from lambda_migrate.env_py.flask_app import needs_app

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_INI = "alembic.ini"
_PYPROJECT = "pyproject.toml"
# Number of folder levels below the backend that are searched for a configuration.
_DEEPEST = 5
_SECTION = re.compile(rb"^\[alembic\]", re.MULTILINE)
# Folders whose trees do not belong to the backend.
_NOT_ITS_OWN = frozenset({"doc", "docs", "example", "examples", "test", "tests", "third_party", "vendor", "vendored"})

BACKEND = PurePosixPath("backend")
# The two separate sets of libraries: those of the function, and those that the backend locks.
LIBRARIES = PurePosixPath(lambda_migrate.LIBRARIES.name)
BACKEND_LIBRARIES = PurePosixPath(lambda_migrate.BACKEND_LIBRARIES.name)
# In a package for this machine: the libraries of Lambda's Python.
LAMBDAS_LIBRARIES = PurePosixPath(lambda_migrate.LAMBDAS_LIBRARIES.name)


@dataclass(frozen=True)
class ImportRoot:
    """A folder from which the backend imports, and the folder of the package that takes its place."""

    source: Path
    destination: PurePosixPath


@dataclass(frozen=True)
class Layout:
    """The places of a backend's migrations and of their imports.

    A ``tree`` or version location that is not absolute belongs to an installed requirement, and is relative to the
    folder of the backend's libraries. ``working_folder`` is the folder in which the alembic command runs. The
    configuration's paths are relative to it. ``flask_app`` is the module of the Flask application that env.py runs in.
    """

    backend: Path
    config_files: tuple[Path, ...]
    tree: Path
    version_locations: tuple[Path, ...]
    recursive: bool
    sourceless: bool
    import_roots: tuple[ImportRoot, ...]
    local_packages: tuple[Path, ...]
    working_folder: Path
    flask_app: Path | None = None

    @property
    def in_backend(self) -> bool:
        """Return whether all revisions belong to the backend, so that they can be read before anything is installed."""
        return all(path.is_absolute() for path in (self.tree, *self.version_locations))

    def packaged(self, path: Path) -> PurePosixPath:
        """Return the path of a file or folder of the tree in the package."""
        if not path.is_absolute():
            return BACKEND_LIBRARIES / path.as_posix()
        # The backend itself is the first root.
        root = next(root for root in self.import_roots if path.is_relative_to(root.source))
        return root.destination / path.relative_to(root.source).as_posix()


def read_layout(
    backend: Path, config: str | None = None, local_packages: Sequence[Path] = (), *, is_named: bool = True
) -> Layout:
    """Read the configuration ``config``, a path in the backend. By default, `find_config` searches it.

    ``is_named`` is false if the caller searched it. ``local_packages`` are folders of distributions that the backend's
    lock takes from outside an index. Raises `PackageError` if the configuration is missing, cannot be read, or names a
    missing file.
    """
    if config is None:
        config, is_named = find_config(backend), False
    file = config_file(backend, config)
    own = file.with_name(_PYPROJECT)
    pyproject = own if own.is_file() else backend / _PYPROJECT
    ini_file = None if file.suffix == ".toml" else file
    toml_file = file if ini_file is None else pyproject
    try:
        return _layout(
            backend,
            AlembicOptions(ini_file, toml_file),
            config_files=tuple(each for each in dict.fromkeys((file, pyproject)) if each.is_file()),
            project=project_within(backend, search_folder(backend, config, is_named=is_named)),
            local_packages=tuple(local_packages),
        )
    except (IniError, ValueError, TypeError, KeyError) as error:
        raise PackageError(f"{config} cannot be read: {' '.join(str(error).split())}") from error


def config_file(backend: Path, config: str) -> Path:
    """Return the file of a configuration. Raises `PackageError` if it is missing or outside of the backend."""
    found = _Paths(backend, backend, backend).find(config, option="the configuration")
    if not found.is_file():
        raise PackageError(f"no {config} in {backend}; name the backend's Alembic configuration, or run: alembic init")
    return found


def search_folder(backend: Path, config: str, *, is_named: bool) -> Path:
    """Return the folder in which the search for the lock and the project of a configuration begins.

    A configuration that a stage names belongs to the backend, if the backend is a project or has a lock. Any other one
    belongs to the nearest project or lock.
    """
    folder = config_file(backend, config).parent
    return backend if is_named and is_project(backend) else folder


def about_found(backend: Path, config: str) -> tuple[str, ...]:
    """Return a warning if the configuration was found below the backend, because it may be the wrong one."""
    if (backend / config).parent == backend:
        return ()
    warning = (
        f"{config} is packaged, the only Alembic configuration in a folder below {backend.name}; name it in the stage's"
        f" setting `alembic_config` (for make package: CONFIG={config})"
    )
    return (warning,)


def find_config(backend: Path) -> str:
    """Return the path of the backend's configuration: its own, or else the only one in a folder below.

    In each folder it is alembic.ini, or else a pyproject.toml that has [tool.alembic]. Raises `PackageError` if there
    is none, or more than one.
    """
    if found := _config_in(backend):
        return found.name
    if others := [file.name for file in sorted(backend.glob("*.ini")) if _SECTION.search(file.read_bytes())]:
        raise PackageError(
            f"no {_INI} in {backend}, but {listed(others)}; name one in the stage's setting `alembic_config`:"
            f" {others[0]} (for make package: CONFIG={others[0]})"
        )
    folders = (
        one for one in folders_below(backend, _DEEPEST) if _NOT_ITS_OWN.isdisjoint(one.relative_to(backend).parts)
    )
    below = [found for folder in folders if (found := _config_in(folder))]
    names = [file.relative_to(backend).as_posix() for file in below]
    if len(names) == 1:
        return names[0]
    if names:
        raise PackageError(
            f"no {_INI} in {backend}, but {listed(names)}; name one in the stage's setting `alembic_config`:"
            f" {names[0]} (for make package: CONFIG={names[0]})"
        )
    raise PackageError(
        f"no {_INI} in {backend}, and no {_PYPROJECT} with [tool.alembic]; name the folder that has one (BACKEND,"
        " or the stage's setting `backend`), or run: alembic init"
    )


def _config_in(folder: Path) -> Path | None:
    pyproject = folder / _PYPROJECT
    if (folder / _INI).is_file():
        return folder / _INI
    return pyproject if pyproject.is_file() and "alembic" in read_toml(pyproject).get("tool", {}) else None


def _refuse_named_sections(options: AlembicOptions, config: str) -> None:
    """Refuse a configuration for alembic's option --name, with a tree in each section."""
    found = options.ini
    sections = [f"[{each}]" for each in found.sections() if found.has_option(each, "script_location")]
    if sections:
        raise PackageError(
            f"{config} has its script_location in {listed(sections)}, for alembic's option --name, and a stage migrates"
            " one tree: for each, write a configuration with the section [alembic], and name it in the setting"
            " `alembic_config` of a stage of its own"
        )


def _layout(
    backend: Path,
    options: AlembicOptions,
    *,
    config_files: tuple[Path, ...],
    project: Path,
    local_packages: tuple[Path, ...],
) -> Layout:
    config = config_files[0].relative_to(backend).as_posix()
    if config_files[0].suffix != ".toml" and not options.ini.has_section("alembic"):
        raise PackageError(f"{config} has no [alembic] section")
    if options.get("databases"):
        raise PackageError(
            f"{config} lists several `databases` (the multidb template); a package migrates one: "
            "give each database a tree and a configuration of its own"
        )
    script_location = options.get("script_location")
    if needs_app(config_files[0].with_name("env.py")):
        # Flask-Migrate sets it to the folder of the configuration.
        script_location = os.path.relpath(config_files[0].parent, project)
    if not script_location:
        _refuse_named_sections(options, config)
        raise PackageError(f"{config} has no script_location; write it as: script_location = %(here)s/alembic")
    folder = _working_folder(backend, project, config_files[0].parent, script_location)
    paths = _Paths(backend, folder, project)
    roots = tuple(_import_roots(paths, options.paths("prepend_sys_path"), local_packages))
    tree = _located(script_location, paths, roots, option="script_location")
    if tree.is_absolute():
        check_tree(tree, backend)
    locations = [
        _located(location, paths, roots, option="version_locations")
        for location in options.paths("version_locations")
        if location.strip()
    ]
    return Layout(
        backend=backend,
        config_files=config_files,
        tree=tree,
        version_locations=tuple(locations) or (tree / "versions",),
        recursive=options.flag("recursive_version_locations"),
        sourceless=options.flag("sourceless"),
        import_roots=roots,
        local_packages=local_packages,
        working_folder=folder,
    )


@dataclass(frozen=True)
class _Paths:
    """The folders of a backend, of the configuration's relative paths, and of the project."""

    backend: Path
    folder: Path
    project: Path

    def find(self, path: str, *, option: str) -> Path:
        """Return a folder of the backend. Raises `PackageError` if it lies elsewhere."""
        absolute = Path(os.path.normpath(self.folder / path))
        if absolute.resolve().is_relative_to(self.backend):
            return absolute
        own = next((tail for tail in _tails(Path(path)) if tail.parts and (self.backend / tail).is_dir()), None)
        if Path(path).is_absolute() and own is not None:
            raise PackageError(
                f"{option} {path} lies outside {self.backend}: it is a path of a container, and here the folder is"
                f" {own.as_posix()}; write {option} = %(here)s/{own.as_posix()}, which holds in both places"
            )
        raise PackageError(f"{option} {path} lies outside {self.backend}; move it into the backend")


def _tails(path: Path) -> Iterable[Path]:
    """Yield the rest of a path below each of its folders, the longest first."""
    return (Path(*path.parts[first:]) for first in range(1, len(path.parts)))


def _working_folder(backend: Path, project: Path, beside: Path, script_location: str) -> Path:
    """Return the folder in which the alembic command runs: that of the project, or another one that has the tree."""
    first = script_location.partition(":")[0].replace(".", "/") if ":" in script_location else script_location
    folders = dict.fromkeys((project, beside, backend))
    return next((folder for folder in folders if (folder / first).is_dir()), project)  # an absolute one is in each


def check_tree(tree: Path, relative_to: Path) -> None:
    """Raise `PackageError` unless this folder exists and is an Alembic tree."""
    shown = Path(os.path.relpath(tree, relative_to)).as_posix()
    if not tree.is_dir():
        raise PackageError(
            f"script_location {shown} is no folder of the backend or of a requirement; correct it, or run: alembic init"
        )
    if not (tree / "env.py").is_file():
        raise PackageError(f"no env.py in {shown}; script_location must be the folder that `alembic init` made")


def _import_roots(
    paths: _Paths, prepend_sys_path: Iterable[str], local_packages: Iterable[Path]
) -> Iterable[ImportRoot]:
    backend = paths.backend
    for source in dict.fromkeys((backend, paths.project)):  # an installer adds the project's packages to the path
        yield ImportRoot(source, BACKEND / source.relative_to(backend).as_posix())
    for entry in prepend_sys_path:
        source = paths.find(entry.strip(), option="prepend_sys_path")
        yield ImportRoot(source, BACKEND / source.relative_to(backend).as_posix())
    # Modules that an installer would put into site-packages go to the backend's libraries.
    for project in dict.fromkeys((backend, paths.project, *local_packages)):
        if (project / "pyproject.toml").is_file():
            yield ImportRoot(project / "src", BACKEND_LIBRARIES)
    for project in local_packages:
        yield ImportRoot(project, BACKEND_LIBRARIES)


def _located(location: str, paths: _Paths, roots: Iterable[ImportRoot], *, option: str) -> Path:
    """Return the folder that a path or a ``package:path`` means. A relative one is in an installed requirement."""
    if ":" not in location or Path(location).is_absolute():
        return paths.find(location, option=option)
    package, *path = location.split(":")
    in_package = Path(*package.split("."))
    for root in roots:
        located = root.source.joinpath(in_package, *path)
        # A folder `alembic` without __init__.py, as most trees are, does not hide the requirement `alembic`.
        if located.is_dir() or (root.source / in_package / "__init__.py").is_file():
            return located
    return in_package.joinpath(*path)
