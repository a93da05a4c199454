"""The pictures in the documents show what `migrate upgrade` says today; `make screenshots` takes them anew."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from migrate_cli import presentation
from migrate_cli.progress import Account
from tests.support.checkout import ROOT
from tests.support.screenshots import COLUMNS, COMMAND, DONE, RUNNING

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = "{http://www.w3.org/2000/svg}text"
_COLUMN = 12.2  # units that Rich gives a character


def rows(picture: Path) -> list[str]:
    """The screen that a picture shows, line by line."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for element in ET.parse(picture).iter(_TEXT):  # noqa: S314 - our own file
        place = re.fullmatch(r"url\(#terminal-line-(\d+)\)", element.get("clip-path", ""))
        if place:
            found[int(place[1])].append((round(float(element.get("x", 0)) / _COLUMN), element.text or ""))
    lines = []
    for number in range(max(found) + 1):
        line = ""
        for column, text in sorted(found[number]):
            line = line.ljust(column) + text.replace("\xa0", " ").rstrip("\n")
        lines.append(line.rstrip())
    return lines


def told(row: str) -> tuple[int, int, dict[str, Any]] | None:
    """The number, the total and the log line behind a row that tells of a revision."""
    said = re.fullmatch(r"(\d+) of (\d+): committed (\w+) in ([\d,]+) ms \((.*?)[)…]", row)
    if said is None:
        return None
    took = int(said[4].replace(",", ""))
    return int(said[1]), int(said[2]), {"revision": said[3], "description": said[5], "duration_ms": took}


@pytest.mark.parametrize("picture", [RUNNING, DONE], ids=lambda picture: picture.name)
def test_each_revision_is_told_in_todays_words(picture: Path) -> None:
    seen = [row for row in rows(picture) if " of 30" in row and not row.startswith(" ") and "━" not in row]

    assert seen
    for row in seen:
        facts = told(row)
        assert facts, row
        number, total, line = facts
        account = Account(done=number - 1)
        account.take({"event": "revision.started", "step": number, "steps": total, **line})
        said = account.take({"event": "revision.applied", **line})
        assert said
        assert said.startswith(row.rstrip("…"))


def test_the_running_picture_shows_the_command_and_its_bar() -> None:
    screen = rows(RUNNING)

    assert screen[0] == f"$ {COMMAND}"
    done = sum(told(row) is not None for row in screen)
    assert re.fullmatch(rf"\S ━+╸?╺?━* {done} of 30 0:00:\d\d \w{{12}} \(.*", screen[-1])


def test_the_last_picture_ends_with_todays_result() -> None:
    screen = rows(DONE)
    summary = next(number for number, row in enumerate(screen) if row.startswith("Applied"))
    shown = screen[screen.index(next(row for row in screen if row.startswith("Revision"))) : summary + 1]
    said = re.fullmatch(r"Applied \d+ revisions to (\w+) \((\w+)\): from (\w+) to (\w+) in ([\d.]+) s\.", shown[-1])
    assert said
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
        "database": said[1],
        "stage": said[2],
        "previous_revision": said[3],
        "revision": said[4],
        "applied": applied,
        "duration_ms": float(said[5]) * 1000,
    }
    console = Console(file=StringIO(), width=COLUMNS, highlight=False)

    presentation.show(result, console)

    assert isinstance(console.file, StringIO)
    assert [row.rstrip() for row in console.file.getvalue().splitlines()] == shown
    assert len(applied) == 30


@pytest.mark.parametrize("picture", [RUNNING, DONE], ids=lambda picture: picture.name)
def test_a_picture_is_shown_and_needs_nothing_from_elsewhere(picture: Path) -> None:
    assert re.findall(r"https?://(?!www\.w3\.org/|www\.textualize\.io)", picture.read_text(encoding="utf-8")) == []
    for page in ("cli.md", "operations.md"):
        assert f"(images/{picture.name})" in (ROOT / "docs" / page).read_text(encoding="utf-8")
