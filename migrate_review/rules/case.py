"""All that is known of a revision when it is judged."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from migrate_review.observation import Statement
from migrate_review.rules.rulebook import RULES, Theme, finding

if TYPE_CHECKING:
    from migrate_review.observation import Observation
    from migrate_review.revisions.tree import RevisionSource
    from migrate_review.rules.findings import Finding
    from migrate_review.rules.squawk import Remark

# The names that say best where in the file a finding is, the most telling first.
_TELLING = ("name", "column", "old", "new", "module", "table")


@dataclass(frozen=True)
class Case:
    """What was measured of a revision, what squawk says of the statements that were `attempted`, and its file."""

    observation: Observation
    remarks: tuple[Remark, ...]
    revision: RevisionSource

    def found(self, rule: str, evidence: str, /, **names: str) -> Finding:
        """A finding on this revision, with the line of its file that names what it is about."""
        told = finding(rule, self.revision.id, evidence, **names)
        function = "downgrade" if rule.startswith("downgrade") else "upgrade"
        if RULES[rule].theme is Theme.GRAPH:
            function = ""
        about = [names[kind] for kind in _TELLING if kind in names]
        return replace(told, path=str(self.revision.path), line=_line(self.revision.text, function, about))

    def squawk_on(self, statement: int) -> tuple[str, ...]:
        """The rules that squawk finds broken by a statement of the upgrade, by its place."""
        return tuple(dict.fromkeys(remark.rule for remark in self.remarks if remark.statement == statement))


def attempted(observation: Observation) -> tuple[Statement, ...]:
    """The statements of the upgrade, with the one that the server refused, if there is one, as the last."""
    failed = (observation.refused or observation.upgrade).failed_sql
    refused = (Statement(failed, duration_ms=0, in_transaction=True),) if failed else ()
    return (*observation.upgrade.statements, *refused)


def quoted(columns: tuple[str, ...]) -> str:
    """Column names as in a list of Python's."""
    return ", ".join(f'"{column}"' for column in columns)


def short(sql: str, most: int = 120) -> str:
    """A statement on one line, cut where it gets long."""
    line = " ".join(sql.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _line(text: str, function: str, about: list[str]) -> int:
    """The first line, from 1, after a function's own that holds one of the names; else the function's, or the first."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if re.match(rf"def {function}\b", line)), 0)
    for name in about:
        for place in range(start if function else 0, len(lines)):
            if re.search(rf"(?<!\w){re.escape(name.rpartition('.')[2])}(?!\w)", lines[place]):
                return place + 1
    return start + 1
