"""Returns the pending revisions that require a snapshot. The state machine sends this action before it makes one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.actions.answers import limited
from lambda_migrate.invocation.request import Request
from lambda_migrate.invocation.result import Result
from lambda_migrate.revisions import manifest, reviewed
from lambda_migrate.run import start

if TYPE_CHECKING:
    from lambda_migrate.invocation.invocation import Invocation

_SERIOUS = frozenset({"error", "warning"})
# Step Functions hands 256 KB from state to state.
_LARGEST_BYTES = 100_000


def dangers(invocation: Invocation) -> Result:
    """Return the pending revisions that have a finding, acknowledged or not, or that were not reviewed."""
    state = start.inspect(replace(invocation, request=Request(action="status")))
    tree = manifest.tree_of(invocation.settings)
    findings = reviewed.findings(tree) if tree is not None else {}
    found: list[dict[str, Any]] = []
    for revision in state.pending:
        known = findings.get(revision.revision)
        rules = sorted({str(each["rule"]) for each in known or () if each.get("severity") in _SERIOUS})
        if known is None or rules:
            found.append({"revision": revision.revision, "reviewed": known is not None, "rules": rules})
    extra = {"dangerous": bool(found), **limited("dangers", found, _LARGEST_BYTES)}
    return Result("dangers", invocation.settings.stage, located=False, state=replace(state, pending=()), extra=extra)
