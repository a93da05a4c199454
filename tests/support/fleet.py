"""Stage fleet of the rollout tests: its state machine, its bucket, and tenants with a schema each."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.telemetry import TARGET_METRICS
from localcloud.clients import client
from tests.support.bystander import execute, query
from tests.support.trees import Rev, sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database

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
QUERY = "SELECT schema, schema AS name, priority FROM tenants"


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
        """Make a secret and return its name."""
        name = name or f"fleet/{secrets.token_hex(8)}"
        given = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
        self._secrets.create_secret(Name=name, SecretString=json.dumps(content), Tags=given)
        return name

    def configure(self, rollout: Mapping[str, object], *, timeout_s: int = 60, **variables: str) -> None:
        """Restart the function with this ``rollout`` in its settings and this timeout."""
        # As the stage's own settings, so that no pause is long.
        settings = {"retry_after_s": 1, **rollout}
        self._lambda.update_function_configuration(
            FunctionName=FUNCTION,
            Timeout=timeout_s,
            Environment={"Variables": {**self._variables, "ROLLOUT": json.dumps(settings), **variables}},
        )
        self._lambda.get_waiter("function_updated_v2").wait(FunctionName=FUNCTION, WaiterConfig={"Delay": 0.1})

    def start(self, name: str = "", /, **given: object) -> str:
        """Start a rollout and return its name."""
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
        """Approve or reject the wave that a rollout waits for, as the command line does."""
        self._states.send_task_success(taskToken=self.get(name, "approval.json")["token"], output="{}")

    def alarm(self, state: str) -> None:
        """Create the operator's alarm in this state."""
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
        """Run a rollout to its end."""
        return self.end_of(self.start("", **given))

    def invoke(self, event: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
        """Invoke the function once, as the state machine does."""
        given = self._lambda.invoke(FunctionName=FUNCTION, Payload=json.dumps(event))
        return json.load(given["Payload"])

    def get(self, rollout: str, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return one of a rollout's objects in S3, parsed."""
        return json.load(self._s3.get_object(Bucket=self._bucket, Key=f"rollouts/{rollout}/{name}")["Body"])

    def text(self, rollout: str, name: str) -> str:
        """Return the text of one of a rollout's objects in S3."""
        found = self._s3.get_object(Bucket=self._bucket, Key=f"rollouts/{rollout}/{name}")["Body"].read()
        return found.decode()  # type: ignore[no-any-return]

    def put(self, rollout: str, name: str, content: object) -> None:
        """Write one of a rollout's objects, as the command line does."""
        self._s3.put_object(Bucket=self._bucket, Key=f"rollouts/{rollout}/{name}", Body=json.dumps(content).encode())

    def put_latest(self, content: object) -> None:
        """Write the object that names the newest rollout."""
        self._s3.put_object(Bucket=self._bucket, Key="rollouts/latest.json", Body=json.dumps(content).encode())

    def keys(self, rollout: str, name: str) -> list[str]:
        """Return the keys of a rollout's objects with this prefix, without the rollout's own prefix."""
        prefix = f"rollouts/{rollout}/"
        found = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix + name)
        return [entry["Key"].removeprefix(prefix) for entry in found.get("Contents", [])]

    def lines(self) -> list[dict[str, Any]]:
        """Return the function's log lines so far."""
        pages = self._logs.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{FUNCTION}")
        texts = (event["message"] for page in pages for event in page["events"])
        return [json.loads(text) for text in texts if text.startswith("{")]

    def ends_of_runs(self, schema: str) -> dict[str, str]:
        """Return the errors of the failed runs on this schema, oldest first, by request."""
        lines = sorted((line for line in self.lines() if "event" in line), key=lambda line: str(line["timestamp"]))
        runs = {
            line["function_request_id"]: line.get("schema") for line in lines if line["event"] == "migration.started"
        }
        failed = [line for line in lines if line["event"] == "migration.failed"]
        ends = {line["function_request_id"]: line["message"] for line in failed}
        return {run: end for run, end in ends.items() if runs[run] == schema}

    def counted(self) -> Counter[str]:
        """Return the function's metrics of targets so far."""
        counted: Counter[str] = Counter()
        for line in self.lines():
            if "_aws" in line:
                counted.update({name: int(line[name][0]) for name in TARGET_METRICS.values() if name in line})
        return counted

    def report(self, ended: Ended) -> Any:  # noqa: ANN401 - JSON
        """Return its report.json."""
        return self.get(ended.name, "report.json")


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
        """Make the migrations of these tenants fail."""
        execute(self.database, *(f"CREATE TABLE {name}.poison ()" for name in names))

    def cure(self, *names: str) -> None:
        execute(self.database, *(f"DROP TABLE {name}.poison" for name in names))

    def slow(self, name: str, seconds: float) -> None:
        """Make three of a tenant's revisions take this long each."""
        execute(self.database, f"CREATE TABLE {name}.naps AS SELECT {seconds} AS seconds")

    def touched(self) -> set[str]:
        """Return the tenants that have a version table."""
        found = query(
            self.database,
            "SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relname = 'alembic_version' AND nspname <> 'public'",
        )
        return {name for (name,) in found}

    def migrated(self) -> set[str]:
        """Return the tenants that are at head."""
        return {
            name
            for name in self.touched()
            if query(self.database, f"SELECT version_num FROM {name}.alembic_version") == [(HEAD,)]  # noqa: S608 - ours
        }


def counts(report: Mapping[str, Any]) -> dict[str, int]:
    """Return a report's counts without zeros."""
    return {what: number for what, number in report["counts"].items() if number}
