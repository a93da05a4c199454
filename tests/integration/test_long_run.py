"""`python -m lambda_migrate`: the handler as a process, without Lambda's time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from lambda_migrate.__main__ import LONGEST_OUTCOME
from tests.integration.conftest import LOG_LINE
from tests.support.bystander import query
from tests.support.functions import RUNTIME, assemble
from tests.support.ledger import is_running, lock_holders, reached, sessions, write_ledger
from tests.support.samples import sampled
from tests.support.trees import sql
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

FUNCTION = "template-saas-api-migrate-lambda-test"


@dataclass(frozen=True)
class Ended:
    """The end of a long run: its exit code, its last line, and the lines before."""

    code: int
    answer: Any
    lines: list[dict[str, Any]]


class LongRuns:
    """Starts long runs of one package, with the variables that the function has."""

    def __init__(self, package: Path, runner: Runner, scratch: Path) -> None:
        self._package = package
        self._runner = runner
        self._scratch = scratch

    @contextmanager
    def start(self, tree: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        package = self._scratch / f"long-{tree.name}"
        if not package.exists():
            assemble(self._package, tree, package)
        environment = {"PATH": os.defpath, **self._runner.environment, "LONG_RUN_FUNCTION": FUNCTION, **variables}
        command = [str(RUNTIME), "-m", "lambda_migrate", *arguments]
        process = subprocess.Popen(
            command, cwd=package, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, tree: Path, *arguments: str, **variables: str) -> Ended:
        with self.start(tree, *arguments, **variables) as process:
            written, _ = process.communicate(timeout=120)
        *lines, last = [json.loads(line) for line in written.splitlines()]
        for line in lines:
            LOG_LINE.validate(line)
        return Ended(process.returncode, last, lines)


@pytest.fixture
def long_runs(package: Path, runner: Runner, tmp_path: Path) -> LongRuns:
    return LongRuns(package, runner, tmp_path)


def test_it_has_the_functions_result_log_and_metrics(
    long_runs: LongRuns, runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_ledger(tmp_path / "tree", 2)

    ended = long_runs.run(
        tree, CODEBUILD_BUILD_ID="template-saas-api-migrate-test:0a1b2c3d-0000-4000-8000-0123456789ab"
    )

    assert (ended.code, reached(database)) == (0, 2)
    again = runner.invoke(tree).payload
    assert ended.answer.keys() == again.keys()
    assert len(ended.answer["applied"]) == 2
    assert ended.answer["request_id"] == "0a1b2c3d-0000-4000-8000-0123456789ab"
    logged = [line for line in ended.lines if "event" in line]
    assert {line["function_request_id"] for line in logged} == {ended.answer["request_id"]}
    assert {line["function_name"] for line in logged} == {FUNCTION}
    [metrics] = [line for line in ended.lines if "_aws" in line]
    assert metrics["RevisionsApplied"] == [2.0]


@pytest.mark.parametrize(
    "event,variables,code,error",
    [
        pytest.param('{"action": "upgrade", "revison": "head"}', {}, 2, "InvalidRequest", marks=pytest.mark.stress),
        ("no JSON", {}, 2, "InvalidRequest"),
        ("{}", {"LONG_RUN_TIMEOUT_S": "8h"}, 1, "ConfigurationError"),
        ("{}", {"DB_SECRET_ID": "missing"}, 3, "SecretUnavailable"),
        ("{}", {}, 1, "MigrationFailed"),
        # Time to begin, and none for the revision.
        pytest.param(
            "{}",
            {"LONG_RUN_TIMEOUT_S": "6", "DEADLINE_RESERVE_MS": "3000"},
            4,
            "MigrationIncomplete",
            marks=pytest.mark.stress,
        ),
    ],
)
def test_a_failure_is_the_functions_error_with_the_exit_code_of_the_command(
    long_runs: LongRuns, tmp_path: Path, event: str, variables: dict[str, str], code: int, error: str
) -> None:
    fails = "op.execute('SELECT pg_sleep(30)')" if error == "MigrationIncomplete" else sql("SELECT 1/0")
    tree = write_ledger(tmp_path / "tree", 1, instead={1: fails})
    outcome = tmp_path / "outcome.json"

    ended = long_runs.run(tree, "--outcome", str(outcome), LONG_RUN_EVENT=event, **variables)

    assert (ended.code, ended.answer["errorType"]) == (code, error)
    assert json.loads(outcome.read_text()) == ended.answer


@pytest.mark.stress
def test_an_outcome_that_is_long_leaves_out_its_lists(long_runs: LongRuns, database: Database, tmp_path: Path) -> None:
    tree = write_ledger(tmp_path / "tree", 90)
    outcome = tmp_path / "outcome.json"

    ended = long_runs.run(tree, "--outcome", str(outcome))

    assert len(ended.answer["applied"]) == reached(database) == 90
    text = outcome.read_text()
    short = json.loads(text)
    assert len(text) <= LONGEST_OUTCOME
    assert ended.answer["pending"] == []
    whole = {name: value for name, value in ended.answer.items() if name != "applied"}
    assert short == {**whole, "truncated": ["applied"]}


def test_an_error_that_is_long_is_cut_until_the_outcome_fits(long_runs: LongRuns, tmp_path: Path) -> None:
    tree = write_ledger(tmp_path / "tree", 1)
    outcome = tmp_path / "outcome.json"

    # JSON writes this character as 12.
    ended = long_runs.run(tree, "--outcome", str(outcome), DB_AUTH="𝄞" * LONGEST_OUTCOME)

    text = outcome.read_text()
    short = json.loads(text)
    assert LONGEST_OUTCOME * 0.85 < len(text) <= LONGEST_OUTCOME
    assert short["errorType"] == "ConfigurationError"
    assert len(short["errorMessage"]) > LONGEST_OUTCOME // 15
    assert ended.answer["errorMessage"].startswith(short["errorMessage"])


@pytest.mark.parametrize("number", sampled([signal.SIGTERM, signal.SIGKILL], {signal.SIGTERM}))
def test_one_that_is_killed_leaves_the_server_as_a_killed_function_does(
    long_runs: LongRuns, runner: Runner, database: Database, tmp_path: Path, number: signal.Signals
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: sql("SELECT pg_sleep(60)")})
    with long_runs.start(tree, CODEBUILD_BUILD_ID="p:b1") as process:
        eventually(lambda: is_running(database, "pg_sleep"))
        assert lock_holders(database)

        process.send_signal(number)

        process.wait(10)
        eventually(lambda: not sessions(database, "b1") and not lock_holders(database), within_s=5)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert reached(database) == 1
    assert query(database, "SELECT 1") == [(1,)]
    status = runner.invoke(tree, {"action": "status"}).payload
    assert (status["lock"], len(status["pending"])) == (None, 1)


@pytest.mark.stress
def test_its_deadline_is_longer_than_a_functions(
    long_runs: LongRuns, runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: sql("SELECT pg_sleep(4)")})
    function = runner.start(tree, timeout_s=6, DEADLINE_RESERVE_MS="3000")
    stopped = [function.invoke().message, function.invoke().message]

    ended = long_runs.run(tree)

    assert all("stopped" in message for message in stopped)
    assert (ended.code, reached(database)) == (0, 2)
