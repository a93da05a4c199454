"""Prints tables, and writes results.json."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Any

import rich.box
from rich.table import Table

from benchmarks.functions import RUNTIME
from benchmarks.ground import BENCH, ROOT, value
from benchmarks.tools import dbmate_package

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from benchmarks.ground import Ground
    from benchmarks.measurement import Goal, Outcome

RESULTS = ROOT / "benchmarks" / "results.json"

_DISTRIBUTIONS = {
    "naive": ("alembic", "boto3", "psycopg2-binary", "sqlalchemy"),
    "peers": ("django", "yoyo-migrations"),
}


def show(outcome: Outcome, console: Console) -> None:
    """Print an outcome: its table, its notes and its goals."""
    console.print(outcome.title, style="bold", highlight=False)
    table = Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("case", no_wrap=True)
    table.add_column("contestant", no_wrap=True)
    for name in ("median", "min", "max", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    previous = ""
    for row in outcome.rows:
        if previous not in {"", row.case}:
            table.add_section()
        table.add_row(
            row.case if row.case != previous else "",
            row.contestant,
            formatted(row.median, row.unit),
            formatted(min(row.values), row.unit),
            formatted(max(row.values), row.unit),
            "" if row.ratio is None else formatted(row.ratio, "x"),
        )
        previous = row.case
    console.print(table)
    for note in outcome.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    for goal in outcome.goals:
        console.print(f"  {sentence(goal)}", style="green" if goal.met else "red", highlight=False)
    console.print()


def sentence(goal: Goal) -> str:
    """Return a goal and its result as a sentence."""
    outcome = f"{formatted(goal.value, goal.unit)} of at most {formatted(goal.limit, goal.unit)}"
    return f"{'met' if goal.met else 'MISSED'}: {goal.text}: {outcome}"


def formatted(number: float, unit: str) -> str:
    """Return a number in the unit that suits its size."""
    if unit == "s" and number < 1:
        return f"{number * 1000:.{0 if number >= 0.1 else 1}f} ms"  # noqa: PLR2004 - three digits
    digits = {"s": 2, "x": 2, "MB": 1, "trips": 2}.get(unit, 0)
    return f"{number:.{digits}f} {unit}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome for results.json."""
    return {
        "title": outcome.title,
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "rows": [
            {
                "case": row.case,
                "contestant": row.contestant,
                "unit": row.unit,
                "median": _rounded(row.median),
                "min": _rounded(min(row.values)),
                "max": _rounded(max(row.values)),
                "rounds": len(row.values),
                "ratio": None if row.ratio is None else _rounded(row.ratio),
            }
            for row in outcome.rows
        ],
        "goals": [
            {
                "goal": goal.text,
                "value": _rounded(goal.value),
                "limit": goal.limit,
                "unit": goal.unit,
                "met": goal.met,
            }
            for goal in outcome.goals
        ],
        "notes": list(outcome.notes),
    }


def record(outcome: Outcome, machine: dict[str, Any], path: Path = RESULTS) -> None:
    """Add an outcome to the others. Outcomes of another machine or other versions are dropped."""
    kept: dict[str, Any] = {}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if {key: found[key] for key in machine} == machine:
            kept = found["questions"]
    questions = {**kept, outcome.question: as_json(outcome)}
    text = json.dumps({**machine, "questions": questions}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def facts(ground: Ground) -> dict[str, Any]:
    """Return the machine and the versions."""
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": _output(str(RUNTIME), "-c", "import platform; print(platform.python_version())"),
            "postgresql": str(value(ground.server.database("postgres"), "SHOW server_version")),
            "awslambdaric": _version(BENCH.parent / "runtime", "awslambdaric"),
            **{name: _version(BENCH / folder, name) for folder, names in _DISTRIBUTIONS.items() for name in names},
            "dbmate": json.loads((dbmate_package() / "package.json").read_text(encoding="utf-8"))["version"],
        },
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a path of ours
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def _version(folder: Path, name: str) -> str:
    sites = [folder, *folder.glob("lib/python*/site-packages")]
    return next(iter(metadata.distributions(name=name, path=[str(site) for site in sites]))).version


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _rounded(number: float) -> float:
    """Return four significant digits. The rest is noise."""
    return float(f"{number:.4g}")
