"""docs/cli.md matches the code: commands, options and exit codes."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.invocation import errors as contract_errors
from lambda_migrate.invocation.request import ACTIONS
from migrate_cli.errors import ExitCode
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SHOWN = [
    shlex.split(command.partition(">")[0])[1:]
    for command in re.findall(r"^(?:- run: \.venv/bin/)?(migrate [a-z].*)$", PAGE, re.MULTILINE)
]

ROLLOUT = {
    "rollout": ["rollout", "start"],
    **{name: ["rollout", name] for name in ("status", "stop", "approve", "retry", "list", "show")},
}


GROUPS = {"rollout": ROLLOUT, "fleet": {"fleet": ["fleet"], "status": ["fleet", "status"]}}


def rows(header: str) -> list[list[str]]:
    body = re.findall(rf"^\| {header} \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in body[0].splitlines()]


def test_every_action_is_a_documented_command() -> None:
    assert {row[0].strip("`") for row in rows("command")} == ACTIONS.keys()


def test_every_exit_code_is_documented() -> None:
    assert [int(row[0]) for row in rows("code")] == sorted(ExitCode)


def test_the_errors_of_a_4_are_those_that_the_contract_says_to_retry() -> None:
    [errors] = [row[2] for row in rows("code") if row[0] == "4"]
    again = {name for name, error in vars(contract_errors).items() if getattr(error, "retry_helps", False)}

    assert set(re.findall(r"`(\w+)`", errors)) == again - {"SecretUnavailable"}


@pytest.mark.parametrize("command", sorted(ACTIONS))
def test_every_command_has_help(migrate: Callable[..., Ended], command: str) -> None:
    ended = migrate(command, "--help")

    assert (ended.code, ended.err) == (0, "")
    assert "--stage" in ended.out


@pytest.mark.parametrize(
    "command", [[each] for each in [*sorted(ACTIONS), "logs", "review"]] + list(ROLLOUT.values()), ids=" ".join
)
def test_the_help_ends_with_examples_whose_options_exist(migrate: Callable[..., Ended], command: list[str]) -> None:
    options, found, examples = migrate(*command, "--help").out.partition("Examples:")

    assert found
    shown = [line.split() for line in examples.splitlines() if line.strip()]
    assert all(words[0] == "migrate" and words[1] == command[0] for words in shown)
    assert all(word in options for words in shown for word in words if word.startswith("--"))
    assert all(len(line) <= 79 for line in examples.splitlines())


def test_the_help_of_a_group_ends_with_examples(migrate: Callable[..., Ended]) -> None:
    assert "migrate fleet status --stage prod" in migrate("fleet", "--help").out.partition("Examples:")[2]


def test_every_form_of_rollout_is_documented(migrate: Callable[..., Ended]) -> None:
    forms = {row[0].strip("`").replace("[NAME]", "").replace("NAME", "").strip() for row in rows("form")}
    options = {"rollout", *(f"rollout --{name}" for name in ("plan", "check", "approved", "downgrade-to"))}

    assert forms == options | {" ".join(form) for form in list(ROLLOUT.values())[1:]}
    assert all(migrate(*form, "--help").code == 0 for form in ROLLOUT.values())


@pytest.mark.parametrize("arguments", SHOWN, ids=" ".join)
def test_a_command_shown_has_options_that_exist(migrate: Callable[..., Ended], arguments: list[str]) -> None:
    words = GROUPS.get(arguments[0], {arguments[0]: [arguments[0]]})
    command = arguments[1] if arguments[1] in words else arguments[0]
    help_text = migrate(*words[command], "--help").out

    for option in (word for word in arguments if word.startswith("--")):
        assert re.search(rf"{option}\b", help_text)


def test_commands_are_shown() -> None:
    assert len(SHOWN) == 15


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--help"}))
def test_an_option_that_is_named_exists(migrate: Callable[..., Ended], option: str) -> None:
    commands = [[command] for command in ACTIONS] + [form for group in GROUPS.values() for form in group.values()]
    known = "".join(migrate(*command, "--help").out for command in commands)

    assert re.search(rf"{option}\b", known)


def test_the_installed_command_is_this_one_from_any_folder(tmp_path: object) -> None:
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "migrate", "status", "--json"],
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "See: migrate status --help" in done.stderr
