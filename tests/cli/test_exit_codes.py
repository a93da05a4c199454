"""Each kind of failure has an exit code, a name, and a next step."""

from __future__ import annotations

import re
import shlex
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import typer

from lambda_migrate.invocation import errors as contract_errors
from migrate_cli import actions, follower, invocation, stages
from migrate_cli.cli import app
from migrate_cli.errors import _ADVICE as ADVICE
from migrate_cli.errors import _ADVICE_BY_CAUSE as ADVICE_BY_CAUSE
from tests.support.aws_stub import REQUEST_ID, Reply, failure, line, refusal, result
from tests.support.samples import sampled
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cli.conftest import Ended
    from tests.support.aws_stub import Stub

FAILED, USAGE, AWS, AGAIN = 1, 2, 3, 4


# --- what the function answers ---


def test_a_run_that_succeeded_is_0_and_invokes_once(aws: Stub, migrate: Callable[..., Ended]) -> None:
    ended = migrate("upgrade", "--stage", "dev")

    assert ended.code == 0, ended.err
    assert aws.events == [{"action": "upgrade"}]
    assert aws.functions == ["template-saas-api-migrate-lambda-dev"]


EXIT_CODES = {
    "AuthenticationFailed": FAILED,
    "BucketUnavailable": AWS,
    "ConfigurationError": FAILED,
    "DatabaseUnavailable": AGAIN,
    "DowngradeRefused": FAILED,
    "DriftDetected": FAILED,
    "InvalidRequest": USAGE,
    "LockTimeout": AGAIN,
    "MigrationError": FAILED,
    "MigrationFailed": FAILED,
    "MigrationIncomplete": AGAIN,
    "MigrationLocked": AGAIN,
    "SecretMalformed": FAILED,
    "SecretUnavailable": AWS,
    "PoolerRefused": FAILED,
    "PreflightFailed": FAILED,
    "TargetMismatch": FAILED,
    "UnknownRevision": FAILED,
    # Lambda's own.
    "Runtime.ImportModuleError": AWS,
    "Runtime.OutOfMemory": AWS,
    "Sandbox.Timedout": AWS,
}


# One of each exit code, and one of Lambda's own.
SAMPLE = {"MigrationFailed", "InvalidRequest", "SecretUnavailable", "MigrationIncomplete", "Sandbox.Timedout"}


@pytest.mark.parametrize("kind", sampled(EXIT_CODES, SAMPLE))
def test_an_error_of_the_function_has_its_exit_code(aws: Stub, migrate: Callable[..., Ended], kind: str) -> None:
    aws.replies = [failure(kind)]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert ended.code == EXIT_CODES[kind]
    error = ended.document["error"]
    assert (error["type"], error["message"], error["request_id"]) == (kind, "says the function", REQUEST_ID)
    [shown] = [line for line in ended.err.splitlines() if line.startswith(kind)]
    advice = ended.err.partition(shown)[2].strip()
    assert advice
    assert "{" not in advice


def test_the_advice_is_a_command_that_can_be_typed(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.replies = [failure("MigrationLocked")]

    ended = migrate("upgrade", "--stage", "dev", "--region", "eu-west-1")

    assert ended.err.endswith("See the holder of the lock:\n  migrate status --stage dev --region eu-west-1\n")


@pytest.mark.parametrize(
    "command, kind, cause, advised",
    [
        ("downgrade -1", "DowngradeRefused", contract_errors.ALLOW_FIRST, "downgrade -1 --stage dev"),
        ("check", "DriftDetected", contract_errors.UPGRADE_FIRST, "upgrade --stage dev"),
        ("check", "DriftDetected", "the models and the database differ in 1 way: x", "check --stage dev"),
        ("upgrade", "MigrationFailed", contract_errors.ADOPT_FIRST, "stamp head --verify --stage dev"),
    ],
    ids=["not allowed", "pending revisions", "differences", "tables without a version table"],
)
def test_the_advice_fits_the_cause(
    aws: Stub, migrate: Callable[..., Ended], command: str, kind: str, cause: str, advised: str
) -> None:
    aws.replies = [failure(kind, f"about a database: {cause}; the database is at base")]

    ended = migrate(*command.split(), "--stage", "dev")

    assert ended.err.endswith(f":\n  migrate {advised}\n")


def test_every_error_of_the_contract_is_among_them() -> None:
    errors = {error.__name__ for error in vars(contract_errors).values() if _is_error(error)}

    assert errors <= EXIT_CODES.keys()


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, contract_errors.MigrationError)


def test_an_unhealthy_report_is_a_failure_with_the_whole_report(aws: Stub, migrate: Callable[..., Ended]) -> None:
    steps = [
        {"step": "package", "ok": True, "duration_ms": 12, "message": "27 revisions"},
        {"step": "dns", "ok": False, "duration_ms": 3, "message": "no such host"},
        {"step": "tcp", "ok": None, "duration_ms": 0, "message": "not tried"},
    ]
    aws.replies = [Reply(result("doctor", healthy=False, steps=steps))]

    ended = migrate("doctor", "--stage", "dev")

    assert ended.code == FAILED
    assert [line.split()[:2] for line in ended.out.splitlines()[:3]] == [["✓", "package"], ["✗", "dns"], ["–", "tcp"]]  # noqa: RUF001


# --- an invocation that Lambda refuses for a moment ---

SERVICE_FAILED = {"ServiceException", "InternalFailure", "ServiceUnavailable", "502", "504"}


NOT_READY = {
    "ResourceNotReadyException": 502,
    "ENINotReadyException": 502,
    "ResourceConflictException": 409,
    "EC2ThrottledException": 502,
    "TooManyRequestsException": 429,
    "ServiceException": 500,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
    # An answer of a load balancer, with no code in it.
    "502": 502,
    "504": 504,
}


@pytest.mark.parametrize("error", sampled(NOT_READY, {"ResourceNotReadyException", "ServiceException", "502"}))
def test_a_function_that_is_not_ready_is_invoked_again(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    reply = refusal(NOT_READY[error], error)
    monkeypatch.setattr(actions, "_WAKING_PAUSES_S", (0, 0))
    aws.replies = [reply, reply, Reply(result())]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, len(aws.events)) == (0, 3)
    why = "Lambda itself failed" if error in SERVICE_FAILED else "nothing has run yet"
    assert f"{error}: {why}; invoking again in 0 s" in ended.err


@pytest.mark.parametrize(
    "command", sampled([("downgrade", "-1"), ("upgrade", "+1")], {("upgrade", "+1")}), ids=" ".join
)
def test_a_relative_step_is_not_repeated_if_it_may_have_been_taken(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, command: tuple[str, str]
) -> None:
    """AWS does not document whether a function ran before a failure of Lambda itself."""
    monkeypatch.setattr(actions, "_WAKING_PAUSES_S", (0, 0))
    aws.replies = [refusal(500, "ServiceException"), Reply(result())]

    ended = migrate(*command, "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"], len(aws.events)) == (AWS, "ServiceException", 1)
    assert "The function may still run" in ended.err


# --- an answer that does not come ---

CURRENT = {"revision": "bbbb", "up_to_date": True, "pending": []}
BEHIND = {"revision": "aaaa", "up_to_date": False, "pending": [{"revision": "bbbb", "description": "Add users"}]}
RUN = [
    line("migration.started", "upgrade to head"),
    line("revision.started", revision="bbbb", description="Add users", down_revision="aaaa"),
    line("revision.applied", revision="bbbb", description="Add users", duration_ms=14),
    line("migration.finished", revision="bbbb", duration_ms=2345),
]
LOST = Reply()  # the connection is closed without an answer


def at(place: Mapping[str, object], **changes: object) -> dict[str, object]:
    """Return the result of `status` for a database at this revision."""
    return result("status", **{"lock": None, "invalid_indexes": [], **place, **changes})


def actions_of(aws: Stub) -> list[str]:
    return [event["action"] for event in aws.events]


def test_a_run_whose_connection_was_lost_succeeds_when_log_and_database_say_so(
    aws: Stub, migrate: Callable[..., Ended]
) -> None:
    aws.lines = lambda: RUN
    aws.replies = [LOST, Reply(at(BEHIND, lock={"pid": 1, "holder": "a run", "since": "now"})), Reply(at(CURRENT))]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document) == (0, result())
    assert actions_of(aws) == ["upgrade", "status", "status"]


def test_a_run_whose_connection_was_lost_fails_as_its_log_says(aws: Stub, migrate: Callable[..., Ended]) -> None:
    failed = line("migration.failed", "revision bbbb failed", error_type="MigrationFailed", revision="bbbb")
    aws.lines = lambda: [*RUN[:2], failed]
    aws.replies = [LOST, Reply(at(BEHIND))]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (FAILED, "MigrationFailed")
    assert ended.document["error"]["revision"] == "bbbb"


def test_a_server_that_goes_silent_after_the_request_does_not_keep_the_command(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_OVERDUE_S", 0.1)
    silent = threading.Event()
    aws.lines = lambda: RUN
    aws.replies = [Reply(result(), until=silent.is_set), Reply(at(CURRENT))]

    ended = migrate("upgrade", "--stage", "dev", "--json")
    silent.set()

    assert (ended.code, ended.document) == (0, result())
    assert actions_of(aws) == ["upgrade", "status"]


def test_neither_does_it_where_the_log_cannot_be_read(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_OVERDUE_WITHOUT_LOG_S", 0.1)
    silent = threading.Event()
    aws.logs_refusal = Reply({"__type": "AccessDeniedException", "message": "not you"}, 400)
    aws.replies = [Reply(result(), until=silent.is_set), Reply(at(CURRENT))]

    ended = migrate("upgrade", "--stage", "dev", "--json")
    silent.set()

    assert (ended.code, ended.document["revision"], ended.document["up_to_date"]) == (0, "bbbb", True)


def test_a_downgrade_is_done_only_if_its_own_log_ends_where_the_database_is(
    aws: Stub, migrate: Callable[..., Ended]
) -> None:
    aws.lines = lambda: [line("migration.started", action="downgrade"), line("migration.finished", revision="zzzz")]
    aws.replies = [LOST, Reply(at(CURRENT))]

    ended = migrate("downgrade", "-1", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, "ConnectionClosedError")


@pytest.mark.parametrize(
    "command", sampled([("downgrade", "-1"), ("upgrade", "+1")], {("upgrade", "+1")}), ids=" ".join
)
def test_a_failure_at_the_databases_own_revision_is_no_success(
    aws: Stub, migrate: Callable[..., Ended], command: tuple[str, str]
) -> None:
    failed = {"error_type": "MigrationFailed", "revision": "bbbb"}
    started = line("migration.started", f"{command[0]} to {command[1]}", action=command[0])
    aws.lines = lambda: [started, line("migration.failed", "revision bbbb failed", **failed)]
    aws.replies = [LOST, Reply(at(CURRENT))]

    ended = migrate(*command, "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (FAILED, "MigrationFailed")


def test_another_callers_run_is_not_this_one(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.lines = lambda: [line("migration.started", "upgrade to bbbb"), line("migration.finished", revision="bbbb")]
    aws.replies = [LOST, Reply(at(CURRENT))]

    ended = migrate("upgrade", "cccc", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, "ConnectionClosedError")


def test_an_idle_connection_is_probed_each_minute(aws: Stub) -> None:
    idle = threading.Event()
    aws.replies = [Reply(result(), until=idle.is_set)]
    function = stages.find("dev", None, None)
    client = function.client("lambda", connect_s=1, read_s=60)
    invocation = threading.Thread(target=client.invoke, kwargs={"FunctionName": function.name})
    invocation.start()
    try:
        kind, left = eventually(lambda: timer_of_connection(int(aws.endpoint.rpartition(":")[2])))
    finally:
        idle.set()
        invocation.join()

    # proc(5), /proc/net/tcp: 02 is keepalive; its time is in hundredths of a second, in hexadecimal.
    assert kind == "02"
    assert 0 < int(left, 16) <= 60 * 100


def timer_of_connection(port: int) -> list[str]:
    sockets = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    timers = [row[5].split(":") for row in sockets if row[2].endswith(f":{port:04X}") and row[3] == "01"]
    return next((timer for timer in timers if timer[0] != "01"), [])  # 01: data is not acknowledged yet


# --- what AWS answers instead ---


@pytest.mark.parametrize(
    "reply,kind,hint",
    [
        (refusal(404, "ResourceNotFoundException"), "ResourceNotFoundException", "Deploy stage dev first"),
        (refusal(403, "AccessDeniedException"), "AccessDeniedException", "lambda:InvokeFunction"),
        (refusal(403, "ExpiredTokenException"), "ExpiredTokenException", "Log in"),
        pytest.param(
            refusal(403, "UnrecognizedClientException"),
            "UnrecognizedClientException",
            "Log in",
            marks=pytest.mark.stress,
        ),
        (refusal(429, "TooManyRequestsException"), "TooManyRequestsException", "Nothing was run"),
        (refusal(500, "ServiceException"), "ServiceException", "may still run"),
        (refusal(500, "SomethingNew"), "SomethingNew", "may still run"),
        (Reply(b"not JSON"), "InvalidAnswer", "may still run"),
        (Reply(), "ConnectionClosedError", "may still run"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_aws_error_is_shown_by_its_name_without_a_retry(
    aws: Stub, migrate: Callable[..., Ended], reply: Reply, kind: str, hint: str
) -> None:
    aws.replies = [reply]

    ended = migrate("status", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, kind)
    assert hint in ended.err
    assert len(aws.events) == 1


def test_a_missing_answer_does_not_cause_a_second_invocation(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invocation, "READ_S", 1)
    aws.replies = [Reply(result(), after_s=1.5), Reply(at(BEHIND))]

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, "ReadTimeoutError")
    assert "The function may still run." in ended.err
    assert "migrate status --stage dev" in ended.err
    assert actions_of(aws).count("upgrade") == 1


def test_the_command_waits_for_longer_than_lambda_lets_a_function_run() -> None:
    assert invocation.READ_S > 900


@pytest.mark.usefixtures("aws")
def test_a_refused_connection_says_that_nothing_was_run(
    migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, "EndpointConnectionError")
    assert "Nothing was run" in ended.err


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("missing,kind", [("AWS_ACCESS_KEY_ID", "NoCredentialsError"), ("AWS_REGION", "NoRegionError")])
def test_missing_settings_are_trouble_with_aws(
    migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, missing: str, kind: str
) -> None:
    monkeypatch.delenv(missing)
    monkeypatch.delenv(missing.replace("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"), raising=False)

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, kind)


@pytest.mark.parametrize(
    "variable,value,kind,advice",
    [
        ("AWS_ENDPOINT_URL", "foo", "InvalidSettings", "AWS_ENDPOINT_URL"),
        ("AWS_REGION", "no region", "InvalidRegionError", "--region"),
    ],
)
@pytest.mark.parametrize("action", ["upgrade", "status"])
@pytest.mark.usefixtures("aws")
def test_settings_that_make_no_sense_are_named(
    migrate: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    variable: str,
    value: str,
    kind: str,
    advice: str,
) -> None:
    monkeypatch.setenv(variable, value)

    ended = migrate(action, "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, kind)
    assert advice in ended.err.splitlines()[-1]


def test_an_unknown_profile_is_trouble_with_aws(migrate: Callable[..., Ended]) -> None:
    ended = migrate("upgrade", "--stage", "dev", "--profile", "nobody", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (AWS, "ProfileNotFound")


# --- wrong usage ---


@pytest.mark.parametrize(
    "arguments",
    [
        ("upgrad",),
        ("upgrade",),
        ("upgrade", "--stage", "nope"),
        ("upgrade", "--stage", "dev", "--nope"),
        ("upgrade", "--stage", "dev", "base"),
        ("upgrade", "--stage", "dev", "aaaa", "--revision", "bbbb"),
        ("upgrade", "--stage", "dev", "+2", "--wait"),
        ("downgrade", "--stage", "dev"),
        ("downgrade", "--stage", "dev", "--yess"),
        ("stamp", "--stage", "dev", "-1"),
        ("status", "--stage", "dev", "--schema", " "),
        ("history", "--stage", "dev", "--format", "dot"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_nothing_is_invoked(
    aws: Stub, migrate: Callable[..., Ended], arguments: tuple[str, ...]
) -> None:
    ended = migrate(*arguments)

    assert (ended.code, ended.out) == (USAGE, "")
    assert ended.err
    assert (aws.events, aws.log_requests) == ([], [])


@pytest.mark.parametrize("arguments", [("status",), ("history", "--stage", "dev", "--format", "mermaid")], ids=" ".join)
def test_wrong_usage_has_a_json_document_too(migrate: Callable[..., Ended], arguments: tuple[str, ...]) -> None:
    ended = migrate(*arguments, "--json")

    assert (ended.code, ended.document["error"]["type"]) == (USAGE, "UsageError")


# --- options become the event ---


@pytest.mark.parametrize(
    "arguments,event",
    [
        (("upgrade", "+2"), {"action": "upgrade", "revision": "+2"}),
        (("plan", "--revision", "bbbb"), {"action": "plan", "revision": "bbbb"}),
        (("downgrade", "-1", "--confirm", "bbbb"), {"action": "downgrade", "revision": "-1", "confirm": "bbbb"}),
        (("downgrade", "--revision=-1"), {"action": "downgrade", "revision": "-1"}),
        (("stamp", "head"), {"action": "stamp", "revision": "head"}),
        (
            ("status", "--secret-id", "a", "--database", "b", "--schema", "c"),
            {"action": "status", "target": {"secret_id": "a", "database": "b", "schema": "c"}},
        ),
    ],
)
def test_options_become_the_event(
    aws: Stub, migrate: Callable[..., Ended], arguments: tuple[str, ...], event: dict[str, object]
) -> None:
    answer = result(event["action"], reverted=[], plan=[], lock=None, invalid_indexes=[])  # type: ignore[arg-type]
    aws.replies = [Reply(answer)]

    ended = migrate(*arguments, "--stage", "dev")

    assert ended.code == 0, ended.err
    assert aws.events == [event]


def test_the_stage_may_come_from_the_environment(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATE_STAGE", "dev")

    assert migrate("upgrade").code == 0
    assert len(aws.events) == 1


# --- --wait ---


def test_wait_invokes_again_until_it_is_done(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.replies = [failure("MigrationIncomplete"), Reply(result())]

    ended = migrate("upgrade", "--stage", "dev", "--wait", "--json")

    assert (ended.code, ended.document["status"]) == (0, "ok")
    assert len(aws.events) == 2


def test_wait_ends_at_its_limit(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.replies = [failure("MigrationLocked")]

    ended = migrate("upgrade", "--stage", "dev", "--wait", "--wait-limit", "0.01")

    assert ended.code == AGAIN
    assert len(aws.events) == 1


def test_wait_does_not_retry_an_error_that_would_come_back(aws: Stub, migrate: Callable[..., Ended]) -> None:
    aws.replies = [failure("MigrationFailed")]

    assert migrate("upgrade", "--stage", "dev", "--wait").code == FAILED
    assert len(aws.events) == 1


def test_ctrl_c_between_two_runs_of_wait_does_not_say_that_nothing_was_invoked(
    aws: Stub, migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.replies = [failure("MigrationIncomplete")]

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(actions, "time", SimpleNamespace(sleep=interrupted, monotonic=time.monotonic))

    ended = migrate("upgrade", "--stage", "dev", "--wait")

    assert (ended.code, len(aws.events)) == (130, 1)
    assert "stay applied" in ended.err
    assert "migrate upgrade --stage dev --wait" in ended.err


# --- a fault of the command itself ---


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise RuntimeError("not\nreckoned with")

    monkeypatch.setattr(actions, "run", run)


@pytest.mark.usefixtures("broken")
def test_a_fault_of_the_command_is_one_line_and_one_document(migrate: Callable[..., Ended]) -> None:
    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (3, "InternalError")
    assert ended.err.splitlines()[0].endswith("RuntimeError: not reckoned with")
    assert "Traceback" not in ended.err


@pytest.mark.usefixtures("broken")
def test_migrate_debug_prints_the_traceback(migrate: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRATE_DEBUG", "1")

    ended = migrate("upgrade", "--stage", "dev", "--json")

    assert (ended.code, ended.document["error"]["type"]) == (3, "InternalError")
    assert "Traceback" in ended.err


# --- the commands that are suggested ---

SUGGESTED = sorted(
    {
        re.sub(r"\{[^}]*\}", "x", words)
        for file in Path(actions.__file__).parent.rglob("*.py")
        for words in re.findall(r"""\.named\(f?(?:"([^"]+)"|'([^']+)')\)""", file.read_text(encoding="utf-8"))
        for words in filter(None, words)
    }
    | {
        name
        for steps in (*ADVICE.values(), *ADVICE_BY_CAUSE.values())
        for _, name in steps
        if name not in {"again", "log"}
    }
)


@pytest.mark.parametrize("words", SUGGESTED)
def test_a_command_that_is_suggested_exists_and_fits_a_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*words.split(), "--stage", "production"]
    # An option that does not exist is refused before the help is shown.
    typer.main.get_command(app).main([*arguments, "--help"], prog_name="migrate", standalone_mode=False)
    command = re.split(" (?:--|x|head)", words)[0]
    assert f"Usage: migrate {command}" in capsys.readouterr().out
    assert len(shlex.join(["migrate", *arguments])) <= 80
