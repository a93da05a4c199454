"""What the command prints for a result: JSON, rows in a pipe, colours in a terminal, help, and the next command."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.aws_stub import Reply, Stub, failure, line, refusal, result
from tests.support.checkout import ROOT
from tests.support.command_line import STORY, environment, finished, started

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended


ESCAPE = "\x1b"


def test_json_is_the_functions_answer_and_nothing_else(aws: Stub, migrate: Callable[..., Ended]) -> None:
    answer = result(applied=[{"revision": "bbbb", "description": "[red]é\n漢", "duration_ms": 1}])
    aws.replies = [Reply(answer)]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document) == (0, answer)
    assert ended.out.count("\n") == 1
    assert "upgrade on template-saas-api-migrate-lambda-dev" in ended.err


@pytest.mark.parametrize("action", ["plan", "status", "history", "doctor", "check", "downgrade", "stamp"])
def test_json_of_every_action_is_its_answer(aws: Stub, migrate: Callable[..., Ended], action: str) -> None:
    aws.replies = [Reply(result(action))]
    revision = {"downgrade": ["base"], "stamp": ["head"]}.get(action, [])

    ended = migrate(action, *revision, "--stage", "dev", "--json")

    assert (ended.code, ended.document) == (0, result(action))


@pytest.mark.stress
def test_a_pipe_gets_plain_rows_whatever_the_width(stub: Stub) -> None:
    description = "word " * 60
    stub.replies = [Reply(result(applied=[{"revision": "bbbb", "description": description, "duration_ms": 14}]))]

    done = finished(stub, "upgrade", "--stage", "dev")

    [row] = [row for row in done.stdout.decode().splitlines() if row.startswith("bbbb")]
    assert row.split() == ["bbbb", *description.split(), "14", "ms"]
    assert ESCAPE.encode() not in done.stdout + done.stderr


@pytest.mark.stress
def test_a_closed_pipe_does_not_change_the_exit_code(stub: Stub) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = finished(stub, "upgrade", "--stage", "dev", stdout=theirs)
    os.close(theirs)

    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.stress
def test_a_pipe_closed_within_a_long_document_does_not_change_the_exit_code(stub: Stub) -> None:
    stub.replies = [Reply(result(database="x" * 100_000))]
    ours, theirs = os.pipe()
    os.close(ours)
    done = finished(stub, "upgrade", "--stage", "dev", "--json", stdout=theirs)
    os.close(theirs)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "form", [pytest.param([], id="text"), pytest.param(["--json"], id="json", marks=pytest.mark.stress)]
)
def test_a_result_that_cannot_be_written_is_no_success_and_no_traceback(stub: Stub, form: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = finished(stub, "upgrade", "--stage", "dev", *form, stdout=full)

    assert done.returncode == 3
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.stress
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_one_that_nobody_reads(stub: Stub, closed: str) -> None:
    stage, code = ("prod", 2) if "<" in closed else ("dev", 0)
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


def test_a_plan_begins_with_the_preflight(aws: Stub, migrate: Callable[..., Ended]) -> None:
    table = {"table": "users", "rows": 3_100_000, "bytes": 921_600_000, "lock": "SHARE", "blocks": "writes"}
    table |= {"reads_all": True, "rewrites": False, "estimated_ms": 18_400}
    unique = {"check": "unique", "table": "users", "columns": ["mail"], "result": "failed", "violations": 2}
    blocker = {"pid": 4711, "application_name": "report", "since": "2026-11-27 09:12", "table": "users"}
    found = {"verdict": "fails", "tables": [table], "checks": [{**unique, "query": "SELECT 1"}], "blockers": [blocker]}
    entry = {"revision": "bbbb", "description": "Unique mails", "sql": "CREATE INDEX ...;", "preflight": found}
    aws.replies = [Reply(result("plan", plan=[entry]))]

    rows = migrate("plan", "--stage", "dev").out.splitlines()

    assert rows[:5] == [
        "-- fails bbbb (Unique mails)",
        "-- users: 3,100,000 rows, 879 MB, blocks writes for about 18.4 s",
        "-- unique mail: failed: 2 rows",
        "-- SELECT 1",
        "-- report (pid 4711) has users since 2026-11-27 09:12",
    ]


@pytest.mark.parametrize("longest_ms,read", [(18_400, True), (900, False)])
def test_a_plan_of_a_long_revision_shows_what_earlier_runs_took(
    aws: Stub, migrate: Callable[..., Ended], *, longest_ms: int, read: bool
) -> None:
    found = {"verdict": "ok", "tables": [], "checks": [], "blockers": [], "estimated_ms": [100, longest_ms]}
    entry = {"revision": "bbbb", "description": "Unique mails", "sql": "SELECT 1;", "preflight": found}
    aws.replies = [Reply(result("plan", plan=[entry]))]
    earlier = (("aaaa", 1000, 250), ("aaaa", 20, 90), ("bbbb", 2000, 1800), ("cccc", None, 90), ("bbbb", 1000, 600))
    aws.lines = lambda: [
        line("revision.applied", revision=revision, estimated_ms=estimated, duration_ms=took)
        for revision, estimated, took in earlier
    ]

    err = migrate("plan", "--stage", "dev").err

    assert (
        "In the last 30 days, revisions took 0.2 to 0.9 times the upper end of their estimates (3 runs).\n"
        "At other targets, revision bbbb took 0.6 to 0.9 times the upper end of its estimates (2 runs)." in err
    ) is read
    assert any("filterPattern" in each for each in aws.log_requests) is read


def test_a_plan_is_shown_before_the_log_is_searched(
    aws: Stub, migrate: Callable[..., Ended], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"verdict": "ok", "tables": [], "checks": [], "blockers": [], "estimated_ms": [100, 5000]}
    entry = {"revision": "bbbb", "description": "Unique mails", "sql": "SELECT 1;", "preflight": found}
    aws.replies = [Reply(result("plan", plan=[entry]))]
    shown: list[str] = []

    def lines() -> list[dict[str, Any]]:
        shown.append(capsys.readouterr().out)
        return []

    aws.lines = lines

    migrate("plan", "--stage", "dev")

    assert "SELECT 1;" in shown[0]


def test_a_plan_is_shown_without_the_times_of_earlier_runs(aws: Stub, migrate: Callable[..., Ended]) -> None:
    found = {"verdict": "ok", "tables": [], "checks": [], "blockers": [], "estimated_ms": [100, 5000]}
    entry = {"revision": "bbbb", "description": "Unique mails", "sql": "SELECT 1;", "preflight": found}
    aws.replies = [Reply(result("plan", plan=[entry]))]
    aws.logs_refusal = refusal(400, "AccessDeniedException", "no rights")

    ended = migrate("plan", "--stage", "dev")

    assert (ended.code, "SELECT 1;" in ended.out) == (0, True)
    assert "The times of earlier runs could not be read: " in ended.err


def test_a_piped_plan_has_the_functions_sql_unchanged(aws: Stub, migrate: Callable[..., Ended]) -> None:
    sql = f"COMMENT ON TABLE a IS 'tab\there, {ESCAPE}[0m, line\r\nend';"
    aws.replies = [Reply(result("plan", plan=[{"revision": "bbbb", "description": "Add", "sql": sql}]))]

    assert sql in migrate("plan", "--stage", "dev").out


def test_text_of_others_is_neither_markup_nor_a_terminals_command(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.replies = [failure("MigrationFailed", f"[bold]x[/bold] [/nonsense] {ESCAPE}[2J")]

    ended = migrate("upgrade", "--stage", "dev")

    assert "[bold]x[/bold] [/nonsense]" in ended.err
    assert ESCAPE not in ended.err


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


@pytest.mark.stress
def test_a_terminal_gets_colours_and_a_moving_bar(stub: Stub) -> None:
    stub.replies = [Reply(result(), after_s=0.5)]

    code, screen = in_terminal(stub, "upgrade", "--stage", "dev")

    assert code == 0
    assert f"{ESCAPE}[?25l" in screen  # the cursor is hidden while something moves
    assert screen.rstrip().endswith("s.")
    assert "Applied 1 revision" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)


@pytest.mark.stress
def test_the_bar_leaves_room_for_the_echo_of_ctrl_c(stub: Stub) -> None:
    stub.lines = lambda: [STORY[1], line("revision.started", "running", revision="bbbb", description="long " * 60)]
    stub.replies = [Reply(result(), until=lambda: len(stub.log_requests) > 3)]

    _, screen = in_terminal(stub, "upgrade", "--stage", "dev")

    drawn = [row for row in re.split(r"[\r\n]|\x1b\[2K", screen) if "bbbb (long" in row]
    assert drawn
    assert {len(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", row)) for row in drawn} == {57}  # of 60


@pytest.mark.stress
def test_a_terminal_shows_sql_in_colours(stub: Stub) -> None:
    plan = [{"revision": "bbbb", "description": "Add", "sql": "CREATE TABLE a (b int);"}]
    stub.replies = [Reply(result("plan", plan=plan))]

    _, screen = in_terminal(stub, "plan", "--stage", "dev")

    assert re.search(r"\x1b\[[0-9;]*mCREATE", screen)


@pytest.mark.stress
def test_a_preflight_fits_into_80_columns(stub: Stub) -> None:
    table: dict[str, Any] = {"table": "customer_addresses", "rows": 20_400_000, "bytes": 4_509_715_660, "lock": "SHARE"}
    table |= {"blocks": "reads and writes", "reads_all": True, "rewrites": False, "estimated_ms": 31_500}
    check: dict[str, Any] = {"check": "not_null", "table": "customer_addresses", "violations": 1000}
    check["columns"] = ["country_code"]
    check |= {"result": "failed", "query": 'SELECT * FROM customer_addresses WHERE "country_code" IS NULL'}
    passed = {**check, "check": "unique", "result": "passed", "violations": 0, "sampled": 0.0123}
    blocker = {"pid": 4711, "application_name": "report", "since": "2026-11-27 09:12", "table": "customer_addresses"}
    found: dict[str, Any] = {"verdict": "fails", "tables": [table], "checks": [check, passed], "blockers": [blocker]}
    found |= {"estimated_ms": [14_000, 31_500], "acknowledged": {"slow": "nobody works at night"}}
    found["unchecked"] = ["customer_addresses"]
    entry = {"revision": "4b1f0d9c7e21", "description": "Require the country", "sql": "SELECT 1;", "preflight": found}
    holdup = {"kind": "replica", "message": "replica east is behind by 90 s and 2.0 GB"}
    stub.replies = [Reply(result("plan", plan=[entry], holdups=[holdup]))]

    _, screen = in_terminal(stub, "plan", "--stage", "dev")

    rows = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen).splitlines()
    assert max(len(row) for row in rows) <= 80
    text = " ".join(" ".join(rows).split())
    assert "Verdict" in text
    for part in (
        "takes about 14 s to 32 s",
        "not_null country_code: failed: 1,000 or more rows",
        "unique country_code: passed, in a sample of 1.23%",
        "report (pid 4711) has customer_addresses since 2026-11-27 09:12",
        "changes rows of customer_addresses: no check shows whether they allow it",
        "acknowledged: nobody works at night",
        "replica east is behind",
    ):
        assert part in text


@pytest.mark.stress
def test_long_names_of_a_preflight_are_shown_in_full(stub: Stub) -> None:
    long, revision = f"{'s' * 62}e.{'t' * 62}e", f"{'r' * 99}e"
    table: dict[str, Any] = {"table": long, "rows": 10**12, "bytes": 10**15, "lock": "ACCESS EXCLUSIVE"}
    table |= {"blocks": "reads and writes", "reads_all": True, "rewrites": True, "estimated_ms": 10**9}
    check = {"check": "foreign_key", "table": long, "columns": ["c" * 63], "result": "failed", "violations": 999}
    found: dict[str, Any] = {
        "verdict": "unknown",
        "tables": [table],
        "checks": [{**check, "query": f"SELECT * FROM {long}"}],  # noqa: S608 - of a check
    }
    found |= {"blockers": [], "estimated_ms": [10**8, 10**9], "acknowledged": {}}
    entry = {"revision": revision, "description": "d" * 200, "sql": "SELECT 1;", "preflight": found}
    stub.replies = [Reply(result("plan", plan=[entry]))]

    _, screen = in_terminal(stub, "plan", "--stage", "dev")

    rows = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen).splitlines()
    assert max(len(row) for row in rows) <= 80
    head = next(number for number, row in enumerate(rows) if row.startswith("Verdict"))
    starts = [rows[head].index(each) for each in ("Revision", "Table", "Blocks")]
    of_table = rows[head + 1 : rows.index("", head)]
    names = ["".join(row[start:end].strip() for row in of_table) for start, end in pairwise(starts)]
    assert (names[0], names[1].partition(":")[0]) == (revision, long)
    below = "".join(row.strip() for row in rows[head + 1 + len(of_table) :])
    assert f"{revision}({'d' * 200})" in below
    assert f"foreign_key{'c' * 63}: failed: 999 rows" in below


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)], ids=" ".join)
def test_help_lists_the_commands(migrate: Callable[..., Ended], arguments: tuple[str, ...]) -> None:
    ended = migrate(*arguments)

    assert ended.code == 0
    assert "Apply the pending revisions" in ended.out


def test_the_version_is_printed(migrate: Callable[..., Ended]) -> None:
    assert re.fullmatch(r"migrate \d+\.\d+\.\d+\n", migrate("--version").out)


def test_the_help_of_rollout_has_its_options_and_commands(migrate: Callable[..., Ended]) -> None:
    shown = migrate("rollout", "-h").out

    assert "--plan" in shown
    assert "retry" in shown


def test_upgrade_with_dry_run_names_plan(aws: Stub, migrate: Callable[..., Ended]) -> None:
    ended = migrate("upgrade", "--dry-run", "--function", "shop", "--region", "eu-west-1", "--database", "tenant_1")

    assert (ended.code, aws.events) == (2, [])
    assert "\n  migrate plan --function shop --region eu-west-1 --database tenant_1\n" in ended.err


STEPS = [{"step": "secret", "ok": False, "duration_ms": 3, "message": "denied"}]
PLAN = [{"revision": "cccc", "description": "Add it", "sql": "SELECT 1", "findings": None, "preflight": None}]


REFUSED = {"verdict": "fails", "tables": [], "checks": [], "blockers": []}
TARGET = ("--database", "tenant_1")


@pytest.mark.parametrize(
    "action,answer,command",
    [
        ("doctor", {"healthy": False, "steps": STEPS}, "migrate doctor"),
        ("plan", {"plan": PLAN}, "migrate upgrade"),
        ("plan", {"plan": [{**PLAN[0], "preflight": REFUSED}]}, "migrate plan"),
    ],
)
def test_a_look_ends_with_the_next_command_for_the_same_database(
    aws: Stub, migrate: Callable[..., Ended], action: str, answer: dict[str, Any], command: str
) -> None:
    aws.replies = [Reply({**result(action), **answer})]

    ended = migrate(action, "--stage", "dev", *TARGET)

    assert ended.err.splitlines()[-1] == f"  {command} --stage dev --database tenant_1"


@pytest.mark.parametrize(
    "action,kind,command",
    [
        ("check", "DriftDetected", "migrate check --stage dev --database tenant_1"),
        ("plan", "SecretUnavailable", "migrate doctor --stage dev --database tenant_1"),
        ("upgrade", "InvalidRequest", "migrate history --stage dev"),
    ],
)
def test_a_failure_ends_with_a_command_for_the_same_database(
    aws: Stub, migrate: Callable[..., Ended], action: str, kind: str, command: str
) -> None:
    aws.replies = [failure(kind)]

    ended = migrate(action, "--stage", "dev", *TARGET)

    last = ended.err.splitlines()[-1]
    assert (last, len(last) <= 80) == (f"  {command}", True)
