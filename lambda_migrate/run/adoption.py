"""Verifies before a stamp that a database's schema is that of the revision, so that its version table stays true.

The schema is compared with the one that the reviewer recorded after the revision. Where nothing is recorded, the models
are compared with the database, which shows less and is possible for the head only.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.schema import fingerprint, read_schema
from lambda_migrate.invocation.errors import ConfigurationError, DriftDetected, InvalidRequest
from lambda_migrate.invocation.request import Request
from lambda_migrate.revisions import manifest, reviewed
from lambda_migrate.run import start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.revisions.manifest import PackagedRevision

_PUBLIC = "public"
_SHOWN = 20


def verify(invocation: Invocation) -> str:
    """Return what showed that the database's schema is that of the requested revision: "fingerprint" or "models".

    Raises:
        DriftDetected: it is another schema. The message names the differences.
        InvalidRequest: the package has no such revision.
        ConfigurationError: nothing is recorded of the revision, and the models show another one.
    """
    packaged = manifest.for_settings(invocation.settings)
    tree = manifest.tree_of(invocation.settings)
    if packaged is None or tree is None:
        raise ConfigurationError("the package has no manifest, so no revision can be verified; build it again")
    graph = manifest.read_graph(invocation.settings.package_root, packaged)
    revision = _wanted(invocation.request.revision, graph, packaged.heads)
    recorded = reviewed.measured(tree)
    if revision in recorded and "schema" in recorded[revision]:
        _compare(invocation, revision, recorded, graph, packaged.version_table)
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
        f"--verify needs the id of one revision, and {revision!r} is none of this package; `history` lists them"
    )


def _compare(
    invocation: Invocation,
    revision: str,
    recorded: Mapping[str, Mapping[str, Any]],
    graph: Mapping[str, PackagedRevision],
    version_table: str | None,
) -> None:
    with closing(open_session(invocation)) as session:
        schema = invocation.schema or session.default_schema or _PUBLIC
        found = read_schema(
            session.connection,
            schema,
            version_table=version_table or "alembic_version",
            everything=invocation.schema is None,
        ).objects
        database = session.server.database
    expected = _objects(revision, recorded, graph)
    if expected is None:
        equal = fingerprint(found) == recorded[revision]["schema"]["after"]
        if not equal:
            raise DriftDetected(
                f"{database} does not have the schema of revision {revision}: the fingerprints differ. To see where,"
                " record all revisions with `migrate review --record` and deploy; the version table was not changed"
            )
        return
    if invocation.schema is not None:
        # Extensions and other schemas are the database's, not the tenant's.
        expected = {name: digest for name, digest in expected.items() if not name.startswith(("extension ", "schema "))}
    differences = [*_differences(expected, found)]
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise DriftDetected(
            f"{database} does not have the schema of revision {revision}: {'; '.join(differences[:_SHOWN])}{more};"
            " the version table was not changed"
        )


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> Iterable[str]:
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in expected:
            yield f"{name} is not in the revision"
        elif expected[name] != found[name]:
            yield f"{name} is defined otherwise"


def _objects(
    revision: str, recorded: Mapping[str, Mapping[str, Any]], graph: Mapping[str, PackagedRevision]
) -> dict[str, str] | None:
    """Return the objects after a revision, with their digests; None if a revision before it was not recorded."""
    needed, waiting = set(), [revision]
    while waiting:
        each = waiting.pop()
        if each not in needed:
            needed.add(each)
            waiting += [*graph[each].down_revisions, *graph[each].depends_on]
    objects: dict[str, str] = {}
    for each in (one for one in graph if one in needed):
        facts = (recorded.get(each) or {}).get("schema")
        if facts is None:
            continue
        objects = dict(facts.get("base", objects))
        for name, digest in facts["changed"].items():
            if digest is None:
                objects.pop(name, None)
            else:
                objects[name] = digest
    # Of branches that meet, what was recorded of one may lack the other's objects.
    return objects if fingerprint(objects) == recorded[revision]["schema"]["after"] else None
