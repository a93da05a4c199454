"""Stage e2e: deployed by the CDK's own CLI to the test run's AWS, and invoked as an operator or a program would."""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from alembic.script import ScriptDirectory

from localcloud.clients import client
from tests.support.checkout import ROOT, change_project, copy_checkout, with_tools
from tests.support.processes import interruptible, killing
from tests.support.trees import Rev, sql, write_revision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server

STAGE = "e2e"
FUNCTION = "template-saas-api-migrate-lambda-e2e"
LOG_GROUP = f"/aws/lambda/{FUNCTION}"

# What the next release adds: its first revision is good, its second raises, over several lines as PostgreSQL likes to.
# A database that has the table `mended` goes on to those that take longer than a function has.
GOOD = Rev("e2e00000good", upgrade=sql("CREATE TABLE next_release (id integer)"), description="Add a table")
BAD = Rev(
    "e2e000000bad",
    upgrade=sql(
        "CREATE TABLE half_done (id integer)",
        r"DO $$ BEGIN IF to_regclass('mended') IS NULL THEN"
        r" RAISE EXCEPTION E'first line\nsecond line' USING HINT = E'a hint\nof two'; END IF; END $$",
    ),
    description="Raise",
)
LONG = Rev(
    "e2e00000long",
    upgrade=sql(
        "DO $$ BEGIN PERFORM pg_sleep((SELECT seconds FROM naps)); END $$",
        "DO $$ BEGIN IF (SELECT fails FROM naps) THEN RAISE EXCEPTION 'after a long time'; END IF; END $$",
    ),
    description="Take long",
)
AFTER = Rev("e2e0000after", upgrade=sql("CREATE TABLE after_long (id integer)"), description="And one more")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by the release that they need, so that each release is deployed once."""

    def release(item: pytest.Item) -> int:
        fixtures = getattr(item, "fixturenames", ())
        return len({"next_release", "long_release"} & {*fixtures})

    items.sort(key=release)


@dataclass(frozen=True)
class Answer:
    """The result of an invocation: the payload, and Lambda's FunctionError. ``exit_code`` is a command's."""

    payload: Any
    function_error: str | None
    exit_code: int | None = None

    @property
    def result(self) -> Any:  # noqa: ANN401 - JSON
        """Return the result of a run that must have succeeded."""
        assert self.function_error is None, self.payload
        return self.payload

    @property
    def error_type(self) -> str:
        """Return the error's name, ``errorType``."""
        return str(self.payload["errorType"])

    @property
    def message(self) -> str:
        """The error's text."""
        return str(self.payload["errorMessage"])


@dataclass(frozen=True)
class Backend:
    """The revisions of the reference backend, oldest first, as Alembic itself reads them."""

    revisions: tuple[str, ...]

    @property
    def head(self) -> str:
        """The head of the reference backend."""
        return self.revisions[-1]


class Deployed:
    """The function of stage e2e. One process of its own serves it, so tests use it one after the other."""

    def __init__(self, checkout: Path, emulator: Emulator) -> None:
        self._checkout = checkout
        self._emulator = emulator
        self._lambda = client(emulator, "lambda")
        self._secrets = client(emulator, "secretsmanager")
        self._logs = client(emulator, "logs")
        self._released: tuple[Rev, ...] | None = None
        self._variables: dict[str, str] = {}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the project's in its checkout, with the test run's AWS."""
        environment = with_tools(self._emulator.environment())
        return subprocess.run(command, cwd=self._checkout, env=environment, capture_output=True, text=True, check=False)

    def start(self, *command: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """Start such a command, which SIGINT interrupts; it is killed at the end of the context."""
        environment = with_tools(self._emulator.environment())
        with interruptible():
            process = subprocess.Popen(
                command, cwd=self._checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        return killing(process)

    def release(self, *revisions: Rev, on_top_of: str = "") -> None:
        """Deploy the reference backend with these revisions added, unless it is deployed already."""
        if self._released == revisions:
            return
        versions = self._checkout / "back" / "alembic" / "versions"
        for old in self._released or ():
            (versions / f"{old.id}_.py").unlink()
        parent = on_top_of
        for revision in revisions:
            write_revision(versions, revision, parent)
            parent = revision.id
        done = self.run("cdk", "deploy", "--context", f"stage={STAGE}", "--require-approval", "never")
        assert done.returncode == 0, done.stderr
        if self._released is None:
            answer = self._lambda.get_function_configuration(FunctionName=FUNCTION)
            self._variables = answer["Environment"]["Variables"]
        self._released = revisions

    def use(self, secret: Mapping[str, object], **variables: str) -> str:
        """Make a secret with this content, let a new process of the function use it, and return the secret's name."""
        name = f"e2e/{secrets.token_hex(8)}"
        self._secrets.create_secret(Name=name, SecretString=json.dumps(secret))
        self.configure(DB_SECRET_ID=name, **variables)
        return name

    def configure(self, **variables: str) -> None:
        """Change the function's variables, which restarts it."""
        self._lambda.update_function_configuration(
            FunctionName=FUNCTION, Environment={"Variables": {**self._variables, **variables}}
        )
        waiter = self._lambda.get_waiter("function_updated_v2")
        waiter.wait(FunctionName=FUNCTION, WaiterConfig={"Delay": 0.1})

    def invoke(self, event: object = None) -> Answer:
        """Invoke as a program does, through boto3; without an event there is no payload at all."""
        payload = {} if event is None else {"Payload": json.dumps(event)}
        response = self._lambda.invoke(FunctionName=FUNCTION, **payload)
        return Answer(json.load(response["Payload"]), response.get("FunctionError"))

    def aws_lambda_invoke(self, *options: str) -> Answer:
        """Invoke as an operator does, with the aws command."""
        out = self._checkout / "out.json"
        out.unlink(missing_ok=True)
        command = ("aws", "lambda", "invoke", "--function-name", FUNCTION, "--cli-read-timeout", "910")
        done = self.run(*command, *options, str(out))
        assert out.exists(), done.stderr
        response = json.loads(done.stdout)
        return Answer(json.loads(out.read_text(encoding="utf-8")), response.get("FunctionError"), done.returncode)

    def log(self) -> list[str]:
        """Return all lines of the function's log in CloudWatch."""
        pages = self._logs.get_paginator("filter_log_events").paginate(logGroupName=LOG_GROUP)
        return [event["message"] for page in pages for event in page["events"]]


@pytest.fixture(scope="session")
def backend() -> Backend:
    """The reference backend's revisions."""
    script = ScriptDirectory(str(ROOT / "back" / "alembic"))
    revisions = tuple(revision.revision for revision in script.walk_revisions())[::-1]
    assert script.get_heads() == [revisions[-1]]
    return Backend(revisions)


@pytest.fixture(scope="session")
def deployed(shared_run: Path, emulator: Emulator, postgres_server: Server) -> Deployed:
    """Stage e2e in an account that was bootstrapped for the CDK; nothing is deployed yet."""
    checkout = copy_checkout(shared_run / "e2e")
    stage = {
        "account": "000000000000",
        "region": emulator.region,
        "runtime": "local",
        "database": {"secret": "e2e/database", "ca_bundle": str(postgres_server.ca)},
        "log_retention_days": 1,
        "long_runs": {},
    }
    change_project(checkout, stages={STAGE: stage})
    deployed = Deployed(checkout, emulator)
    done = deployed.run("cdk", "bootstrap", f"aws://000000000000/{emulator.region}", "--app", "")
    assert done.returncode == 0, done.stderr
    return deployed


@pytest.fixture
def function(deployed: Deployed, database: Database) -> Iterator[Deployed]:
    """The function with the reference backend and a database of the test's own."""
    deployed.release()
    yield from _with_database(deployed, database)


@pytest.fixture
def next_release(deployed: Deployed, database: Database, backend: Backend) -> Iterator[Deployed]:
    """The same function with more revisions, of which the second fails, deployed over the reference backend."""
    deployed.release(GOOD, BAD, LONG, AFTER, on_top_of=backend.head)
    yield from _with_database(deployed, database)


def _with_database(deployed: Deployed, database: Database) -> Iterator[Deployed]:
    """Yield the function with that database. Afterwards its log must not contain the password."""
    deployed.use(database.secret)
    before = len(deployed.log())
    yield deployed
    marker = database.password[:16]
    assert [line for line in deployed.log()[before:] if marker in line] == []
