"""The state machine of a stage without targets migrates the stage's own database and returns the function's result."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest

from localcloud.clients import client

if TYPE_CHECKING:
    from localcloud.emulator import Emulator
    from localcloud.postgres import Database
    from tests.e2e.conftest import Backend, Deployed

# With the other tests of stage e2e: there is one function.
pytestmark = pytest.mark.xdist_group("e2e")

MACHINE = "arn:aws:states:us-east-1:000000000000:stateMachine:template-saas-api-migrate-e2e"


def execute(emulator: Emulator) -> Any:  # noqa: ANN401 - JSON
    """Run an execution to its end and return its description by DescribeExecution."""
    states = client(emulator, "stepfunctions")
    execution = states.start_execution(stateMachineArn=MACHINE, name=secrets.token_hex(8))["executionArn"]
    while (description := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)
    return description


def test_its_output_is_the_functions_result(
    function: Deployed, emulator: Emulator, database: Database, backend: Backend
) -> None:
    description = execute(emulator)

    assert description["status"] == "SUCCEEDED", description.get("cause")
    assert function.invoke({"action": "status"}).result["up_to_date"]
    result = json.loads(description["output"])
    assert (result["database"], result["revision"]) == (database.name, backend.head)
    assert [applied["revision"] for applied in result["applied"]] == list(backend.revisions)


@pytest.mark.stress
def test_it_fails_with_the_functions_error_and_message(next_release: Deployed, emulator: Emulator) -> None:
    description = execute(emulator)

    assert (description["status"], description["error"]) == ("FAILED", "MigrationFailed")
    failed = next_release.invoke()
    assert json.loads(description["cause"])["errorType"] == failed.error_type
    assert "revision e2e000000bad (Raise) failed" in json.loads(description["cause"])["errorMessage"]
