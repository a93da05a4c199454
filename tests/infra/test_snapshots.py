"""`snapshot`: the states before a dangerous run, and their permissions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from pydantic import ValidationError

from infra.errors import StageError
from infra.execution_policy import boundary_policy
from infra.names import Names
from infra.snapshots import prefix
from infra.stages import Stage
from tests.infra.synthesis import ACCOUNT, REGION, Stack, as_list, resolved, synthesize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# One synthesis, in one worker.
pytestmark = pytest.mark.xdist_group("snapshots-template")

BASE: dict[str, Any] = {"account": ACCOUNT, "region": REGION, "database": {"secret": "x"}}
STAGES: dict[str, tuple[Names, dict[str, Any]]] = {
    "dev": (Names("template-saas", "api", "dev"), {**BASE, "snapshot": {"cluster": "app", "timeout_minutes": 60}}),
    "instance": (Names("saas-", "a--b", "i"), {**BASE, "snapshot": {"instance": "App-1"}, "long_runs": {}}),
    "without": (Names("template-saas", "api", "without"), BASE),
}


def states(stack: Stack) -> Any:  # noqa: ANN401 - JSON
    parts = stack.machine["DefinitionString"]["Fn::Join"][1]
    return json.loads("".join(part if isinstance(part, str) else "x" for part in parts))["States"]


def statement(stack: Stack) -> Any:  # noqa: ANN401 - JSON
    [name] = [each for each in stack.names("AWS::IAM::Role") if each.startswith("MachineRole")]
    [found] = [each for each in stack.statements_of(name) if as_list(each["Action"])[0].startswith("rds:")]
    return found


def test_a_stage_makes_no_snapshot_unless_it_asks_for_one(stacks: dict[str, Stack]) -> None:
    assert "rds:" not in stacks["without"].text


@pytest.mark.parametrize("stage,kind", [("dev", "DBCluster"), ("instance", "DB")])
def test_it_is_made_only_if_the_function_calls_the_run_dangerous(
    stacks: dict[str, Stack], stage: str, kind: str
) -> None:
    machine = states(stacks[stage])

    assert machine["Begin"]["Next"] == "See whether it is dangerous"
    assert machine["See whether it is dangerous"]["Parameters"]["Payload"]["action"] == "dangers"
    [dangerous] = machine["Is it dangerous?"]["Choices"]
    assert (dangerous["Variable"], dangerous["BooleanEquals"]) == ("$.look.answer.dangerous", True)
    assert machine[machine["Is it dangerous?"]["Default"]]["Next"] == "Migrate"
    begin = machine[machine[dangerous["Next"]]["Next"]]
    assert begin["Resource"].endswith(f":states:::aws-sdk:rds:create{kind}Snapshot")


@pytest.mark.parametrize("stage,looks", [("dev", 120), ("instance", 240)])
def test_the_run_begins_when_it_is_there_and_never_without_it(stacks: dict[str, Stack], stage: str, looks: int) -> None:
    machine = states(stacks[stage])

    there, broken, late = machine["Is the snapshot there?"]["Choices"]
    assert (there["StringEquals"], there["Next"]) == ("available", "Migrate")
    assert broken["Next"] == late["Next"] == "Not there"
    assert late["NumericGreaterThanEquals"] == looks
    assert machine["Wait for the snapshot"]["Seconds"] * looks == looks * 30
    for name in ("Not there", "Not made"):
        assert machine[name]["Next"] == "Not migrated"
        assert "nothing was run" in machine[name]["Parameters"]["error"]["Cause.$"]
    # Its identifier goes to each run, for the log and the result.
    assert machine["Migrate"]["Parameters"]["Payload"]["snapshot.$"] == "$.snapshot"
    assert machine["Go on from there"]["Parameters"]["snapshot.$"] == "$.snapshot"


def test_a_long_run_has_the_identifier_too(stacks: dict[str, Stack]) -> None:
    machine = states(stacks["instance"])

    assert machine["Prepare a long run"]["Parameters"]["event"]["snapshot.$"] == "$.snapshot"
    assert machine["Go on after the long run"]["Parameters"]["snapshot.$"] == "$.snapshot"


def test_identifiers_are_ones_that_rds_takes(stacks: dict[str, Stack]) -> None:
    assert prefix(Names("saas-", "a--b", "i")) == "saas-a-b-migrate-i-"
    assert prefix(Names("Acme", "my_shop", "Prod")) == "acme-my-shop-migrate-prod-"
    assert len(prefix(Names("p" * 20, "s" * 10, "stage")) + "20260131-0a1b2c3d") == 63
    # A whole UUID is longer than there is room for.
    identifier = states(stacks["dev"])["Name the snapshot"]["Parameters"]["snapshot.$"]
    assert "States.ArrayGetItem(States.StringSplit(States.UUID(), '-'), 0)" in identifier


def test_one_that_rds_would_refuse_is_refused_before_anything_is_deployed(tmp_path: Path) -> None:
    names = Names("p" * 20, "s" * 10, "stage6")

    with pytest.raises(StageError, match=r"63 characters.*by 1$"):
        synthesize(tmp_path, {"long": (names, {**BASE, "snapshot": {"cluster": "a"}})})


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"snapshot": {}}, "give one of them"),
        ({"snapshot": {"cluster": "a", "instance": "b"}}, "give one of them"),
        ({"snapshot": {"cluster": "a--b"}}, "pattern"),
        ({"snapshot": {"cluster": "a"}, "rollout": {"secret_prefix": "t/"}}, "make their snapshots before the rollout"),
        ({"snapshot": {"cluster": "a"}, "migrate_on_deploy": True}, "migrate_on_deploy does not use the state machine"),
    ],
)
def test_names_that_a_policy_cannot_separate_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Stage.model_validate({**BASE, **settings})


def test_the_state_machine_may_make_snapshots_of_this_database_under_this_stages_names(
    stacks: dict[str, Stack],
) -> None:
    rds = f"arn:aws:rds:{REGION}:{ACCOUNT}"

    assert set(statement(stacks["dev"])["Resource"]) == {
        f"{rds}:cluster:app",
        f"{rds}:cluster-snapshot:template-saas-api-migrate-dev-*",
    }
    assert set(statement(stacks["instance"])["Resource"]) == {
        f"{rds}:db:App-1",
        f"{rds}:snapshot:saas-a-b-migrate-i-*",
    }


def test_the_boundary_lets_it(stacks: dict[str, Stack]) -> None:
    names, _ = STAGES["dev"]

    boundary = boundary_policy(names, {"Resources": stacks["dev"].resources})

    [rds] = [each for each in boundary["Statement"] if as_list(each["Action"])[0].startswith("rds:")]
    assert rds["Action"] == statement(stacks["dev"])["Action"]


CALLS: dict[str, tuple[bool, Callable[[Any], object]]] = {
    "make": (
        True,
        lambda rds: rds.create_db_cluster_snapshot(
            DBClusterIdentifier="app", DBClusterSnapshotIdentifier="template-saas-api-migrate-dev-1"
        ),
    ),
    "look": (
        True,
        lambda rds: rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier="template-saas-api-migrate-dev-1"),
    ),
    "delete": (
        False,
        lambda rds: rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="template-saas-api-migrate-dev-1"),
    ),
    "restore": (
        False,
        lambda rds: rds.restore_db_cluster_from_snapshot(
            DBClusterIdentifier="new", SnapshotIdentifier="template-saas-api-migrate-dev-1", Engine="aurora-postgresql"
        ),
    ),
    "change the cluster": (False, lambda rds: rds.modify_db_cluster(DBClusterIdentifier="app", Port=1)),
}


@pytest.mark.parametrize("what", CALLS)
def test_with_iam_enforced_it_may_do_that_and_no_more(
    stacks: dict[str, Stack], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    for name, value in (("ACCESS_KEY_ID", "testing"), ("SECRET_ACCESS_KEY", "testing"), ("DEFAULT_REGION", REGION)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("MOTO_ACCOUNT_ID", ACCOUNT)
    allowed, call = CALLS[what]
    with mock_aws():
        boto3.client("rds").create_db_cluster(
            DBClusterIdentifier="app", Engine="aurora-postgresql", MasterUsername="u", MasterUserPassword="x" * 12
        )
        iam = boto3.client("iam")
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
        }
        role = iam.create_role(RoleName="machine", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        # moto asks for no resource of RDS: the template's own are tested above.
        own = {**resolved(statement(stacks["dev"]), {}), "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [own]}
        iam.put_role_policy(RoleName="machine", PolicyName="own", PolicyDocument=json.dumps(policy))
        session = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="run")["Credentials"]
        rds = boto3.client(
            "rds",
            aws_access_key_id=session["AccessKeyId"],
            aws_secret_access_key=session["SecretAccessKey"],
            aws_session_token=session["SessionToken"],
        )

        def denied() -> bool:
            try:
                set_initial_no_auth_action_count(0)(lambda: call(rds))()
            except ClientError as error:
                return error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
            return False

        assert denied() is not allowed
