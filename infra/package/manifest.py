"""Writes facts into the package, so that the function need not compute them (`lambda_migrate.revisions.manifest`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.package.env_py import VERSION_TABLE, has_loop, why_env_py_is_needed
from infra.package.layout import BACKEND_LIBRARIES
from lambda_migrate.revisions.checkpoint import DESCRIPTION as CHECKPOINT
from lambda_migrate.revisions.manifest import (
    GRAPH,
    MANIFEST,
    Manifest,
    PackagedRevision,
    digest_of,
    listing_digest,
    to_json,
    write_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path, PurePosixPath

    from infra.package.graph import Graph
    from infra.package.layout import Layout
    from infra.package.package_platform import Platform


def write(package: Path, layout: Layout, graph: Graph, platform: Platform, drivers: Sequence[str] = ()) -> None:
    """Write the manifest and the graph of the tree that has been put into a package.

    ``graph`` is that of the backend or of the package. ``drivers`` are the PostgreSQL drivers among the backend's
    libraries.
    """
    revisions = [
        PackagedRevision(
            revision=revision.id,
            down_revisions=revision.down_revisions,
            depends_on=revision.depends_on,
            branch_labels=revision.branch_labels,
            description=revision.description,
            path=path.as_posix(),
            sha256=digest_of(package / path),
        )
        for revision in graph.revisions
        for path in [layout.packaged(_in_package(revision.file, package))]
    ]
    (package / GRAPH).write_text(
        to_json({"revisions": [revision._asdict() for revision in revisions]}), encoding="utf-8"
    )
    locations = [layout.packaged(location) for location in layout.version_locations]
    checkpoint = package / layout.packaged(layout.tree) / CHECKPOINT
    config, env = layout.packaged(layout.config_files[0]), layout.packaged(layout.tree) / "env.py"
    manifest = Manifest(
        heads=graph.heads,
        revisions=len(graph.revisions),
        graph_sha256=digest_of(package / GRAPH),
        listing_sha256=listing_digest([package / location for location in locations], recursive=layout.recursive),
        locations=tuple(location.as_posix() for location in locations),
        recursive=layout.recursive,
        config=config.as_posix(),
        config_sha256=digest_of(package / config),
        env=env.as_posix(),
        env_sha256=digest_of(package / env),
        python=f"3.{platform.minor}",
        architecture=platform.architecture,
        version_table=_version_table(package, layout, env),
        loops=has_loop((package / env).read_text(encoding="utf-8", errors="replace")),
        drivers=tuple(drivers),
        working_folder=_working_folder(layout),
        checkpoint=digest_of(checkpoint) if checkpoint.is_file() else None,
    )
    (package / MANIFEST).write_text(write_manifest(manifest), encoding="utf-8")


def _working_folder(layout: Layout) -> str | None:
    if layout.working_folder == layout.config_files[0].parent:
        return None
    return layout.packaged(layout.working_folder).as_posix()


def _in_package(path: Path, package: Path) -> Path:
    installed = package / BACKEND_LIBRARIES
    return path.relative_to(installed) if path.is_relative_to(installed) else path


def _version_table(package: Path, layout: Layout, env: PurePosixPath) -> str | None:
    """Return env.py's version table, if static analysis can find it."""
    revisions = [package / layout.packaged(location) for location in layout.version_locations]
    modules = [
        path.read_text(encoding="utf-8", errors="replace")
        for path in (package / "backend").rglob("*.py")
        if path != package / env and not any(location in path.parents for location in revisions)
    ]
    return (
        None
        if why_env_py_is_needed((package / env).read_text(encoding="utf-8", errors="replace"), modules)
        else VERSION_TABLE
    )
