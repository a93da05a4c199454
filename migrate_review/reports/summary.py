"""Sums up measurements and findings in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_migrate.database.lock_modes import blocks, shown_mode, strongest
from lambda_migrate.invocation.wording import counted

if TYPE_CHECKING:
    from migrate_review.observation import Observation
    from migrate_review.review import Review
    from migrate_review.rules.findings import Finding

MARKS = {"error": "✗", "warning": "!", "note": "·"}


def durations(observation: Observation) -> str:
    """Return the time of each direction, as ``up 12 ms, down 3 ms``."""
    if observation.upgrade.rendered:
        return "not run"
    executions = {"up": observation.upgrade, "down": observation.downgrade, "again": observation.upgrade_again}
    parts = []
    for name, direction in executions.items():
        if direction is None:
            continue
        total = sum(statement.duration_ms for statement in direction.statements)
        parts.append(f"{name} failed" if direction.failure else f"{name} {total:.0f} ms")
    return ", ".join(parts)


def filled(observation: Observation) -> str:
    """Return the number of rows and tables."""
    tables = [count for count in observation.rows.values() if count]
    if not tables:
        return "no rows yet"
    shown = f"{counted(sum(tables), 'row')} in {counted(len(tables), 'table')}"
    return f"{shown}, {len(observation.unfilled)} left empty" if observation.unfilled else shown


def locks(observation: Observation) -> tuple[str, ...]:
    """Return the strongest lock of the upgrade on each table that blocks anything, and what it blocks."""
    taken: dict[str, set[str]] = {}
    for statement in observation.upgrade.statements:
        for lock in statement.locks:
            taken.setdefault(lock.table, set()).add(lock.mode)
    return tuple(
        f"{shown_mode(strongest(modes))} on {table} blocks {blocked}"
        for table, modes in sorted(taken.items())
        if (blocked := blocks(modes)) is not None
    )


def outcome(review: Review) -> str:
    """Return the outcome of a review in one line."""
    counts = {kind: sum(found.severity.value == kind for found in review.findings) for kind in MARKS}
    parts = [counted(count, kind) for kind, count in counts.items() if count]
    acknowledged = sum(len(one.result.acknowledged) for one in review.revisions)
    if acknowledged:
        parts.append(f"{acknowledged} acknowledged")
    findings = ", ".join(parts) or "no findings"
    reviewed = f"{counted(len(review.revisions), 'revision')} reviewed in {review.duration_s:.1f} s"
    return f"{reviewed}{'' if review.finished else ', then interrupted'}: {findings}"


def verdict(review: Review) -> str:
    """Return in one line whether the review passed, and why not."""
    errors = [found for found in review.findings if found.severity.value == "error"]
    unmeasured = [one for one in review.revisions if one.unmeasured]
    reviewed = counted(len(review.revisions), "revision")
    if not review.finished:
        return f"Not finished: the review was interrupted after {reviewed}"
    if not errors:
        warned = sum(found.severity.value == "warning" for found in review.findings)
        return f"Passed: {reviewed}" + (f", {counted(warned, 'warning')} to look at" if warned else "")
    of = len({found.revision for found in errors})
    not_measured = f", and {counted(len(unmeasured), 'revision')} not measured" if unmeasured else ""
    failed = f"{counted(len(errors), 'error')} in {counted(of, 'revision')}"
    return f"Failed: {failed}, {len(review.revisions)} reviewed{not_measured}"


def to_do(review: Review) -> tuple[str, ...]:
    """Return the fixes that the review needs to pass: a line for each error, by revision, and the next command."""
    errors = [found for found in review.findings if found.severity.value == "error"]
    if not errors:
        return ()
    lines = [f"{found.revision}: {found.rule}: {found.message}" for found in errors]
    rules = tuple(dict.fromkeys(found.rule for found in errors))
    how = f"Correct the revision, or acknowledge a finding in it: # -- reviewed: {rules[0]} <reason>"
    return (*lines, f"{how}. What a rule means: migrate review --explain {rules[0]}")


def heading(found: Finding) -> str:
    """Return a finding's rule with its severity."""
    return f"{found.severity.value}: {found.rule}"
