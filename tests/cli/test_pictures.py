"""The documents' pictures match today's output of the command line. `make screenshots` makes them again."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from migrate_cli import presentation
from migrate_cli.errors import Commands
from migrate_cli.progress import RunProgress
from migrate_cli.rollout.progress import RolloutProgress
from migrate_cli.rollout.terminal import progress_line, show_report
from tests.support.checkout import ROOT
from tests.support.reports import planned
from tests.support.screenshots import (
    COLUMNS,
    COMMAND,
    DONE,
    PLAN_COLUMNS,
    PREFLIGHT,
    ROLLOUT,
    ROLLOUT_DONE,
    ROLLOUT_RUNNING,
    RUNNING,
    rows,
)

# What no target of the rollout in the pictures is.
NOTHING = {"current": 0, "behind": 0, "failed": 0, "left": 0}


def committed(row: str) -> tuple[int, int, dict[str, Any]] | None:
    """Return a revision's position, the number of revisions and the log line that a row shows."""
    match = re.fullmatch(r"(\d+) of (\d+): committed (\w+) in ([\d,]+) ms \((.*?)[)…]", row)
    if match is None:
        return None
    took = int(match[4].replace(",", ""))
    return int(match[1]), int(match[2]), {"revision": match[3], "description": match[5], "duration_ms": took}


@pytest.mark.parametrize("picture", [RUNNING, DONE], ids=lambda picture: picture.name)
def test_each_revision_has_todays_wording(picture: Path) -> None:
    seen = [row for row in rows(picture) if " of 30" in row and not row.startswith(" ") and "━" not in row]

    assert seen
    for row in seen:
        facts = committed(row)
        assert facts, row
        number, total, line = facts
        progress = RunProgress(done=number - 1)
        progress.take({"event": "revision.started", "step": number, "steps": total, **line})
        match = progress.take({"event": "revision.applied", **line})
        assert match
        assert match.startswith(row.rstrip("…"))


def test_the_picture_of_a_preflight_is_what_a_plan_shows_today() -> None:
    console = Console(width=PLAN_COLUMNS, file=(shown := StringIO()), force_terminal=True, color_system=None)
    presentation.show_preflight(planned(), console)

    assert "\n".join(rows(PREFLIGHT)).rstrip().splitlines() == [
        line.rstrip() for line in shown.getvalue().rstrip().splitlines()
    ]


def test_the_running_picture_shows_the_command_and_its_bar() -> None:
    screen = rows(RUNNING)

    assert screen[0] == f"$ {COMMAND}"
    done = sum(committed(row) is not None for row in screen)
    assert re.fullmatch(rf"\S ━+╸?╺?━* {done} of 30 0:00:\d\d \w{{12}} \(.*", screen[-1])


def test_the_last_picture_ends_with_todays_result() -> None:
    screen = rows(DONE)
    summary = next(number for number, row in enumerate(screen) if row.startswith("Applied"))
    shown = screen[screen.index(next(row for row in screen if row.startswith("Revision"))) : summary + 1]
    match = re.fullmatch(r"Applied \d+ revisions to (\w+) \((\w+)\): from (\w+) to (\w+) in ([\d.]+) s\.", shown[-1])
    assert match
    applied: list[dict[str, Any]] = []
    for row in shown[1:-2]:
        step = re.fullmatch(r"(\w{12})  (.*?) +([\d,]+) ms", row)
        if step:
            took = int(step[3].replace(",", ""))
            applied.append({"revision": step[1], "description": step[2], "duration_ms": took})
        else:
            applied[-1]["description"] += f" {row.strip()}"
    result = {
        "action": "upgrade",
        "database": match[1],
        "stage": match[2],
        "previous_revision": match[3],
        "revision": match[4],
        "applied": applied,
        "duration_ms": float(match[5]) * 1000,
    }
    console = Console(file=StringIO(), width=COLUMNS, highlight=False)

    presentation.show(result, console)

    assert isinstance(console.file, StringIO)
    assert [row.rstrip() for row in console.file.getvalue().splitlines()] == shown
    assert len(applied) == 30


def test_the_running_picture_of_a_rollout_shows_its_progress() -> None:
    command, bar = rows(ROLLOUT_RUNNING)

    assert command == f"$ {ROLLOUT}"
    match = re.fullmatch(r"\s*\S ━+╸?╺?━* (\d+) of 30 0:00:\d\d about (\d+) s to go, ((\d+) running, .*)", bar)
    assert match, bar
    done, to_go_s, running = int(match[1]), int(match[2]), int(match[4])
    now = RolloutProgress(
        targets=30, waves=2, wave=2, done=done, running=running, began=0, moved=to_go_s * done / (30 - done)
    )
    assert progress_line(now) == f"about {to_go_s} s to go, {match[3]}"


def test_the_last_picture_of_a_rollout_ends_with_todays_report() -> None:
    shown = rows(ROLLOUT_DONE)[1:-1]
    revision = next(row.split() for row in shown if row.endswith(" 30"))[0]
    place = next(number for number, row in enumerate(shown) if row.startswith("Report: "))
    shown[place:] = ["".join(shown[place:])]  # it was too long for a line
    match = re.fullmatch(r"Rolled out: (.*), in ([\d.]+) s\.", shown[-2])
    assert match
    waves = [{"wave": n, "canary": n == 1, "targets": of, "migrated": of, **NOTHING} for n, of in ((1, 2), (2, 28))]
    report = {
        "plan": False,
        "status": "succeeded",
        "message": match[1],
        "duration_ms": float(match[2]) * 1000,
        "counts": {"targets": 30, "migrated": 30, **NOTHING},
        "waves": waves,
        "revisions": {revision: 30},
        "failures": [],
        "report": shown[-1].removeprefix("Report: "),
    }
    console = Console(file=StringIO(), width=COLUMNS, highlight=False)

    show_report(report, console, commands=Commands(("migrate",), (), ()))

    assert isinstance(console.file, StringIO)
    assert [row.rstrip() for row in console.file.getvalue().splitlines()] == shown


@pytest.mark.parametrize(
    "picture, pages",
    [
        (RUNNING, ["cli.md", "operations.md"]),
        (DONE, ["cli.md", "operations.md"]),
        (ROLLOUT_RUNNING, ["cli.md"]),
        (ROLLOUT_DONE, ["cli.md"]),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_a_picture_is_shown_and_needs_nothing_from_elsewhere(picture: Path, pages: list[str]) -> None:
    assert re.findall(r"https?://(?!www\.w3\.org/|www\.textualize\.io)", picture.read_text(encoding="utf-8")) == []
    for page in pages:
        assert f"(images/{picture.name})" in (ROOT / "docs" / page).read_text(encoding="utf-8")
