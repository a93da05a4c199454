"""A case: a revision with the inputs of all rules."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from migrate_review.observation import Statement
from migrate_review.rules.findings import Severity
from migrate_review.rules.names import listed
from migrate_review.rules.rule import Theme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from migrate_review.observation import Catalog, Execution, Observation
    from migrate_review.revisions.tree import RevisionSource
    from migrate_review.rules.findings import Finding
    from migrate_review.rules.rule import Rule
    from migrate_review.rules.squawk import Remark

# The names that locate a finding in the file, the most exact one first.
_LOCATING = ("name", "column", "old", "new", "module", "table")
_LONGEST_SHOWN = 120


@dataclass(frozen=True)
class Run:
    """One direction of a revision: its statements, squawk's remarks on them, and the schema before and after them.

    ``function`` is "upgrade" or "downgrade". Without ``after``, the schema after it is not known.
    """

    function: str
    statements: Execution
    remarks: tuple[Remark, ...]
    before: Catalog
    after: Catalog | None

    def squawk_on(self, statement: int) -> tuple[str, ...]:
        """Return the rules that squawk finds broken by the statement at this place."""
        return tuple(dict.fromkeys(remark.rule for remark in self.remarks if remark.statement == statement))


@dataclass(frozen=True)
class Case:
    """A revision's measurements, squawk's remarks on the statements that were `attempted`, and its source.

    ``downgrade_remarks`` are squawk's remarks on the statements of the downgrade.
    """

    observation: Observation
    remarks: tuple[Remark, ...]
    revision: RevisionSource
    downgrade_remarks: tuple[Remark, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """The upgrade, and the downgrade if it was reached."""
        seen = self.observation
        up = Run("upgrade", seen.upgrade, self.remarks, seen.before, seen.after)
        if seen.downgrade is None or seen.after is None:
            return (up,)
        return (up, Run("downgrade", seen.downgrade, self.downgrade_remarks, seen.after, seen.restored))

    def found_in(self, run: Run, rule: Rule, evidence: str, /, **names: str) -> Finding:
        """Return a finding on a statement of one direction."""
        if run.function == "upgrade":
            return self.found(rule, evidence, **names)
        bare = rule.finding(self.revision.id, evidence, **names)
        about = [names[kind] for kind in _LOCATING if kind in names]
        line = _line(self.revision.text, run.function, about)
        # A downgrade runs only on request.
        severity = Severity.WARNING if bare.severity is Severity.ERROR else bare.severity
        message = f"In downgrade(): {bare.message}"
        return replace(bare, severity=severity, message=message, path=str(self.revision.path), line=line)

    def found(self, rule: Rule, evidence: str, /, **names: str) -> Finding:
        """Return a finding on this revision, with the line of its file that contains its object."""
        bare = rule.finding(self.revision.id, evidence, **names)
        function = "downgrade" if rule.name.startswith("downgrade") else "upgrade"
        if rule.theme is Theme.GRAPH:
            function = ""
        about = [names[kind] for kind in _LOCATING if kind in names]
        return replace(bare, path=str(self.revision.path), line=_line(self.revision.text, function, about))

    def squawk_on(self, statement: int) -> tuple[str, ...]:
        """Return the rules that squawk finds broken by the upgrade's statement at this place."""
        return self.runs[0].squawk_on(statement)


def attempted(observation: Observation) -> tuple[Statement, ...]:
    """Return the upgrade's statements. If the server refused one, it is the last."""
    failed = (observation.refused or observation.upgrade).failed_sql
    refused = (Statement(failed, duration_ms=0, in_transaction=True),) if failed else ()
    return (*observation.upgrade.statements, *refused)


def scripts(observations: Mapping[str, Observation]) -> dict[tuple[str, str], Sequence[Statement]]:
    """Return the statements for squawk to read, by revision and direction."""
    found: dict[tuple[str, str], Sequence[Statement]] = {}
    for revision, seen in observations.items():
        found[revision, "upgrade"] = attempted(seen)
        found[revision, "downgrade"] = seen.downgrade.statements if seen.downgrade is not None else ()
    return found


def quoted(columns: tuple[str, ...]) -> str:
    """Return column names as in a Python list."""
    return listed(columns)


def short(sql: str) -> str:
    """Return a statement on one line, cut if it is long."""
    line = " ".join(sql.split())
    return line if len(line) <= _LONGEST_SHOWN else line[: _LONGEST_SHOWN - 1] + "…"


def _line(text: str, function: str, about: list[str]) -> int:
    """Return the first line, from 1, of a function with one of the names, or else the function's first line."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if re.match(rf"def {function}\b", line)), 0)
    for name in about:
        for place in range(start if function else 0, len(lines)):
            if re.search(rf"(?<!\w){re.escape(name.rpartition('.')[2])}(?!\w)", lines[place]):
                return place + 1
    return start + 1
