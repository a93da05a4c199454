"""Draws results.json as an SVG: a panel for each question, a bar for each contestant."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from benchmarks.measurement import OURS
from benchmarks.report import formatted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# For each panel: the question, the beginning of its case, and the heading.
_PANELS = (
    ("nothing_to_do", "cold, 1,000", "Nothing to do, cold start, 1,000 revisions"),
    ("one_pending", "1,000", "One pending revision of 1,000, cold start"),
    ("empty_database", "1,000", "An empty database through 1,000 revisions"),
    ("running_application", "longest stall", "Longest stall of the application while a table is altered"),
    ("memory", "applying", "Peak memory while applying 1,000 revisions"),
)

_WIDTH = 760
_LABELS = 230
_VALUES = 100
_BAR = 16
_LINE = 22
_HEADING = 40

# Transparent background, and light text for readers with a dark theme.
_STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.heading { font-weight: 600; }
.bar { fill: #8c959f; }
.ours { fill: #0969da; }
text.ours { fill: #0969da; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .bar { fill: #6e7681; }
  .ours, text.ours { fill: #58a6ff; }
}"""


def draw(results: Mapping[str, Any]) -> str:
    """Return the picture. It omits questions that were not measured."""
    parts: list[str] = []
    top = 0.0
    for question, case, heading in _PANELS:
        rows = [row for row in results["questions"].get(question, {}).get("rows", []) if row["case"].startswith(case)]
        rows = [row for row in rows if "(" not in row["contestant"]]
        if rows:
            parts.append(f'<text class="heading" x="0" y="{top + 24:g}">{escape(heading)}</text>')
            parts += _bars(rows, top + _HEADING)
            top += _HEADING + _LINE * len(rows) + 8
    title = "; ".join(heading for question, _, heading in _PANELS if question in results["questions"])
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:g}" width="{_WIDTH}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_STYLE}\n</style>",
            *parts,
            "</svg>\n",
        ]
    )


def _bars(rows: list[Mapping[str, Any]], top: float) -> Iterator[str]:
    longest = max(row["median"] for row in rows)
    for number, row in enumerate(rows):
        kind = "ours" if row["contestant"] == OURS else "bar"
        y = top + number * _LINE
        width = max((_WIDTH - _LABELS - _VALUES) * row["median"] / longest, 1)
        text = f'y="{y + 12.5:g}" class="{kind if kind == "ours" else "label"}"'
        yield f'<text x="{_LABELS - 10}" text-anchor="end" {text}>{escape(row["contestant"])}</text>'
        yield f'<rect class="{kind}" x="{_LABELS}" y="{y:g}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
        yield f'<text x="{_LABELS + width + 8:.1f}" {text}>{formatted(row["median"], row["unit"])}</text>'
