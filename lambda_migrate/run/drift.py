"""Compares a database's schema with the reviewer's record of its revisions, without any models."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors

from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.schema import fingerprint, read_schema
from lambda_migrate.database.session import read_only
from lambda_migrate.revisions import manifest, reviewed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lambda_migrate.database.schema import Schema
    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import RunState
    from lambda_migrate.revisions.manifest import PackagedRevision


_PUBLIC = "public"
_EXTRA = "schema ", "extension "
# As quote_ident writes it.
_IDENTIFIER = r'(?:"(?:[^"]|"")*"|[a-z_][a-z0-9_]*)'
_OF_TABLE = re.compile(
    rf"table (.+)|column ({_IDENTIFIER}(?:\.{_IDENTIFIER})?)\.{_IDENTIFIER}|[a-z]+ {_IDENTIFIER} on (.+)", re.DOTALL
)
# Another look may succeed.
_BUSY = (psycopg2.errors.QueryCanceled, psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected)


@dataclass(frozen=True)
class Comparison:
    """``schema`` is "equal", "different" or "unknown"; ``different`` has the objects, each with its difference.

    ``fingerprint`` is that of the database's objects. It is the same for two databases with the same schema. ``reason``
    is why the schema is "unknown", and ``is_busy`` means that another comparison may succeed.
    """

    schema: str
    different: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str | None = None
    reason: str | None = None
    is_busy: bool = False

    @property
    def differences(self) -> tuple[str, ...]:
        """The objects that differ, each with what is wrong with it."""
        return tuple(f"{name} {wrong}" for name, wrong in self.different.items())

    def apart_from(self, names: Collection[str]) -> Comparison:
        """Return the same without the differences of these objects."""
        if self.schema != "different":
            return self
        different = {name: wrong for name, wrong in self.different.items() if name not in names}
        return replace(self, schema="different" if different else "equal", different=different)

    def as_json(self) -> dict[str, Any]:
        """Return its fields in a result."""
        reason = {"reason": self.reason} if self.reason is not None else {}
        return {"schema": self.schema, "differences": list(self.differences), **reason}


_NOT_RECORDED = Comparison("unknown", reason="not every revision up to this one was recorded by the reviewer")
_SEVERAL_TABLES = Comparison("unknown", reason="there are several version tables, or none is known")


def at(invocation: Invocation, session: Session, heads: Sequence[str], version_table: str) -> Comparison:
    """Return the database's differences from the record of the revisions in its version table."""
    tree, packaged = manifest.tree_of(invocation.settings), manifest.for_settings(invocation.settings)
    recorded = reviewed.measured(tree) if tree is not None else {}
    if packaged is None or not recorded:
        return _NOT_RECORDED
    objects = expected(heads, manifest.read_graph(invocation.settings.package_root, packaged), recorded)
    schema = recorded.get(heads[0], {}).get("schema") if len(heads) == 1 else None
    return compare(
        session,
        invocation.schema or session.default_schema or _PUBLIC,
        (objects, schema["after"] if schema is not None else None),
        version_table=version_table,
        everything=invocation.schema is None,
        timeout_ms=invocation.settings.preflight_timeout_ms,
    )


def of_state(invocation: Invocation, state: RunState) -> Comparison:
    """Return the same on its own session, after a look at the database; unknown for several version tables."""
    packaged = manifest.for_settings(invocation.settings)
    known = packaged.version_table if packaged is not None else None
    names = {table.name for table in state.located} or ({known} if known else set())
    if len(names) != 1 or state.tables:
        return _SEVERAL_TABLES
    with closing(open_session(invocation)) as session:
        return at(invocation, session, state.revisions, names.pop())


def expected(
    heads: Sequence[str],
    graph: Mapping[str, PackagedRevision],
    recorded: Mapping[str, Mapping[str, Any]],
) -> dict[str, str] | None:
    """Return the objects at these revisions with their digests, None if the record does not have them.

    ``graph`` has each revision after those that it builds on.
    """
    if not heads:
        return _before_all(graph, recorded)
    needed = _needed(heads, graph, recorded)
    if needed is None:
        return None
    objects: dict[str, str] = {}
    for revision in graph:
        if revision in needed:
            schema = recorded[revision]["schema"]
            objects |= schema.get("base", {}) | {name: digest or "" for name, digest in schema["changed"].items()}
            # Dropped objects have no digest.
            objects = {name: digest for name, digest in objects.items() if digest}
    # Otherwise it was recorded in another order, or parts of it again.
    fits = len(heads) > 1 or fingerprint(objects) == recorded[heads[0]]["schema"]["after"]
    return objects if fits else None


def _needed(
    heads: Sequence[str], graph: Mapping[str, PackagedRevision], recorded: Mapping[str, Mapping[str, Any]]
) -> set[str] | None:
    """Return the revisions from whose record the objects follow, None if one of them is not recorded."""
    needed: set[str] = set()
    waiting = list(heads)
    while waiting:
        revision = waiting.pop()
        schema = recorded.get(revision, {}).get("schema") if revision in graph else None
        if schema is None:
            return None
        # With a base, the revisions before it need no record.
        if revision not in needed and "base" not in schema:
            waiting += [*graph[revision].down_revisions, *graph[revision].depends_on]
        needed.add(revision)
    return needed


def _before_all(
    graph: Mapping[str, PackagedRevision], recorded: Mapping[str, Mapping[str, Any]]
) -> dict[str, str] | None:
    """Return the objects before the first revision, which a history may begin with."""
    roots = [recorded.get(name, {}).get("schema") for name, revision in graph.items() if not revision.down_revisions]
    if not roots or None in roots:
        return None
    return {name: digest for schema in roots if schema for name, digest in schema.get("base", {}).items()}


def compare(
    session: Session,
    home: str,
    wanted: tuple[Mapping[str, str] | None, str | None],
    *,
    version_table: str,
    everything: bool,
    timeout_ms: int,
) -> Comparison:
    """Return how the schema of a database differs from the objects that are ``wanted``.

    Without these, only the fingerprint, which ``wanted`` has in the second place, can show that it is equal.

    ``home`` is the schema whose name objects go without. With ``everything``, those of other schemas that the tree
    makes count, too. Schemas and extensions that the tree does not know are ignored.
    """
    objects, after = wanted
    if not everything and objects is not None and any(name.startswith("schema ") for name in objects):
        return Comparison("unknown", reason="the revisions make schemas of their own, and the request names one schema")
    try:
        schema = _read(session, home, version_table, everything=everything, timeout_ms=timeout_ms)
    except psycopg2.Error as error:
        reason = error.diag.message_primary or type(error).__name__
        return Comparison("unknown", reason=reason, is_busy=isinstance(error, _BUSY))
    if not everything and objects is not None:
        objects = {name: digest for name, digest in objects.items() if not name.startswith("extension ")}
    found = known_to(objects, schema) if objects is not None else dict(schema.objects)
    print_ = fingerprint(found)
    if objects is None:
        return (
            Comparison("equal", fingerprint=print_) if print_ == after else replace(_NOT_RECORDED, fingerprint=print_)
        )
    different = _different(objects, found)
    return Comparison("different" if different else "equal", different, print_)


def _different(objects: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    different = {}
    for name in sorted(objects.keys() | found.keys(), key=lambda name: (name.partition(" ")[2], name)):
        if name not in found:
            different[name] = "is missing"
        elif name not in objects:
            different[name] = "is not in the tree"
        elif objects[name] != found[name]:
            different[name] = "is defined otherwise"
    return different


def known_to(objects: Mapping[str, str], schema: Schema) -> dict[str, str]:
    """Return the objects without the schemas, extensions and partitions that are not in ``objects``.

    Nor does it return their content. Partitions are made at any time, often by a job.
    """
    found = schema.objects
    foreign = [name for name in found if name.startswith(_EXTRA) and name not in objects]
    schemas = "|".join(re.escape(name.removeprefix("schema ")) for name in foreign if name.startswith("schema "))
    # The column of a table in the home schema has the table's name where that of another one has the schema's.
    inside = (
        re.compile(
            rf"column (?:{schemas})\.{_IDENTIFIER}\."
            rf"|(?!column )[a-z]+(?: view)? (?:{schemas})\."
            rf"|[a-z]+ {_IDENTIFIER} on (?:{schemas})\."
        )
        if schemas
        else None
    )
    others = {name for name in schema.partitions if f"table {name}" not in objects}
    return {
        name: digest
        for name, digest in found.items()
        if name not in foreign
        and not (inside is not None and inside.match(name))
        and not (others and _table_of(name) in others)
    }


def _table_of(name: str) -> str | None:
    """Return the table of an object by its name, None if the object is of no table."""
    found = _OF_TABLE.fullmatch(name)
    return found[found.lastindex or 0] if found else None


def _read(session: Session, home: str, version_table: str, *, everything: bool, timeout_ms: int) -> Schema:
    # The search_path that `read_schema` sets goes with the transaction. A view's text takes the lock of a reader.
    with read_only(session.connection, timeout_ms):
        return read_schema(session.connection, home, version_table=version_table, everything=everything)
