"""Makes a checkpoint, and verifies it before anything is written.

It replays the revisions on each server, and writes the content of one database as the script. Then it restores the
script on each server. The schema, the rows and the complete output of pg_dump must equal those of the replayed
database.
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra.package import checkpoints, variables
from infra.package.builder import graph_of
from infra.package.errors import PackageError
from infra.package.layout import read_layout
from infra.package.sources import files_below
from lambda_migrate.database.schema import same_form
from lambda_migrate.invocation.redaction import SECRET_NAME
from lambda_migrate.revisions.checkpoint import (
    DESCRIPTION,
    HOME,
    LOGIN,
    SCRIPT,
    Checkpoint,
    Surroundings,
    to_text,
)
from lambda_migrate.revisions.manifest import digest_of
from migrate_review.checkpoint import items, script, server, state
from migrate_review.checkpoint.items import Item
from migrate_review.checkpoint.replaying import Backend, replay
from migrate_review.driver.process import backend_variables
from migrate_review.errors import ReviewError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from infra.package.graph import Graph, GraphRevision
    from infra.package.layout import Layout
    from localcloud.postgres import Database
    from migrate_review.checkpoint.replaying import Replayed
    from migrate_review.checkpoint.server import Databases
    from migrate_review.checkpoint.state import State

_ROOT = Path(__file__).resolve().parents[2]
VERSIONS = (15, 18)
# The script must work for another login than the one that replayed the revisions.
_RESTORER = "migrate_checkpoint_restorer"
_OTHER_SCHEMA = "checkpoint_tenant"
# 14 hours from UTC, so that a time without a zone means another moment there.
_OTHER_ZONE = "Pacific/Kiritimati"


_MISSING_ROLE = re.compile(r'role "([^"]+)" does not exist')
# Lookups of objects that belong to the whole server.
_ROLE_LOOKUP = re.compile(r"\bpg_(roles|authid|user|shadow|group|auth_members)\b|\bto_regrole\b", re.IGNORECASE)


_SHORTEST_SECRET = 8
_REVOKE = re.compile(r"\bREVOKE\b", re.IGNORECASE)


class IncompleteCheckpointError(ReviewError):
    """The checkpoint was not written, because it would lack an item that ``--allow`` does not name."""

    def __init__(self, refused: Sequence[Item]) -> None:
        """List the items that the checkpoint would lack."""
        super().__init__(
            "the checkpoint was not written, because it cannot contain some results of the revisions:"
            f" {', '.join(item.name for item in refused)}; to leave them out, pass"
            f" {' '.join(f'--allow {item.name}' for item in refused)}"
        )
        self.items = tuple(refused)


@dataclass(frozen=True)
class Made:
    """A proven checkpoint. ``items`` are the allowed ones, ``remarks`` are for its author."""

    tree: Path
    checkpoint: Checkpoint
    script: str
    items: tuple[Item, ...]
    remarks: tuple[str, ...]

    def write(self) -> None:
        """Write its files beside env.py. The description comes last, because without it there is no checkpoint."""
        (self.tree / DESCRIPTION).unlink(missing_ok=True)
        (self.tree / SCRIPT).write_text(self.script, encoding="utf-8")
        (self.tree / DESCRIPTION).write_text(to_text(self.checkpoint), encoding="utf-8")


@dataclass(frozen=True)
class _Run:
    """A server, and the revisions replayed there."""

    version: int
    databases: Databases
    database: Database
    replayed: Replayed
    held: State


def make(
    backend: Backend,
    *,
    at: str | None = None,
    allow: Iterable[str] = (),
    versions: Sequence[int] = VERSIONS,
    progress: Callable[[str], None] = lambda _: None,
) -> Made:
    """Make and prove a checkpoint at a revision, or at the heads.

    Raises:
        ReviewError: the revisions cannot be replayed, or the proof failed.
        IncompleteCheckpointError: it would lack something that is not allowed.
        LocalCloudError: PostgreSQL or pg_dump is not available.
    """
    allow = tuple(allow)
    layout, graph = _tree(backend)
    _refuse_names_of_ours(graph)
    began = dt.datetime.now(dt.timezone.utc)
    with ExitStack() as servers:
        runs: list[_Run] = []
        again: list[State] = []
        for version in sorted(versions, reverse=True):
            progress(f"replaying the revisions on PostgreSQL {version}")
            databases = server.Databases(servers.enter_context(server.running(_ROOT, version)))
            if len(versions) == 1:
                # A second replay shows results that depend on the time. With several versions, the other replays do.
                again.append(_replayed(backend, databases, version, at or "heads").held)
                databases.clean()
            runs.append(_replayed(backend, databases, version, at or "heads"))
        newest = runs[0]
        again += [run.held for run in runs[1:]]
        found = _items(runs, again, backend, at or "heads", began)
        revisions = _revisions(graph, newest.replayed.heads)
        found += _lookups(graph, revisions)
        if refused := [item for item in found if not item.is_named_by(allow)]:
            raise IncompleteCheckpointError(refused)
        home = newest.replayed.home
        proof = _proven(_Proof(backend, at or "heads", "", frozenset(_named(found, "rows")), allow), runs, progress)
        text = proof.script
        extensions, roles = items.extensions(newest.database, home), items.roles(newest.database)
        progress("replaying the revisions in another schema and time zone")
        any_schema, time_zone, remarks = proof.elsewhere(newest)
        others = sorted({*_named(found, "schema"), *(table.schema for table in newest.replayed.tables if table.schema)})
        surroundings = Surroundings(
            backend.settings.x_arguments,
            backend_variables(backend.variables),
            backend.settings.env_variables,
            backend.settings.url_variables,
        )
        checkpoint = Checkpoint(
            heads=newest.replayed.heads,
            revisions=revisions,
            files=checkpoints.other_files(layout, [revision.file for revision in graph.revisions]),
            x_arguments=surroundings.x_digest,
            variables=surroundings.noted(_variables(layout, graph, backend)),
            tables=newest.replayed.tables,
            acts_as=None if newest.replayed.role == LOGIN else newest.replayed.role,
            home=home,
            any_schema=any_schema,
            time_zone=time_zone,
            schemas=tuple(name for name in others if name not in newest.replayed.schemas_before),
            schemas_before=tuple(name for name in others if name in newest.replayed.schemas_before),
            extensions=extensions,
            roles=roles,
            revokes=any(_REVOKE.search(_text(revision)) for revision in graph.revisions if revision.id in revisions),
            postgresql=tuple(sorted(versions)),
            fingerprint=newest.held.fingerprint,
            rows={table: count for table, (count, _) in newest.held.rows.items() if count},
            allowed=allow,
            script_sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
    return Made(layout.tree, checkpoint, text, tuple(found), tuple(remarks))


def _variables(layout: Layout, graph: Graph, backend: Backend) -> set[str]:
    """Return the variables that the tree may read by name, and those that differ from stage to stage."""
    files = {file for _, file in files_below(layout.tree, inside=(layout.backend, *layout.local_packages))}
    files |= {revision.file for revision in graph.revisions}
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files if file.suffix == ".py")
    found = set[str]().union(*map(variables.names_in, texts))
    return found | checkpoints.backends_own({*backend.variables, *backend.of_other_stages})


def _named(found: Iterable[Item], kind: str) -> list[str]:
    """Return the names in the items of a kind."""
    return [item.name.partition(":")[2] for item in found if item.name.startswith(f"{kind}:")]


def _tree(backend: Backend) -> tuple[Layout, Graph]:
    try:
        folder = backend.folder.resolve()
        layout = read_layout(folder, backend.settings.alembic_config.relative_to(folder).as_posix())
        if not layout.in_backend:
            raise ReviewError(
                "the tree belongs to an installed package, but a checkpoint must be in the backend's own tree"
            )
        return layout, graph_of(layout, folder)
    except PackageError as error:
        raise ReviewError(str(error)) from None


def _text(revision: GraphRevision) -> str:
    return revision.file.read_text(encoding="utf-8", errors="replace")


def _refuse_names_of_ours(graph: Graph) -> None:
    for revision in graph.revisions:
        text = _text(revision)
        if HOME in text or LOGIN in text:
            raise ReviewError(f"revision {revision.id} uses a name that checkpoints use: {HOME} or {LOGIN}")


def _revisions(graph: Graph, heads: Sequence[str]) -> dict[str, str]:
    """Return the hashes of the revisions that lead to the heads, parents first."""
    by_id = {revision.id: revision for revision in graph.revisions}
    labels = {label: revision.id for revision in graph.revisions for label in revision.branch_labels}
    needed: set[str] = set()
    left = [*heads]
    while left:
        name = left.pop()
        revision = by_id[labels.get(name, name)]
        if revision.id not in needed:
            needed.add(revision.id)
            left += [*revision.down_revisions, *revision.depends_on]
    return {revision.id: digest_of(revision.file) for revision in graph.revisions if revision.id in needed}


def _replayed(
    backend: Backend,
    databases: Databases,
    version: int,
    revision: str,
    schema: str | None = None,
    time_zone: str = "UTC",
) -> _Run:
    while True:
        database = databases.make(LOGIN, () if schema is None else (schema,), time_zone)
        try:
            replayed = replay(backend, database, revision, schema)
            break
        except ReviewError as error:
            # env.py and revisions may need roles that others create.
            missing = _MISSING_ROLE.search(str(error))
            if missing is None or missing[1] in databases.premade:
                raise
            databases.drop(database)
            databases.premake(missing[1])
    return _Run(version, databases, database, replayed, state.read(database, replayed.home, replayed.version_table))


def _items(
    runs: Sequence[_Run], again: Sequence[State], backend: Backend, revision: str, began: dt.datetime
) -> list[Item]:
    """Return the items that a checkpoint cannot contain, each once."""
    first = runs[0]
    if not first.replayed.steps:
        raise ReviewError("there is no revision to make a checkpoint of")
    for other in runs[1:]:
        if (
            differences := _schema_differences(first.held, other.held)
        ) or first.replayed.tables != other.replayed.tables:
            raise ReviewError(
                f"the revisions have different results on PostgreSQL {first.version} and {other.version}, or in each"
                f" replay: {state.shown(differences) or 'the version tables'}; to make a checkpoint for newer servers"
                f" only, pass --postgres {first.version}"
            )
    found = items.outside(first.database, first.replayed, first.databases.premade)
    found += items.of_rows([first.held, *again], first.database, first.replayed.home, began)
    return found + _of_env_py(first, backend, revision)


def _proven(proof: _Proof, runs: Sequence[_Run], progress: Callable[[str], None]) -> _Proof:
    """Return the proof with a script that was proven on each server.

    The newest server's dump is the most exact, for instance in names of NOT NULL constraints. If an older server does
    not understand it, the oldest server's dump may work on all of them.
    """
    failure: ReviewError | None = None
    for source in dict.fromkeys((0, len(runs) - 1)):
        run = runs[source]
        progress(f"writing the script from PostgreSQL {run.version}")
        text = script.dump(_ROOT, run.databases, run.database, run.replayed.home)
        for name in run.replayed.schemas_before:
            text = script.without_schema(text, name)
        _refuse_secrets(text, {**os.environ, **proof.backend.variables})
        proof = replace(proof, script=text)
        try:
            for each in runs:
                progress(f"restoring the script on PostgreSQL {each.version}")
                proof.on(each)
        except ReviewError as error:
            failure = failure or error
        else:
            return proof
    assert failure is not None  # noqa: S101 - otherwise one was returned
    raise failure


def _refuse_secrets(text: str, variables: Mapping[str, str]) -> None:
    """Raise `ReviewError` if the script, which goes into the repository, has the value of a secret variable."""
    for name, value in variables.items():
        if len(value) >= _SHORTEST_SECRET and SECRET_NAME.search(name) and value in text:
            raise ReviewError(
                f"revisions or env.py have written the value of {name} into the database; no checkpoint was written"
            )


def _lookups(graph: Graph, revisions: Iterable[str]) -> list[Item]:
    """Return the revisions that read which roles exist. With other roles, their result may differ."""
    found = []
    for revision in graph.revisions:
        if revision.id in revisions and (match := _ROLE_LOOKUP.search(_text(revision))):
            why = f"the revision reads {match[0]}, so its result may differ where other roles exist"
            found.append(Item(f"role-lookup:{revision.id}", why))
    return found


def _schema_differences(one: State, other: State) -> list[str]:
    return [each for each in one.differences(other) if not each.startswith("rows of ")]


def _of_env_py(run: _Run, backend: Backend, revision: str) -> list[Item]:
    """Return the changes that env.py itself makes in each run."""
    databases, copy = run.databases, run.databases.copy(run.database)
    try:
        replay(backend, copy, revision)
        differences = run.held.differences(state.read(copy, run.replayed.home, run.replayed.version_table))
    finally:
        databases.drop(copy)
    why = f"env.py changes something each time that it runs: {state.shown(differences)}"
    return [Item("env.py", why)] if differences else []


@dataclass(frozen=True)
class _Proof:
    """Compares the results of the script and of the revisions.

    ``revision`` is the last one to replay. The rows of the tables in ``without`` and of those that ``allow`` names may
    differ.
    """

    backend: Backend
    revision: str
    script: str
    without: frozenset[str]
    allow: tuple[str, ...]

    def on(self, run: _Run) -> None:
        """Raise `ReviewError` unless the script has the same result as the replay on this server."""
        home = run.replayed.home
        restored = run.databases.make(_RESTORER, (home, *run.replayed.schemas_before))
        script.restore(restored, self.script, run.replayed.before[0])
        held = state.read(restored, home, run.replayed.version_table)
        where = f"on PostgreSQL {run.version}, the restored database differs from the replayed one"
        differing = (table for table in run.held.differing_rows(held) if table not in self.without)
        restored_rows = [*map(_of_rows, differing)]
        if refused := [item for item in restored_rows if not item.is_named_by(self.allow)]:
            raise IncompleteCheckpointError(refused)
        if differences := run.held.differences(held, self._without(restored_rows)):
            raise ReviewError(f"{where}: {state.shown(differences)}")
        # pg_dump also writes facts that the fingerprint lacks: privileges, comments, the order of columns.
        ours, theirs = (
            same_form(script.dump(_ROOT, run.databases, each, home, rows=not self._without(restored_rows)))
            for each in (restored, run.database)
        )
        if ours != theirs:
            lines = difflib.unified_diff(theirs.splitlines(), ours.splitlines(), lineterm="", n=0)
            changed = [line for line in lines if line[:1] in "+-" and line[:3] not in {"+++", "---"}]
            raise ReviewError(f"{where}: {' | '.join(changed[:6])}")
        run.databases.drop(restored)

    def _without(self, restored_rows: Iterable[Item]) -> frozenset[str]:
        return self.without | {*_named(restored_rows, "rows")}

    def elsewhere(self, run: _Run) -> tuple[bool, str | None, list[str]]:
        """Return whether the script works in any schema, the time zone that it needs, and remarks about both."""
        home = run.replayed.home
        if self._same_in(run, _OTHER_SCHEMA, _OTHER_ZONE):
            return True, None, []
        remarks = []
        any_schema = self._same_in(run, _OTHER_SCHEMA, "UTC")
        if not any_schema:
            remarks.append(
                "the revisions or env.py name their schema: only a run in the stage's own schema uses the checkpoint."
                " A run with target.schema replays the revisions"
            )
        time_zone = None if self._same_in(run, home, _OTHER_ZONE) else "UTC"
        if time_zone is not None:
            remarks.append(
                "the result of the revisions depends on the session's time zone: only sessions in UTC use the"
                " checkpoint. Others replay the revisions"
            )
        return any_schema, time_zone, remarks

    def _same_in(self, run: _Run, schema: str, time_zone: str) -> bool:
        """Return whether script and revisions have the same result in this schema and time zone."""
        other = None if schema == run.replayed.home else schema
        run.databases.clean()
        try:
            found = _replayed(self.backend, run.databases, run.version, self.revision, other, time_zone)
        except ReviewError:
            return False
        if other is None:
            return found.replayed == run.replayed and not found.held.differences(run.held, self.without)
        if found.replayed.home != schema or len(found.replayed.tables) > 1:
            return False
        restored = run.databases.make(_RESTORER, (schema, *found.replayed.schemas_before))
        script.restore(restored, self.script, found.replayed.before[0])
        held = state.read(restored, schema, run.replayed.version_table)
        allowed = [item for item in map(_of_rows, found.held.differing_rows(held)) if item.is_named_by(self.allow)]
        return not found.held.differences(held, self._without(allowed))


def _of_rows(table: str) -> Item:
    return Item(f"rows:{table}", "the restored database has other rows, as in a materialized view that is out of date")
