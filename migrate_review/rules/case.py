"""A case: a revision with all that the rules look at."""

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
    """A revision's measurements, squawk's remarks on the statements that were `attempted`, and its source."""

    observation: Observation
    remarks: tuple[Remark, ...]
    revision: RevisionSource

    def found(self, rule: str, evidence: str, /, **names: str) -> Finding:
        """Return a finding on this revision, with the line of its file that names what it is about."""
        bare = finding(rule, self.revision.id, evidence, **names)
        function = "downgrade" if rule.startswith("downgrade") else "upgrade"
        if RULES[rule].theme is Theme.GRAPH:
            function = ""
        about = [names[kind] for kind in _TELLING if kind in names]
        return replace(bare, path=str(self.revision.path), line=_line(self.revision.text, function, about))

    def squawk_on(self, statement: int) -> tuple[str, ...]:
        """Return the rules that squawk finds broken by the upgrade's statement at this place."""
        return tuple(dict.fromkeys(remark.rule for remark in self.remarks if remark.statement == statement))


def attempted(observation: Observation) -> tuple[Statement, ...]:
    """Return the upgrade's statements. If the server refused one, it is the last."""
    failed = (observation.refused or observation.upgrade).failed_sql
    refused = (Statement(failed, duration_ms=0, in_transaction=True),) if failed else ()
    return (*observation.upgrade.statements, *refused)


def quoted(columns: tuple[str, ...]) -> str:
    """Return column names as in a Python list."""
    return ", ".join(f'"{column}"' for column in columns)


def short(sql: str, most: int = 120) -> str:
    """Return a statement on one line, cut after ``most`` characters."""
    line = " ".join(sql.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _line(text: str, function: str, about: list[str]) -> int:
    """Return the first line, from 1, of a function that holds one of the names; else the function's first line."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if re.match(rf"def {function}\b", line)), 0)
    for name in about:
        for place in range(start if function else 0, len(lines)):
            if re.search(rf"(?<!\w){re.escape(name.rpartition('.')[2])}(?!\w)", lines[place]):
                return place + 1
    return start + 1
