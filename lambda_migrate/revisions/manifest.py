"""The manifest describes the packaged tree, so that a run knows its heads without loading it.

``manifest.json`` is small, and every run reads it. ``graph.json``, whose hash it holds, is read only if a run loads
Alembic. Both lie in the package's root. `infra.package` writes them with the names and functions of this module.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lambda_migrate.invocation.settings import Settings

VERSION = 1
MANIFEST = "manifest.json"
GRAPH = "graph.json"


@dataclass(frozen=True)
class Manifest:
    """A summary of the packaged tree. Paths are relative to the package's root, hashes are hexadecimal.

    ``architecture`` is None in a package for the machine that built it. ``python`` is a version such as "3.13".
    ``version_table`` is env.py's version table, or None if only a run of env.py can find it out. ``drivers`` are the
    PostgreSQL drivers among the backend's libraries, by SQLAlchemy's names, the preferred one first.
    ``working_folder`` is where the alembic command is run; None: in the configuration's folder.
    ``checkpoint`` is the hash of ``checkpoint.json`` beside env.py, None if the tree has none.
    ``loops`` is True if env.py may run the migrations several times, for several schemas or databases.
    """

    heads: tuple[str, ...]
    revisions: int
    graph_sha256: str
    listing_sha256: str
    locations: tuple[str, ...]
    recursive: bool
    config: str
    config_sha256: str
    env: str
    env_sha256: str
    python: str
    architecture: str | None
    version_table: str | None = None
    drivers: tuple[str, ...] = ()
    working_folder: str | None = None
    checkpoint: str | None = None
    loops: bool = False
    version: int = VERSION


class PackagedRevision(NamedTuple):
    """A revision's entry in ``graph.json``. ``path`` is relative to the package's root."""

    revision: str
    down_revisions: Sequence[str]
    depends_on: Sequence[str]
    branch_labels: Sequence[str]
    description: str
    path: str
    sha256: str


def to_json(document: Any) -> str:  # noqa: ANN401 - JSON
    """Return a document as JSON: always the same text for the same content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"


def write_manifest(manifest: Manifest) -> str:
    """Return the text of ``manifest.json``."""
    return to_json(asdict(manifest))


def read_manifest(text: str) -> Manifest:
    """Return the manifest that a text holds.

    Raises:
        ValueError: the text is no manifest, or one of another version.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"no manifest of version {VERSION}")
    try:
        return Manifest(
            **{
                **document,
                "heads": tuple(document["heads"]),
                "locations": tuple(document["locations"]),
                "drivers": tuple(document.get("drivers", ())),
            }
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no manifest of version {VERSION}: {error}") from None


def defaults(root: Path) -> dict[str, str]:
    """Return the package's defaults for variables that are not set: the backend's driver, and Alembic's configuration.

    Callers that need the rest of an unreadable manifest report the error.
    """
    try:
        manifest = read_manifest((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    driver = {"DB_DRIVER": f"postgresql+{manifest.drivers[0]}"} if manifest.drivers else {}
    return {**driver, "ALEMBIC_CONFIG": manifest.config.partition("/")[2]}


def for_settings(settings: Settings) -> Manifest | None:
    """Return the package's manifest, or None if there is none or it describes another tree than ALEMBIC_CONFIG.

    Raises:
        ConfigurationError: as `packaged`.
    """
    manifest = packaged(settings.package_root)
    if manifest is None or settings.package_root / manifest.config != settings.alembic_config:
        return None
    return manifest


def working_folder(settings: Settings) -> Path:
    """Return the folder in which env.py runs, from which the configuration's relative paths are meant.

    Raises:
        ConfigurationError: as `packaged`.
    """
    manifest = for_settings(settings)
    if manifest is None or manifest.working_folder is None:
        return settings.alembic_config.parent
    return settings.package_root / manifest.working_folder


def package_digest(settings: Settings) -> str:
    """Return the identity of a package: the hash of its manifest, which contains the hashes of the tree's files."""
    try:
        return sha256((settings.package_root / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return ""


def tree_of(settings: Settings) -> Path | None:
    """Return the folder of the packaged tree, in which env.py lies, or None if there is no manifest for the settings.

    Raises:
        ConfigurationError: as `packaged`.
    """
    manifest = for_settings(settings)
    return None if manifest is None else (settings.package_root / manifest.env).parent


def packaged(root: Path) -> Manifest | None:
    """Return the manifest of the package at ``root``, checked against the tree beside it, or None if there is none.

    The check covers files that a deployment can get wrong and costs little: the names of the revision files, the
    configuration and env.py. A revision's content is compared before the revision runs.

    Raises:
        ConfigurationError: the manifest cannot be read, or the files are not those that it was made from.
    """
    try:
        text = (root / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _of_no_use(error) from None
    return _checked(root, text)


@lru_cache(maxsize=1)
def _checked(root: Path, text: str) -> Manifest:
    try:
        manifest = read_manifest(text)
        found = listing_digest([root / location for location in manifest.locations], recursive=manifest.recursive)
        changed = [
            name
            for name, is_same in (
                ("its revision files", found == manifest.listing_sha256),
                (manifest.config, digest_of(root / manifest.config) == manifest.config_sha256),
                (manifest.env, digest_of(root / manifest.env) == manifest.env_sha256),
            )
            if not is_same
        ]
    except (OSError, ValueError) as error:
        raise _of_no_use(error) from None
    if changed:
        raise ConfigurationError(
            f"{changed[0]} changed after the package was built, by its {MANIFEST}; build and deploy it again"
        )
    return manifest


def _of_no_use(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"the package's {MANIFEST} cannot be used ({error}); build and deploy it again")


@lru_cache(maxsize=1)
def read_graph(root: Path, manifest: Manifest) -> dict[str, PackagedRevision]:
    """Return every revision of the package by its id, each after the revisions that it builds on.

    Raises:
        ConfigurationError: ``graph.json`` cannot be read, or is not the one that the manifest was made with.
    """
    try:
        content = (root / GRAPH).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the package's {GRAPH} cannot be read: {error}") from None
    if sha256(content).hexdigest() != manifest.graph_sha256:
        raise ConfigurationError(f"the package's {GRAPH} is not the one it was built with; build and deploy it again")
    return {entry["revision"]: PackagedRevision(**entry) for entry in json.loads(content)["revisions"]}


def with_ancestors(revisions: Iterable[str], graph: Mapping[str, PackagedRevision]) -> set[str]:
    """Return these revisions and those that they build on or depend on, as far as the graph has them."""
    found: set[str] = set()
    waiting = list(revisions)
    while waiting:
        revision = waiting.pop()
        if revision in graph and revision not in found:
            found.add(revision)
            waiting += (*graph[revision].down_revisions, *graph[revision].depends_on)
    return found


def digest_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    return sha256(path.read_bytes()).hexdigest()


def listing_digest(locations: Sequence[Path], *, recursive: bool) -> str:
    """Return a SHA-256 of the names of the Python files in these folders. It reads only the folders.

    Raises:
        OSError: a folder is missing or cannot be read.
    """
    digest = sha256()
    for location in locations:
        if recursive:
            root = os.fspath(location)
            names = [f"{folder.removeprefix(root)}/{name}" for folder, _, files in os.walk(root) for name in files]
        else:
            names = os.listdir(location)  # noqa: PTH208 - thousands of names need no Path
        digest.update(os.fsencode("\0".join(sorted(name for name in names if name.endswith(".py")))) + b"\0\0")
    return digest.hexdigest()
