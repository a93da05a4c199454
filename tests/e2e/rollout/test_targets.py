"""The targets of a rollout: from secrets, a list or a query, without the excluded ones."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.fleet.folder import wave_file
from tests.support.bystander import execute, query
from tests.support.fleet import HEAD, QUERY, Fleet, Schemas, counts
from tests.support.samples import sampled
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from localcloud.postgres import Database

# One deployed stage for the folder.
pytestmark = pytest.mark.xdist_group("rollout")


WRONG_ROWS = """SELECT name, schema, priority, server FROM (VALUES
  ('good', 'good', 0::float8, NULL), ('not a number', 'good', 'NaN', NULL), (repeat('x', 300000), 'good', 0, NULL),
  ('too long', repeat('y', 300000), 0, NULL), ('good', 'good', 0, NULL), (NULL, NULL, 0, 's'),
  ('catalog', 'pg_catalog', 0, NULL), ('last', 'last', 9, NULL)) AS t (name, schema, priority, server)"""


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
    [
        pytest.param("('one', 'a'), ('other', 'a')", id="the same schema", marks=pytest.mark.stress),
        pytest.param("('one', NULL::text), ('other', 'public')", id="a default schema and its name"),
    ],
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


SCHEMAS = [(None, "public"), ("a", "a"), ("a", "b")]


@pytest.mark.parametrize("schemas", sampled(SCHEMAS, SCHEMAS[1:]))
def test_two_names_of_one_server_do_not_make_two_targets_of_one_place(
    fleet: Fleet, database: Database, schemas: tuple[str | None, str]
) -> None:
    execute(database, "CREATE SCHEMA a", "CREATE SCHEMA b")
    hosts = ("localhost", "127.0.0.1")
    listed = [
        {"name": host, "secret_id": fleet.secret({**database.secret, "host": host}), "schema": schema}
        for host, schema in zip(hosts, schemas, strict=True)
    ]
    fleet.configure({"targets": [{k: v for k, v in each.items() if v} for each in listed]})

    ended = fleet.run(plan=True)

    if schemas == ("a", "b"):
        assert counts(fleet.report(ended)) == {"targets": 2, "behind": 2}
        return
    assert ended.error == "ConfigurationError"
    assert "the targets 'localhost' and '127.0.0.1' are both schema" in ended.cause
    assert "(hosts localhost and 127.0.0.1 are one server)" in ended.cause


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


def test_without_targets_the_stages_own_database_is_the_only_one(fleet: Fleet, database: Database) -> None:
    fleet.configure({}, DB_SECRET_ID=fleet.secret(database.secret))

    report = fleet.report(fleet.run())

    assert (counts(report), report["revisions"]) == ({"targets": 1, "migrated": 1}, {HEAD: 1})


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

    # A long wave has several objects.
    waves = [
        [item for part in range(1, (wave.get("parts") or 1) + 1) for item in fleet.get(name, wave_file(number, part))]
        for number, wave in enumerate(fleet.get(name, "rollout.json")["waves"], 1)
    ]
    size = sum(len(json.dumps(wave)) for wave in waves)
    figure(f"100,000 targets listed in {answer['duration_ms'] / 1000:.1f} s, {size / 1e6:.1f} MB in S3")
    assert [len(wave) for wave in waves] == [1_000, 9_900, 89_100]
    assert (answer["count"], answer["servers"], answer["waves"][-1]["concurrency"]) == (100_000, 40, 200)
    # Step Functions passes on 256 KB.
    assert len(json.dumps(answer)) < 20_000
