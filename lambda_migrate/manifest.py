"""What the builder noted about the packaged tree, so that a run need not load the tree to know its heads.

``manifest.json`` is small and read at each cold start; ``graph.json``, whose hash it holds, only when something is
pending. Both lie in the package's root, and `infra.package` writes them with the names and functions of this module.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

VERSION = 1
MANIFEST = "manifest.json"
GRAPH = "graph.json"

# Alembic's own rule for which files of a version directory are revisions.
REVISION_FILE = re.compile(r"(?!\.#|__init__).*\.py")


@dataclass(frozen=True)
class Manifest:
    """The packaged tree in few words. Paths are relative to the package's root, hashes are hexadecimal.

    ``architecture`` is None in a package that was built for the machine that built it; ``python`` is such as "3.13".
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
    version: int = VERSION


def to_json(document: Any) -> str:  # noqa: ANN401 - JSON
    """The same text for the same content, whoever writes it."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"


def write_manifest(manifest: Manifest) -> str:
    """The text of ``manifest.json``."""
    return to_json(asdict(manifest))


def read_manifest(text: str) -> Manifest:
    """The manifest out of its text.

    Raises:
        ValueError: it is none, or of another version.
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
            }
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no manifest of version {VERSION}: {error}") from None


def listing_digest(locations: Sequence[Path], *, recursive: bool) -> str:
    """A SHA-256 of which revision files are in these folders and how large each is, without reading any.

    Raises:
        OSError: a folder is missing or cannot be read.
    """
    digest = sha256()
    for location in locations:
        for name, size in sorted(_revision_files(os.fspath(location), "", recursive=recursive)):
            digest.update(os.fsencode(name) + b"\0%d\n" % size)
    return digest.hexdigest()


def _revision_files(folder: str, prefix: str, *, recursive: bool) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if recursive and not entry.name.endswith("__pycache__"):
                    yield from _revision_files(entry.path, f"{prefix}{entry.name}/", recursive=True)
            elif REVISION_FILE.fullmatch(entry.name):
                yield f"{prefix}{entry.name}", entry.stat().st_size
