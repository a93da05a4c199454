"""Plans, checks, retries, and the downgrade of a rollout."""

from __future__ import annotations

import json

import pytest

from tests.support.bystander import execute, query
from tests.support.fleet import HEAD, QUERY, TREE, Fleet, Schemas, counts

# One deployed stage for the folder.
pytestmark = pytest.mark.xdist_group("rollout")


@pytest.mark.parametrize("tenants", [3], indirect=True)
def test_an_approved_plan_runs_unchanged_or_fails_with_the_change(fleet: Fleet, tenants: Schemas) -> None:
    plan = fleet.run(plan=True)
    execute(tenants.database, "CREATE SCHEMA later", "INSERT INTO tenants VALUES ('later', 9)")
    changed = fleet.run(approved=plan.name)
    execute(tenants.database, "DELETE FROM tenants WHERE schema = 'later'")
    ended = fleet.run(approved=plan.name)
    no_plan = fleet.run(approved=ended.name)

    assert (changed.error, "1 target changed, appeared or disappeared" in changed.cause) == ("InvalidRequest", True)
    assert "'later'" in changed.cause
    assert counts(fleet.report(ended)) == {"targets": 3, "migrated": 3}
    assert "was no plan" in no_plan.cause
    lines = [json.loads(line) for line in fleet.text(ended.name, "targets.jsonl").splitlines()]
    assert [(line["name"], line["outcome"], line["revision"]) for line in lines] == [
        (name, "migrated", HEAD) for name in tenants.names
    ]


@pytest.mark.stress
@pytest.mark.parametrize("tenants", [3], indirect=True)
def test_a_plan_visits_every_target_and_stops_at_none(fleet: Fleet, tenants: Schemas) -> None:
    fleet.configure({"query": QUERY, "canaries": 1}, DB_SECRET_ID=tenants.secret)
    execute(tenants.database, "UPDATE tenants SET schema = 'nowhere' WHERE schema = 't00'")

    report = fleet.report(fleet.run(plan=True))

    assert counts(report) == {"targets": 3, "behind": 2, "failed": 1}


@pytest.mark.parametrize(
    "tenants,failing", [(4, 1), pytest.param(30, 3, marks=pytest.mark.stress)], indirect=["tenants"]
)
def test_a_plan_lists_targets_that_would_fail_and_a_check_schemas_that_differ(
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
    assert "Preflight of the pending revisions" in page
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


@pytest.mark.parametrize("tenants", [4], indirect=True)
def test_a_downgrade_reverts_only_what_the_rollout_has_migrated(fleet: Fleet, tenants: Schemas) -> None:
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
