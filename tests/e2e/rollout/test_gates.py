"""The pauses, approvals and alarms between waves."""

from __future__ import annotations

import pytest

from tests.support.bystander import execute
from tests.support.fleet import QUERY, Fleet, Schemas, counts
from tests.support.waiting import eventually

# One deployed stage for the folder.
pytestmark = pytest.mark.xdist_group("rollout")


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
