"""The skills for coding agents match the code: their commands exist, and they cover every error."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped]

from lambda_migrate.invocation import errors as contract_errors
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended

SKILLS = sorted((ROOT / ".claude" / "skills").glob("*/SKILL.md"))
CREATE, TRIGGER = (file.read_text(encoding="utf-8") for file in SKILLS)

by_name = pytest.mark.parametrize("skill", SKILLS, ids=lambda file: file.parent.name)


def commands(text: str, beginning: str) -> list[str]:
    """Return the commands that begin with these words, in blocks and in sentences."""
    blocks = "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)).splitlines()
    code = [line.partition("  #")[0].strip() for line in blocks] + re.findall(r"`([^`\n]+)`", text)
    return sorted({command for command in code if command.startswith(beginning)})


@by_name
def test_the_front_matter_names_the_skill_and_when_to_use_it(skill: Path) -> None:
    front, _, _ = skill.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")

    header = yaml.safe_load(front)

    assert header.keys() == {"name", "description"}
    assert header["name"] == skill.parent.name
    assert "Use when" in header["description"]
    assert len(header["description"]) <= 1024


@by_name
def test_every_link_leads_to_a_file(skill: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)", skill.read_text(encoding="utf-8"))

    assert links
    assert [link for link in links if not (skill.parent / link).exists()] == []


@by_name
def test_every_make_command_is_a_target(skill: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    assert {command.split()[1] for command in commands(skill.read_text(encoding="utf-8"), "make ")} <= targets


@pytest.mark.parametrize("command", commands(CREATE, "python -m migrate_cli ") + commands(TRIGGER, "migrate "))
def test_a_command_has_the_options_that_are_shown(migrate: Callable[..., Ended], command: str) -> None:
    arguments = shlex.split(command.removeprefix("python -m migrate_cli ").removeprefix("migrate "))

    ended = migrate(arguments[0], "--help")

    assert ended.code == 0
    for option in (word for word in arguments if word.startswith("--")):
        assert re.search(rf"{option}\b", ended.out)


def test_every_error_has_its_line() -> None:
    errors = [error.__name__ for error in contract_errors.MigrationError.__subclasses__()]

    assert sorted(re.findall(r"^\| `(\w+)` \|", TRIGGER, re.MULTILINE)) == sorted(["MigrationError", *errors])


def test_the_guard_is_the_one_of_the_readme_which_is_tried_out() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [guard] = [block for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if "FunctionError" in block]

    assert f"```sh\n{guard}```" in TRIGGER
