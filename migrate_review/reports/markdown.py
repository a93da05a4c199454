"""A review as a comment on a pull request, and as a job's summary."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from migrate_review.reports import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.review import Review, Reviewed
    from migrate_review.rules.findings import Finding

_ICONS = {"error": "❌", "warning": "⚠️", "note": "💡"}
_ESCAPED = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]|~#@"})


def markdown(review: Review) -> str:
    """Return the verdict, the next steps, the measurements as a table, and the findings with collapsed fixes."""
    icon = "✅" if review.passed else "❌"
    lines = [f"### {icon} Migration review", "", f"**{_escaped(summary.verdict(review))}.**", ""]
    lines += [f"- {_escaped(line)}" for line in summary.to_do(review)]
    lines += ["", f"{summary.outcome(review)}.", ""]
    if review.revisions:
        lines += ["| revision | | measured | locks that block |", "| --- | --- | --- | --- |"]
        lines += [_row(one) for one in review.revisions]
        lines.append("")
    for found in review.findings:
        lines += _finding(found)
    acknowledged = [pair for one in review.revisions for pair in one.result.acknowledged]
    if acknowledged:
        lines += [f"<details><summary>{len(acknowledged)} acknowledged</summary>", ""]
        lines += [f"- `{found.revision}` `{found.rule}`: {_escaped(reason)}" for found, reason in acknowledged]
        lines += ["", "</details>", ""]
    return "\n".join(lines)


def _row(one: Reviewed) -> str:
    severities = [found.severity.value for found in one.result.standing]
    icon = next((_ICONS[kind] for kind in _ICONS if kind in severities), "✅")
    seen = one.observation
    measured = f"{summary.durations(seen)}; {summary.filled(seen)}" if seen else "not measured"
    locks = "<br>".join(_escaped(lock) for lock in summary.locks(seen)) if seen else ""
    return f"| `{one.revision.id}` {_escaped(one.revision.description)} | {icon} | {measured} | {locks} |"


def _finding(found: Finding) -> Iterator[str]:
    yield f"#### {_ICONS[found.severity.value]} `{found.rule}` in `{found.revision}`"
    yield ""
    yield _escaped(found.message)
    yield ""
    if found.evidence:
        yield f"Measured: {_escaped(found.evidence)}"
        yield ""
    yield "<details><summary>The safer way</summary>"
    yield ""
    # Code that contains a fence needs a longer one.
    fence = "```" if "```" not in found.fix else "`````"
    yield f"{fence}python\n{found.fix}\n{fence}"
    yield ""
    yield "</details>"
    yield ""


def _escaped(text: str) -> str:
    """Return the text as one line, with markup escaped."""
    return html.escape(" ".join(text.split()), quote=False).translate(_ESCAPED)
