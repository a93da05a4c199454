"""``make screenshots``: the documents' pictures of the command line, in a terminal with the local cloud."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.script import ScriptDirectory
from rich.console import Console
from rich.text import Text

from lambda_migrate.fleet.page import render
from localcloud import cloud
from migrate_cli.presentation import show_preflight
from migrate_review.measure.session import reviewing
from migrate_review.reports import text
from migrate_review.review import review
from migrate_review.revisions.tree import read_tree
from tests.support import browser
from tests.support.checkout import ROOT, copy_checkout, with_tools
from tests.support.reports import planned, report
from tests.support.trees import Rev, sql, write_revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localcloud.postgres import Server

PICTURES = ROOT / "docs" / "images"
RUNNING = PICTURES / "upgrade-running.svg"
DONE = PICTURES / "upgrade-done.svg"
ROLLOUT_RUNNING = PICTURES / "rollout-running.svg"
ROLLOUT_DONE = PICTURES / "rollout-done.svg"
PREFLIGHT = PICTURES / "preflight.svg"
REVIEW = PICTURES / "review.svg"
PAGE = PICTURES / "rollout-report.png"
COLUMNS = 100
# What a plan shows fits into the narrowest terminal that people have.
PLAN_COLUMNS = 80
PLAN = "migrate plan --stage prod"
COMMAND = "migrate upgrade --stage local"
ROLLOUT = "migrate rollout --stage local"

_CORPUS = ROOT / "tests" / "review" / "corpus"
# The revisions of the corpus in the picture of a review: one without a finding, one acknowledged, one with an error.
_REVIEWED = ("good/add_column", "good/dropped_as_agreed", "bad/not_null_after_backfill")
REVIEW_COMMAND = "migrate review --since origin/main"
_TEXT = "{http://www.w3.org/2000/svg}text"
_COLUMN = 12.2  # units that Rich gives a character
_ROWS = 40
_FAILED, _LEFT, _PAGE_WIDTH = 4, 3000, 900
_MESSAGE = "stopped by mona; 3000 of 12000 targets were not started"
_WAIT_S = 120
_WHAT = (
    "Add projects",
    "Let items belong to projects",
    "Backfill the projects of items",
    "Require projects of items",
    "Index items by project and state, for the board that every member opens first in the morning",
    "Add labels",
    "Add comments",
    "Index comments by item and age",
    "Add attachments",
    "Add webhooks",
)
_RELEASE = [f"{what}{suffix}" for suffix in ("", ", second part", ", third part") for what in _WHAT]


class Terminal:
    """A tmux server of its own, with one shell in a checkout."""

    def __init__(self, checkout: Path, socket: Path, columns: int, rows: int) -> None:
        self.columns = columns
        self._tmux = ("tmux", "-S", str(socket), "-f", os.devnull)
        shell = "env PS1='$ ' sh"
        self._run("new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(checkout), shell)

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self._run("send-keys", "-l", line)
        self._run("send-keys", "Enter")

    def screen(self, *, colors: bool = False) -> str:
        """Return the screen's text, with its escape sequences if wanted."""
        return self._run("capture-pane", "-p", *["-e"] * colors).rstrip()

    def wait_for(self, pattern: str) -> str:
        """Wait until the screen shows this text, and return the screen with its colors."""
        deadline = time.monotonic() + _WAIT_S
        while not re.search(pattern, self.screen()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pattern!r} did not appear:\n{self.screen()}")
            time.sleep(0.1)
        return self.screen(colors=True)

    def close(self) -> None:
        """End the shell and its server."""
        self._run("kill-server")

    def _run(self, *arguments: str) -> str:
        environment = {name: value for name, value in with_tools(dict(os.environ)).items() if not _is_private(name)}
        command = [*self._tmux, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def picture(command: str, screen: str, columns: int) -> str:
    """Return a terminal's screen as a self-contained SVG."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen), soft_wrap=True)
    svg = console.export_svg(title=command, unique_id="terminal")
    # Fonts from a server that documents have no business with.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def picture_of_a_preflight(file: Path) -> None:
    """A plan's preflight, of three revisions of which one would fail."""
    console = Console(record=True, width=PLAN_COLUMNS, file=io.StringIO(), force_terminal=True)
    show_preflight(planned(), console)
    file.write_text(picture(PLAN, console.export_text(styles=True), PLAN_COLUMNS), encoding="utf-8")


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
        for column, part in sorted(found[number]):
            line = line.ljust(column) + part.replace("\xa0", " ").rstrip("\n")
        lines.append(line.rstrip())
    return lines


def show_review(folder: Path, console: Console, on: Server | None = None) -> None:
    """Make a tree of some of the corpus's revisions in a folder, review them, and print the result."""
    versions = folder / "alembic" / "versions"
    versions.mkdir(parents=True)
    for name in ("alembic.ini", "shop_app.py", "alembic/env.py"):
        shutil.copy(_CORPUS / name, folder / name)
    shutil.copy(_CORPUS / "alembic" / "versions" / "base" / "shop.py", versions)
    parent = "shop"
    for path in _REVIEWED:
        file = _CORPUS / "alembic" / "versions" / f"{path}.py"
        text_of_it = file.read_text(encoding="utf-8").replace('down_revision = "shop"', f'down_revision = "{parent}"')
        (versions / file.name).write_text(text_of_it, encoding="utf-8")
        parent = file.stem
    tree = read_tree(folder)
    new = [revision for revision in tree.revisions if revision.id != "shop"]
    text.show(review(tree, new, lambda: reviewing(folder, on=on)), console)


def picture_of_a_review(file: Path) -> None:
    """A review of three revisions, of which one has an error."""
    console = Console(record=True, width=PLAN_COLUMNS, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as temporary:
        show_review(Path(temporary), console)
    file.write_text(picture(REVIEW_COMMAND, console.export_text(styles=True), PLAN_COLUMNS), encoding="utf-8")


def picture_of_the_page(file: Path) -> None:
    """Take a picture of a rollout's page with a few failed targets, in a browser."""
    with tempfile.TemporaryDirectory() as temporary, browser.page() as tab:
        page = Path(temporary) / "report.html"
        page.write_text(render(report(_FAILED, left=_LEFT, status="stopped", message=_MESSAGE)), encoding="utf-8")
        browser.show(tab, page, width=_PAGE_WIDTH)
        tab.screenshot(path=file, full_page=True)


def main() -> None:
    """Make all pictures; the page's only if there is a browser."""
    columns = int(sys.argv[1]) if len(sys.argv) > 1 else COLUMNS
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    picture_of_a_preflight(folder / PREFLIGHT.name)
    picture_of_a_review(folder / REVIEW.name)
    if browser.missing() is None:
        picture_of_the_page(folder / PAGE.name)
    with tempfile.TemporaryDirectory() as temporary:
        checkout = copy_checkout(Path(temporary) / "checkout")
        try:
            terminal = Terminal(checkout, Path(temporary) / "tmux", columns, _ROWS)
            try:
                terminal.type(f"PATH={shlex.quote(str(checkout / '.venv' / 'bin'))}:$PATH")
                _do(checkout, sys.executable, "-m", "demo.migrate")
                film(terminal, _rollout(checkout), folder)
                film(terminal, _upgrade(checkout), folder)
            finally:
                terminal.close()
        finally:
            cloud.clean(checkout)


@dataclass(frozen=True)
class Scene:
    """A command, and for each picture of it the text at which it is taken."""

    command: str
    pictures: Mapping[str, str]


def film(terminal: Terminal, scene: Scene, folder: Path) -> None:
    """Type the command on an empty screen and take its pictures."""
    terminal.type("clear")
    terminal.wait_for(r"\A\$\s*\Z")
    terminal.type(scene.command)
    for name, seen in scene.pictures.items():
        screen = terminal.wait_for(seen)
        (folder / name).write_text(picture(scene.command, screen, terminal.columns), encoding="utf-8")


def _rollout(checkout: Path) -> Scene:
    _do(
        checkout,
        sys.executable,
        "-c",
        "from localcloud import cloud, rollout; rollout.make_tenants(cloud.up(rollout.ROOT))",
    )
    return Scene(
        ROLLOUT, {ROLLOUT_RUNNING.name: r"1\d of 30 .* to go", ROLLOUT_DONE.name: r"Report: .*\n(.*\n)*\$\s*\Z"}
    )


def _upgrade(checkout: Path) -> Scene:
    _write_release(checkout / "back" / "alembic")
    emulator = cloud.running_emulator(checkout)
    assert emulator
    deploy = ("cdk", "deploy", "--context", "stage=local", "--require-approval", "never")
    _do(checkout, *deploy, environment=emulator.environment())
    return Scene(COMMAND, {RUNNING.name: r"12 of 30: committed", DONE.name: r"Applied 30 revisions .*\n(.*\n)*\$\s*\Z"})


def _do(checkout: Path, *command: str, environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, cwd=checkout, env=with_tools(environment or dict(os.environ)), check=True)


def _write_release(tree: Path) -> None:
    """Write thirty revisions on top of the tree, each with a pause."""
    parent = ScriptDirectory(str(tree)).get_current_head()
    for number, description in enumerate(_RELEASE):
        id_ = hashlib.sha256(description.encode()).hexdigest()[:12]
        pause = 0.3 + 0.1 * (number % 8)
        revision = Rev(id_, upgrade=sql(f"SELECT pg_sleep({pause:.1f})"), description=description)
        write_revision(tree / "versions", revision, parent)
        parent = id_


def _is_private(name: str) -> bool:
    """Return whether the picture's command must not get this variable."""
    return name.startswith(("AWS_", "GITHUB_", "MIGRATE_", "TMUX")) or name in {"NO_COLOR", "COLUMNS", "CI"}


if __name__ == "__main__":
    main()
