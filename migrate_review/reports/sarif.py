"""A review as SARIF 2.1.0, which code scanning takes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from migrate_review.reports.workflow import shown
from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from migrate_review.review import Review
    from migrate_review.rules.findings import Finding

_LEVELS = {"error": "error", "warning": "warning", "note": "note"}


def sarif(review: Review) -> dict[str, Any]:
    """Return one run: the rules that are broken or acknowledged, and a result for each finding."""
    acknowledged = [pair for one in review.revisions for pair in one.result.acknowledged]
    standing = [(found, None) for found in review.findings]
    every = [*standing, *acknowledged]
    rules = sorted({found.rule for found, _ in every})
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "migrate-review", "rules": [_rule(name) for name in rules]}},
                "columnKind": "unicodeCodePoints",
                "results": [_result(found, rules.index(found.rule), reason) for found, reason in every],
            }
        ],
    }


def identity(found: Finding) -> str:
    """Return a hash that stays when other lines of the file move."""
    return hashlib.sha256(f"{found.revision}\0{found.rule}\0{found.message}".encode()).hexdigest()


def _rule(name: str) -> dict[str, Any]:
    described: dict[str, Any] = {"id": name}
    if name in RULES:
        rule = RULES[name]
        described["shortDescription"] = {"text": rule.hazard}
        described["help"] = {"text": rule.fix}
        described["defaultConfiguration"] = {"level": _LEVELS[rule.severity.value]}
    return described


def _result(found: Finding, index: int, reason: str | None) -> dict[str, Any]:
    message = f"{found.message} Measured: {found.evidence}." if found.evidence else found.message
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "ruleIndex": index,
        "level": _LEVELS[found.severity.value],
        "message": {"text": f"{message}\n\nThe safer way:\n{found.fix}"},
        "partialFingerprints": {"finding/v1": identity(found)},
    }
    if found.path:
        location = {"uri": quote(shown(found.path))}
        region = {"startLine": found.line or 1}
        result["locations"] = [{"physicalLocation": {"artifactLocation": location, "region": region}}]
    if reason is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": reason}]
    return result
