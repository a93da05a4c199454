"""``snapshot``: the states that make a snapshot of the database before a dangerous run, and wait for it.

The state machine calls RDS itself. A function in a VPC may not reach RDS, and would cost money while it waits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks

from infra.errors import StageError
from infra.permissions import allow

if TYPE_CHECKING:
    from aws_cdk import aws_iam as iam
    from constructs import Construct

    from infra.names import Names
    from infra.settings.runs import SnapshotSettings

_LOOK_EVERY_S = 30
_ATTEMPTS = 10
_LONGEST_IDENTIFIER = 63
_SUFFIX = len("20260131-0a1b2c3d")


def snapshot_first(
    scope: Construct,
    names: Names,
    settings: SnapshotSettings,
    *,
    look: tasks.LambdaInvoke,
    then: sfn.IChainable,
    failed: sfn.IChainable,
) -> sfn.State:
    """Return the states that make a snapshot before a dangerous run, and end at ``then`` or ``failed``.

    Their input has ``runs`` and ``last_message``. ``look`` invokes the function; ``$.look.answer.dangerous`` is its
    result. ``then`` gets the snapshot's identifier in ``snapshot``, or an empty text if the run is not dangerous.
    """
    kept = {"runs": sfn.JsonPath.number_at("$.runs"), "last_message": sfn.JsonPath.string_at("$.last_message")}
    calls = _Calls(scope, settings)
    name = sfn.Pass(
        scope,
        "Name the snapshot",
        parameters={
            **kept,
            "looks": 0,
            "snapshot": _identifier(names),
        },
    )
    create = calls.create()
    wait = sfn.Wait(scope, "Wait for the snapshot", time=sfn.WaitTime.duration(cdk.Duration.seconds(_LOOK_EVERY_S)))
    describe = calls.describe()
    count = sfn.Pass(
        scope,
        "Count the looks",
        parameters={
            **kept,
            "looks": sfn.JsonPath.math_add(sfn.JsonPath.number_at("$.looks"), 1),
            "snapshot": sfn.JsonPath.string_at("$.snapshot"),
            "status": sfn.JsonPath.string_at("$.made.status"),
        },
    )
    what = f"{settings.kind} {settings.identifier}"
    not_made = _fails(
        scope, "Not made", f"no snapshot of {what}: {{}}; nothing was run", sfn.JsonPath.string_at("$.error.Cause")
    )
    not_there = _fails(
        scope,
        "Not there",
        f"the snapshot {{}} of {what} was {{}} after {settings.timeout_minutes} minutes; nothing was run. Check whether"
        " it is available by now, then start again, or raise snapshot.timeout_minutes",
        sfn.JsonPath.string_at("$.snapshot"),
        sfn.JsonPath.string_at("$.status"),
    )
    for each in (not_made, not_there):
        each.next(failed)
    for call in (create, describe):
        call.add_catch(not_made, result_path="$.error")
    there = (
        sfn.Choice(scope, "Is the snapshot there?")
        .when(sfn.Condition.string_equals("$.status", "available"), then)
        .when(sfn.Condition.string_equals("$.status", "failed"), not_there)
        .when(
            sfn.Condition.number_greater_than_equals("$.looks", settings.timeout_minutes * 60 // _LOOK_EVERY_S),
            not_there,
        )
        .otherwise(wait)
    )
    name.next(create).next(wait).next(describe).next(count).next(there)
    without = sfn.Pass(scope, "Go on without one", parameters={**kept, "snapshot": ""}).next(then)
    look.add_catch(failed, result_path="$.error")
    look.next(
        sfn.Choice(scope, "Is it dangerous?")
        .when(sfn.Condition.boolean_equals("$.look.answer.dangerous", value=True), name)
        .otherwise(without)
    )
    return look


def prefix(names: Names) -> str:
    """Return the prefix of the snapshots' identifiers. RDS writes them in lower case, and refuses two hyphens in a row.

    Raises:
        StageError: a complete identifier would be longer than RDS allows.
    """
    beginning = re.sub("-+", "-", f"{names.stack.lower()}-")
    if len(beginning) > _LONGEST_IDENTIFIER - _SUFFIX:
        raise StageError(
            f"snapshot: RDS allows {_LONGEST_IDENTIFIER} characters in a snapshot's identifier, and {beginning} needs"
            f" {_SUFFIX} more: shorten the prefix, the service or the stage's name by"
            f" {len(beginning) + _SUFFIX - _LONGEST_IDENTIFIER}"
        )
    return beginning


def _identifier(names: Names) -> str:
    """Return the expression of an identifier: the prefix, the day of the execution's start, and random characters."""
    path = sfn.JsonPath
    began = path.string_split(path.string_at("$$.Execution.StartTime"), "-T")
    day = [path.array_get_item(began, index) for index in range(3)]
    random = path.array_get_item(path.string_split(path.uuid(), "-"), 0)
    return path.format(f"{prefix(names)}{{}}{{}}{{}}-{{}}", *day, random)


def let_machine_snapshot(role: iam.Role, names: Names, settings: SnapshotSettings) -> None:
    """Allow the state machine to make snapshots of this database under this stage's names, and to read their state."""
    stack = cdk.Stack.of(role)
    cluster = "Cluster" if settings.cluster else ""
    resources = [
        stack.format_arn(service="rds", resource=kind, resource_name=name, arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME)
        for kind, name in (
            ("cluster" if cluster else "db", settings.identifier),
            ("cluster-snapshot" if cluster else "snapshot", f"{prefix(names)}*"),
        )
    ]
    actions = [f"rds:CreateDB{cluster}Snapshot", f"rds:DescribeDB{cluster}Snapshots"]
    allow(
        role,
        "MakeSnapshots",
        actions,
        resources,
        "snapshots get their names when they are made",
    )


class _Calls:
    """The calls of RDS's API for a cluster or an instance, as Step Functions spells them."""

    def __init__(self, scope: Construct, settings: SnapshotSettings) -> None:
        self._scope = scope
        self._cluster = "Cluster" if settings.cluster else ""
        self._database = {f"Db{self._cluster or 'Instance'}Identifier": settings.identifier}
        self._snapshot = {f"Db{self._cluster}SnapshotIdentifier": sfn.JsonPath.string_at("$.snapshot")}

    def create(self) -> tasks.CallAwsService:
        """Return the state that starts the snapshot. It retries if the database is busy, for instance with a backup."""
        action = f"createDB{self._cluster}Snapshot"
        return self._call("Begin the snapshot", action, {**self._database, **self._snapshot}, sfn.JsonPath.DISCARD)

    def describe(self) -> tasks.CallAwsService:
        """Return the state that reads the snapshot's status."""
        action = f"describeDB{self._cluster}Snapshots"
        status = sfn.JsonPath.string_at(f"$.Db{self._cluster}Snapshots[0].Status")
        return self._call("Look at the snapshot", action, self._snapshot, "$.made", {"status": status})

    def _call(
        self,
        name: str,
        action: str,
        parameters: dict[str, Any],
        result_path: str,
        selector: dict[str, Any] | None = None,
    ) -> tasks.CallAwsService:
        call = tasks.CallAwsService(
            self._scope,
            name,
            service="rds",
            action=action,
            parameters=parameters,
            # machine_role() grants the permissions.
            iam_resources=["*"],
            result_path=result_path,
            result_selector=selector,
        )
        call.add_retry(
            max_attempts=_ATTEMPTS, interval=cdk.Duration.seconds(5), max_delay=cdk.Duration.seconds(60), backoff_rate=2
        )
        return call


def _fails(scope: Construct, name: str, text: str, *values: str) -> sfn.Pass:
    error = {"Error": "SnapshotFailed", "Cause": sfn.JsonPath.format(text, *values)}
    return sfn.Pass(scope, name, parameters={"error": error})
