"""How a command finds a stage's AWS account and region, and the confirmation before a change of production."""

from __future__ import annotations

import io
import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from infra.names import Names
from localcloud import cloud
from localcloud.emulator import Emulator
from migrate_cli import stages
from migrate_cli.errors import ExitCode
from tests.support.aws_stub import Reply, failure, line, result
from tests.support.checkout import change_project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended
    from tests.support.aws_stub import Stub


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose local cloud is not running. The developer's own may be."""
    shutil.copy(stages.ROOT / "cdk.json", tmp_path)
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("checkout")
def test_the_error_of_a_stopped_local_cloud_names_the_command_that_starts_it(migrate: Callable[..., Ended]) -> None:
    ended = migrate("status", "--stage", "local", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (3, "LocalCloudDown")
    assert "make migrate" in ended.err


def test_stage_local_is_looked_for_in_the_local_cloud(
    checkout: Path, emulator: Emulator, migrate: Callable[..., Ended]
) -> None:
    (checkout / ".local").mkdir()
    (checkout / ".local" / "emulator").symlink_to(emulator.directory)

    ended = migrate("status", "--stage", "local", "--json")

    # It is asked, and has no such function.
    assert (ended.code, ended.document["error"]["type"]) == (3, "ResourceNotFoundException")


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_no_other_stage_falls_back_to_the_local_cloud(
    migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(cloud, "running_emulator", lambda _: pytest.fail("the local cloud was looked for"))

    ended = migrate("status", "--stage", stage, "--region", "eu-central-1", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (3, "NoCredentialsError")


def test_an_error_in_the_local_cloud_has_the_request_id_of_the_log(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The emulator's answer has another id, which its log does not know."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    running = Emulator(aws.endpoint, "us-east-1", tmp_path, "key")
    monkeypatch.setattr(cloud, "running_emulator", lambda _: running)
    message = "revision cccc failed"
    aws.lines = lambda: [line("migration.failed", message, request_id="of-the-log")]
    aws.replies = [failure("MigrationFailed", message), failure("DriftDetected", "the models differ")]

    errors = [migrate(action, "--stage", "local", "--json").document["error"] for action in ("upgrade", "check")]

    assert [error["request_id"] for error in errors] == ["of-the-log", None]


def test_settings_of_ones_own_win_over_the_local_cloud_and_name_the_account(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "running_emulator", lambda _: pytest.fail("the local cloud was looked for"))

    assert migrate("upgrade", "--stage", "local").code == 0
    # Credentials of another account must not reach its function of the same name.
    assert aws.functions == ["arn:aws:lambda:us-east-1:000000000000:function:template-saas-api-migrate-lambda-local"]


# --- production ---


class Terminal(io.StringIO):
    """Let a person type this on standard input."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("arguments", [("upgrade",), ("downgrade", "-1"), ("stamp", "head")], ids=" ".join)
def test_production_is_not_changed_without_a_terminal_to_confirm(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("prod\n"))

    ended = migrate(*arguments, "--stage", "prod")

    assert (ended.code, aws.events) == (2, [])
    assert f"\n  migrate {' '.join(arguments)} --stage prod --yes\n" in ended.err


@pytest.mark.parametrize("typed,code", [("prod\n", 0), ("y\n", 2), ("", 2)])
def test_production_is_changed_when_its_name_was_typed(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))

    assert migrate("upgrade", "--stage", "prod").code == code
    assert [event["action"] for event in aws.events] == ["status"] + ["upgrade"] * (code == 0)


def test_the_confirmation_shows_the_change(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = [{"revision": name, "description": ""} for name in ("bbbb", "cccc")]
    aws.replies = [Reply(result("status", revision="aaaa", pending=pending, up_to_date=False, lock=None))]
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))

    ended = migrate("upgrade", "head", "--stage", "prod", "--region", "eu-west-1")

    facts = dict(line.split(None, 1) for line in ended.err.splitlines() if line.startswith("  "))
    assert facts == {
        "account:": "123456789012",
        "region:": "eu-west-1",
        "database:": "app",
        "from:": "aaaa",
        "to:": "head",
        "applies:": "2 revisions",
    }


def test_yes_answers_for_the_person(aws: Stub, migrate: Callable[..., Ended]) -> None:
    assert migrate("upgrade", "--stage", "prod", "--yes").code == 0
    assert len(aws.events) == 1


def test_a_protected_stage_needs_a_confirmation_like_production(
    aws: Stub, checkout: Path, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = {"secret": "any"}
    change_project(checkout, stages={"live": {"database": database, "protect": True}, "test": {"database": database}})
    monkeypatch.setattr(sys, "stdin", Terminal("y\n" * 2))

    assert [migrate("upgrade", "--stage", stage).code for stage in ("live", "test")] == [2, 0]
    assert [event["action"] for event in aws.events] == ["status", "upgrade"]


def test_a_look_at_production_needs_no_answer(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.replies = [Reply(result("check"))]

    assert migrate("check", "--stage", "prod").code == 0


# --- where each stage is ---


def test_the_tree_is_drawn_with_where_each_stage_is(aws: Stub, migrate: Callable[..., Ended]) -> None:
    entries = [
        {"revision": "bbbb", "description": 'Say "<b>"', "down_revisions": ["aaaa"], "branch_labels": [], "head": True},
        {"revision": "aaaa", "description": "Begin", "down_revisions": [], "branch_labels": [], "head": False},
    ]
    statuses = [Reply(result("status", revision=revision)) for revision in ("aaaa", None, "cccc")]
    aws.replies = [Reply(result("history", history=entries, count=2)), *statuses]

    ended = migrate("history", "--stage", "dev", "--format", "mermaid")

    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[:4] == [
        "flowchart TD",
        '    r0["aaaa<br/>Begin"]',
        '    r1["bbbb<br/>Say #quot;#lt;b#gt;#quot;"]',
        "    r0 --> r1",
    ]
    assert '    s0(["dev"]):::stage\n    s0 -.-> r0\n' in ended.out
    assert '(["local<br/>empty"])' in ended.out
    assert '(["prod<br/>cccc: not in this package"])' in ended.out


# --- a function by its name, without a cdk.json ---


def test_a_function_is_invoked_by_its_name_where_there_is_no_cdk_json(
    migrate: Callable[..., Ended], aws: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "ROOT", tmp_path)

    assert migrate("status", "--function", "my-function").code == 0
    assert aws.functions == ["my-function"]
    assert migrate("status", "--stage", "dev").code == ExitCode.USAGE


def test_a_function_given_by_name_needs_a_confirmation(migrate: Callable[..., Ended], aws: Stub) -> None:
    refused = migrate("upgrade", "--function", "my-function")
    meant = migrate("upgrade", "--function", "my-function", "--yes")

    assert (refused.code, meant.code) == (ExitCode.USAGE, 0)
    assert "function my-function" in refused.err
    assert len(aws.events) == 1


def test_the_next_command_names_the_function_again(migrate: Callable[..., Ended], aws: Stub) -> None:
    aws.replies = [failure("ConfigurationError")]

    ended = migrate("status", "--function", "my-function")

    assert "migrate doctor --function my-function" in ended.err


@pytest.mark.parametrize(
    "arguments", [["--function", "arn:aws:lambda:x"], ["--function", "f", "--stage", "dev"], []], ids=" ".join
)
def test_one_name_leads_to_one_function(migrate: Callable[..., Ended], aws: Stub, arguments: list[str]) -> None:
    assert migrate("status", *arguments).code == ExitCode.USAGE
    assert aws.events == []


def test_the_rollouts_of_a_function_are_found_if_the_stack_gave_its_name(
    migrate: Callable[..., Ended], aws: Stub
) -> None:
    assert Names.of_function("acme-my-shop-migrate-lambda-dev") == Names("acme-my", "shop", "dev")
    ended = migrate("rollout", "list", "--function", "my-function")

    assert (ended.code, aws.events) == (ExitCode.USAGE, [])
