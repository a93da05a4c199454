"""A review as GitLab's Code Quality report: a list of findings, each at its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from migrate_review.reports.sarif import identity
from migrate_review.reports.workflow import shown

if TYPE_CHECKING:
    from migrate_review.review import Review

_SEVERITIES = {"error": "critical", "warning": "major", "note": "info"}


def code_quality(review: Review) -> list[dict[str, Any]]:
    """Return the findings that are not acknowledged. A finding without a file has its revision as the path."""
    return [
        {
            "description": f"{found.message} Measured: {found.evidence}." if found.evidence else found.message,
            "check_name": found.rule,
            "fingerprint": identity(found),
            "severity": _SEVERITIES[found.severity.value],
            "location": {
                "path": shown(found.path) if found.path else found.revision,
                "lines": {"begin": found.line or 1},
            },
        }
        for found in review.findings
    ]
