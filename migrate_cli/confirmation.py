"""The confirmation before a change of a protected stage, with the facts to check."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.wording import counted
from migrate_cli import invocation, stages
from migrate_cli.errors import CommandError, UsageError, steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from migrate_cli.actions import Call
    from migrate_cli.errors import Commands
    from migrate_cli.output import Output
    from migrate_cli.stages import Function

# The actions that change a database, and what is counted of each.
_COUNTED_AS = {"upgrade": "applies", "rollout": "applies", "downgrade": "reverts", "stamp": "not run"}


def confirm(
    call: Call,
    action: str,
    output: Output,
    revision: str | None = None,
    of_targets: Mapping[str, str] | None = None,
) -> None:
    """Ask for the stage's name before a change of `prod` or another protected stage.

    ``of_targets`` are the facts of a rollout over several databases. Other actions change the call's own database.

    Raises:
        UsageError: the person entered another name, or there is no terminal.
        CommandError: the stage's function cannot be found.
    """
    if action not in _COUNTED_AS or (call.function_name is None and not stages.needs_confirmation(call.stage)):
        return
    what = "stage" if call.function_name is None else "function"
    if not sys.stdin.isatty():
        raise UsageError(
            f"{action} changes {what} {call.stage}, and there is no terminal to confirm it; nothing was invoked",
            advice=steps(("To confirm it", f"{call.commands().again()} --yes")),
        )
    output.note(f"{action} changes {what} {call.stage}:")
    for name, fact in _what_changes(call, action, revision, of_targets).items():
        output.note(f"  {name + ':':<10} {fact}")
    output.notes.print(f"Type the {what}'s name to continue: ", end="", markup=False)
    if sys.stdin.readline().strip() != call.stage:
        raise UsageError(f"that is not the {what}'s name; nothing was invoked")


def _what_changes(
    call: Call, action: str, revision: str | None, of_targets: Mapping[str, str] | None
) -> dict[str, str]:
    """Return the facts to check before a change: the account, the database, its revision, and the new one."""
    function = call.function()
    facts = {"account": function.account or stages.own_account(function), "region": str(function.session.region_name)}
    if of_targets is not None:
        return {**facts, **of_targets}
    target = call.event("status").get("target")
    try:
        status = invocation.status(function, call.commands(), target)
    except CommandError as error:
        return {**facts, "database": f"unknown: {error.kind}: {error.message}"}
    facts["database"] = status["database"] + (f", schema {status['schema']}" if status.get("schema") else "")
    facts["from"] = status["revision"] or "base"
    facts["to"] = revision or "head"
    facts[_COUNTED_AS[action]] = _number_of_revisions(function, call.commands(), action, facts["to"], status)
    return facts


def _number_of_revisions(
    function: Function, commands: Commands, action: str, wanted: str, status: Mapping[str, Any]
) -> str:
    """Return how many revisions the change applies or reverts, or a stamp does not run, in words."""
    if wanted.startswith(("+", "-")):
        return counted(int(wanted[1:]), "revision")
    if action in {"upgrade", "rollout"} and wanted in {"head", "heads"}:
        return counted(len(status["pending"]), "revision")
    if "version_tables" in status:
        return "unknown: env.py has several version tables"
    try:
        answer = invocation.history(function, commands)
    except CommandError as error:
        return f"unknown: {error.kind}: {error.message}"
    if "truncated" in answer:
        return "unknown: the tree is too long for an answer of Lambda"
    current = status["revision"].split(",") if status["revision"] else []
    revisions = affected_revisions(answer["history"], current, action, wanted)
    return "unknown: the revision is not in the package" if revisions is None else counted(len(revisions), "revision")


def affected_revisions(
    history: Sequence[Mapping[str, Any]], current: Iterable[str], action: str, wanted: str
) -> set[str] | None:
    """Return the revisions that the change applies or reverts, or that a stamp does not run.

    ``history`` is the packaged tree as the action `history` returns it, ``current`` the revisions of the database, and
    ``wanted`` the revision of the event. The result is None if one of them is not in the tree.
    """
    parents = {entry["revision"]: {*entry["down_revisions"], *entry.get("depends_on", ())} for entry in history}
    if not parents.keys() >= set(current):
        return None
    applied = _reached(parents, current)
    if wanted == "base":
        return applied
    if wanted in {"head", "heads"}:
        targets = [entry["revision"] for entry in history if entry["head"]]
    else:
        # Alembic accepts the beginning of an id.
        targets = [wanted] if wanted in parents else [revision for revision in parents if revision.startswith(wanted)]
        if len(targets) != 1:
            return None
    if action == "downgrade":
        children: dict[str, set[str]] = {revision: set() for revision in parents}
        for revision, before in parents.items():
            for parent in before:
                children[parent].add(revision)
        # As Alembic does: it begins with the next revisions, and not with those that only depend on the target.
        first = [entry["revision"] for entry in history if targets[0] in entry["down_revisions"]]
        return _reached(children, first) & applied
    packaged = _reached(parents, targets)
    return packaged ^ applied if action == "stamp" else packaged - applied


def _reached(edges: Mapping[str, Iterable[str]], begin: Iterable[str]) -> set[str]:
    """Return the revisions that are reached from some, themselves included."""
    reached: set[str] = set()
    waiting = list(begin)
    while waiting:
        revision = waiting.pop()
        if revision not in reached:
            reached.add(revision)
            waiting += edges[revision]
    return reached
