"""Verifies before a stamp that a database's schema is that of the revision, so that its version table stays true.

The schema is compared with the one that the reviewer recorded after the revision. Where nothing is recorded, the models
are compared with the database, which shows less and is possible for the head only.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_migrate.database.open_session import open_session
from lambda_migrate.invocation.errors import ConfigurationError, DriftDetected, InvalidRequest, MigrationLocked
from lambda_migrate.invocation.request import Request
from lambda_migrate.invocation.result import some
from lambda_migrate.revisions import manifest, reviewed
from lambda_migrate.run import drift, start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.revisions.manifest import PackagedRevision

_SHOWN = 20


def verify(invocation: Invocation) -> str:
    """Return which comparison verified the schema of the requested revision: "fingerprint" or "models".

    Raises:
        DriftDetected: it is another schema. The message names the differences.
        InvalidRequest: the package has no such revision.
        ConfigurationError: nothing is recorded of the revision, and the models show another one; or the schema could
            not be read.
        MigrationLocked: the schema could not be read in time.
    """
    packaged = manifest.for_settings(invocation.settings)
    tree = manifest.tree_of(invocation.settings)
    if packaged is None or tree is None:
        raise ConfigurationError("the package has no manifest, so no revision can be verified; build it again")
    graph = manifest.read_graph(invocation.settings.package_root, packaged)
    revision = _wanted(invocation.request.revision, graph, packaged.heads)
    recorded = reviewed.measured(tree)
    if revision in recorded and "schema" in recorded[revision]:
        _compare(invocation, revision, packaged.version_table)
        return "fingerprint"
    if (revision,) != packaged.heads:
        raise ConfigurationError(
            f"no fingerprint of revision {revision} is recorded, and the models are of {', '.join(packaged.heads)};"
            f" record it with `migrate review {revision} --record` and deploy, or adopt the database at the head"
        )
    look = Request(action="check", revision=revision, verify=True, target=invocation.request.target)
    start.inspect(replace(invocation, request=look))
    return "models"


def _wanted(revision: str, graph: Mapping[str, PackagedRevision], heads: tuple[str, ...]) -> str:
    if revision in {"head", "heads"} and len(heads) == 1:
        return heads[0]
    if revision in graph:
        return revision
    raise InvalidRequest(
        f"--verify needs the id of one revision, and {revision!r} is not in this package; `history` lists them"
    )


def _compare(invocation: Invocation, revision: str, version_table: str | None) -> None:
    with closing(open_session(invocation)) as session:
        found = drift.at(invocation, session, (revision,), version_table or "alembic_version")
        database = session.server.database
    if found.schema == "equal":
        return
    if found.schema == "different":
        raise DriftDetected(
            f"{database} does not have the schema of revision {revision}: {some(found.differences, _SHOWN)};"
            " the version table was not changed",
            differences=list(found.differences),
        )
    if found.fingerprint is None:
        raise (MigrationLocked if found.is_busy else ConfigurationError)(
            f"the schema of {database} and that of revision {revision} could not be compared: {found.reason};"
            " the version table was not changed"
        )
    raise DriftDetected(
        f"{database} does not have the schema of revision {revision}: the fingerprints differ. To see where,"
        " record all revisions with `migrate review --record` and deploy; the version table was not changed"
    )
