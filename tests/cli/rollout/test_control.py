"""Commands for a rollout that was started before: status, stop, approve, retry, show and list."""

from __future__ import annotations

import json
import time
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from migrate_cli.actions import Call
from migrate_cli.rollout.machine import Machine, find
from migrate_cli.rollout.progress import RolloutProgress
from migrate_cli.rollout.terminal import progress_line, show_rollouts
from tests.support.reports import failure, report
from tests.support.rollout_runs import AWS, INTERRUPTED, LAST, RUNNING, USAGE, listed, runs
from tests.support.samples import sampled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended
    from tests.support.rollout_stub import RolloutStub

    Migrate = Callable[..., Ended]


def test_status_of_a_running_rollout_counts_each_target_once(aws: RolloutStub, migrate: Migrate) -> None:
    runs(
        aws,
        "1/migrated/1/5/head",
        "1/current/2/5/head",
        "2/failed/3/0/base",
        "2/migrated/3/9/head",
        "2/failed/4/0/base",
    )
    aws.ends = lambda _: RUNNING

    ended = migrate("rollout", "--stage", "dev", "status", "--json")
    assert ended.code == USAGE  # the command's name comes first
    ended = migrate("rollout", "status", "--stage", "dev", "--json")

    assert ended.code == 0, ended.err
    assert ended.document["status"] == "running"
    counts = {"targets": 10, "migrated": 2, "current": 1, "behind": 0, "failed": 1, "left": 6}
    assert ended.document["counts"] == counts
    assert ended.document["failures"][0]["error_type"] == failure(1)["error_type"]


def test_progress_tells_what_fails_while_it_runs(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws, "1/migrated/1/5/head", "2/failed/4/0/base")
    aws.ends = lambda question: RUNNING if question < 3 else {"status": "SUCCEEDED"}

    ended = migrate("rollout", "status", "--follow", "--stage", "dev")

    assert ended.err.count(f"failed: {failure(1)['name']}: {failure(1)['error_type']}") == 1


def test_stop_halts_the_running_rollout_and_succeeds_after_its_end(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.put(LAST, "report.json", report(left=900, status="stopped"))
    aws.ends = lambda question: RUNNING if question < 3 else {"status": "FAILED", "error": "RolloutStopped"}

    ended = migrate("rollout", "stop", "--stage", "dev")

    assert ended.code == 0, ended.err
    assert json.loads(aws.objects[f"rollouts/{LAST}/halt.json"])["why"] == "stopped"


@pytest.mark.parametrize("command,done", [("approve", "approved"), ("stop", "stopped")])
def test_ctrl_c_while_aws_is_called_says_that_the_call_may_have_had_its_effect(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch, command: str, done: str
) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    runs(aws, "1/migrated/1/5/head")
    aws.ends = lambda _: RUNNING
    monkeypatch.setattr(Machine, command, press)

    ended = migrate("rollout", command, LAST, "--stage", "dev")

    assert ended.code == INTERRUPTED
    assert f"rollout {LAST} may be {done}" in ended.err
    assert f"migrate rollout status {LAST} --stage dev" in ended.err


def test_approve_answers_the_approval_that_the_rollout_waits_for(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws)
    aws.put(LAST, "approval.json", {"before": "x", "token": "the-token"})

    assert migrate("rollout", "approve", LAST, "--stage", "dev").code == 0
    assert aws.answered == [("SendTaskSuccess", "the-token")]

    aws.refused = {"SendTaskSuccess": (400, "TaskTimedOut")}
    assert migrate("rollout", "approve", LAST, "--stage", "dev").code == USAGE
    aws.put(LAST, "approval.json", ["garbage"])
    ended = migrate("rollout", "approve", LAST, "--stage", "dev")
    assert (ended.code, "does not wait for an approval" in ended.err) == (USAGE, True)


def test_a_stop_ends_the_wait_for_an_approval_at_once(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.put(LAST, "approval.json", {"before": "x", "token": "the-token"})
    aws.put(LAST, "report.json", report(left=900, status="stopped"))
    aws.ends = lambda question: RUNNING if question < 3 else {"status": "FAILED", "error": "RolloutStopped"}

    assert migrate("rollout", "stop", "--stage", "dev").code == 0
    assert aws.answered == [("SendTaskFailure", "the-token")]


def test_a_caller_who_may_not_end_the_wait_for_an_approval_can_stop_a_rollout(
    aws: RolloutStub, migrate: Migrate
) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.put(LAST, "approval.json", {"before": "x", "token": "the-token"})
    aws.put(LAST, "report.json", report(left=900, status="stopped"))
    aws.refused = {"SendTaskFailure": (400, "AccessDeniedException")}
    aws.ends = lambda question: RUNNING if question < 3 else {"status": "FAILED", "error": "RolloutStopped"}

    ended = migrate("rollout", "stop", "--stage", "dev")

    assert ended.code == 0, ended.err
    assert f"rollouts/{LAST}/halt.json" in aws.objects
    assert "may not end a wait for an approval" in ended.err


@pytest.mark.parametrize(
    "outcomes,waits", [(["1/migrated/1/5/head"], True), (["1/migrated/1/5/head", "2/migrated/3/5/head"], False)]
)
def test_an_approval_is_waited_for_until_its_wave_has_begun(
    aws: RolloutStub, migrate: Migrate, outcomes: list[str], *, waits: bool
) -> None:
    runs(aws, *outcomes)
    aws.put(LAST, "approval.json", {"before": f"rollouts/{LAST}/wave-2.json", "token": "the-token"})
    aws.ends = lambda question: RUNNING if question < 3 else {"status": "SUCCEEDED"}

    ended = migrate("rollout", "status", "--follow", "--stage", "dev")

    assert ("waits for an approval" in ended.err) is waits
    for command in ("approve", "stop"):
        assert (f"\n  migrate rollout {command} {LAST} --stage dev\n" in ended.err) is waits


@pytest.mark.parametrize(
    "outcomes,next_commands",
    [
        (["1/migrated/1/5/head"], ["rollout approve {name}", "rollout stop {name}"]),
        (["1/migrated/1/5/head", "2/migrated/3/5/head"], ["rollout status {name} --follow"]),
    ],
    ids=["waits for an approval", "runs"],
)
def test_the_status_of_a_running_rollout_ends_with_the_next_step(
    aws: RolloutStub, migrate: Migrate, outcomes: list[str], next_commands: list[str]
) -> None:
    runs(aws, *outcomes)
    aws.put(LAST, "approval.json", {"before": f"rollouts/{LAST}/wave-2.json", "token": "the-token"})
    aws.ends = lambda _: RUNNING

    ended = migrate("rollout", "status", "--stage", "dev")

    shown = [line.strip() for line in ended.err.splitlines() if line.startswith("  migrate")]
    assert shown == [f"migrate {command.format(name=LAST)} --stage dev" for command in next_commands]


def test_a_wait_for_an_approval_has_no_estimate_and_is_not_part_of_the_next_one(
    aws: RolloutStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.put(LAST, "approval.json", {"before": f"rollouts/{LAST}/wave-2.json", "token": "the-token"})
    machine = find(Call("dev"))
    seconds = 10
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    progress = RolloutProgress(began=0)

    progress.look(machine, LAST)
    waiting = progress_line(progress)
    seconds = 3610
    progress.look(machine, LAST)
    aws.put(LAST, "outcomes/2/migrated/3/5/head", {})
    seconds = 3620
    progress.look(machine, LAST)

    assert waiting == "waits for an approval, 9 left, wave 1 of 2"
    # Two of ten targets took ten seconds. The hour after them does not count.
    assert progress.to_go_s == 40


def test_a_rollout_that_does_not_run_cannot_be_stopped(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws)

    ended = migrate("rollout", "stop", "--stage", "dev")

    assert ended.code == USAGE
    assert f"\n  migrate rollout show {LAST} --stage dev\n" in ended.err
    assert f"rollouts/{LAST}/halt.json" not in aws.objects


def test_retry_starts_a_rollout_of_the_failed_targets(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws, "2/failed/4/0/base")
    aws.leaves(report())

    assert migrate("rollout", "retry", "--stage", "dev").code == 0
    assert [given for _, given in aws.started] == [{"retry_of": LAST}]


@pytest.mark.parametrize(
    "outcome,changes,why",
    [
        ("2/migrated/4/1/head", {}, "nothing failed"),
        ("2/failed/4/0/base", {"plan": True}, "was a plan"),
        (
            "2/failed/4/0/base",
            {"downgrade_to": "b2", "migrated_by": "r"},
            "migrate rollout --downgrade-to b2 --migrated-by r --stage dev",
        ),
    ],
)
def test_a_rollout_that_cannot_be_retried_is_refused(
    aws: RolloutStub, migrate: Migrate, outcome: str, changes: dict[str, Any], why: str
) -> None:
    runs(aws, outcome, **changes)

    ended = migrate("rollout", "retry", LAST, "--stage", "dev")

    assert (ended.code, aws.started) == (USAGE, [])
    assert why in ended.err


def test_each_command_takes_the_name_of_a_rollout(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.put("older", "rollout.json", listed("older", started="2026-11-22T10:00:00.000Z"))
    aws.put("older", "report.json", {**report(), "rollout": "older"})
    aws.put("older", "outcomes/2/failed/4/0/base", failure(1))

    assert migrate("rollout", "show", "older", "--stage", "dev", "--json").document["rollout"] == "older"
    assert migrate("rollout", "status", "older", "--stage", "dev", "--json").document["rollout"] == "older"
    aws.leaves(report())
    assert migrate("rollout", "retry", "older", "--stage", "dev").code == 0
    assert [given for _, given in aws.started] == [{"retry_of": "older"}]


def test_the_list_has_rollouts_and_plans_the_newest_first(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws)
    aws.put(LAST, "report.json", report(2, left=5, status="failed"))
    aws.put("plan", "rollout.json", listed("plan", plan=True, started="2026-11-25T10:00:00.000Z"))
    aws.objects["rollouts/spoiled/rollout.json"] = b"[]"

    ended = migrate("rollout", "list", "--stage", "dev", "--json")

    entries = [(e["rollout"], e["kind"], e["status"], e["counts"].get("failed")) for e in ended.document["rollouts"]]
    assert entries == [("plan", "plan", "succeeded", None), (LAST, "rollout", "failed", 2)]
    assert LAST in migrate("rollout", "list", "--stage", "dev").out


def test_the_list_fits_80_columns_with_each_name_in_one_line() -> None:
    name = "20261128T095627Z-ed2fff"
    entry = {"rollout": name, "started": "2026-11-28T09:56:27.000Z", "kind": "downgrade", "status": "succeeded"}
    screen = Console(file=(shown := StringIO()), width=80)

    show_rollouts({"rollouts": [{**entry, "targets": 100_000, "counts": {"failed": 1_000}}], "stage": "dev"}, screen)

    assert [line.split()[0] for line in shown.getvalue().splitlines()] == ["Rollout", name]


def test_a_name_that_no_rollout_has_leads_to_the_list(aws: RolloutStub, migrate: Migrate) -> None:
    aws.refused = {"DescribeExecution": (400, "ExecutionDoesNotExist")}

    ended = migrate("rollout", "show", "x", "--stage", "dev")

    assert ended.code == AWS
    assert ended.err.endswith("\n  migrate rollout list --stage dev\n")


@pytest.mark.parametrize(
    "latest",
    sampled(
        [
            b'{"rollout": "plan"}',
            b'{"rollout": "was-never-listed"}',
            b'{"rollout": 7}',
            b'{"other": "keys"}',
            b"[]",
            b"not JSON",
            b"\xff",
        ],
        {b'{"rollout": "plan"}', b'{"rollout": "was-never-listed"}', b"not JSON"},
    ),
)
def test_a_plan_a_failed_listing_and_garbage_are_no_last_rollout(
    aws: RolloutStub, migrate: Migrate, latest: bytes
) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.put("plan", "rollout.json", listed("plan", plan=True, started="2026-11-25T10:00:00.000Z"))
    aws.objects["rollouts/latest.json"] = latest

    ended = migrate("rollout", "status", "--stage", "dev", "--json")

    assert (ended.code, ended.document["rollout"]) == (0, LAST)


@pytest.mark.parametrize(
    "content",
    sampled([b"garbage", b"[]", b"{}", b'{"waves": [{}]}', b'{"waves": 1, "rollout": 2}'], {b"garbage", b"{}"}),
)
def test_a_rollout_json_changed_by_hand_does_not_crash_status(
    aws: RolloutStub, migrate: Migrate, content: bytes
) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.objects[f"rollouts/{LAST}/rollout.json"] = content

    ended = migrate("rollout", "status", LAST, "--stage", "dev", "--json")

    assert ended.document["status"] == "failed"
    assert "is not what the function wrote" in ended.document["message"]


@pytest.mark.parametrize("command", sampled(["show", "status"], {"show"}))
def test_a_rollout_that_step_functions_has_forgotten_is_shown(aws: RolloutStub, migrate: Migrate, command: str) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.put(LAST, "report.json", report(2, left=5, status="failed"))
    aws.refused = {"DescribeExecution": (400, "ExecutionDoesNotExist")}

    shown = migrate("rollout", command, LAST, "--stage", "dev", "--json")
    aws.refused = {"DescribeExecution": (400, "ExecutionDoesNotExist")}
    unknown = migrate("rollout", command, "never-begun", "--stage", "dev", "--json")

    assert (shown.code, shown.document["status"], shown.document["counts"]["left"]) == (0, "failed", 5)
    assert unknown.document["error"]["type"] == "ExecutionDoesNotExist"


@pytest.mark.parametrize(
    "content",
    sampled([b"garbage", b"[]", b"7", b'{"counts": 5}', b'{"counts": {"targets": "all"}}'], {b"[]", b'{"counts": 5}'}),
)
def test_a_report_json_changed_by_hand_does_not_crash_status(
    aws: RolloutStub, migrate: Migrate, content: bytes
) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.objects[f"rollouts/{LAST}/report.json"] = content

    document = migrate("rollout", "status", LAST, "--stage", "dev", "--json").document

    assert (document["counts"]["migrated"], document["counts"]["left"]) == (1, 9)


@pytest.mark.parametrize(
    "halt",
    sampled([b"garbage", b"[]", b'{"why": 7}', b'{"why": "stopped", "message": {}}'], {b"garbage", b'{"why": 7}'}),
)
def test_a_halt_json_of_any_content_halts(aws: RolloutStub, migrate: Migrate, halt: bytes) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.objects[f"rollouts/{LAST}/halt.json"] = halt
    aws.ends = lambda _: {"status": "ABORTED"}

    document = migrate("rollout", "status", LAST, "--stage", "dev", "--json").document

    assert (document["status"], document["counts"]["left"]) == ("stopped", 9)


def test_the_report_of_an_execution_that_was_aborted_ends_when_that_did(aws: RolloutStub, migrate: Migrate) -> None:
    runs(aws, "1/migrated/1/5/head")
    aws.ends = lambda _: {"status": "ABORTED", "stopDate": 1795473960}  # 2026-11-23T22:46:00Z

    document = migrate("rollout", "status", LAST, "--stage", "dev", "--json").document

    assert document["duration_ms"] == 22 * 60 * 1000
    assert "report" not in document
