"""Runs the preflight of the pending revisions in this database, from the reviewer's records.

A revision without a record has no preflight. A tree without records costs nothing.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg2.errors

from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.preflight_queries import PreflightQueries
from lambda_migrate.database.version_table import versions
from lambda_migrate.invocation.errors import ConfigurationError, DatabaseUnavailable, PreflightFailed
from lambda_migrate.invocation.result import joined, some
from lambda_migrate.invocation.telemetry import log
from lambda_migrate.invocation.wording import counted
from lambda_migrate.revisions import manifest, reviewed
from lambda_migrate.run import drift
from lambda_migrate.run.revision_preflight import preflight_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Began
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import RunState
    from lambda_migrate.run.revision_preflight import Preflight

_PUBLIC = "public"
# Alembic takes the beginning of an id for the id from so many characters on.
_SHORTEST_ID = 4
_MB = 1 << 20
# Enough for a message.
_DIFFERENCES = 20
# The queries take at most this share of the time that is left, for all schemas together. The rest is for the migration.
_SHARE = 0.25


@dataclass(frozen=True)
class Pending:
    """Revisions that would run, in their order, on the tables of a schema. None is the session's default.

    ``heads`` are those that the version table holds now, ``version_table`` is its name.
    """

    schema: str | None
    revisions: tuple[str, ...]
    heads: tuple[str, ...] = ()
    version_table: str | None = None


def of_plan(invocation: Invocation, plan: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the entries of a plan with ``preflight``, None for a revision that was not recorded, and the hold-ups."""
    entries = [dict(entry) for entry in plan]
    recorded = _recorded(invocation) if entries and invocation.settings.preflight != "off" else {}
    if not recorded:
        return [{**entry, "preflight": None} for entry in entries], []
    schemas = dict.fromkeys(entry.get("schema") for entry in entries)
    pending = [
        Pending(schema, tuple(str(each["revision"]) for each in entries if each.get("schema") == schema))
        for schema in schemas
    ]
    with closing(open_session(invocation)) as session:
        checks = _SessionChecks(invocation, session, recorded, invocation.settings.preflight)
        found = {(schema, revision): each.entry() for schema, revision, each in checks.at(pending)}
        holdups = checks.holdups()
    return [
        {**entry, "preflight": found.get((entry.get("schema"), str(entry["revision"])))} for entry in entries
    ], holdups


def of_pending(invocation: Invocation, state: RunState) -> list[tuple[str, dict[str, Any]]]:
    """Return the preflight of each pending revision that was recorded, after a look at the database."""
    settings = invocation.settings
    recorded = _recorded(invocation) if state.pending and settings.preflight != "off" else {}
    if not recorded:
        return []
    tables = dict.fromkeys(revision.table for revision in state.pending)
    with closing(open_session(invocation)) as session:
        pending = []
        for table in tables:
            is_default = table is None or table.schema in {session.default_schema, invocation.schema}
            ids = tuple(each.revision for each in state.pending if each.table == table)
            pending.append(Pending(None if is_default or table is None else table.schema, ids))
        checks = _SessionChecks(invocation, session, recorded, settings.preflight)
        return [(revision, found.entry()) for _, revision, found in checks.at(pending)]


def before_upgrade(
    invocation: Invocation, session: Session, look: Callable[[], Iterable[Began]]
) -> dict[tuple[str | None, str], int]:
    """Log the preflight of each pending revision, and refuse to begin if the setting requires it.

    ``look`` runs env.py to find its version tables. It is needed only if the package does not show the table.

    Returns:
        The expected time of each revision, in milliseconds, by schema and revision.

    Raises:
        PreflightFailed: the setting is ``enforce``, and a revision would fail or block for too long. Nothing was run.
    """
    mode = invocation.request.preflight or invocation.settings.preflight
    recorded = _recorded(invocation) if mode != "off" else {}
    if not recorded:
        return {}
    try:
        checks = _SessionChecks(invocation, session, recorded, mode)
        pending = _pending(invocation, session, look)
        if mode == "enforce":
            _refuse_drift(invocation, session, pending, recorded)
        found = checks.at(pending)
        holdups = checks.holdups() if found else []
    except DatabaseUnavailable as error:
        if mode == "enforce":
            raise
        # A failed look must not stop a migration, which connects again.
        log("preflight.finished", f"no answer: {error}", level=logging.WARNING, verdict="unknown")
        return {}
    for holdup in holdups:
        log("preflight.finished", holdup["message"], level=logging.WARNING, schema=invocation.schema)
    for schema, revision, each in found:
        _log(invocation, schema, revision, each)
    if mode == "enforce":
        for _, revision, each in found:
            _refuse(invocation, revision, each)
    return {(schema, revision): each.estimated_ms[1] for schema, revision, each in found if each.estimated_ms}


def _log(invocation: Invocation, schema: str | None, revision: str, found: Preflight) -> None:
    problems = found.problems
    is_fine = found.verdict == "ok" or (bool(problems) and set(problems) <= found.acknowledged.keys())
    log(
        "preflight.finished",
        _summary(revision, found),
        level=logging.INFO if is_fine else logging.WARNING,
        schema=invocation.schema or schema,
        revision=revision,
        verdict=found.verdict,
        estimated_ms=found.estimated_ms[1] if found.estimated_ms else None,
    )


def _refuse(invocation: Invocation, revision: str, found: Preflight) -> None:
    """Raise if a revision has a problem that its author did not acknowledge."""
    problems = [each for each in found.problems if each not in found.acknowledged]
    if problems:
        raise PreflightFailed(
            f"no revision was started, because of revision {revision}: {_reason(invocation, found, problems[0])};"
            " correct that, or acknowledge the finding in the revision, or continue with preflight warn",
            revision=revision,
            verdict=problems[0],
        )


def _refuse_drift(
    invocation: Invocation,
    session: Session,
    pending: Sequence[Pending],
    recorded: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raise an error if the database differs from the tree. With several version tables, that is unknown.

    Differences in objects of the first pending revision do not count: it may have been interrupted, and must continue.
    """
    if len(pending) != 1 or not pending[0].revisions or pending[0].version_table is None or pending[0].schema:
        return
    heads = pending[0].heads
    changed = recorded.get(pending[0].revisions[0], {}).get("schema", {}).get("changed", {})
    found = drift.at(invocation, session, heads, pending[0].version_table).apart_from(changed)
    if found.schema == "different":
        raise PreflightFailed(
            f"no revision was started: the database differs from the tree at {joined(heads) or 'base'}:"
            f" {some(found.differences, _DIFFERENCES)}; correct the database, or continue with preflight warn",
            revision=pending[0].revisions[0],
            verdict="fails",
            differences=list(found.differences),
        )


def _recorded(invocation: Invocation) -> Mapping[str, Mapping[str, Any]]:
    tree = manifest.tree_of(invocation.settings)
    return reviewed.measured(tree) if tree is not None else {}


class _SessionChecks:
    """Checks pending revisions on one session. ``mode`` decides whether large tables are sampled."""

    def __init__(
        self, invocation: Invocation, session: Session, recorded: Mapping[str, Mapping[str, Any]], mode: str
    ) -> None:
        self._invocation = invocation
        self._session = session
        self._recorded = recorded
        self._most = None if mode == "enforce" else invocation.settings.preflight_max_scan_mb * _MB
        self._locked: dict[str, None] = {}
        self._queries: PreflightQueries | None = None

    def at(self, pending: Iterable[Pending]) -> list[tuple[str | None, str, Preflight]]:
        """Return the preflight of each revision that was recorded, with its schema."""
        settings = self._invocation.settings
        tree = manifest.tree_of(settings)
        acknowledged = reviewed.acknowledged(tree) if tree is not None else {}
        deadline = self._session.deadline.until(self._session.deadline.left() * _SHARE)
        found = []
        for each in pending:
            schema = each.schema or self._invocation.schema or self._session.default_schema or _PUBLIC
            self._queries = PreflightQueries(self._session, schema, settings.preflight_timeout_ms, self._most, deadline)
            earlier: list[Mapping[str, Any] | None] = []
            for revision in each.revisions:
                facts = self._recorded.get(revision)
                if facts is not None:
                    self._locked |= dict.fromkeys(table["table"] for table in facts["tables"])
                    rules = acknowledged.get(revision, {})
                    result = preflight_of(self._queries, facts, earlier, settings.preflight_max_block_s, rules)
                    found.append((each.schema, revision, result))
                earlier.append(facts)
        return found

    def holdups(self) -> list[dict[str, Any]]:
        """Return what delays any run on the server."""
        return self._queries.holdups(self._locked) if self._queries is not None else []


def _pending(invocation: Invocation, session: Session, look: Callable[[], Iterable[Began]]) -> list[Pending]:
    """Return the revisions that the request would run."""
    known = _pending_in_graph(invocation, session)
    if known is not None:
        return [replace(known, revisions=tuple(_wanted(invocation, known.revisions)))]
    # Only env.py knows its version table.
    found = []
    for began in look():
        is_default = began.table.schema in {session.default_schema, invocation.schema}
        ids = tuple(_wanted(invocation, tuple(each.revision for each in began.pending)))
        found.append(Pending(None if is_default else began.table.schema, ids, began.heads, began.table.name))
    return found


def _wanted(invocation: Invocation, ids: Sequence[str]) -> Sequence[str]:
    wanted = _whole(invocation.request.revision, ids)
    if wanted.startswith("+"):
        return ids[: int(wanted[1:])]
    if wanted in ids:
        return ids[: ids.index(wanted) + 1]
    return ids


def _whole(wanted: str, ids: Collection[str]) -> str:
    """Return the id that an abbreviated one means, as Alembic takes it, or the text as it is."""
    meant = [each for each in ids if each.startswith(wanted)]
    is_short = wanted not in ids and len(wanted) >= _SHORTEST_ID and len(meant) == 1
    return meant[0] if is_short else wanted


def _pending_in_graph(invocation: Invocation, session: Session) -> Pending | None:
    """Return the pending revisions by the version table and the packaged graph, or None if that is not enough."""
    packaged = manifest.for_settings(invocation.settings)
    if packaged is None or packaged.version_table is None or invocation.schema or invocation.settings.x_arguments:
        return None
    schemas = session.rows(
        "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = %s AND c.relkind IN ('r', 'p')",
        (packaged.version_table,),
    )
    if len(schemas) > 1:
        return None
    try:
        heads = versions(session, schemas[0][0], packaged.version_table, None) if schemas else ()
    except (psycopg2.errors.InsufficientPrivilege, ConfigurationError):
        # The role that env.py sets may read it, or it is another table of that name.
        return None
    graph = manifest.read_graph(invocation.settings.package_root, packaged)
    if any(head not in graph for head in heads):
        return None
    done = manifest.with_ancestors(heads, graph)
    wanted = _whole(invocation.request.revision, graph)
    needed = manifest.with_ancestors([wanted], graph) if wanted in graph else graph.keys()
    pending = tuple(revision for revision in graph if revision in needed and revision not in done)
    return Pending(None, pending, heads, packaged.version_table)


def _summary(revision: str, found: Preflight) -> str:
    blocked = [table for table in found.tables if table["blocks"] != "nothing" and table["estimated_ms"]]
    parts = [f"{revision}: {found.verdict}"]
    parts += [f"{_violations(check)} on {check['table']}" for check in found.failed_checks]
    parts += [f"{table['blocks']} of {table['table']} wait for about {table['estimated_ms']:,} ms" for table in blocked]
    parts += [
        f"{check['check']} of {check['table']} was checked in {check['sampled']:.1%} of the rows"
        for check in found.checks
        if "sampled" in check
    ]
    parts += [f"it changes rows of {name}, and no check shows whether they allow it" for name in found.unchecked]
    parts += [
        f"{each['kind']} {each['pid'] or ''} ({each['application_name']}) blocks {each['table']}"
        for each in found.blockers[:3]
    ]
    parts += [f"acknowledged: {reason}" for reason in dict.fromkeys(found.acknowledged.values())]
    return "; ".join(parts)


def _reason(invocation: Invocation, found: Preflight, problem: str) -> str:
    if problem == "fails":
        [check, *_] = found.failed_checks
        columns = ", ".join(check["columns"])
        return f"{_violations(check)} on {check['table']} ({columns}): {check['query']}"
    longest = found.longest_block
    assert longest is not None  # noqa: S101 - that is the problem
    limit = invocation.settings.preflight_max_block_s
    return (
        f"it would block {longest['blocks']} of {longest['table']} for about {longest['estimated_ms'] / 1000:.1f} s,"
        f" longer than PREFLIGHT_MAX_BLOCK_S allows ({limit:g} s)"
    )


def _violations(check: Mapping[str, Any]) -> str:
    number = check["violations"]
    rows = counted(number, "row") if number < 1000 else "1,000 or more rows"  # noqa: PLR2004 - counted up to it
    return f"{rows} {'violates' if number == 1 else 'violate'} its {check['check']}"
