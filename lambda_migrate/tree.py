"""The packaged Alembic tree: its configuration, its heads, and what a database still lacks.

Alembic's own commands leave no room between their steps, so the steps come from what those commands use too:
`_upgrade_revs`, `_downgrade_revs` and `_stamp_revs` of `ScriptDirectory`; and `_version_locations` tells where
revisions should be. They are private names, tested with 1.13 to 1.20.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from lambda_migrate.contract import ConfigurationError, InvalidRequest, Revision, UnknownRevision
from lambda_migrate.telemetry import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_config(path: Path) -> Config:
    """Alembic's configuration from an ini file, a pyproject.toml, or the two side by side as the alembic command does.

    Raises:
        ConfigurationError: the file is missing or unreadable, or belongs to Alembic's multidb template.
    """
    if not path.is_file():
        raise ConfigurationError(f"the package has no {path.name} in its backend folder; see ALEMBIC_CONFIG")
    toml = path if path.suffix == ".toml" else path.parent / "pyproject.toml"
    ini = path.parent / "alembic.ini" if path.suffix == ".toml" else path
    # An older Alembic, locked by the backend, knows no pyproject.toml.
    files: dict[str, Any] = {"toml_file": str(toml)} if toml.is_file() and hasattr(Config, "toml_file_name") else {}
    config = Config(str(ini) if ini.is_file() else None, **files)
    try:
        databases = config.get_main_option("databases")
    except Exception as error:  # noqa: BLE001 - whatever configparser and interpolation raise
        raise ConfigurationError(f"{path.name} of the package cannot be read: {one_line(error)}") from None
    if databases:
        raise ConfigurationError(
            f"{path.name} is of Alembic's multidb template (databases = {databases}): one function migrates one"
            " database; give each its own tree and stage"
        )
    return config


def load(config: Config) -> ScriptDirectory:
    """The tree with every revision module loaded. The backend's code runs here: its environment must be set.

    Raises:
        ConfigurationError: the tree is not there, empty, or a revision cannot be imported.
    """
    try:
        script = ScriptDirectory.from_config(config)
        heads = script.get_heads()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision module may raise anything
        said = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigurationError(f"the packaged Alembic tree cannot be loaded: {said}") from None
    # Alembic passes over them in silence, and with them over every revision that should be there.
    missing = [str(location) for location in script._version_locations if not Path(location).is_dir()]  # noqa: SLF001
    if missing:
        raise ConfigurationError(f"the packaged Alembic tree has no folder {missing[0]}; see version_locations")
    if not heads:
        raise ConfigurationError("the packaged Alembic tree has no revision: an empty tree never means up to date")
    return script


def check_known(script: ScriptDirectory, current: Sequence[str]) -> None:
    """Make sure that the package knows the revisions a database is at.

    Raises:
        UnknownRevision: it does not, as when older code is deployed over a newer database.
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
    """Whether the package has all of these revisions."""
    try:
        script.get_revisions(tuple(revisions))
    except CommandError:
        return False
    return True


def upgrade_steps(script: ScriptDirectory, wanted: str, current: Sequence[str]) -> list[Any]:
    """The steps, in the order of their application, from the current revisions to the wanted one.

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
    """The steps, in the order of their application, from the current revisions down to the wanted one or to base.

    Raises:
        InvalidRequest: the package has no such revision, or it is not below where the database is.
    """
    try:
        return list(script._downgrade_revs(wanted, tuple(current)))  # type: ignore[arg-type] # noqa: SLF001 - see above
    except CommandError as error:
        raise InvalidRequest(f"revision {wanted!r} cannot be downgraded to: {one_line(error)}") from None


def stamp_steps(script: ScriptDirectory, wanted: str, current: Sequence[str]) -> list[Any]:
    """The steps that make the version table say the wanted revision, whatever the package knows of the current ones.

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
            f"the package has {len(heads)} heads ({', '.join(heads)}) and head means one: ask for heads, or merge them"
            f' with: alembic merge -m "Merge heads" {" ".join(heads)}'
        )


def described(step: Any) -> Revision:  # noqa: ANN401 - Alembic exports no name for its steps
    """A step's revision as callers see it."""
    script: Script = step.revision
    down = script.down_revision
    down_revisions = (down,) if isinstance(down, str) else tuple(down or ())
    return Revision(script.revision, script.doc, down_revisions)
