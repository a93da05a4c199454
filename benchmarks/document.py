"""Writes results.json into docs/performance.md, between two marks. People write the text around them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks import chart
from benchmarks.ground import ROOT
from benchmarks.report import RESULTS, formatted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PAGE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "images" / "performance.svg"

BEGIN = "<!-- begin: written by `make bench` -->"
END = "<!-- end: written by `make bench` -->"


def write(results: Path = RESULTS, page: Path = PAGE, picture: Path = CHART) -> None:
    """Write the results into the page, and draw the chart."""
    found = json.loads(results.read_text(encoding="utf-8"))
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{section(found)}{END}{after}", encoding="utf-8")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(chart.draw(found), encoding="utf-8")


def section(results: Mapping[str, Any]) -> str:
    """Return the generated part of the page."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = results["machine"], results["versions"]
    questions = results["questions"].values()
    goals = [goal for question in questions for goal in question["goals"]]
    yield ""
    yield f"{sum(goal['met'] for goal in goals)} of {len(goals)} goals are met."
    yield ""
    yield "| goal | measured | at most | |"
    yield "| --- | ---: | ---: | --- |"
    for question in questions:
        for goal in question["goals"]:
            measured, limit = (formatted(goal[key], goal["unit"]) for key in ("value", "limit"))
            met = "met" if goal["met"] else "**missed**"
            yield f"| {question['title']}: {goal['goal']} | {measured} | {limit} | {met} |"
    for question in questions:
        yield ""
        yield f"### {question['title']}"
        yield ""
        yield "| case | contestant | median | min | max | rounds | ratio |"
        yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
        for row in question["rows"]:
            numbers = " | ".join(formatted(row[key], row["unit"]) for key in ("median", "min", "max"))
            ratio = "" if row["ratio"] is None else formatted(row["ratio"], "x")
            yield f"| {row['case']} | {row['contestant']} | {numbers} | {row['rounds']} | {ratio} |"
        yield ""
        yield from question["notes"]
    yield ""
    yield "### Measured with"
    yield ""
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, on "
        f"{max(question['date'] for question in questions)}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    yield ""
