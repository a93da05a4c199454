"""Waves: which targets a rollout starts, and when it stops."""

from __future__ import annotations

import secrets
import time
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from lambda_migrate.invocation.invocation import application_name
from tests.support.bystander import execute, query
from tests.support.fleet import FUNCTION, HEAD, QUERY, Fleet, Schemas, counts
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from localcloud.postgres import Database

# One deployed stage for the folder.
pytestmark = pytest.mark.xdist_group("rollout")


@pytest.mark.parametrize(
    "tenants,tolerated", [(12, "10%"), pytest.param(60, "2%", marks=pytest.mark.stress)], indirect=["tenants"]
)
def test_a_failed_canary_stops_the_rollout_and_one_bad_tenant_does_not_affect_others(
    fleet: Fleet, tenants: Schemas, tolerated: str
) -> None:
    total, bad = len(tenants.names), tenants.names[len(tenants.names) // 2]
    tenants.poison("t00")
    failed = fleet.run()

    assert (failed.status, failed.error) == ("FAILED", "RolloutFailed")
    assert (
        f"1 of 1 target in the canaries failed, 0 are tolerated; {total - 1} of {total} were not started"
        in failed.cause
    )
    assert "t00: MigrationFailed: revision f1ee70000001" in failed.cause
    assert tenants.touched() == set()  # the canary's own revision was rolled back
    assert counts(fleet.report(failed)) == {"targets": total, "failed": 1, "left": total - 1}

    tenants.cure("t00")
    tenants.poison(bad)
    fleet.configure({"query": QUERY, "tolerated_failures": tolerated}, DB_SECRET_ID=tenants.secret)
    ended = fleet.run()

    assert ended.status == "SUCCEEDED", ended.cause
    assert tenants.migrated() == set(tenants.names) - {bad}
    report = fleet.report(ended)
    assert counts(report) == {"targets": total, "migrated": total - 1, "failed": 1}
    assert report["revisions"] == {HEAD: total - 1}
    (failure,) = report["failures"]
    assert (failure["name"], failure["target"], failure["wave"]) == (bad, {"schema": bad}, 2)
    assert failure["error_type"] == "MigrationFailed"
    assert "poisoned" in failure["message"]
    assert ended.output["rollout"]["counts"] == report["counts"]
    assert fleet.keys(ended.name, "report.") == ["report.html", "report.json"]

    tenants.cure(bad)
    retried = fleet.run(retry_of=ended.name)

    assert counts(fleet.report(retried)) == {"targets": 1, "migrated": 1}
    assert tenants.migrated() == set(tenants.names)


@pytest.mark.parametrize("tenants", [20], indirect=True)
def test_too_many_failures_start_no_further_target(fleet: Fleet, tenants: Schemas) -> None:
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
def test_a_migration_continues_while_it_makes_progress(fleet: Fleet, tenants: Schemas) -> None:
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
    assert "the server had no room 2,000 times: 1 runs are active" in late["errorMessage"]
    assert query(database, "SELECT to_regclass('one')") == [(None,)]


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
    assert f"rollout {second.name} was started since" in report["message"]
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
