"""`migrate upgrade --long`: a build of CodeBuild in place of an invocation, with the same output and exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from infra import long_runs
from migrate_cli import long_run
from tests.support.aws_stub import REQUEST_ID, Reply, build, failure, line, result
from tests.support.samples import sampled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended
    from tests.support.aws_stub import Stub

UPGRADE = ("upgrade", "--long", "--stage", "dev")


def test_it_starts_a_build_with_the_event_and_gives_its_result(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.builds = [build(), build(), build("SUCCEEDED", result())]

    ended = migrate(*UPGRADE, "bbbb", "--schema", "tenant_7", "--json")

    assert (ended.code, ended.document) == (0, result())
    assert not aws.events
    [started] = aws.started
    assert started["projectName"] == "template-saas-api-migrate-dev"
    [override] = started["environmentVariablesOverride"]
    assert (override["name"], override["type"]) == ("LONG_RUN_EVENT", "PLAINTEXT")
    event = {"action": "upgrade", "revision": "bbbb", "target": {"schema": "tenant_7"}}
    assert json.loads(override["value"]) == event


def test_the_names_are_those_of_the_project() -> None:
    assert (long_run._EVENT, long_run._OUTCOME) == (long_runs.EVENT, long_runs.OUTCOME)  # noqa: SLF001


STEP: dict[str, Any] = {"revision": "bbbb", "description": "Add users", "duration_ms": 7_200_000}
APPLIED = line("revision.applied", **STEP)
LAST = line("migration.finished", applied=["bbbb"])
PENDING = [{"revision": "cccc", "description": "Add orders"}]
CUT = {name: value for name, value in result(up_to_date=False).items() if name not in {"applied", "pending"}}


def test_progress_is_that_of_this_run_and_fills_in_a_result_that_was_too_long(
    aws: Stub, migrate: Callable[..., Ended]
) -> None:
    aws.lines = lambda: [
        line("migration.started", request_id="another"),
        line("revision.applied", request_id="another", revision="cccc", duration_ms=1),
        APPLIED,
        LAST,
    ]
    aws.replies = [Reply(result("status", pending=PENDING))]
    aws.builds = [*[build()] * 20, build("SUCCEEDED", {**CUT, "truncated": ["applied", "pending"]})]

    ended = migrate(*UPGRADE, "--json")

    assert ended.document == {**CUT, "applied": [STEP], "pending": PENDING}
    assert "committed bbbb" in ended.err
    assert "cccc" not in ended.err


def test_it_waits_for_lines_of_the_log_that_come_after_the_outcome(aws: Stub, migrate: Callable[..., Ended]) -> None:
    pages = [[LAST], [LAST], [LAST, APPLIED]]
    aws.lines = lambda: pages.pop(0) if len(pages) > 1 else pages[0]
    aws.builds = [build("SUCCEEDED", {**CUT, "pending": [], "truncated": ["applied"]})]

    ended = migrate(*UPGRADE, "--json")

    assert ended.document == {**CUT, "applied": [STEP], "pending": []}


NOT_WHOLE: dict[str, tuple[list[dict[str, Any]], Reply]] = {
    "the log lags": ([APPLIED], failure("SecretUnavailable")),
    "another run came": ([], Reply(result("status", revision="cccc"))),
}


@pytest.mark.parametrize("why", sampled(NOT_WHOLE, {"another run came"}))
def test_lists_that_neither_the_log_nor_the_database_has_are_named_in_truncated(
    aws: Stub, migrate: Callable[..., Ended], why: str
) -> None:
    lines, status = NOT_WHOLE[why]
    aws.lines, aws.replies = (lambda: lines), [status]
    aws.builds = [build("SUCCEEDED", {**CUT, "truncated": ["applied", "pending"]})]

    document = migrate(*UPGRADE, "--json").document
    shown = migrate(*UPGRADE).out

    assert document["truncated"] == ["applied", "pending"]
    assert "pending" not in document
    assert ("at least 1 revision" in shown, "revisions that the log lists" in shown) == (bool(lines), not lines)
    assert "the answer was too long: applied, pending" in shown
    assert "Nothing to apply" not in shown


@pytest.mark.parametrize(
    "outcome,code",
    [("MigrationFailed", 1), ("InvalidRequest", 2), ("SecretUnavailable", 3), ("MigrationIncomplete", 4)],
)
def test_a_run_that_failed_has_the_exit_code_of_its_error(
    aws: Stub, migrate: Callable[..., Ended], outcome: str, code: int
) -> None:
    message = "as the run says"
    aws.builds = [build("SUCCEEDED", {"errorType": outcome, "errorMessage": message})]
    aws.lines = lambda: [line("migration.failed", message, error_type=outcome)]

    ended = migrate(*UPGRADE, "--json")

    assert ended.code == code
    error = ended.document["error"]
    assert (error["type"], error["message"], error["request_id"]) == (outcome, message, REQUEST_ID)


@pytest.mark.parametrize(
    "status", sampled(["STOPPED", "TIMED_OUT", "FAILED", "FAULT", "SUCCEEDED"], {"STOPPED", "SUCCEEDED"})
)
def test_a_build_that_ends_without_an_answer_exits_with_3_and_shows_the_commands_to_check_it(
    aws: Stub, migrate: Callable[..., Ended], status: str
) -> None:
    aws.builds = [build(status)]

    ended = migrate(*UPGRADE)

    assert ended.code == 3
    assert "LongRunFailed" in ended.err
    assert status in ended.err
    assert "migrate status --stage dev" in ended.err.replace("\n", " ").replace("python -m migrate_cli", "migrate")


def refused(code: str) -> Reply:
    """Return an error in the form of AWS's JSON services."""
    return Reply({"__type": code, "message": "says AWS"}, 400)


REFUSALS: dict[str, tuple[Reply, str]] = {
    "no project": (refused("ResourceNotFoundException"), "Set `long_runs` for stage dev"),
    "denied": (refused("AccessDeniedException"), "codebuild:StartBuild"),
    "too many": (refused("AccountLimitExceededException"), "Nothing was run"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_a_build_that_cannot_be_started_exits_with_3_and_the_next_step(
    aws: Stub, migrate: Callable[..., Ended], why: str
) -> None:
    aws.start_refusal, advice = REFUSALS[why]

    ended = migrate(*UPGRADE)

    assert ended.code == 3
    assert advice in " ".join(ended.err.split())


def test_a_look_that_fails_is_repeated(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.builds = [build(), refused("ThrottlingException"), Reply(None), build("SUCCEEDED", result())]

    assert migrate(*UPGRADE).code == 0


@pytest.mark.stress
def test_with_wait_it_is_started_again_while_that_may_help(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrate_cli.actions._FIRST_PAUSE_S", 0.01)
    locked: dict[str, Any] = failure("MigrationLocked").body
    aws.builds = [build("SUCCEEDED", locked), build("SUCCEEDED", result())]

    ended = migrate(*UPGRADE, "--wait")

    assert ended.code == 0, ended.err
    assert len(aws.started) == 2
