"""The deployed state machine over tenants of all kinds: what it begins, what it leaves alone, and what it tells."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from lambda_migrate.database.schema import fingerprint, read_schema
from lambda_migrate.invocation.invocation import application_name
from lambda_migrate.invocation.telemetry import TARGET_METRICS
from localcloud import postgres, testing
from localcloud.clients import client
from tests.support.bystander import execute, query
from tests.support.checkout import ROOT, change_project, copy_checkout, with_tools
from tests.support.trees import ENV_PY, Rev, sql, write_revision
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server

# One deployed stage for all of them.
pytestmark = pytest.mark.xdist_group("rollout")

STAGE = "fleet"
FUNCTION = f"template-saas-api-migrate-lambda-{STAGE}"
MACHINE = f"template-saas-api-migrate-{STAGE}"

# Each does what a table in the tenant's own schema asks it to: it fails, or it takes so many seconds.
FAIL = "DO $$ BEGIN IF to_regclass('poison') IS NOT NULL THEN RAISE EXCEPTION 'poisoned'; END IF; END $$"
NAP = """DO $$ DECLARE s float; BEGIN
  IF to_regclass('naps') IS NOT NULL THEN SELECT seconds INTO s FROM naps; PERFORM pg_sleep(s); END IF; END $$"""
TREE = (
    Rev("f1ee70000001", upgrade=sql("CREATE TABLE one (id integer)", FAIL)),
    Rev("f1ee70000002", upgrade=sql(NAP, "CREATE TABLE two (id integer)")),
    Rev("f1ee70000003", upgrade=sql(NAP, "CREATE TABLE three (id integer)")),
    Rev("f1ee70000004", upgrade=sql(NAP, "CREATE TABLE four (id integer)")),
)
HEAD = TREE[-1].id


@dataclass(frozen=True)
class Ended:
    """How an execution ended."""

    name: str
    status: str
    output: Any
    error: str
    cause: str


class Fleet:
    """The deployed stage: its machine, its function, and the bucket of its rollouts."""

    def __init__(self, emulator: Emulator, outputs: Mapping[str, str]) -> None:
        self._lambda = client(emulator, "lambda")
        self._secrets = client(emulator, "secretsmanager")
        self._states = client(emulator, "stepfunctions")
        self._s3 = client(emulator, "s3")
        self._logs = client(emulator, "logs")
        self._alarms = client(emulator, "cloudwatch")
        self._machine = outputs["StateMachineArn"]
        self._bucket = outputs["RolloutBucket"]
        answer = self._lambda.get_function_configuration(FunctionName=FUNCTION)
        self._variables: dict[str, str] = answer["Environment"]["Variables"]

    def secret(self, content: Mapping[str, object], name: str = "", tags: Mapping[str, str] | None = None) -> str:
        """Make a secret and give its name."""
        name = name or f"fleet/{secrets.token_hex(8)}"
        given = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
        self._secrets.create_secret(Name=name, SecretString=json.dumps(content), Tags=given)
        return name

    def configure(self, rollout: Mapping[str, object], *, timeout_s: int = 60, **variables: str) -> None:
        """Let the function, in new processes, have this ``rollout`` in its settings, and such a timeout."""
        # As the stage's own settings, so that no pause is long.
        settings = {"retry_after_s": 1, **rollout}
        self._lambda.update_function_configuration(
            FunctionName=FUNCTION,
            Timeout=timeout_s,
            Environment={"Variables": {**self._variables, "ROLLOUT": json.dumps(settings), **variables}},
        )
        self._lambda.get_waiter("function_updated_v2").wait(FunctionName=FUNCTION, WaiterConfig={"Delay": 0.1})

    def start(self, name: str = "", /, **given: object) -> str:
        """Begin a rollout and give its name."""
        name = name or f"r-{secrets.token_hex(4)}"
        self._states.start_execution(stateMachineArn=self._machine, name=name, input=json.dumps(given))
        return name

    def execution(self, name: str) -> str:
        """The ARN of the execution of that name."""
        return f"{self._machine.replace(':stateMachine:', ':execution:')}:{name}"

    def end_of(self, name: str) -> Ended:
        """Wait until a rollout has ended."""
        arn = self.execution(name)
        while (given := self._states.describe_execution(executionArn=arn))["status"] == "RUNNING":
            time.sleep(0.1)
        output = json.loads(given["output"]) if given["status"] == "SUCCEEDED" else None
        return Ended(name, given["status"], output, given.get("error", ""), given.get("cause", ""))

    def approve(self, name: str) -> None:
        """Answer the approval that a rollout waits for, as the command line does."""
        self._states.send_task_success(taskToken=self.get(name, "approval.json")["token"], output="{}")

    def alarm(self, state: str) -> None:
        """Let the operator's alarm be there, in this state."""
        name = "fleet-errors"
        self._alarms.put_metric_alarm(
            AlarmName=name,
            Namespace="app",
            MetricName="errors",
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
        )
        self._alarms.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a test")

    def abort(self, name: str) -> None:
        """Stop an execution the hard way, as `StopExecution` does."""
        self._states.stop_execution(executionArn=self.execution(name))

    def run(self, **given: object) -> Ended:
        """A whole rollout."""
        return self.end_of(self.start("", **given))

    def invoke(self, event: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
        """One invocation of the function, as the machine would."""
        given = self._lambda.invoke(FunctionName=FUNCTION, Payload=json.dumps(event))
        return json.load(given["Payload"])

    def get(self, rollout: str, name: str) -> Any:  # noqa: ANN401 - JSON
        """One of a rollout's objects."""
        return json.load(self._s3.get_object(Bucket=self._bucket, Key=f"rollouts/{rollout}/{name}")["Body"])

    def text(self, rollout: str, name: str) -> str:
        """The text of one of a rollout's objects."""
        found = self._s3.get_object(Bucket=self._bucket, Key=f"rollouts/{rollout}/{name}")["Body"].read()
        return found.decode()  # type: ignore[no-any-return]

    def put(self, rollout: str, name: str, content: object) -> None:
        """Write one of a rollout's objects, as the command line does."""
        self._s3.put_object(Bucket=self._bucket, Key=f"rollouts/{rollout}/{name}", Body=json.dumps(content).encode())

    def put_latest(self, content: object) -> None:
        """Write the object that names the newest rollout."""
        self._s3.put_object(Bucket=self._bucket, Key="rollouts/latest.json", Body=json.dumps(content).encode())

    def keys(self, rollout: str, name: str) -> list[str]:
        """The keys of a rollout's objects that begin so, without what all have in common."""
        prefix = f"rollouts/{rollout}/"
        found = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix + name)
        return [entry["Key"].removeprefix(prefix) for entry in found.get("Contents", [])]

    def lines(self) -> list[dict[str, Any]]:
        """What the function has logged so far."""
        pages = self._logs.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{FUNCTION}")
        texts = (event["message"] for page in pages for event in page["events"])
        return [json.loads(text) for text in texts if text.startswith("{")]

    def ends_of_runs(self, schema: str) -> dict[str, str]:
        """The errors of the runs on this schema that failed, by their requests, from the oldest."""
        lines = sorted((line for line in self.lines() if "event" in line), key=lambda line: str(line["timestamp"]))
        runs = {
            line["function_request_id"]: line.get("schema") for line in lines if line["event"] == "migration.started"
        }
        failed = [line for line in lines if line["event"] == "migration.failed"]
        ends = {line["function_request_id"]: line["message"] for line in failed}
        return {run: end for run, end in ends.items() if runs[run] == schema}

    def counted(self) -> Counter[str]:
        """The metrics of targets that the function has measured so far."""
        counted: Counter[str] = Counter()
        for line in self.lines():
            if "_aws" in line:
                counted.update({name: int(line[name][0]) for name in TARGET_METRICS.values() if name in line})
        return counted

    def report(self, ended: Ended) -> Any:  # noqa: ANN401 - JSON
        """What report.json says of it."""
        return self.get(ended.name, "report.json")


@pytest.fixture(scope="module")
def fleet(shared_run: Path, postgres_server: Server) -> Fleet:
    """Stage fleet, deployed by the CDK to an emulator of its own."""
    emulator = testing.start_emulator(ROOT, shared_run, "rollout")
    checkout = copy_checkout(shared_run / "rollout")
    versions = checkout / "back" / "alembic" / "versions"
    (versions.parent / "env.py").write_text(ENV_PY)
    for old in versions.glob("*.py"):
        old.unlink()
    parent = None
    for revision in TREE:
        write_revision(versions, revision, parent)
        parent = revision.id
    (versions.parent / "reviewed.json").write_text(json.dumps(recorded(postgres_server)))
    stage = {
        "account": "000000000000",
        "region": emulator.region,
        "runtime": "local",
        "database": {"secret": "fleet/none", "ca_bundle": str(postgres_server.ca)},
        "log_retention_days": 1,
        "rollout": {
            "concurrency": 4,
            "per_server": 4,
            "retry_after_s": 1,
            "retries": 3,
            # What the machine is made for; the function's own settings say what happens in each test.
            "between_groups": "approval",
            "soak_s": 1,
            "soak_alarm": "fleet-errors",
        },
    }
    change_project(checkout, stages={STAGE: stage})
    for command in (
        ("cdk", "bootstrap", f"aws://000000000000/{emulator.region}", "--app", ""),
        ("cdk", "deploy", "--context", f"stage={STAGE}", "--require-approval", "never"),
    ):
        done = subprocess.run(
            command,
            cwd=checkout,
            env=with_tools(emulator.environment()),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    (stack,) = client(emulator, "cloudformation").describe_stacks(StackName=MACHINE)["Stacks"]
    return Fleet(emulator, {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]})


def recorded(server: Server) -> dict[str, Any]:
    """What the reviewer would record of the tree: its schema, and that the second revision needs values in a column."""
    name = f"recorded_{secrets.token_hex(4)}"
    postgres.create_role(server, name, name)
    postgres.create_database(server, name, name)
    check = {"check": "not_null", "table": "one", "columns": ["id"], "name": None, "changed_before": False}
    check |= {"query": 'SELECT * FROM one WHERE "id" IS NULL', "reads": ["one"]}
    table = {"table": "one", "lock": "ACCESS EXCLUSIVE", "blocks": "reads and writes", "reads_all": True}
    work = [{"table": "one", "kind": "scan", "share": 1.0}]
    table |= {"rewrites": False, "while_locked": {"reads": ["one"], "rewrites": [], "work": work}}
    entries: dict[str, Any] = {}
    before: dict[str, str] = {}
    try:
        with closing(server.database(name, name, name).connect()) as opened, opened.cursor() as cursor:
            for revision, made in zip(TREE, ("one", "two", "three", "four"), strict=True):
                cursor.execute(f"CREATE TABLE {made} (id integer)")
                now = dict(read_schema(opened).objects)
                schema = {
                    "before": fingerprint(before),
                    "after": fingerprint(now),
                    "changed": {name: digest for name, digest in now.items() if name not in before},
                }
                checks = {"tables": [table], "checks": [check]} if made == "two" else {"tables": [], "checks": []}
                measured = {**checks, "work": [], "changes": [], "schema": schema}
                entries[revision.id] = {"sha256": "", "reviewed": True, "findings": [], "measured": measured}
                before = now
    finally:
        postgres.drop_database(server, name, name)
    return {"version": 2, "revisions": entries}


class Schemas:
    """A database in which each tenant has a schema, listed in a table of the public one."""

    def __init__(self, database: Database, secret: str, names: Sequence[str]) -> None:
        self.database = database
        self.secret = secret
        self.names = names
        execute(
            database,
            "CREATE TABLE tenants (schema text PRIMARY KEY, priority integer)",
            *(f"CREATE SCHEMA {name}" for name in names),
            *(f"INSERT INTO tenants VALUES ('{name}', {place})" for place, name in enumerate(names)),  # noqa: S608 - ours
        )

    def poison(self, *names: str) -> None:
        """Let the migrations of these tenants fail."""
        execute(self.database, *(f"CREATE TABLE {name}.poison ()" for name in names))

    def cure(self, *names: str) -> None:
        execute(self.database, *(f"DROP TABLE {name}.poison" for name in names))

    def slow(self, name: str, seconds: float) -> None:
        """Let three of a tenant's revisions take so long each."""
        execute(self.database, f"CREATE TABLE {name}.naps AS SELECT {seconds} AS seconds")

    def touched(self) -> set[str]:
        """The tenants in which anything was ever done."""
        found = query(
            self.database,
            "SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relname = 'alembic_version' AND nspname <> 'public'",
        )
        return {name for (name,) in found}

    def migrated(self) -> set[str]:
        """The tenants that are at head."""
        return {
            name
            for name in self.touched()
            if query(self.database, f"SELECT version_num FROM {name}.alembic_version") == [(HEAD,)]  # noqa: S608 - ours
        }


QUERY = "SELECT schema, schema AS name, priority FROM tenants"


@pytest.fixture
def tenants(fleet: Fleet, database: Database, request: pytest.FixtureRequest) -> Schemas:
    """So many tenants as the test is parametrized with, a schema each, in the order of their names."""
    schemas = Schemas(database, fleet.secret(database.secret), [f"t{number:02}" for number in range(request.param)])
    fleet.configure({"query": QUERY}, DB_SECRET_ID=schemas.secret)
    return schemas


def counts(report: Mapping[str, Any]) -> dict[str, int]:
    """What a report counts, without what it counted none of."""
    return {what: number for what, number in report["counts"].items() if number}


@pytest.mark.parametrize("tenants", [60], indirect=True)
def test_nobody_but_the_canary_is_touched_when_it_fails_and_one_bad_tenant_hurts_no_other(
    fleet: Fleet, tenants: Schemas
) -> None:
    tenants.poison("t00")
    failed = fleet.run()

    assert (failed.status, failed.error) == ("FAILED", "RolloutFailed")
    assert "1 of the 1 targets of the canaries failed, 0 are tolerated; 59 of 60 were not begun" in failed.cause
    assert "t00: MigrationFailed: revision f1ee70000001" in failed.cause
    assert tenants.touched() == set()  # the canary's own revision was rolled back
    assert counts(fleet.report(failed)) == {"targets": 60, "failed": 1, "left": 59}

    tenants.cure("t00")
    tenants.poison("t30")
    fleet.configure({"query": QUERY, "tolerated_failures": "2%"}, DB_SECRET_ID=tenants.secret)
    ended = fleet.run()

    assert ended.status == "SUCCEEDED", ended.cause
    assert tenants.migrated() == set(tenants.names) - {"t30"}
    report = fleet.report(ended)
    assert counts(report) == {"targets": 60, "migrated": 59, "failed": 1}
    assert report["revisions"] == {HEAD: 59}
    (failure,) = report["failures"]
    assert (failure["name"], failure["target"], failure["wave"]) == ("t30", {"schema": "t30"}, 2)
    assert failure["error_type"] == "MigrationFailed"
    assert "poisoned" in failure["message"]
    assert ended.output["rollout"]["counts"] == report["counts"]
    assert fleet.keys(ended.name, "report.") == ["report.html", "report.json"]

    tenants.cure("t30")
    retried = fleet.run(retry_of=ended.name)

    assert counts(fleet.report(retried)) == {"targets": 1, "migrated": 1}
    assert tenants.migrated() == set(tenants.names)


@pytest.mark.parametrize("tenants", [20], indirect=True)
def test_a_threshold_that_is_passed_stops_what_has_not_begun(fleet: Fleet, tenants: Schemas) -> None:
    fleet.configure({"query": QUERY, "tolerated_failures": 1}, DB_SECRET_ID=tenants.secret)
    tenants.poison("t01", "t02", "t03")

    ended = fleet.run()

    report = fleet.report(ended)
    assert (ended.error, report["status"]) == ("RolloutFailed", "failed")
    assert report["counts"]["failed"] in {2, 3}
    assert report["counts"]["left"] > 0
    assert not {"t18", "t19"} & tenants.touched()
    # What had begun was not cut off.
    assert tenants.touched() == tenants.migrated()
    assert len(tenants.migrated()) == report["counts"]["migrated"]


@pytest.mark.parametrize("tenants", [2], indirect=True)
def test_a_migration_goes_on_by_itself_as_long_as_it_comes_further(fleet: Fleet, tenants: Schemas) -> None:
    tenants.slow("t00", 1.5)
    tenants.slow("t01", 60)
    fleet.configure(
        {"query": QUERY, "canaries": 0, "tolerated_failures": 1},
        timeout_s=7,
        DB_SECRET_ID=tenants.secret,
        DEADLINE_RESERVE_MS="3500",
    )

    before = fleet.ends_of_runs("t01")
    ended = fleet.run()

    assert ended.status == "SUCCEEDED", ended.cause
    assert tenants.migrated() == {"t00"}
    (failure,) = fleet.report(ended)["failures"]
    assert (failure["name"], failure["error_type"]) == ("t01", "MigrationIncomplete")
    assert "the next is f1ee70000002" in failure["message"]
    assert "the revision needs more time than a function has" in failure["message"]
    # Each came further than the one before it, but for the last. If the machine is busy, the first comes less far.
    ends = [end for run, end in fleet.ends_of_runs("t01").items() if run not in before]
    assert [len(list(same)) for _, same in groupby(ends)] == [*[1] * (failure["runs"] - 2), 2]
    assert failure["runs"] >= 3


@pytest.mark.parametrize("tenants", [12], indirect=True)
def test_a_rollout_runs_once_is_stopped_at_a_boundary_and_the_next_one_does_the_rest(
    fleet: Fleet, tenants: Schemas
) -> None:
    for name in tenants.names:
        tenants.slow(name, 0.3)
    first = fleet.start()
    while not fleet.keys(first, "outcomes/"):
        time.sleep(0.1)

    second = fleet.run()
    fleet.put(first, "halt.json", {"why": "stopped", "message": "stopped by a test"})
    stopped = fleet.end_of(first)

    assert (second.status, second.error) == ("FAILED", "AlreadyRunning")
    assert first in second.cause
    assert fleet.keys(second.name, "") == []
    assert (stopped.status, stopped.error) == ("FAILED", "RolloutStopped")
    assert "stopped by a test" in stopped.cause
    done = tenants.migrated()
    assert done == tenants.touched()
    assert counts(fleet.report(stopped)) == {"targets": 12, "migrated": len(done), "left": 12 - len(done)}
    assert len(done) < 12

    rerun = fleet.run()

    assert counts(fleet.report(rerun)) == {"targets": 12, "migrated": 12 - len(done), "current": len(done)}
    assert tenants.migrated() == set(tenants.names)


@pytest.fixture
def another(postgres_server: Server) -> Iterator[Database]:
    """A second tenant's database."""
    name = f"test_{secrets.token_hex(6)}"
    postgres.create_role(postgres_server, name, "password")
    postgres.create_database(postgres_server, name, name)
    yield postgres_server.database(name, name, "password")
    postgres.drop_database(postgres_server, name, name)


def test_the_secrets_under_a_prefix_or_with_a_tag_are_the_targets(
    fleet: Fleet, database: Database, another: Database
) -> None:
    prefix = f"tenants-{secrets.token_hex(4)}/"
    fleet.secret(database.secret, f"{prefix}a", {"tenant": prefix})
    fleet.secret(another.secret, f"{prefix}b", {"tenant": "elsewhere", "server": "two"})
    fleet.secret({}, f"other-{prefix}c", {"tenant": prefix.upper()})

    before = fleet.counted()
    # With room for one at a time: whoever comes second waits outside.
    fleet.configure({"secret_prefix": prefix, "canaries": 0}, DB_SECRET_ID="none", SERVER_CONCURRENCY="1")
    plan = fleet.report(fleet.run(plan=True))
    assert (counts(plan), plan["revisions"]) == ({"targets": 2, "behind": 2}, {"base": 2})
    assert query(database, "SELECT to_regclass('one')") == [(None,)]
    migrated = fleet.run()
    assert counts(fleet.report(migrated)) == {"targets": 2, "migrated": 2}
    items = {item["name"]: item for item in fleet.get(migrated.name, "wave-1.json")}
    assert items[f"{prefix}b"]["server"] == "two"
    assert items[f"{prefix}a"]["server"] == f"{database.secret['host']}:{database.secret['port']}"
    assert items[f"{prefix}a"]["target"] == {"secret_id": f"{prefix}a"}

    # A plan looks, and is counted nowhere.
    assert counts(fleet.report(fleet.run(plan=True))) == {"targets": 2, "current": 2}
    fleet.configure({"secret_tag": {"key": "tenant", "value": prefix}})
    tagged = fleet.run()
    assert counts(fleet.report(tagged)) == {"targets": 1, "current": 1}
    eventually(lambda: (fleet.counted() - before)["TargetsCurrent"], within_s=10)
    assert fleet.counted() - before == {"TargetsMigrated": 2, "TargetsCurrent": 1}


def test_a_target_does_not_wait_for_room_on_its_server_for_ever(fleet: Fleet, database: Database) -> None:
    fleet.configure({"retry_after_s": 1}, DB_SECRET_ID=fleet.secret(database.secret), SERVER_CONCURRENCY="1")
    item = {"number": 1, "name": "acme", "server": "one", "wave": 1, "target": {}}

    def come(looks: int) -> Any:  # noqa: ANN401 - JSON
        given = {"name": "nobodys", "item": item, "runs": 0, "looks": looks}
        return fleet.invoke({"action": "upgrade", "rollout": given})

    with closing(database.connect()) as another, another.cursor() as cursor:
        cursor.execute("SET application_name = %s", (application_name(FUNCTION, str(uuid4())),))
        soon, late = come(0), come(1999)

    assert (soon["outcome"], soon["looks"]) == ("busy", 1)
    assert late["errorType"] == "MigrationLocked"
    assert "2,000 times there was no room on the server: 1 runs are at work" in late["errorMessage"]
    assert query(database, "SELECT to_regclass('one')") == [(None,)]


def test_a_list_of_targets_and_only_some_of_them(fleet: Fleet, database: Database) -> None:
    execute(database, "CREATE SCHEMA a", "CREATE SCHEMA b")
    listed = [{"name": "first", "schema": "a"}, {"schema": "b"}]
    fleet.configure({"targets": listed}, DB_SECRET_ID=fleet.secret(database.secret))

    wrong = fleet.run(targets=["first", "frist"])
    some = fleet.run(targets=["b"])
    rest = fleet.run()

    assert (wrong.error, "there is no target 'frist'" in wrong.cause) == ("InvalidRequest", True)
    assert counts(fleet.report(some)) == {"targets": 1, "migrated": 1}
    assert counts(fleet.report(rest)) == {"targets": 2, "migrated": 1, "current": 1}


@pytest.mark.parametrize(
    "rows",
    ["('one', 'a'), ('other', 'a')", "('one', NULL::text), ('other', 'public')"],
    ids=["the same schema", "a default schema and its name"],
)
def test_two_targets_of_one_place_are_refused_before_the_first_is_begun(
    fleet: Fleet, database: Database, rows: str
) -> None:
    execute(database, "CREATE SCHEMA a")
    secret = fleet.secret(database.secret)
    listed = [
        {"name": name, "secret_id": secret, **({"schema": schema} if schema else {})}
        for name, schema in query(database, f"SELECT * FROM (VALUES {rows}) AS t")  # noqa: S608 - of the test
    ]
    fleet.configure({"targets": listed}, DB_SECRET_ID=secret)

    ended = fleet.run()

    assert ended.error == "ConfigurationError"
    assert "the targets 'one' and 'other' are both schema" in ended.cause
    assert query(database, "SELECT to_regclass('alembic_version'), to_regclass('a.alembic_version')") == [(None, None)]


@pytest.mark.parametrize("tenants", [3], indirect=True)
def test_an_approved_plan_runs_as_planned_or_says_what_has_changed(fleet: Fleet, tenants: Schemas) -> None:
    plan = fleet.run(plan=True)
    execute(tenants.database, "CREATE SCHEMA later", "INSERT INTO tenants VALUES ('later', 9)")
    changed = fleet.run(approved=plan.name)
    execute(tenants.database, "DELETE FROM tenants WHERE schema = 'later'")
    ended = fleet.run(approved=plan.name)
    no_plan = fleet.run(approved=ended.name)

    assert (changed.error, "1 targets are new, gone or another place" in changed.cause) == ("InvalidRequest", True)
    assert "'later'" in changed.cause
    assert counts(fleet.report(ended)) == {"targets": 3, "migrated": 3}
    assert "was no plan" in no_plan.cause
    lines = [json.loads(line) for line in fleet.text(ended.name, "targets.jsonl").splitlines()]
    assert [(line["name"], line["outcome"], line["revision"]) for line in lines] == [
        (name, "migrated", HEAD) for name in tenants.names
    ]


@pytest.mark.parametrize("tenants", [3], indirect=True)
def test_a_plan_visits_every_target_and_stops_at_none(fleet: Fleet, tenants: Schemas) -> None:
    fleet.configure({"query": QUERY, "canaries": 1}, DB_SECRET_ID=tenants.secret)
    execute(tenants.database, "UPDATE tenants SET schema = 'nowhere' WHERE schema = 't00'")

    report = fleet.report(fleet.run(plan=True))

    assert counts(report) == {"targets": 3, "behind": 2, "failed": 1}


@pytest.mark.parametrize(
    "tenants,failing", [(4, 1), pytest.param(30, 3, marks=pytest.mark.stress)], indirect=["tenants"]
)
def test_a_plan_says_which_targets_would_fail_and_a_check_which_schemas_differ(
    fleet: Fleet, tenants: Schemas, failing: int
) -> None:
    first = TREE[0].id
    for place, name in enumerate(tenants.names):
        row = "NULL" if place < failing else "1"
        execute(
            tenants.database,
            f"CREATE TABLE {name}.one (id integer)",
            f"INSERT INTO {name}.one VALUES ({row})",  # noqa: S608 - ours
            f"CREATE TABLE {name}.alembic_version (version_num varchar(32) PRIMARY KEY)",
            f"INSERT INTO {name}.alembic_version VALUES ('{first}')",  # noqa: S608 - ours
        )
    fleet.configure({"query": QUERY, "canaries": 1}, DB_SECRET_ID=tenants.secret)
    total = len(tenants.names)

    plan = fleet.run(plan=True)
    report = fleet.report(plan)
    assert counts(report) == {"targets": total, "behind": total}
    found = report["preflight"]
    assert found["verdicts"] == {"fails": failing, "ok": total - failing}
    [check] = found["checks"]
    assert (check["check"], check["table"], check["columns"], check["targets"]) == ("not_null", "one", ["id"], failing)
    assert (check["revision"], check["violations"]) == (TREE[1].id, 1)
    assert [(server["fails"], server["slow"]) for server in found["servers"]] == [(failing, 0)]
    page = fleet.text(plan.name, "report.html")
    assert "What the revisions will meet" in page
    assert tenants.touched() == set(tenants.names), "nothing was run"

    fleet.run()
    execute(tenants.database, "ALTER TABLE t00.two ADD extra integer", "DROP TABLE t01.three")
    checked = fleet.run(plan=True, check=True)
    groups = fleet.report(checked)["schema"]
    assert [(group["schema"], group["targets"]) for group in groups] == [
        ("equal", total - 2), ("different", 1), ("different", 1),
    ]  # fmt: skip
    differences = {group["example"]: group["differences"] for group in groups[1:]}
    assert differences == {
        "t00": ["column two.extra is not in the tree"],
        "t01": ["table three is missing", "column three.id is missing"],
    }
    assert "column two.extra is not in the tree" in fleet.text(checked.name, "report.html")


@pytest.mark.parametrize("tenants", [2], indirect=True)
def test_a_retry_takes_the_names_that_failed_and_where_they_are_now(fleet: Fleet, tenants: Schemas) -> None:
    rows = "SELECT coalesce(moved, schema) AS schema, schema AS name, priority FROM tenants"
    execute(tenants.database, "ALTER TABLE tenants ADD moved text", "CREATE SCHEMA mended")
    fleet.configure({"query": rows, "canaries": ["t01"]}, DB_SECRET_ID=tenants.secret)
    tenants.poison("t01")
    failed = fleet.run(targets=["t01"])
    execute(tenants.database, "UPDATE tenants SET moved = 'mended' WHERE schema = 't01'")

    retried = fleet.run(retry_of=failed.name)

    assert failed.error == "RolloutFailed"
    assert counts(fleet.report(retried)) == {"targets": 1, "migrated": 1}
    assert tenants.touched() == {"mended"}


@pytest.mark.parametrize("tenants", [3], indirect=True)
def test_a_rollout_that_another_one_followed_begins_nothing_more_if_it_is_redriven(
    fleet: Fleet, tenants: Schemas
) -> None:
    tenants.slow("t00", 1)
    first = fleet.start()
    eventually(lambda: fleet.keys(first, "rollout.json"), within_s=20)
    # The hard stop: no report, and no halt.json.
    fleet.abort(first)
    second = fleet.run(targets=["t01"])
    item = next(item for item in fleet.get(first, "wave-2.json") if item["name"] == "t02")

    # What a redrive of the first one's Map asks of the function.
    part = {"name": first, "item": item, "runs": 0, "package": fleet.get(first, "rollout.json")["package"]}
    answer = fleet.invoke({"action": "upgrade", "target": item["target"], "rollout": part})
    report = fleet.invoke({"action": "report", "rollout": {"name": first}})["rollout"]

    assert (second.status, answer["outcome"]) == ("SUCCEEDED", "left")
    assert "t02" not in tenants.touched()
    assert report["status"] == "stopped"
    assert f"rollout {second.name} has begun since" in report["message"]
    assert report["package"] == fleet.get(first, "rollout.json")["package"]


@pytest.mark.parametrize("tenants", [3], indirect=True)
def test_tenants_that_are_created_meanwhile_are_migrated_at_the_end_or_named(fleet: Fleet, tenants: Schemas) -> None:
    plan = fleet.run(plan=True)
    add = "INSERT INTO tenants VALUES ('{0}', 9)"
    tenants.slow("t02", 0.7)
    begun = fleet.start("", approved=plan.name)
    eventually(lambda: fleet.keys(begun, "rollout.json"), within_s=20)
    execute(tenants.database, "CREATE SCHEMA named", add.format("named"))
    approved = fleet.end_of(begun)
    tenants.slow("named", 0.7)
    begun = fleet.start()
    eventually(lambda: fleet.keys(begun, "rollout.json"), within_s=20)
    execute(tenants.database, "CREATE SCHEMA created", add.format("created"))
    whole = fleet.end_of(begun)

    assert counts(fleet.report(approved)) == {"targets": 3, "migrated": 3}
    assert fleet.report(approved)["new"] == ["named"]
    assert counts(fleet.report(whole)) == {"targets": 5, "current": 3, "migrated": 2}
    assert [wave["targets"] for wave in fleet.report(whole)["waves"]] == [1, 3, 1]
    assert tenants.migrated() == {"t00", "t01", "t02", "named", "created"}


@pytest.mark.parametrize("tenants", [4], indirect=True)
def test_what_a_rollout_has_migrated_is_taken_back_and_nothing_else(fleet: Fleet, tenants: Schemas) -> None:
    settings = {"query": QUERY, "canaries": 0, "tolerated_failures": 1}
    fleet.configure(settings, DB_SECRET_ID=tenants.secret)
    fleet.run(targets=["t00"])
    rollout = fleet.run()
    back = {"downgrade_to": "f1ee70000002", "migrated_by": rollout.name}
    refused = fleet.run(**back)
    fleet.configure(settings, DB_SECRET_ID=tenants.secret, ALLOW_DOWNGRADE="true")
    # One was taken back in part, as when a lock was in the way, and one further than the rollout wants it.
    for name, revision in (("t02", "f1ee70000003"), ("t03", "f1ee70000001")):
        moved = {"action": "downgrade", "revision": revision, "confirm": HEAD, "target": {"schema": name}}
        assert fleet.invoke(moved)["revision"] == revision
    taken, again = fleet.run(**back), fleet.run(**back)

    assert (refused.error, "ALLOW_DOWNGRADE" in refused.cause) == ("DowngradeRefused", True)
    report = fleet.report(taken)
    assert counts(report) == {"targets": 3, "migrated": 2, "failed": 1}
    assert [(each["name"], each["error_type"]) for each in report["failures"]] == [("t03", "DowngradeRefused")]
    at = [query(tenants.database, f"SELECT version_num FROM {name}.alembic_version") for name in tenants.names]  # noqa: S608 - ours
    assert at == [[(HEAD,)], [("f1ee70000002",)], [("f1ee70000002",)], [("f1ee70000001",)]]
    assert counts(fleet.report(again)) == {"targets": 3, "current": 2, "failed": 1}


@pytest.mark.parametrize("tenants", [3], indirect=True)
def test_excluded_tenants_are_left_out_and_reported_until_their_date(fleet: Fleet, tenants: Schemas) -> None:
    excluded = [
        {"name": "t01", "reason": "its data are being mended", "until": "2099-12-31"},
        {"name": "t02", "reason": "was bad", "until": "2020-01-01"},
    ]
    fleet.configure({"query": QUERY, "excluded": excluded}, DB_SECRET_ID=tenants.secret)

    wrong = fleet.run(targets=["t01"])
    ended = fleet.run(exclude=["t00"])

    assert wrong.error == "InvalidRequest"
    assert "excluded: its data are being mended (until 2099-12-31)" in wrong.cause
    assert counts(fleet.report(ended)) == {"targets": 1, "migrated": 1}
    assert {entry["name"] for entry in fleet.report(ended)["excluded"]} == {"t00", "t01"}
    assert tenants.touched() == {"t02"}


@pytest.mark.parametrize("tenants", [4], indirect=True)
def test_groups_come_one_after_the_other_and_wait_for_an_approval_between(fleet: Fleet, tenants: Schemas) -> None:
    rows = "SELECT schema, schema AS name, CASE WHEN priority < 2 THEN 'us' ELSE 'eu' END AS \"group\" FROM tenants"
    settings = {"query": rows, "canaries": 0, "groups": ["eu", "us"], "between_groups": "approval"}
    fleet.configure(settings, DB_SECRET_ID=tenants.secret)

    approved = fleet.start()
    eventually(lambda: fleet.keys(approved, "approval.json"), within_s=60)
    waited = tenants.migrated()
    fleet.approve(approved)
    ended = fleet.end_of(approved)
    execute(tenants.database, "DROP SCHEMA t00 CASCADE", "CREATE SCHEMA t00")
    stopped = fleet.start()
    eventually(lambda: fleet.keys(stopped, "approval.json"), within_s=60)
    fleet.put(stopped, "halt.json", {"why": "stopped", "message": "stopped by a test"})
    fleet.approve(stopped)

    assert waited == {"t02", "t03"}
    assert counts(fleet.report(ended)) == {"targets": 4, "migrated": 4}
    # A stop wins over an approval that was on its way.
    assert fleet.end_of(stopped).error == "RolloutStopped"
    assert "t00" not in tenants.touched()


@pytest.mark.parametrize("tenants", [3], indirect=True)
def test_an_alarm_that_is_on_while_the_canaries_soak_stops_the_rollout(fleet: Fleet, tenants: Schemas) -> None:
    fleet.configure({"query": QUERY, "soak_s": 1}, DB_SECRET_ID=tenants.secret)

    nowhere = fleet.run()
    fleet.alarm("OK")
    quiet = fleet.run(targets=["t00", "t01"])
    fleet.alarm("ALARM")
    loud = fleet.run()

    assert [nowhere.error, quiet.status, loud.error] == ["RolloutStopped", "SUCCEEDED", "RolloutStopped"]
    assert "alarm fleet-errors is on, or does not exist" in loud.cause
    assert tenants.migrated() == {"t00", "t01"}


def test_a_function_that_was_deployed_since_the_listing_migrates_nothing(fleet: Fleet, database: Database) -> None:
    fleet.configure({}, DB_SECRET_ID=fleet.secret(database.secret))
    item = {"number": 1, "name": "a", "server": "s", "wave": 1, "target": {}}
    part = {"name": "deployed-meanwhile", "item": item, "runs": 0, "package": "the one before"}

    answer = fleet.invoke({"action": "upgrade", "rollout": part})

    assert answer["outcome"] == "left"
    assert fleet.get("deployed-meanwhile", "halt.json")["why"] == "deployed"
    assert query(database, "SELECT to_regclass('one')") == [(None,)]


@pytest.mark.usefixtures("tenants")
@pytest.mark.parametrize("tenants", [4], indirect=True)
def test_only_the_exact_key_halts_whatever_it_holds(fleet: Fleet) -> None:
    going_on = f"r-{secrets.token_hex(4)}"
    fleet.put(going_on, "halt.json.bak", {"why": "stopped", "message": "a copy"})
    stopped = f"r-{secrets.token_hex(4)}"
    fleet.put(stopped, "halt.json", ["no", "object"])

    reports = [fleet.report(fleet.end_of(fleet.start(name))) for name in (stopped, going_on)]

    assert [counts(report) for report in reports] == [{"targets": 4, "left": 4}, {"targets": 4, "migrated": 4}]
    assert (reports[0]["status"], "stopped by halt.json" in reports[0]["message"]) == ("stopped", True)


def test_without_targets_the_stages_own_database_is_the_only_one(fleet: Fleet, database: Database) -> None:
    fleet.configure({}, DB_SECRET_ID=fleet.secret(database.secret))

    report = fleet.report(fleet.run())

    assert (counts(report), report["revisions"]) == ({"targets": 1, "migrated": 1}, {HEAD: 1})


WRONG_ROWS = """SELECT name, schema, priority, server FROM (VALUES
  ('good', 'good', 0::float8, NULL), ('not a number', 'good', 'NaN', NULL), (repeat('x', 300000), 'good', 0, NULL),
  ('too long', repeat('y', 300000), 0, NULL), ('good', 'good', 0, NULL), (NULL, NULL, 0, 's'),
  ('catalog', 'pg_catalog', 0, NULL), ('last', 'last', 9, NULL)) AS t (name, schema, priority, server)"""


def test_a_wrong_row_of_the_query_is_one_failed_target(fleet: Fleet, database: Database) -> None:
    execute(database, "CREATE SCHEMA good", "CREATE SCHEMA last")
    settings = {"query": WRONG_ROWS, "tolerated_failures": 6}
    fleet.configure(settings, DB_SECRET_ID=fleet.secret(database.secret))

    report = fleet.report(fleet.run())

    assert report["counts"] | {"left": 0} == {
        "targets": 8, "migrated": 2, "current": 0, "behind": 0, "failed": 6, "left": 0,
    }  # fmt: skip
    errors = {failure["name"]: (failure["error_type"], failure["message"]) for failure in report["failures"]}
    assert errors.keys() == {"not a number", f"{'x' * 60} (row 3)", "too long", "good (row 5)", "(row 6)", "catalog"}
    assert errors.pop("catalog")[0] == "InvalidRequest"
    assert {kind for kind, _ in errors.values()} == {"ConfigurationError"}
    assert "priority must be a finite number" in errors["not a number"][1]
    assert len(json.dumps(report)) < 20_000
    assert query(database, "SELECT version_num FROM last.alembic_version") == [(HEAD,)]


def test_an_invoker_cannot_keep_later_rollouts_from_running(fleet: Fleet, database: Database) -> None:
    fleet.configure({}, DB_SECRET_ID=fleet.secret(database.secret))
    done = fleet.run()
    item = {"number": 1, "name": "a", "server": "s", "wave": 1, "target": {}}
    listing = {"name": "poison", "execution": fleet.execution("poison"), "started": "2026-11-23T10:00:00Z"}
    poisoned: list[dict[str, Any]] = [
        {"action": "targets", "rollout": {**listing, "execution": "x"}},
        {"action": "targets", "rollout": {**listing, "execution": fleet.execution("another")}},
        {"action": "targets", "rollout": {**listing, "started": "soon"}},
        {"action": "targets", "rollout": {**listing, "input": {"retry_of": "../.."}}},
        # What a rollout has left is not overwritten.
        {"action": "targets", "rollout": {**listing, "name": done.name, "execution": fleet.execution("poison")}},
        {"action": "record", "rollout": {"name": "nobodys", "item": item, "runs": 0, "error": {}}},
        {"action": "record", "rollout": {"name": done.name, "item": {**item, "number": 2}, "runs": 0, "error": {}}},
        {"action": "record", "rollout": {"name": done.name, "item": {**item, "wave": 2}, "runs": 0, "error": {}}},
        {"action": "upgrade", "rollout": {"name": done.name, "item": {**item, "target": {"schema": "s"}}, "runs": 0}},
    ]

    refusals = [fleet.invoke(event).get("errorType") for event in poisoned]
    # An outcome of a target that was never listed, and a rollout that no execution belongs to.
    stray = {"name": done.name, "item": {**item, "number": 7, "wave": 3}, "runs": 0}
    fleet.invoke({"action": "upgrade", "rollout": stray})
    fleet.put_latest({"execution": "garbage"})
    fleet.invoke({"action": "targets", "rollout": listing})
    ended = fleet.run()

    assert refusals == ["InvalidRequest"] * len(poisoned)
    assert ended.status == "SUCCEEDED", ended.cause
    again = fleet.invoke({"action": "report", "rollout": {"name": done.name}})
    assert again["rollout"]["counts"]["targets"] == 1
    assert again["rollout"]["status"] == "succeeded"


@pytest.mark.stress
def test_a_hundred_thousand_targets_are_listed(fleet: Fleet, database: Database, figure: Callable[[str], None]) -> None:
    query = "SELECT 'tenant_' || n AS schema, 'db-' || n % 40 AS server FROM generate_series(1, 100000) n"
    fleet.configure(
        {"query": query, "canaries": "1%", "waves": ["10%"], "concurrency": 200},
        DB_SECRET_ID=fleet.secret(database.secret),
        timeout_s=300,
    )
    name = f"r-{secrets.token_hex(4)}"
    given = {"name": name, "execution": fleet.execution(name), "started": "2026-11-23T10:00:00Z"}

    answer = fleet.invoke({"action": "targets", "rollout": given})
    while "latest" in answer:
        answer = fleet.invoke({"action": "targets", "rollout": {**given, "instead_of": answer["latest"]}})

    waves = [fleet.get(given["name"], f"wave-{number}.json") for number in (1, 2, 3)]
    size = sum(len(json.dumps(wave)) for wave in waves)
    figure(f"100,000 targets listed in {answer['duration_ms'] / 1000:.1f} s, {size / 1e6:.1f} MB in S3")
    assert [len(wave) for wave in waves] == [1_000, 9_900, 89_100]
    assert (answer["count"], answer["servers"], answer["waves"][2]["concurrency"]) == (100_000, 40, 200)
    assert len(json.dumps(answer)) < 2_000
