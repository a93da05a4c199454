"""What the pending revisions will meet in this database, from what the reviewer recorded of them.

A revision that nobody recorded has no preflight. A tree without records costs nothing.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg2.errors

from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.preflight import Questions, preflight_of
from lambda_migrate.database.session import versions
from lambda_migrate.invocation.errors import ConfigurationError, DatabaseUnavailable, PreflightFailed
from lambda_migrate.invocation.request import Request
from lambda_migrate.invocation.telemetry import log
from lambda_migrate.revisions import manifest, reviewed
from lambda_migrate.run import start

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.revisions.manifest import PackagedRevision

_PUBLIC = "public"
# Alembic takes the beginning of an id for the id from so many characters on.
_SHORTEST_ID = 4


def of_plan(invocation: Invocation, plan: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of a plan, each with ``preflight``, None for a revision that was not recorded."""
    entries = [dict(entry) for entry in plan]
    found: dict[str, dict[str, Any]] = {}
    if entries and invocation.settings.preflight != "off" and (recorded := _recorded(invocation)):
        found = _look(invocation, recorded, [str(entry["revision"]) for entry in entries])
    return [{**entry, "preflight": found.get(str(entry["revision"]))} for entry in entries]


def before_upgrade(invocation: Invocation) -> None:
    """Log what each pending revision will meet, and refuse to begin if that is asked for.

    Raises:
        PreflightFailed: the setting is ``enforce``, and a revision would fail or block for too long. Nothing was run.
    """
    mode = invocation.request.preflight or invocation.settings.preflight
    recorded = _recorded(invocation) if mode != "off" else {}
    if not recorded:
        return
    try:
        looked = _look(invocation, recorded, _pending(invocation))
    except DatabaseUnavailable as error:
        if mode == "enforce":
            raise
        # A look must not keep a migration from running, which connects anew.
        log("preflight.finished", f"no answer: {error}", level=logging.WARNING, verdict="unknown")
        return
    for revision, found in looked.items():
        verdict = found["verdict"]
        log(
            "preflight.finished",
            _summary(revision, found),
            level=logging.INFO if verdict == "ok" else logging.WARNING,
            schema=invocation.schema,
            revision=revision,
            verdict=verdict,
        )
        if mode == "enforce" and verdict in {"fails", "slow"} and not _is_acknowledged(invocation, revision):
            raise PreflightFailed(
                f"revision {revision} was not begun, and neither was any other: {_reason(invocation, found)}; correct"
                " that, or acknowledge the finding in the revision, or go on with preflight warn",
                revision=revision,
                verdict=verdict,
            )


def _recorded(invocation: Invocation) -> Mapping[str, Mapping[str, Any]]:
    tree = manifest.tree_of(invocation.settings)
    return reviewed.measured(tree) if tree is not None else {}


def _look(
    invocation: Invocation, recorded: Mapping[str, Mapping[str, Any]], revisions: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return the preflight of each revision that was recorded, in the order in which they would run."""
    found: dict[str, dict[str, Any]] = {}
    touched: set[str] = set()
    changed: set[str] = set()
    settings = invocation.settings
    with closing(open_session(invocation)) as session:
        schema = invocation.schema or session.default_schema or _PUBLIC
        questions = Questions(session, schema, settings.preflight_timeout_ms)
        for revision in revisions:
            facts = recorded.get(revision)
            if facts is None:
                continue
            found[revision] = preflight_of(questions, facts, touched, changed, settings.preflight_max_block_s)
            touched |= {table["table"] for table in facts["tables"]}
            changed |= set(facts.get("changes", ()))
    return found


def _pending(invocation: Invocation) -> list[str]:
    """Return the ids of the revisions that the request would run, in their order."""
    ids = _pending_in_graph(invocation)
    if ids is None:
        # Only env.py knows its version table.
        look = replace(invocation, request=Request(action="status", target=invocation.request.target))
        ids = [revision.revision for revision in start.inspect(look).pending]
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


def _pending_in_graph(invocation: Invocation) -> list[str] | None:
    """Return what is pending by the version table and the packaged graph, None if that does not suffice."""
    packaged = manifest.for_settings(invocation.settings)
    if packaged is None or packaged.version_table is None or invocation.schema or invocation.settings.x_arguments:
        return None
    with closing(open_session(invocation)) as session:
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
    done = _with_those_before(heads, graph)
    wanted = _whole(invocation.request.revision, graph)
    needed = _with_those_before([wanted], graph) if wanted in graph else graph.keys()
    return [revision for revision in graph if revision in needed and revision not in done]


def _with_those_before(ends: Iterable[str], graph: Mapping[str, PackagedRevision]) -> set[str]:
    """Return these revisions and all that they build on."""
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        revision = waiting.pop()
        if revision not in found and revision in graph:
            found.add(revision)
            waiting += [*graph[revision].down_revisions, *graph[revision].depends_on]
    return found


def _is_acknowledged(invocation: Invocation, revision: str) -> bool:
    """Return whether the revision's author has acknowledged every error that the reviewer found in it."""
    tree = manifest.tree_of(invocation.settings)
    findings = reviewed.findings(tree).get(revision, []) if tree is not None else []
    errors = [found for found in findings if found["severity"] != "note"]
    return bool(errors) and all(found.get("reason") for found in errors)


def _summary(revision: str, found: Mapping[str, Any]) -> str:
    failed = [check for check in found["checks"] if check["result"] == "failed"]
    slow = [table for table in found["tables"] if table["blocks"] != "nothing" and table["estimated_ms"]]
    parts = [f"{revision}: {found['verdict']}"]
    parts += [f"{_count(check)} rows of {check['table']} are against its {check['check']}" for check in failed]
    parts += [f"{table['blocks']} of {table['table']} wait for about {table['estimated_ms']:,} ms" for table in slow]
    parts += [f"pid {each['pid']} ({each['application_name']}) has {each['table']}" for each in found["blockers"][:3]]
    return "; ".join(parts)


def _reason(invocation: Invocation, found: Mapping[str, Any]) -> str:
    for check in found["checks"]:
        if check["result"] == "failed":
            columns = ", ".join(check["columns"])
            rows = f"{_count(check)} rows are against its {check['check']}"
            return f"{rows} on {check['table']} ({columns}): {check['query']}"
    longest = max(found["tables"], key=lambda table: table["estimated_ms"] or 0)
    limit = invocation.settings.preflight_max_block_s
    return (
        f"it would block {longest['blocks']} of {longest['table']} for about {longest['estimated_ms'] / 1000:.1f} s,"
        f" longer than PREFLIGHT_MAX_BLOCK_S allows ({limit:g} s)"
    )


def _count(check: Mapping[str, Any]) -> str:
    return f"{check['violations']:,}" if check["violations"] < 1000 else "1,000 or more"  # noqa: PLR2004 - as counted
