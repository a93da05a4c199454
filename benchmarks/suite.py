"""Measures one question or all of them, prints the results and stores them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import document, ground, history, report, scale
from benchmarks.measurement import FULL, SMALLEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.ground import Ground
    from benchmarks.measurement import Effort, Outcome

    Measure = Callable[[Ground, Effort], Outcome]


# A log of CI has no width, and wrapped cells are hard to read.
_WIDTH = 120


def main(*measures: Measure) -> None:
    """Measure on the benchmark's own servers. A missed goal is a result, not an error."""
    parser = argparse.ArgumentParser(description="Measure, print a table and write benchmarks/results.json.")
    parser.add_argument("--smallest", action="store_true", help="only test that it works; results.json stays unchanged")
    effort = SMALLEST if parser.parse_args().smallest else FULL
    console = Console(width=max(Console().width, _WIDTH))
    outcomes: list[Outcome] = []
    with ground.own() as prepared:
        facts = report.facts(prepared)
        for measure in measures:
            outcome = measure(prepared, effort)
            report.show(outcome, console)
            if effort is FULL:
                report.record(outcome, facts)
                document.write()
                scale.write()
            outcomes.append(outcome)
    if effort is FULL:
        slower = history.record(history.entry(outcomes, facts, history.commit()))
        for line in slower:
            console.print(f"slower: {line}", style="red", highlight=False)
        if not slower:
            console.print("nothing is slower than in the last run on such a machine", highlight=False)
    missed = [goal for outcome in outcomes for goal in outcome.goals if not goal.met]
    met = sum(goal.met for outcome in outcomes for goal in outcome.goals)
    console.print(f"{met} goals met, {len(missed)} missed" + (":" if missed else "."), highlight=False)
    for goal in missed:
        console.print(f"  {report.sentence(goal)}", style="red", highlight=False)
