"""The packaged Alembic tree: its configuration, its heads, and the pending revisions of a database.

Alembic's own commands run no code between their steps. So the steps come from the methods that those commands use:
`_upgrade_revs`, `_downgrade_revs` and `_stamp_revs` of `ScriptDirectory`. Its `_version_locations` are the folders of
the revisions. These names are private, and tested with 1.8 to 1.20.

If the package has a manifest, the graph comes from it, and a revision's module is loaded when the revision runs. So the
cost of a run depends on the pending revisions, not on the length of the history.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import Revision as GraphNode
from alembic.script.revision import RevisionMap
from alembic.util import CommandError, load_python_file

from lambda_migrate.env_py.driver_errors import text_without_values
from lambda_migrate.env_py.flask_app import set_script_location
from lambda_migrate.invocation.errors import ConfigurationError, InvalidRequest, UnknownRevision
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.result import Revision
from lambda_migrate.revisions.manifest import digest_of, for_settings, read_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

    from lambda_migrate.invocation.settings import Settings
    from lambda_migrate.revisions.manifest import Manifest, PackagedRevision


def read_config(path: Path) -> Config:
    """Return Alembic's configuration from an ini file, a pyproject.toml, or both, as the alembic command reads them.

    Raises:
        ConfigurationError: the file is missing or unreadable, or belongs to Alembic's multidb template.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"the package has no {path.name} in its backend folder; see the"
            " stage's setting `alembic_config` (ALEMBIC_CONFIG)"
        )
    toml = path if path.suffix == ".toml" else path.parent / "pyproject.toml"
    ini = path.parent / "alembic.ini" if path.suffix == ".toml" else path
    # A backend may lock an older Alembic, which does not support pyproject.toml.
    files: dict[str, Any] = {"toml_file": str(toml)} if toml.is_file() and hasattr(Config, "toml_file_name") else {}
    config = Config(str(ini) if ini.is_file() else None, **files)
    try:
        databases = config.get_main_option("databases")
    except Exception as error:  # noqa: BLE001 - any error of configparser
        raise ConfigurationError(f"{path.name} of the package cannot be read: {one_line(error)}") from None
    if databases:
        raise ConfigurationError(
            f"{path.name} is of Alembic's multidb template (databases = {databases}): one function migrates one"
            " database; give each its own tree and stage"
        )
    set_script_location(config, path)
    return config


def env_py(config: Config) -> Path:
    """Return the path of env.py, if script_location is a path and not in a package."""
    return Path(config.get_main_option("script_location") or "", "env.py")


class _PackagedScript(Script):
    """A revision from ``graph.json``. Its file is read, and compared with its hash there, when its module is needed."""

    def __init__(self, root: Path, packaged: PackagedRevision) -> None:
        self._packaged = packaged
        self._file = root / packaged.path
        self.path = str(self._file)
        down = tuple(packaged.down_revisions)
        # Script's own __init__ needs the module.
        GraphNode.__init__(
            self,
            packaged.revision,
            (down if len(down) > 1 else down[0]) if down else None,
            dependencies=tuple(packaged.depends_on),
            branch_labels=tuple(packaged.branch_labels),
        )

    @property
    def doc(self) -> str:
        return self._packaged.description

    @cached_property
    def module(self) -> ModuleType:  # type: ignore[override]
        _compare(self._file, self._packaged)
        return _load(self._file)


@cache  # in Alembic too, a revision's module is loaded once in a process
def _load(file: Path) -> ModuleType:
    try:
        return load_python_file(file.parent, file.name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision module may raise anything
        raise _unloadable(error) from None


@dataclass(frozen=True)
class PackagedGraph:
    """The packaged graph of revisions. ``root`` is the package's root."""

    manifest: Manifest
    nodes: Mapping[str, PackagedRevision]
    root: Path

    def whole(self) -> RevisionMap:
        """Return the whole graph for Alembic, the same each time."""
        return self._whole

    @cached_property
    def _whole(self) -> RevisionMap:
        return self._map(list(self.nodes.values()))

    def load_all(self) -> None:
        """Load the module of every revision.

        Raises:
            ConfigurationError: a file was changed, or a revision cannot be imported.
        """
        for packaged in self.nodes.values():
            _ = _PackagedScript(self.root, packaged).module

    def above(self, wanted: str, current: Sequence[str]) -> RevisionMap | None:
        """Return the graph above ``current``, or None if Alembic needs more of it to upgrade to ``wanted``."""
        lacking = self._lacking(current)
        if lacking is None or not (wanted in {"head", "heads", *lacking} or wanted.startswith("+")):
            return None
        # In the graph's order, by which Alembic sorts branches. The current revisions need no ancestors here.
        return self._map(
            [
                node if revision in lacking else node._replace(down_revisions=(), depends_on=(), branch_labels=())
                for revision, node in self.nodes.items()
                if revision in lacking or revision in current
            ]
        )

    def _map(self, nodes: list[PackagedRevision]) -> RevisionMap:
        return RevisionMap(lambda: map(partial(_PackagedScript, self.root), nodes))

    def _lacking(self, current: Sequence[str]) -> set[str] | None:
        """Return the revisions above ``current``, or None if only Alembic can find them."""
        lacking: set[str] = set()
        met: set[str] = set()
        left = [*self.manifest.heads]
        while left:
            revision = left.pop()
            if revision in current:
                met.add(revision)
            elif revision not in lacking:
                node = self.nodes[revision]
                if not node.down_revisions or node.depends_on or node.branch_labels:
                    # At a base, the walk has passed the current revisions or is on another branch. Labels and
                    # dependencies may refer to any revision.
                    return None
                lacking.add(revision)
                left += node.down_revisions
        return lacking if met == {*current} else None


def packaged_graph(settings: Settings) -> PackagedGraph | None:
    """Return the graph that the package was built with, or None if it has no manifest for these settings.

    Raises:
        ConfigurationError: the manifest does not match the tree beside it.
    """
    manifest = for_settings(settings)
    if manifest is None:
        return None
    return PackagedGraph(manifest, read_graph(settings.package_root, manifest), settings.package_root)


def compare(graph: PackagedGraph) -> None:
    """Compare the file of every revision with the graph.

    Raises:
        ConfigurationError: a file was changed or cannot be read. The message names it.
    """
    for packaged in graph.nodes.values():
        _compare(graph.root / packaged.path, packaged)


def _compare(file: Path, packaged: PackagedRevision) -> None:
    try:
        same = digest_of(file) == packaged.sha256
    except OSError as error:
        raise _unloadable(error) from None
    if not same:
        raise ConfigurationError(f"{file.name} changed after the package was built; build and deploy it again")


def load(config: Config, graph: PackagedGraph | None = None) -> ScriptDirectory:
    """Return the backend's tree. This runs code of the backend, so its environment must be set.

    Without a graph, Alembic loads every revision to find it.

    Raises:
        ConfigurationError: the tree is missing or empty, does not match the manifest, or a revision cannot be imported.
    """
    try:
        script = ScriptDirectory.from_config(config)
        if graph is None:
            empty = not script.get_heads()
        else:
            empty = not graph.nodes
            script.revision_map = graph.whole()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision module may raise anything
        raise _unloadable(error) from None
    locations = [Path(location) for location in script._version_locations]  # noqa: SLF001
    # Alembic silently ignores a missing folder, and with it every revision that should be there.
    missing = [str(location) for location in locations if not location.is_dir()]
    if missing:
        raise ConfigurationError(f"the packaged Alembic tree has no folder {missing[0]}; see version_locations")
    if empty:
        raise ConfigurationError("the packaged Alembic tree has no revision: an empty tree never means up to date")
    if graph is not None and {*map(Path.resolve, locations)} != {
        (graph.root / location).resolve() for location in graph.manifest.locations
    }:
        raise ConfigurationError(
            f"the packaged Alembic tree takes its revisions from {', '.join(map(str, locations))}, not from where they"
            " were when the package was built; build and deploy it again"
        )
    return script


def _unloadable(error: BaseException) -> ConfigurationError:
    cause = f"{type(error).__name__}: {one_line(text_without_values(error))}"
    return ConfigurationError(f"the packaged Alembic tree cannot be loaded: {cause}")


def narrow(script: ScriptDirectory, graph: PackagedGraph | None, wanted: str, current: Sequence[str]) -> None:
    """Limit Alembic's graph to the revisions above ``current``, if they are enough to upgrade to ``wanted``.

    Alembic sorts its whole graph before the first step. With a long history that takes longer than the step. An env.py
    that runs migrations several times needs another part of the graph each time.
    """
    if graph is not None:
        script.revision_map = graph.above(wanted, current) or graph.whole()


def check_known(script: ScriptDirectory, current: Sequence[str]) -> None:
    """Raise if the package does not have the current revisions of a database.

    Raises:
        UnknownRevision: it does not, as if older code is deployed over a newer database.
    """
    for revision in current:
        if not are_known(script, [revision]):
            raise UnknownRevision(
                f"the database is at revision {revision}, which this package does not have (its heads:"
                f" {', '.join(script.get_heads())}): an older backend was deployed over a newer database; deploy the"
                " newer one, or set NEWER_DATABASE=ok to leave such a database alone",
                revision=revision,
            )


def are_known(script: ScriptDirectory, revisions: Sequence[str]) -> bool:
    """Return whether the package has all of these revisions."""
    try:
        found = script.get_revisions(tuple(revisions))
    except CommandError:
        return False
    # Alembic also finds a revision by the beginning of its id, or by a word such as "head".
    return [getattr(one, "revision", None) for one in found] == list(revisions)


def pending(script: ScriptDirectory, current: Sequence[str]) -> Iterable[Revision]:
    """Return the pending revisions of a database, in the order of their application, without loading a module."""
    lacking = script.revision_map.iterate_revisions("heads", tuple(current), implicit_base=True)
    return [_described(one) for one in reversed(list(lacking))]  # type: ignore[arg-type]


def upgrade_steps(script: ScriptDirectory, wanted: str, current: Sequence[str]) -> list[Any]:
    """Return the steps, in the order of their application, from the current revisions up to the wanted one.

    Raises:
        ConfigurationError: head is ambiguous.
        InvalidRequest: the package has no such revision, or fewer than N are left for +N.
    """
    if wanted == "head":
        _check_one_head(script)
    try:
        return list(script._upgrade_revs(wanted, tuple(current)))  # type: ignore[arg-type] # noqa: SLF001 - see above
    except CommandError as error:
        raise InvalidRequest(f"revision {wanted!r} cannot be upgraded to: {one_line(error)}") from None


def downgrade_steps(script: ScriptDirectory, wanted: str, current: Sequence[str]) -> list[Any]:
    """Return the steps, in the order of their application, down from the current revisions to the wanted one or base.

    Raises:
        InvalidRequest: the package has no such revision, or it is not below where the database is.
    """
    try:
        return list(script._downgrade_revs(wanted, tuple(current)))  # type: ignore[arg-type] # noqa: SLF001 - see above
    except CommandError as error:
        raise InvalidRequest(f"revision {wanted!r} cannot be downgraded to: {one_line(error)}") from None


def stamp_steps(script: ScriptDirectory, wanted: str, current: Sequence[str]) -> list[Any]:
    """Return the steps that write the wanted revision to the version table. ``current`` must be known, or empty.

    Raises:
        ConfigurationError: head is ambiguous.
        InvalidRequest: the package has no such revision.
    """
    if wanted == "head":
        _check_one_head(script)
    try:
        return list(script._stamp_revs(wanted, tuple(current)))  # noqa: SLF001 - see above
    except CommandError as error:
        raise InvalidRequest(f"revision {wanted!r} cannot be stamped: {one_line(error)}") from None


def _check_one_head(script: ScriptDirectory) -> None:
    heads = sorted(script.get_heads())
    if len(heads) > 1:
        raise ConfigurationError(
            f"the package has {len(heads)} heads ({', '.join(heads)}) and `head` needs exactly one: request heads, or"
            f" merge them"
            f' with: alembic merge -m "Merge heads" {" ".join(heads)}'
        )


def described(step: Any) -> Revision:  # noqa: ANN401 - Alembic exports no name for its steps
    """Return a step's revision as callers see it."""
    return _described(step.revision)


def _described(script: Script) -> Revision:
    down = script.down_revision
    down_revisions = (down,) if isinstance(down, str) else tuple(down or ())
    return Revision(script.revision, script.doc, down_revisions)
