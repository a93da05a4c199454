"""What the command prints in GitHub Actions: annotations, and the job's summary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.aws_stub import REQUEST_ID, Reply, Stub, failure, refusal, result
from tests.support.command_line import FAILED_STORY
from tests.support.reports import planned

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    return file


def test_a_failure_is_an_annotation_on_one_line(aws: Stub, migrate: Callable[..., Ended], summary: Path) -> None:
    aws.replies = [failure("MigrationFailed", "100%\r\n::error::b | c <i>")]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    [annotation] = [row for row in ended.err.splitlines() if row.startswith("::")][-1:]
    title = "::error title=migrate upgrade (dev)%3A MigrationFailed::"
    assert annotation.startswith(f"{title}100%25%0D%0A::error::b | c <i>%0A")
    assert json.loads(ended.out)["error"]["type"] == "MigrationFailed"
    assert r"| message | 100% ::error::b \| c &lt;i&gt; |" in summary.read_text(encoding="utf-8")


def test_the_facts_of_a_failed_run_are_in_the_jobs_summary(
    aws: Stub, migrate: Callable[..., Ended], summary: Path
) -> None:
    aws.lines = lambda: FAILED_STORY
    aws.replies = [failure("MigrationFailed", "revision cccc failed")]

    migrate("upgrade", "--stage", "dev")

    text = summary.read_text(encoding="utf-8")
    for fact in (
        "| revision | cccc |",
        "| SQLSTATE | 23505 |",
        "| file | migrations/versions/cccc.py:17 |",
        "| not run | dddd, eeee |",
        "| runbook | docs/errors.md",
        "migrate upgrade --stage dev |",
        "| bbbb | Add users | 1,400 ms |",
    ):
        assert fact in text


def test_a_success_is_a_table_in_the_jobs_summary(aws: Stub, migrate: Callable[..., Ended], summary: Path) -> None:
    aws.replies = [Reply(result(applied=[{"revision": "bbbb", "description": "a|b", "duration_ms": 1400}]))]
    summary.write_text("of the step before\n", encoding="utf-8")

    ended = migrate("upgrade", "--stage", "dev")

    assert "::error" not in ended.err
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("of the step before\n### migrate upgrade (dev)\n\n| | |\n| --- | --- |\n")
    assert "| bbbb | a\\|b | 1,400 ms |" in text
    assert f"| request | {REQUEST_ID} |" in text


def test_a_plans_preflight_is_in_the_jobs_summary(aws: Stub, migrate: Callable[..., Ended], summary: Path) -> None:
    aws.replies = [Reply({**result("plan"), **planned()})]

    migrate("plan", "--stage", "dev")

    text = summary.read_text(encoding="utf-8").replace("\\", "")
    assert "| fails | 4b1f0d9c7e21 | users: 3.1 M rows, 879 MB | reads and writes up to 5.9 s | 1 failed |" in text
    assert "- 4b1f0d9c7e21: not_null mail: failed: 2 rows" in text
    assert "- replication slot reports is not read" in text


def test_a_failed_run_is_a_table_with_its_file_and_statement(
    aws: Stub, migrate: Callable[..., Ended], summary: Path
) -> None:
    aws.lines = lambda: FAILED_STORY
    aws.replies = [failure("MigrationFailed", "revision cccc failed")]

    migrate("upgrade", "--stage", "dev")

    text = summary.read_text(encoding="utf-8")
    assert "| file | migrations/versions/cccc.py:17 |" in text
    assert "| statement | CREATE UNIQUE INDEX mails ON users (mail) |" in text
    assert "| bbbb | Add users | 1,400 ms |" in text


def test_a_summary_that_cannot_be_written_is_a_note(aws: Stub, migrate: Callable[..., Ended], summary: Path) -> None:
    summary.mkdir()

    ended = migrate("upgrade", "--stage", "dev")

    assert ended.code == 0
    assert "summary could not be written" in ended.err
    assert len(aws.events) == 1


def test_trouble_with_aws_is_an_annotation_too(aws: Stub, migrate: Callable[..., Ended], summary: Path) -> None:
    aws.replies = [refusal(403, "AccessDeniedException")]

    assert "::error title=migrate status (dev)%3A AccessDeniedException::" in migrate("status", "--stage", "dev").err
    assert "AccessDeniedException" in summary.read_text(encoding="utf-8")


def test_what_delays_any_run_is_in_the_summary_of_a_plan_without_a_preflight(
    aws: Stub, migrate: Callable[..., Ended], summary: Path
) -> None:
    entry = {"revision": "4b1f0d9c7e21", "description": "Require the country", "sql": "SELECT 1;"}
    holdup = {"kind": "replica", "message": "replica east is behind by 90 s and 2.0 GB"}
    aws.replies = [Reply(result("plan", plan=[entry], holdups=[holdup]))]

    assert migrate("plan", "--stage", "dev").code == 0

    assert "- replica east is behind by 90 s and 2.0 GB" in summary.read_text(encoding="utf-8")
