"""Reads acknowledgements in a revision: ``-- reviewed: <rule> <reason>``, in a comment or in its SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate_review.rules.rulebook import RULES, finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from migrate_review.revisions.tree import RevisionSource
    from migrate_review.rules.findings import Finding

_REMARK = re.compile(r"(?P<mark>#|--)\s*(?:--\s*)?reviewed:\s*(?P<rule>[a-z][a-z-]*)(?P<reason>.*)")
_CONTINUED = re.compile(r"\s*#\s{2,}(?P<more>\S.*)")

# Problems of the history or of the acknowledgement itself cannot be acknowledged in the revision.
NEVER = frozenset(
    {"does-not-load", "several-heads", "parent-missing", "acknowledgement-without-reason", "unused-acknowledgement"}
)


@dataclass(frozen=True)
class Acknowledgement:
    """One remark, with the line that it begins in. Without a reason it does not count."""

    rule: str
    reason: str
    line: int


@dataclass(frozen=True)
class Sorted:
    """Findings that are not acknowledged, and those that are, each with the reason."""

    standing: tuple[Finding, ...]
    acknowledged: tuple[tuple[Finding, str], ...]


def acknowledgements(text: str) -> tuple[Acknowledgement, ...]:
    """Return the acknowledgements in a revision's text. Indented comment lines continue a reason."""
    lines = text.splitlines()
    found = []
    for position, line in enumerate(lines):
        remark = _REMARK.search(line)
        if remark is None:
            continue
        reason = [remark["reason"].strip(" :-\"'")]
        for following in lines[position + 1 :]:
            continued = _CONTINUED.fullmatch(following)
            if continued is None or "reviewed:" in following or remark["mark"] != "#":
                break
            reason.append(continued["more"].strip())
        found.append(Acknowledgement(remark["rule"], " ".join(filter(None, reason)), position + 1))
    return tuple(found)


def sort_out(revision: RevisionSource, findings: Iterable[Finding], *, complete: bool = True) -> Sorted:
    """Return the findings, separated into acknowledged and other ones, with findings on the acknowledgements.

    Without ``complete``, not every rule was checked, so an acknowledgement without a finding is not reported.
    """
    remarks = acknowledgements(revision.text)
    reasons = {remark.rule: remark.reason for remark in remarks if remark.reason and remark.rule not in NEVER}
    several = tuple(findings)
    standing = [found for found in several if found.rule not in reasons]
    rules = {found.rule for found in several}
    for remark in remarks:
        evidence = f"{revision.path.name}, line {remark.line}"
        if not remark.reason:
            standing.append(finding("acknowledgement-without-reason", revision.id, evidence, rule=remark.rule))
        elif remark.rule not in RULES or (complete and remark.rule not in rules | _OF_HISTORY):
            standing.append(finding("unused-acknowledgement", revision.id, evidence, rule=remark.rule))
    acknowledged = tuple((found, reasons[found.rule]) for found in several if found.rule in reasons)
    return Sorted(tuple(standing), acknowledged)


# Rules that are checked only with --since, for the head, or with reviewed.json.
_OF_HISTORY = frozenset(
    {"parent-not-head", "edited-after-release", "deleted-after-release", "edited-after-review", "models-differ"}
)
