"""Compares the checkpoint beside env.py with the packaged tree."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from infra.package.errors import PackageError
from infra.package.sources import files_below
from lambda_migrate.invocation.settings import VARIABLES
from lambda_migrate.revisions import checkpoint as checkpoint_file
from lambda_migrate.revisions.manifest import digest_of
from lambda_migrate.revisions.reviewed import FILE as REVIEWED

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path, PurePosixPath

    from infra.package.graph import Graph
    from infra.package.imports import Files
    from infra.package.layout import Layout
    from lambda_migrate.revisions.checkpoint import Checkpoint

# After this many newer revisions, a new checkpoint saves a noticeable time.
_MANY = 50
_OF_LIBRARIES = ("AWS_", "PG", "POWERTOOLS_")
_UNREAD = (REVIEWED, checkpoint_file.DESCRIPTION, checkpoint_file.SCRIPT)
_UNREAD_SUFFIXES = (".mako", ".md", ".rst")


class Checked(NamedTuple):
    """Whether the checkpoint can be packaged, and a warning."""

    usable: bool = False
    warning: str | None = None


def check(layout: Layout, graph: Graph | None, environment: Collection[str] = ()) -> Checked:
    """Compare the checkpoint with the tree. A tree without a graph belongs to a requirement and has no checkpoint.

    ``environment`` has the names of the variables that the stage gives to its function.

    Raises:
        PackageError: the checkpoint does not match the revisions, or cannot be read.
    """
    if graph is None:
        return Checked()
    try:
        found = checkpoint_file.read_checkpoint(layout.tree)
        if found is None:
            return Checked()
        checkpoint_file.read_script(layout.tree, found)
    except (OSError, ValueError) as error:
        raise PackageError(
            f"the checkpoint in {layout.tree.name}/ cannot be used ({error}); {_again_or_delete(layout)}"
        ) from None
    _refuse_other_revisions(found, graph, layout)
    now = other_files(layout, [revision.file for revision in graph.revisions])
    changed = sorted(name for name in {*now, *found.files} if now.get(name) != found.files.get(name))
    if changed:
        return Checked(
            warning="the checkpoint is not packaged, so an empty database replays every revision:"
            f" {changed[0]} has changed since it was made; {_again(layout)}"
        )
    if unknown := sorted(backends_own(environment) - {*found.variables}):
        return Checked(
            warning="the checkpoint is not packaged, so an empty database replays every revision: no stage had the"
            f" variable {unknown[0]} when it was made; {_again(layout)}"
        )
    since = len(graph.revisions) - len(found.revisions)
    warning = f"{since} revisions have come since the checkpoint was made; {_again(layout)}"
    return Checked(usable=True, warning=warning if since >= _MANY else None)


def without_checkpoint(copies: Files, layout: Layout) -> Files:
    """Return the files to package without those of the checkpoint."""
    folder = layout.packaged(layout.tree)
    own = {folder / checkpoint_file.DESCRIPTION, folder / checkpoint_file.SCRIPT}
    return {path: file for path, file in copies.items() if path not in own}


def other_files(layout: Layout, revisions: Collection[Path]) -> dict[str, str]:
    """Return the hash of each file below env.py's folder that is not a revision, but that a revision may read."""
    own = {file.resolve() for file in revisions}
    return {
        path.as_posix(): digest_of(file)
        for path, file in files_below(layout.tree, inside=(layout.backend, *layout.local_packages))
        if file.resolve() not in own and path.name not in _UNREAD and _may_be_read(path)
    }


def backends_own(environment: Collection[str]) -> set[str]:
    """Return the variables of a stage's ``environment`` that are not settings of the function."""
    return {name for name in environment if name not in VARIABLES and not name.startswith(_OF_LIBRARIES)}


def _may_be_read(path: PurePosixPath) -> bool:
    return path.suffix not in _UNREAD_SUFFIXES and path.name.partition(".")[0].upper() != "README"


def _refuse_other_revisions(found: Checkpoint, graph: Graph, layout: Layout) -> None:
    files = {revision.id: revision.file for revision in graph.revisions}
    for revision, digest in found.revisions.items():
        if revision not in files:
            raise PackageError(
                f"the checkpoint contains revision {revision}, which the tree does not have; {_again_or_delete(layout)}"
            )
        if digest_of(files[revision]) != digest:
            raise PackageError(
                f"revision {revision} has changed since the checkpoint was made; {_again_or_delete(layout)}"
            )


def _again(layout: Layout) -> str:
    return f"make it again: {shlex.join(('migrate', 'checkpoint', '--backend', str(layout.backend)))}"


def _again_or_delete(layout: Layout) -> str:
    return f"delete checkpoint.json and checkpoint.sql, or {_again(layout)}"
