"""Stores the figures of each run of `make bench` in one line, and finds what became slower since the last run."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from benchmarks.ground import ROOT
from benchmarks.measurement import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.measurement import Outcome

HISTORY = ROOT / "benchmarks" / "history.jsonl"

# Two runs of the same code differ by this factor on a busy machine.
_NOISE = 1.1


def entry(outcomes: Sequence[Outcome], facts: Mapping[str, Any], commit: str) -> dict[str, Any]:
    """Return the line of a run: our own figures, and the goals."""
    figures = {
        f"{outcome.question}: {row.case}": {
            "unit": row.unit,
            "median": float(f"{row.median:.4g}"),
            "min": float(f"{min(row.values):.4g}"),
        }
        for outcome in outcomes
        for row in outcome.rows
        if row.contestant == OURS
    }
    goals = {
        f"{outcome.question}: {goal.text}": float(f"{goal.value:.4g}") for outcome in outcomes for goal in outcome.goals
    }
    date = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return {"commit": commit, "date": date, **facts, "figures": figures, "goals": goals}


def record(now: Mapping[str, Any], path: Path = HISTORY) -> list[str]:
    """Add a run to the history. Return the figures that became slower since the last run on such a machine."""
    before = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(now, separators=(",", ":"), ensure_ascii=False) + "\n")
    return [*slower(before, now)]


def slower(before: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the slower figures: their best round is worse than the median of the last run."""
    alike = [run for run in before if run["machine"] == now["machine"]]
    for name, figure in now["figures"].items():
        last = next((run for run in reversed(alike) if name in run["figures"]), None)
        if last is None:
            continue
        was = last["figures"][name]["median"]
        if figure["min"] > was and figure["median"] > was * _NOISE:
            ratio = figure["median"] / was
            yield (
                f"{name}: {figure['median']:g} {figure['unit']}, {ratio:.2f} times the {was:g} of"
                f" {last['commit']} ({last['date']})"
            )


def commit() -> str:
    """Return the commit of the checkout, with a plus sign if files have changed since."""
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        return found + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    program = shutil.which("git") or "git"
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
