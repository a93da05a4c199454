"""What the command prints from the function's log: progress, the facts of a failed run, and `migrate logs`."""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from migrate_cli import follower
from tests.support.aws_stub import REQUEST_ID, Reply, Stub, failure, line, result
from tests.support.command_line import FAILED_STORY, STORY, started
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended


def test_each_revision_is_shown_while_the_function_runs(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.lines = lambda: STORY
    aws.replies = [Reply(result(), until=lambda: len(aws.log_requests) > len(STORY))]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert ended.err.splitlines()[1:] == [
        "1 of 2: running bbbb ([b]Add users)",
        "1 of 2: committed bbbb in 1,400 ms ([b]Add users)",
        "2 of 2: running cccc (Backfill)",
    ]
    assert all(request["startTime"] > (time.time() - 60) * 1000 for request in aws.log_requests)


def test_a_log_that_may_not_be_read_is_a_note_and_no_failure(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.logs_refusal = Reply({"__type": "AccessDeniedException", "message": "not you"}, 400)

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["status"]) == (0, "ok")
    assert "the log cannot be read" in ended.err
    assert "not you" in ended.err


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "ThrottlingException"])
def test_a_log_that_is_not_there_yet_is_no_trouble(aws: Stub, migrate: Callable[..., Ended], code: str) -> None:
    aws.replies = [Reply(result(), until=lambda: len(aws.log_requests) > 1)]
    aws.logs_refusal = Reply({"__type": code, "message": "later"}, 400)

    ended = migrate("upgrade", "--stage", "dev")

    assert (ended.code, len(ended.err.splitlines())) == (0, 1)


def test_an_unknown_log_line_ends_the_progress_and_not_the_run(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.lines = lambda: [STORY[1], line("revision.applied", revision="bbbb", duration_ms="soon")]
    aws.replies = [Reply(result(), until=lambda: len(aws.log_requests) > 2)]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["status"]) == (0, "ok")
    assert "No more progress will be shown: ValueError" in ended.err


def test_a_failed_run_shows_the_applied_revisions_the_failure_with_its_place_and_the_rest(
    aws: Stub, migrate: Callable[..., Ended]
) -> None:
    aws.lines = lambda: FAILED_STORY
    aws.replies = [failure("MigrationFailed", "revision cccc failed")]

    ended = migrate("upgrade", "--stage", "dev")

    shown = ended.err.splitlines()
    table = next(number for number, row in enumerate(shown) if row.startswith("Revision  "))
    assert [row.split() for row in shown[table : table + 2]] == [
        ["Revision", "Description", "Duration"],
        ["bbbb", "Add", "users", "1,400", "ms"],
    ]
    assert shown[shown.index("MigrationFailed: revision cccc failed") :] == [
        "MigrationFailed: revision cccc failed",
        "Revision:  cccc (Unique e-mails)",
        "File:      migrations/versions/cccc.py:17",
        "Statement: CREATE UNIQUE INDEX mails ON users (mail)",
        "SQLSTATE:  23505",
        "Detail:    Key (mail)=(a@b.c) is duplicated.",
        "Hint:      Look.",
        "Not run:   dddd, eeee",
        f"Request:   {REQUEST_ID}",
        "Runbook:   docs/errors.md#migrationfailed",
        "Fix the revision or the data and deploy. Then:",
        "  migrate upgrade --stage dev",
    ]


def test_its_facts_are_fields_of_the_document(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.lines = lambda: FAILED_STORY
    aws.replies = [failure("MigrationFailed", "revision cccc failed")]

    error = migrate("upgrade", "--stage", "dev", "--json").document["error"]

    assert error == {
        "type": "MigrationFailed",
        "message": "revision cccc failed",
        "request_id": REQUEST_ID,
        "revision": "cccc",
        "statement": "CREATE UNIQUE INDEX mails ON users (mail)",
        "sqlstate": "23505",
        "file": "migrations/versions/cccc.py",
        "line": 17,
        "applied": [{"revision": "bbbb", "description": "Add users", "duration_ms": 1400}],
        "pending": ["cccc", "dddd", "eeee"],
    }


def test_a_run_that_lambda_killed_shows_the_revision_that_was_running(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_PATIENCE_WITH_THE_KILLED_S", 0)
    aws.lines = lambda: FAILED_STORY[:4]
    aws.replies = [failure("Sandbox.Timedout", "Task timed out")]

    error = migrate("upgrade", "--stage", "dev", "--json").document["error"]

    assert (error["type"], error["revision"], len(error["applied"])) == ("Sandbox.Timedout", "cccc", 1)


def test_the_log_of_a_run_is_for_people(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.lines = lambda: FAILED_STORY

    ended = migrate("logs", REQUEST_ID, "--stage", "dev")

    rows = [row.split(None, 1)[-1] for row in ended.out.splitlines()]
    assert ended.code == 0
    assert rows[0] == "migration.started upgrade to head"
    assert rows[2] == "revision.applied bbbb Add users committed"
    assert "migrations/versions/cccc.py" in ended.out
    assert [request["filterPattern"] for request in aws.log_requests] == [f'"{REQUEST_ID}"'] * len(aws.log_requests)


def test_a_log_line_shows_a_revision_once(aws: Stub, migrate: Callable[..., Ended]) -> None:
    words = "committed bbbb (Add users)"
    aws.lines = lambda: [line("revision.applied", words, revision="bbbb", description="Add users")]

    ended = migrate("logs", REQUEST_ID, "--stage", "dev")

    assert ended.out.split(None, 1)[-1] == f"revision.applied {words}\n"


def test_a_log_without_a_region_asks_for_one_and_not_for_a_permission(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)

    ended = migrate("logs", REQUEST_ID, "--stage", "dev")

    assert (ended.code, aws.log_requests) == (3, [])
    assert "NoRegionError: " in ended.err
    assert "Pass --region" in ended.err
    assert "logs:FilterLogEvents" not in ended.err


def test_with_json_its_lines_are_as_the_log_has_them(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.lines = lambda: FAILED_STORY

    ended = migrate("logs", REQUEST_ID, "--stage", "dev", "--json")

    assert [json.loads(row) for row in ended.out.splitlines()] == FAILED_STORY


def test_without_a_request_it_is_the_log_of_the_last_run(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.lines = lambda: [line("migration.started", "the one before", request_id="before"), *FAILED_STORY]

    ended = migrate("logs", "--stage", "dev")

    assert "upgrade to head" in ended.out
    assert "the one before" not in ended.out


def test_a_request_that_the_log_does_not_have_is_named(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.lines = list

    ended = migrate("logs", "unknown", "--stage", "dev")

    assert (ended.code, ended.out) == (2, "")
    assert "has no line of request unknown" in ended.err


@pytest.mark.stress
def test_ctrl_c_shows_that_the_function_continues_and_the_commands_to_check_it(stub: Stub) -> None:
    ended = threading.Event()
    stub.replies = [Reply(result(), until=ended.is_set)]
    with started(stub, "upgrade", "--stage", "dev", "--json") as process:
        eventually(lambda: stub.events)

        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        ended.set()

    assert (process.returncode, json.loads(out)["error"]["type"]) == (130, "Interrupted")
    assert "continues the upgrade" in err.decode()
    assert "-m migrate_cli status --stage dev" in err.decode()
    assert "-m migrate_cli logs --stage dev" in err.decode()
    assert "Traceback" not in err.decode()
