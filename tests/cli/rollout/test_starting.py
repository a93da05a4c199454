"""`migrate rollout` starts a rollout, follows it, and ends with its report and exit code."""

from __future__ import annotations

import json
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from migrate_cli import stages
from migrate_cli.errors import Commands
from migrate_cli.rollout.estimate import estimate
from migrate_cli.rollout.machine import Machine
from migrate_cli.rollout.terminal import show_report
from tests.support.reports import report
from tests.support.rollout_runs import AGAIN, AWS, FAILED, INTERRUPTED, LAST, RUNNING, USAGE, WAVES, listed
from tests.support.rollout_stub import MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.cli.conftest import Ended
    from tests.support.rollout_stub import RolloutStub

    Migrate = Callable[..., Ended]


def test_a_rollout_that_succeeds_is_0_and_writes_its_page(aws: RolloutStub, migrate: Migrate, tmp_path: Path) -> None:
    aws.leaves(report())

    ended = migrate("rollout", "--stage", "dev", "--json", "--report", str(tmp_path / "page.html"))

    assert ended.code == 0, ended.err
    [(name, given)] = aws.started
    assert given == {}
    assert (ended.document["rollout"], ended.document["status"]) == (name, "succeeded")
    assert ended.document["report"] == f"s3://rollouts/rollouts/{name}/report.html"
    assert (tmp_path / "page.html").read_text() == "<!doctype html>"


def test_a_report_of_long_names_is_whole_at_80_columns() -> None:
    name, revision = f"{'n' * 500}END", f"{'r' * 120}END"
    failure = {"name": name, "error_type": "DatabaseUnavailable", "message": "m" * 300}
    document = report(status="failed", revisions={revision: 123_456, "base": 1}, failures=[failure])
    screen = Console(file=StringIO(), width=80)

    show_report(document, screen, commands=Commands(("migrate",), (), ()))

    assert isinstance(screen.file, StringIO)
    shown = screen.file.getvalue().splitlines()
    first = next(place for place, row in enumerate(shown) if row.startswith("Revision"))
    assert shown[first].split() == ["Revision", "Targets"]
    assert shown[first + 1].endswith(" 123,456")
    folded = "".join(row.split()[0] for row in shown[first + 1 :] if row.strip())
    assert revision in folded
    assert name in folded


@pytest.mark.parametrize(
    "arguments,given",
    [
        (["--target", "a", "--target", "b"], {"targets": ["a", "b"]}),
        (["--plan", "--target", "a"], {"plan": True, "targets": ["a"]}),
        (["--check"], {"plan": True, "check": True}),
        (["--exclude", "a", "--exclude", "b"], {"exclude": ["a", "b"]}),
        (["--downgrade-to", "b2", "--migrated-by", "r"], {"downgrade_to": "b2", "migrated_by": "r"}),
    ],
    ids=["targets", "plan", "check", "exclude", "downgrade"],
)
def test_options_become_the_input_of_the_execution(
    aws: RolloutStub, migrate: Migrate, arguments: list[str], given: dict[str, Any]
) -> None:
    aws.leaves(report(), rollout=listed(LAST))

    assert migrate("rollout", "--stage", "dev", *arguments).code == 0
    assert [each for _, each in aws.started] == [given]


LONGEST = {"name": "t7", "server": "db-2", "revision": "bbbb", "table": "orders", "blocks": "writes"}
CHECKED = {"revision": "bbbb", "check": "not_null", "table": "users", "columns": ["mail"]}


PREFLIGHT = {
    "verdicts": {"fails": 3, "ok": 27},
    "checks": [{**CHECKED, "targets": 3, "violations": 1000, "example": "t4"}],
    "longest": {**LONGEST, "estimated_ms": 31_500},
    "servers": [
        {"server": "db-1", "fails": 3, "slow": 0, "longest_ms": 900},
        {"server": "db-2", "fails": 0, "slow": 0, "longest_ms": 31_500},
    ],
}


EQUAL: dict[str, Any] = {
    "schema": "equal",
    "fingerprint": None,
    "targets": 28,
    "example": "t1",
    "differences": [],
    "more": 0,
}
DIFFERENT = {**EQUAL, "schema": "different", "targets": 2, "example": "t9"}


SCHEMA = [EQUAL, {**DIFFERENT, "differences": ["column users.extra is not in the tree"], "more": 4}]


def test_a_plan_shows_the_preflights_of_the_targets(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    aws.leaves(report(plan=True, preflight=PREFLIGHT), rollout=listed(LAST, plan=True))

    ended = migrate("rollout", "--plan", "--stage", "dev")

    assert ended.code == 0, ended.err
    for shown in (ended.out, (tmp_path / "summary.md").read_text()):
        text = " ".join(shown.replace("\\", "").split())
        assert "3 fails, 27 ok" in text
        assert "not_null of users (mail)" in text
        assert "Longest block: writes of orders on t7 (db-2) up to 32 s" in text
        assert "db-1" in text


def test_a_check_that_finds_another_schema_fails_and_shows_the_groups(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    aws.leaves(report(plan=True, check=True, schema=SCHEMA), rollout=listed(LAST, plan=True, check=True))

    ended = migrate("rollout", "--check", "--stage", "dev")

    assert ended.code == FAILED
    assert "2 of 12,000 targets: the schema differs from the tree's" in ended.err
    for shown in (ended.out, (tmp_path / "summary.md").read_text()):
        assert "column users.extra is not in the tree" in shown.replace("\\", "")
        assert "28" in shown
    aws.leaves(
        report(plan=True, check=True, schema=[{**EQUAL, "targets": 12_000}]),
        rollout=listed(LAST, plan=True, check=True),
    )
    assert migrate("rollout", "--check", "--stage", "dev").code == 0


def test_a_check_that_could_not_compare_a_target_has_not_passed(aws: RolloutStub, migrate: Migrate) -> None:
    unknown = {**EQUAL, "schema": "unknown", "targets": 40, "reason": "no revision was recorded"}
    groups = [{**EQUAL, "targets": 11_957}, unknown]
    aws.leaves(report(failed=3, plan=True, check=True, schema=groups), rollout=listed(LAST, plan=True, check=True))

    ended = migrate("rollout", "--check", "--stage", "dev")

    assert ended.code == FAILED
    assert "RolloutFailed: 43 of 12,000 targets: the schema was not compared" in ended.err
    assert "no revision was recorded" in ended.out


@pytest.mark.parametrize(
    "status,code,kind", [("failed", FAILED, "RolloutFailed"), ("stopped", AGAIN, "RolloutStopped")]
)
def test_a_rollout_that_does_not_succeed_tells_its_report_and_how_to_go_on(
    aws: RolloutStub, migrate: Migrate, status: str, code: int, kind: str
) -> None:
    aws.leaves(report(3, left=900, status=status))
    aws.ends = lambda _: {"status": "FAILED", "error": kind, "cause": "3 failed"}

    ended = migrate("rollout", "--stage", "dev", "--json")

    assert (ended.code, ended.document["counts"]["failed"]) == (code, 3)
    assert f"{kind}: 3 of the 11980 targets" in ended.err
    assert "migrate rollout --stage dev" in ended.err
    [(name, _)] = aws.started
    assert (f"migrate rollout retry {name} --stage dev" in ended.err) is (status == "failed")


def test_a_failed_rollout_that_left_no_target_has_one_next_step(aws: RolloutStub, migrate: Migrate) -> None:
    aws.leaves(report(3, status="failed"))
    aws.ends = lambda _: {"status": "FAILED", "error": "RolloutFailed", "cause": "3 failed"}

    ended = migrate("rollout", "--stage", "dev")

    assert ended.err.count("\n  migrate ") == 1
    assert ended.err.endswith(f"\n  migrate rollout retry {aws.started[0][0]} --stage dev\n")


@pytest.mark.parametrize("status,failed", [pytest.param("failed", 3, marks=pytest.mark.stress), ("stopped", 0)])
def test_after_a_failed_downgrade_the_next_step_is_the_downgrade_and_not_an_upgrade(
    aws: RolloutStub, migrate: Migrate, status: str, failed: int
) -> None:
    aws.leaves(report(failed, left=900, status=status, downgrade_to="b2", migrated_by="r"))
    aws.ends = lambda _: {"status": "FAILED", "error": "RolloutFailed", "cause": ""}

    ended = migrate("rollout", "--downgrade-to", "b2", "--migrated-by", "r", "--stage", "dev")

    assert "migrate rollout --downgrade-to b2 --migrated-by r --stage dev" in ended.err
    assert "retry" not in ended.err
    assert "migrate rollout --stage" not in ended.err


@pytest.mark.parametrize(
    "error,cause,code,hint",
    [
        ("AlreadyRunning", "rollout other is running", AGAIN, "migrate rollout status --stage dev"),
        ("InvalidRequest", '{"errorMessage": "there is no target \'x\'"}', USAGE, "Nothing was started"),
        ("InvalidRequest", '{"errorMessage": "there is no target \'x\'"}', USAGE, "migrate fleet status --stage dev"),
        ("InvalidRequest", '{"errorMessage": "there is no rollout \'x\'"}', USAGE, "migrate rollout list --stage dev"),
        ("ConfigurationError", '{"errorMessage": "the query failed"}', FAILED, "deploy"),
        ("DatabaseUnavailable", '{"errorMessage": "no connection"}', AGAIN, "migrate rollout --stage dev"),
    ],
)
def test_a_rollout_that_started_nothing_is_shown_with_its_error(
    aws: RolloutStub, migrate: Migrate, error: str, cause: str, code: int, hint: str
) -> None:
    aws.ends = lambda _: {"status": "FAILED", "error": error, "cause": cause}

    ended = migrate("rollout", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (code, error)
    assert hint in ended.err


def test_prod_is_confirmed_and_a_plan_of_it_needs_not_be(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO())
    aws.leaves(report(), rollout=listed(LAST))

    assert migrate("rollout", "--stage", "prod").code == USAGE
    assert aws.started == []
    assert migrate("rollout", "--stage", "prod", "--plan").code == 0
    assert migrate("rollout", "--stage", "prod", "--yes").code == 0


@pytest.mark.parametrize(
    "arguments,targets,to",
    [
        ([], "all", "head"),
        (["--target", "a", "--target", "b"], "a; b", "head"),
        (["--exclude", "a"], "all, without a", "head"),
        (["--approved", "plan"], "those of the plan plan", "head"),
        (["--downgrade-to", "b2", "--migrated-by", "r"], "those that r has migrated", "b2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_confirmation_of_a_rollout_shows_its_targets(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch, arguments: list[str], targets: str, to: str
) -> None:
    typed = StringIO("no\n")
    typed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", typed)
    monkeypatch.setattr(stages, "own_account", lambda _: "123456789012")

    ended = migrate("rollout", "--stage", "prod", *arguments)

    facts = dict(row.split(None, 1) for row in ended.err.splitlines() if row.startswith("  "))
    assert (ended.code, aws.started) == (USAGE, [])
    assert {name: facts[name] for name in ("targets:", "to:")} == {"targets:": targets, "to:": to}
    assert {"account:", "region:"} < facts.keys()


def test_ctrl_c_leaves_it_running_and_shows_the_commands_to_check_and_stop_it(
    aws: RolloutStub, migrate: Migrate
) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def press(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Machine, "execution", press)
        ended = migrate("rollout", "--stage", "dev")

    assert ended.code == INTERRUPTED
    [(name, _)] = aws.started
    assert f"migrate rollout status {name} --stage dev" in ended.err
    assert f"migrate rollout stop {name} --stage dev" in ended.err


def test_ctrl_c_during_the_start_shows_that_it_may_have_started_and_the_command_to_check_it(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Machine.calling

    @contextmanager
    def calling(machine: Machine, *permissions: str) -> Iterator[None]:
        with real(machine, *permissions):
            yield
            if "states:StartExecution" in permissions:
                raise KeyboardInterrupt

    monkeypatch.setattr(Machine, "calling", calling)
    ended = migrate("rollout", "--stage", "dev", "--json")

    [(name, _)] = aws.started
    assert (ended.code, ended.document["error"]["message"]) == (INTERRUPTED, f"rollout {name} may have started")
    assert f"migrate rollout status {name} --stage dev" in ended.err


def test_a_moment_without_aws_does_not_end_the_looking(aws: RolloutStub, migrate: Migrate) -> None:
    aws.leaves(report())

    aws.refused = {"DescribeExecution": (400, "ThrottlingException")}
    ended = migrate("rollout", "--stage", "dev")

    assert ended.code == 0, ended.err
    assert "AWS does not answer at the moment" in ended.err


@pytest.mark.parametrize(
    "action,refusal,hint",
    [
        ("DescribeStacks", (400, "ValidationError"), "Deploy stage dev first"),
        ("StartExecution", (400, "AccessDeniedException"), "states:StartExecution"),
        ("DescribeExecution", (400, "ExpiredTokenException"), "continues.\nLog in"),
    ],
)
def test_trouble_with_aws_is_3(
    aws: RolloutStub, migrate: Migrate, action: str, refusal: tuple[int, str], hint: str
) -> None:
    aws.refused = {action: refusal}

    ended = migrate("rollout", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, refusal[1])
    assert hint in ended.err


def test_a_stage_without_targets_is_migrated_by_its_machine(aws: RolloutStub, migrate: Migrate) -> None:
    answer = {"status": "ok", "action": "upgrade", "stage": "dev", "database": "app", "applied": [], "revision": "b"}
    aws.outputs = {"StateMachineArn": MACHINE}
    aws.ends = lambda _: {"status": "SUCCEEDED", "output": json.dumps(answer)}

    assert migrate("rollout", "--stage", "dev", "--json").document == answer
    assert len(aws.started) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--plan"],
        ["--target", "a"],
        ["--exclude", "a"],
        ["--approved", "plan"],
        ["--downgrade-to", "b2", "--migrated-by", "r", "--yes"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_stage_without_targets_is_not_upgraded_by_another_command(
    aws: RolloutStub, migrate: Migrate, arguments: list[str]
) -> None:
    aws.outputs = {"StateMachineArn": MACHINE}

    ended = migrate("rollout", "--stage", "dev", *arguments)

    assert (ended.code, aws.started) == (USAGE, [])
    assert "stage dev has no targets" in ended.err


def test_a_stop_without_targets_is_0_once_the_execution_is_aborted(aws: RolloutStub, migrate: Migrate) -> None:
    aws.outputs = {"StateMachineArn": MACHINE}
    aws.ends = lambda question: RUNNING if question < 3 else {"status": "ABORTED", "error": "Stopped"}

    ended = migrate("rollout", "stop", LAST, "--stage", "dev", "--json")

    assert (ended.code, ended.document["status"], ended.document["rollout"]) == (0, "stopped", LAST)
    assert "StopExecution" in aws.asked


def test_ctrl_c_after_a_stop_without_targets_says_that_it_may_be_stopped(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.outputs = {"StateMachineArn": MACHINE}
    aws.ends = lambda _: RUNNING
    real = Machine.execution

    def execution(machine: Machine, name: str) -> Mapping[str, object]:
        if "StopExecution" in aws.asked:
            raise KeyboardInterrupt
        return real(machine, name)

    monkeypatch.setattr(Machine, "execution", execution)

    ended = migrate("rollout", "stop", LAST, "--stage", "dev")

    assert ended.code == INTERRUPTED
    assert f"rollout {LAST} may be stopped" in ended.err


def test_a_plan_that_cuts_the_targets_behind_names_the_command_that_shows_all(
    aws: RolloutStub, migrate: Migrate
) -> None:
    found = report(plan=True, behind=[f"tenant_{number}" for number in range(12)])
    found["counts"]["behind"] = 12
    aws.leaves(found, rollout=listed(LAST, plan=True))

    ended = migrate("rollout", "--plan", "--stage", "dev", "--region", "eu-west-1")

    assert "and 2 more that are behind\n" in ended.out
    assert "\n  migrate fleet status --only behind --stage dev --region eu-west-1\n" in ended.out


@pytest.mark.parametrize(
    "preflight,next_step",
    [
        ({}, "To run exactly this plan:\n  migrate rollout --approved {name} --stage dev\n"),
        ({"preflight": PREFLIGHT}, "After you have fixed the rows:\n  migrate rollout --plan --stage dev\n"),
    ],
    ids=["runs", "fails"],
)
def test_a_plan_ends_with_its_next_step(
    aws: RolloutStub, migrate: Migrate, preflight: dict[str, Any], next_step: str
) -> None:
    found = report(plan=True, behind=["tenant_1"], **preflight)
    aws.leaves(found, rollout=listed(LAST, plan=True))

    ended = migrate("rollout", "--plan", "--stage", "dev")

    [(name, _)] = aws.started
    assert ended.out.endswith(next_step.format(name=name))


def test_an_approved_plan_is_run_by_its_name(aws: RolloutStub, migrate: Migrate) -> None:
    aws.leaves(report())

    assert migrate("rollout", "--approved", "the-plan", "--stage", "dev").code == 0
    assert [given for _, given in aws.started] == [{"approved": "the-plan"}]
    assert migrate("rollout", "--approved", "the-plan", "--plan", "--stage", "dev").code == USAGE


def test_the_error_of_a_stage_without_a_rollout(aws: RolloutStub, migrate: Migrate) -> None:
    assert aws.objects == {}
    assert "has not had a rollout yet" in migrate("rollout", "status", "--stage", "dev").err


def test_a_plan_shows_the_counts_the_time_and_the_cost(aws: RolloutStub, migrate: Migrate) -> None:
    counts = {"targets": 10, "migrated": 0, "current": 4, "behind": 6, "failed": 0, "left": 0}
    waves = [{**wave, "targets": wave["count"], **dict.fromkeys(counts, 0)} for wave in WAVES]
    aws.leaves(report(plan=True, counts=counts, waves=waves), rollout=listed(LAST, plan=True))
    leave = aws.on_start

    def begin(name: str) -> None:
        leave(name)
        for number in range(1, 11):
            outcome = "behind" if number > 4 else "current"
            aws.put(name, f"outcomes/{1 if number < 3 else 2}/{outcome}/{number}/400/head", {})

    aws.on_start = begin
    ended = migrate("rollout", "--plan", "--per-target", "20", "--stage", "dev")

    assert ended.code == 0, ended.err
    # Two of 0.4 s, two at once; of the others two of 0.4 s and six of 20 s, four at once.
    assert "6 of 10 targets to migrate, about 31 s and less than 0.01 USD, estimated from 20.0 s for each" in ended.out
    assert "7c1e5a90d2f4" in ended.out


def test_a_plan_of_a_function_that_was_named_is_shown_without_a_cdk_json(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    aws.leaves(report(plan=True), rollout=listed(LAST, plan=True))

    ended = migrate("rollout", "--plan", "--function", "template-saas-api-migrate-lambda-dev", "--json")

    assert ended.code == 0, ended.err
    assert ended.document["estimate"]["targets"] == 0


def test_the_estimate_uses_list_prices() -> None:
    class Settings:
        memory_mb, architecture = 1024, "arm64"

    class Looked:
        wave, duration_ms, outcome = 2, 1000, "behind"

    given = estimate({"waves": WAVES}, [Looked()] * 100_000, Settings(), 3)  # type: ignore[list-item,arg-type]

    assert (given.seconds, given.targets, given.looking_ms) == (75_000, 100_000, 1000)
    # 300,000 GB-seconds 4.00, invocations 0.02, transitions 7.50, S3 1.00
    assert given.usd == pytest.approx(4.00 + 0.02 + 7.50 + 1.00, abs=0.01)


def test_github_gets_an_annotation_and_a_summary(
    aws: RolloutStub, migrate: Migrate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    aws.leaves(report(2, left=5, status="failed"))
    aws.ends = lambda _: {"status": "FAILED", "error": "RolloutFailed", "cause": ""}

    ended = migrate("rollout", "--stage", "dev")

    assert "::error title=migrate rollout (dev)%3A RolloutFailed::" in ended.err
    assert "| tenant-00001 | LockTimeout |" in (tmp_path / "summary").read_text(encoding="utf-8")
