"""The documents as a site: every page is in it, and every command that a page shows exists."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped]

from infra.stages import Stage
from migrate_cli import cli
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
ROLLOUT = {"start", "retry", "status", "stop", "show", "list"}


class Lenient(yaml.SafeLoader):  # type: ignore[misc, no-any-unimported]
    """Reads mkdocs.yml without the tags that only MkDocs understands."""


Lenient.add_multi_constructor("", lambda *_: None)


def navigation() -> set[str]:
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Lenient)  # noqa: S506 - it is a SafeLoader
    entries = [entry for section in site["nav"] for entry in section.values()]
    return {page for entry in entries for page in ([entry] if isinstance(entry, str) else entry)}


def shown(page: Path) -> list[list[str]]:
    """The commands of migrate in the blocks that a reader copies."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line.partition(" > ")[0], comments=True)[1:] for line in lines if line.startswith("migrate ")]


def test_the_navigation_leads_to_pages_that_exist() -> None:
    from_elsewhere = {"index.md", "back.md"}

    assert navigation() - from_elsewhere <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=lambda page: page.name)
def test_a_command_shown_on_a_page_has_options_that_exist(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in shown(page):
        command = words[:1]
        if command == ["rollout"]:
            command.append(words[1] if len(words) > 1 and words[1] in ROLLOUT else "start")
        monkeypatch.setattr("sys.argv", ["migrate", *command, "--help"])
        if command[0].startswith("-"):
            command = []
            monkeypatch.setattr("sys.argv", ["migrate", "--help"])

        code = cli.main()

        described = capsys.readouterr().out
        assert code == 0, words
        for option in (word for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", described), f"{page.name}: migrate {' '.join(words)}"


def test_the_stages_of_the_tutorials_are_fine() -> None:
    for name in ("first-deployment.md", "many-tenants.md"):
        [stages] = [
            json.loads(block)
            for block in re.findall(r"```json\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
        ]
        for stage in stages.values():
            Stage.model_validate(stage)
