"""A review as the document that ``--json`` prints; docs/contract.md names its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from migrate_review.reports import summary

if TYPE_CHECKING:
    from migrate_review.review import Review, Reviewed
    from migrate_review.rules.findings import Finding


def document(review: Review) -> dict[str, Any]:
    """Return the verdict, all revisions with their measurements, and the findings that are not acknowledged."""
    return {
        "passed": review.passed,
        "finished": review.finished,
        "revisions": [_revision(one) for one in review.revisions],
        "findings": [_finding(found) for found in review.findings],
    }


def _revision(one: Reviewed) -> dict[str, Any]:
    seen = one.observation
    return {
        "revision": one.revision.id,
        "description": one.revision.description,
        "locks": list(summary.locks(seen)) if seen else [],
        "rewritten": _tables(one, "rewritten"),
        "scanned": _tables(one, "scanned"),
        "rows": dict(seen.rows) if seen else {},
        "unfilled": dict(seen.unfilled) if seen else {},
        "duration_ms": round(sum(statement.duration_ms for statement in seen.upgrade.statements), 1) if seen else None,
        "unmeasured": list(seen.unmeasured) if seen else ["Alembic cannot load the tree"],
        "acknowledged": [{**_finding(found), "reason": reason} for found, reason in one.result.acknowledged],
    }


def _tables(one: Reviewed, what: str) -> list[str]:
    statements = one.observation.upgrade.statements if one.observation else ()
    return sorted({table for statement in statements for table in getattr(statement, what)})


def _finding(found: Finding) -> dict[str, str]:
    return {
        "revision": found.revision,
        "rule": found.rule,
        "severity": found.severity.value,
        "message": found.message,
        "evidence": found.evidence,
        "fix": found.fix,
    }
