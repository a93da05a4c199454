"""Standard output is for results; what else is said depends on who reads it: a person, a pipe, GitHub Actions."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest

from tests.support.aws_stub import REQUEST_ID, Reply, Stub, failure, line, refusal, result
from tests.support.checkout import ROOT
from tests.support.processes import interruptible, killing
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.cli.conftest import Ended

ESCAPE = "\x1b"
COMMAND = [sys.executable, "-m", "migrate_cli"]


def environment(stub: Stub) -> dict[str, str]:
    return {**os.environ, **stub.environment(), "TERM": "xterm-256color", "COLUMNS": "60"}


def started(
    stub: Stub,
    *arguments: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int | BinaryIO = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """The command at work, which SIGINT interrupts; it is killed at the end of the context."""
    command = [*COMMAND, *arguments]
    with interruptible():
        return killing(
            subprocess.Popen(command, cwd=ROOT, env=environment(stub), stdin=stdin, stdout=stdout, stderr=stderr)
        )


def finished(
    stub: Stub, *arguments: str, stdout: int | BinaryIO = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """The command when it has ended, with what it printed."""
    with started(stub, *arguments, stdout=stdout) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


# --- JSON ---


def test_json_is_the_functions_answer_and_nothing_else(stub: Stub) -> None:
    answer = result(applied=[{"revision": "bbbb", "description": "[red]é\n漢", "duration_ms": 1}])
    stub.replies = [Reply(answer)]

    done = finished(stub, "upgrade", "--stage", "dev", "--json")

    assert (done.returncode, json.loads(done.stdout)) == (0, answer)
    assert done.stdout.count(b"\n") == 1
    assert b"upgrade on template-saas-api-migrate-lambda-dev" in done.stderr


@pytest.mark.parametrize("action", ["plan", "status", "history", "doctor", "check", "downgrade", "stamp"])
def test_json_of_every_action_is_its_answer(aws: Stub, migrate: Callable[..., Ended], action: str) -> None:
    aws.replies = [Reply(result(action))]
    revision = {"downgrade": ["base"], "stamp": ["head"]}.get(action, [])

    ended = migrate(action, *revision, "--stage", "dev", "--json")

    assert (ended.code, ended.document) == (0, result(action))


# --- a pipe ---


def test_a_pipe_gets_plain_rows_whatever_the_width(stub: Stub) -> None:
    description = "word " * 60
    stub.replies = [Reply(result(applied=[{"revision": "bbbb", "description": description, "duration_ms": 14}]))]

    done = finished(stub, "upgrade", "--stage", "dev")

    [row] = [row for row in done.stdout.decode().splitlines() if row.startswith("bbbb")]
    assert row.split() == ["bbbb", *description.split(), "14", "ms"]
    assert ESCAPE.encode() not in done.stdout + done.stderr


def test_whoever_stops_reading_does_not_change_the_exit_code(stub: Stub) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = finished(stub, "upgrade", "--stage", "dev", stdout=theirs)
    os.close(theirs)

    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


def test_neither_does_whoever_stops_reading_a_long_document(stub: Stub) -> None:
    stub.replies = [Reply(result(database="x" * 100_000))]
    ours, theirs = os.pipe()
    os.close(ours)
    done = finished(stub, "upgrade", "--stage", "dev", "--json", stdout=theirs)
    os.close(theirs)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_result_that_cannot_be_written_is_no_success_and_no_traceback(stub: Stub, form: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = finished(stub, "upgrade", "--stage", "dev", *form, stdout=full)

    assert done.returncode == 3
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("closed,code", [("<&-", 2), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 2)])
def test_a_stream_that_is_closed_is_one_that_nobody_reads(stub: Stub, closed: str, code: int) -> None:
    stage = "prod" if "<" in closed else "dev"
    command = f"{sys.executable} -m migrate_cli upgrade --stage {stage} {closed}"

    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment(stub), capture_output=True, check=False)

    assert (done.returncode, b"Traceback" in done.stderr) == (code, False)


def test_a_piped_plan_is_sql(aws: Stub, migrate: Callable[..., Ended]) -> None:
    found = {"rule": "ban-drop-column", "severity": "error", "message": "It is\nread.", "reason": "Not any more."}
    plan = [
        {
            "revision": "bbbb",
            "description": "Add\nDROP TABLE users;",
            "sql": "CREATE TABLE a (\n  b int\n);",
            "findings": [found],
        },
        {"revision": "cccc", "description": "Compute", "sql": None, "error": "needs\na database"},
    ]
    aws.replies = [Reply(result("plan", plan=plan))]

    out = migrate("plan", "--stage", "dev").out

    statements = [row for row in out.splitlines() if row and not row.startswith("--")]
    assert statements == ["CREATE TABLE a (", "  b int", ");"]
    assert "-- needs a database" in out
    assert "-- error ban-drop-column: It is read., acknowledged: Not any more." in out


def test_a_piped_plans_sql_is_what_the_function_answered_to_the_letter(stub: Stub) -> None:
    sql = f"COMMENT ON TABLE a IS 'tab\there, {ESCAPE}[0m, line\r\nend';"
    stub.replies = [Reply(result("plan", plan=[{"revision": "bbbb", "description": "Add", "sql": sql}]))]

    assert sql.encode() in finished(stub, "plan", "--stage", "dev").stdout


def test_text_of_others_is_neither_markup_nor_a_terminals_command(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.replies = [failure("MigrationFailed", f"[bold]x[/bold] [/nonsense] {ESCAPE}[2J")]

    ended = migrate("upgrade", "--stage", "dev")

    assert "[bold]x[/bold] [/nonsense]" in ended.err
    assert ESCAPE not in ended.err


# --- a terminal ---


def in_terminal(stub: Stub, *arguments: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    try:
        with started(stub, *arguments, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            screen = b""
            # On Linux, a read fails once the other side is closed.
            with suppress(OSError):
                while part := os.read(ours, 65536):
                    screen += part
            return process.wait(), screen.decode()
    finally:
        os.close(ours)


def test_a_terminal_gets_colours_and_a_moving_bar(stub: Stub) -> None:
    stub.replies = [Reply(result(), after_s=0.5)]

    code, said = in_terminal(stub, "upgrade", "--stage", "dev")

    assert code == 0
    assert f"{ESCAPE}[?25l" in said  # the cursor is hidden while something moves
    assert said.rstrip().endswith("s.")
    assert "Applied 1 revision" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)


def test_the_bar_leaves_room_for_what_ctrl_c_writes_beside_it(stub: Stub) -> None:
    stub.lines = lambda: [STORY[1], line("revision.started", "running", revision="bbbb", description="long " * 60)]
    stub.replies = [Reply(result(), until=lambda: len(stub.log_requests) > 3)]

    _, said = in_terminal(stub, "upgrade", "--stage", "dev")

    drawn = [row for row in re.split(r"[\r\n]|\x1b\[2K", said) if "bbbb (long" in row]
    assert drawn
    assert {len(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", row)) for row in drawn} == {57}  # of 60


def test_a_terminal_shows_sql_in_colours(stub: Stub) -> None:
    plan = [{"revision": "bbbb", "description": "Add", "sql": "CREATE TABLE a (b int);"}]
    stub.replies = [Reply(result("plan", plan=plan))]

    _, said = in_terminal(stub, "plan", "--stage", "dev")

    assert re.search(r"\x1b\[[0-9;]*mCREATE", said)


# --- progress ---


STORY = [
    line("migration.started", "upgrade to head", request_id="of-another", action="status"),
    line("migration.started", "upgrade to head"),
    line("revision.started", "running", revision="bbbb", description="[b]Add users", step=1, steps=2),
    line("revision.applied", "committed", revision="bbbb", description="[b]Add users", duration_ms=1400),
    line("revision.applied", "committed", revision="zzzz", request_id="of-another", duration_ms=1),
    line("revision.started", "running", revision="cccc", description="Backfill"),
]


def test_each_revision_is_told_while_the_function_works(aws: Stub, migrate: Callable[..., Ended]) -> None:
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


def test_a_line_that_is_not_what_we_know_ends_the_picture_and_not_the_run(
    aws: Stub, migrate: Callable[..., Ended]
) -> None:
    aws.lines = lambda: [STORY[1], line("revision.applied", revision="bbbb", duration_ms="soon")]
    aws.replies = [Reply(result(), until=lambda: len(aws.log_requests) > 2)]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["status"]) == (0, "ok")
    assert "No more progress will be shown: ValueError" in ended.err


# --- Ctrl-C ---


def test_ctrl_c_says_that_the_function_goes_on_and_where_to_look(stub: Stub) -> None:
    ended = threading.Event()
    stub.replies = [Reply(result(), until=ended.is_set)]
    with started(stub, "upgrade", "--stage", "dev", "--json") as process:
        eventually(lambda: stub.events)

        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        ended.set()

    assert (process.returncode, json.loads(out)["error"]["type"]) == (130, "Interrupted")
    assert "goes on" in err.decode()
    assert "-m migrate_cli status --stage dev" in err.decode()
    assert "aws logs filter-log-events --log-group-name /aws/lambda/" in err.decode()
    assert "Traceback" not in err.decode()


# --- GitHub Actions ---


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


def test_a_success_is_a_table_in_the_jobs_summary(aws: Stub, migrate: Callable[..., Ended], summary: Path) -> None:
    aws.replies = [Reply(result(applied=[{"revision": "bbbb", "description": "a|b", "duration_ms": 1400}]))]
    summary.write_text("of the step before\n", encoding="utf-8")

    ended = migrate("upgrade", "--stage", "dev")

    assert "::error" not in ended.err
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("of the step before\n### migrate upgrade (dev)\n\n| | |\n| --- | --- |\n")
    assert "| bbbb | a\\|b | 1,400 ms |" in text
    assert f"| request | {REQUEST_ID} |" in text


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
