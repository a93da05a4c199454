"""The state machine with a snapshot first, run by the emulator against the deployed function and its RDS."""

from __future__ import annotations

import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest

from infra.names import Names
from localcloud.clients import client
from tests.e2e.conftest import FUNCTION
from tests.infra.synthesis import synthesize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.emulator import Emulator
    from tests.e2e.conftest import Backend, Deployed

pytestmark = pytest.mark.xdist_group("e2e")

CLUSTER = "e2e-cluster"


def definition(folder: Path, cluster: str) -> str:
    """The machine of a stage with ``snapshot``, for the function of stage e2e, and without its pauses."""
    settings = {
        "account": "000000000000",
        "region": "us-east-1",
        "runtime": "local",
        "database": {"secret": "x"},
        "snapshot": {"cluster": cluster},
    }
    stack = synthesize(folder, {"dev": (Names("template-saas", "api", "e2e"), settings)})["dev"]
    function = f"arn:aws:lambda:us-east-1:000000000000:function:{FUNCTION}"
    parts = stack.machine["DefinitionString"]["Fn::Join"][1]
    text = "".join(
        part if isinstance(part, str) else "aws" if part == {"Ref": "AWS::Partition"} else function for part in parts
    )
    machine = json.loads(text)
    machine["States"]["Wait for the snapshot"]["Seconds"] = 0
    for state in machine["States"].values():
        for retry in state.get("Retry", []):
            retry["MaxAttempts"] = 0
    return json.dumps(machine)


@pytest.fixture
def execute(emulator: Emulator, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    states = client(emulator, "stepfunctions")
    made = []

    def run(cluster: str) -> Any:  # noqa: ANN401 - JSON
        role = "arn:aws:iam::000000000000:role/x"
        name = f"snapshot-{secrets.token_hex(4)}"
        machine = states.create_state_machine(name=name, definition=definition(tmp_path, cluster), roleArn=role)
        made.append(machine["stateMachineArn"])
        started = states.start_execution(stateMachineArn=made[-1])["executionArn"]
        while (execution := states.describe_execution(executionArn=started))["status"] == "RUNNING":
            time.sleep(0.1)
        return execution

    yield run
    for arn in made:
        states.delete_state_machine(stateMachineArn=arn)


def test_it_makes_one_before_revisions_that_nobody_reviewed_and_none_when_there_is_nothing_to_do(
    function: Deployed, emulator: Emulator, backend: Backend, execute: Callable[[str], Any]
) -> None:
    rds = client(emulator, "rds")
    rds.create_db_cluster(
        DBClusterIdentifier=CLUSTER, Engine="aurora-postgresql", MasterUsername="u", MasterUserPassword="x" * 12
    )

    first = execute(CLUSTER)

    assert first["status"] == "SUCCEEDED", first.get("cause")
    result = json.loads(first["output"])
    assert result["revision"] == backend.head
    [snapshot] = rds.describe_db_cluster_snapshots(DBClusterIdentifier=CLUSTER)["DBClusterSnapshots"]
    assert result["snapshot"] == snapshot["DBClusterSnapshotIdentifier"]
    assert re.fullmatch(r"template-saas-api-migrate-e2e-\d{8}-[0-9a-f]{8}", result["snapshot"])
    assert any(f'"snapshot":"{result["snapshot"]}"' in line for line in function.log())

    again = execute(CLUSTER)

    assert "snapshot" not in json.loads(again["output"])
    assert len(rds.describe_db_cluster_snapshots(DBClusterIdentifier=CLUSTER)["DBClusterSnapshots"]) == 1


def test_without_one_nothing_is_run(function: Deployed, execute: Callable[[str], Any]) -> None:
    ended = execute("there-is-none")

    assert (ended["status"], ended["error"]) == ("FAILED", "SnapshotFailed")
    assert "nothing was run" in ended["cause"]
    assert function.invoke({"action": "status"}).result["revision"] is None
