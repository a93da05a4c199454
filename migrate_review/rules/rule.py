"""Defines a rule. Each rule is a module in the folder ``book``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from migrate_review.rules.findings import Finding
from migrate_review.rules.names import fix

if TYPE_CHECKING:
    from migrate_review.rules.findings import Severity


class Theme(str, Enum):
    """The topic of a rule, in the order of docs/review.md."""

    LOCKS = "Locks, rewrites and scans"
    COMPATIBILITY = "Compatibility with the running application"
    DOWNGRADE = "Downgrade and data"
    KEYS = "Keys, indexes, names and types"
    GRAPH = "Revision history"


@dataclass(frozen=True)
class Rule:
    """A rule, with the texts of its findings.

    ``hazard`` is the effect in production, and ``fix`` the safer way as Alembic code. A finding fills in the
    ``{names}`` in braces.

    ``bad`` is an example with a finding, and ``good`` one without: the functions of a revision, with the tables of the
    tests' corpus. ``measured`` describes the measurements of the rule.

    ``known_to_squawk`` is True if squawk has a rule of this name. Its remark is then compared with the measurements.
    """

    name: str
    severity: Severity
    theme: Theme
    hazard: str
    fix: str
    known_to_squawk: bool = False
    bad: str = ""
    good: str = ""
    measured: str = ""

    def finding(self, revision: str, evidence: str, /, **names: str) -> Finding:
        """Return a finding on a revision. ``names`` fill the placeholders in the rule's texts.

        A name ``fix`` is code that replaces the rule's own fix.
        """
        code = names.pop("fix", None)
        return Finding(
            revision=revision,
            rule=self.name,
            severity=self.severity,
            message=self.hazard.format(**names),
            evidence=evidence,
            fix=fix(self.fix, {"revision": revision, **names}) if code is None else code,
        )
