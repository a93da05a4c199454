"""The targets that an event may name on a stage, and the failure of a wrong row of a rollout's source."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.stages import Stage
from lambda_migrate.database.credential_store import parse_secret
from lambda_migrate.fleet import rows
from lambda_migrate.fleet.waves import Rules, arrange
from lambda_migrate.invocation.allowed import check_target
from lambda_migrate.invocation.errors import ConfigurationError, InvalidRequest
from lambda_migrate.invocation.request import Target, parse_target
from lambda_migrate.invocation.settings import Settings, read_settings, settings_for

SECRET = json.dumps({"username": "u", "password": "p", "host": "h", "port": 5432, "dbname": "template_saas"})
ANY = {"secret_id": ["*"], "database": ["*"], "schema": ["*"]}


def stage(allowed: object = None, rollout: object = None, **variables: str) -> Settings:
    given = {"TARGETS_ALLOWED": allowed, "ROLLOUT": rollout}
    texts = {name: json.dumps(value) for name, value in given.items() if value is not None}
    return read_settings({"STAGE": "dev", "DB_SECRET_ID": "app/db", **texts, **variables})


def reach(settings: Settings, target: Target, secret: str = SECRET) -> str:
    """Return the database of a target, as the function determines it before it connects."""
    check_target(target, settings.targets_allowed, settings.secret_id)
    return parse_secret(secret, settings_for(target, settings)).database


def is_allowed(settings: Settings, target: Target) -> bool:
    try:
        reach(settings, target)
    except InvalidRequest:
        return False
    return True


# --- which targets an event may name ---


@pytest.mark.parametrize(
    "target",
    [Target(database="tenant_1"), Target(schema="public"), Target(secret_id="tenants/a"), Target(database="postgres")],
)
def test_without_the_setting_no_other_target_is_allowed(target: Target) -> None:
    with pytest.raises(InvalidRequest, match=r"is not allowed on this stage .*targets_allowed"):
        reach(stage(), target)


def test_the_stages_own_secret_and_database_are_always_allowed() -> None:
    assert reach(stage(), Target()) == "template_saas"
    assert reach(stage(), Target(secret_id="app/db")) == "template_saas"
    # Its name begins like the server's templates.
    assert reach(stage(), Target(database="template_saas")) == "template_saas"
    assert reach(stage(DB_NAME="app"), Target(database="app")) == "app"


def test_a_pattern_allows_its_names_and_no_others() -> None:
    settings = stage({"database": ["tenant_*", "shop"], "schema": ["t[0-9]"], "secret_id": ["tenants/?"]})

    assert reach(settings, Target(database="tenant_1")) == "tenant_1"
    assert reach(settings, Target("tenants/a", "shop", "t7")) == "shop"
    for target in (
        Target(database="Tenant_1"),
        Target(database="shop2"),
        Target(database="tenants/a"),
        Target(schema="tenant_1"),
        Target(schema="t77"),
        Target(secret_id="tenants/ab"),
        Target(secret_id="app/db2"),
        Target("tenants/a", "elsewhere"),
        Target("tenants/a", schema="public"),
    ):
        assert not is_allowed(settings, target), target


@pytest.mark.parametrize(
    "name", ["template0", "template1", "template_shop", "rdsadmin", "pg_catalog", "pg_temp_3", "information_schema"]
)
def test_no_pattern_allows_a_name_of_the_server(name: str) -> None:
    settings = stage({**ANY, "database": ["*", name], "schema": ["*", name]})

    for target in (Target(database=name), Target(schema=name)):
        with pytest.raises(InvalidRequest, match="may never be"):
            reach(settings, target)


@pytest.mark.parametrize("name", ["template1", "rdsadmin"])
def test_a_tenants_secret_does_not_lead_to_a_database_of_the_server(name: str) -> None:
    secret = json.dumps({**json.loads(SECRET), "dbname": name})

    with pytest.raises(InvalidRequest, match=f"may never be '{name}'"):
        reach(stage(ANY), Target(secret_id="tenants/a"), secret)
    assert reach(stage(ANY), Target("tenants/a", "shop"), secret) == "shop"


@pytest.mark.parametrize(
    "value", ['["*"]', '{"databases": ["*"]}', '{"database": "*"}', '{"schema": [1]}', '{"schema": [""]}', "{", "null"]
)
def test_a_malformed_setting_allows_nothing_and_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match="TARGETS_ALLOWED"):
        stage(TARGETS_ALLOWED=value)


ROLLOUTS: list[tuple[dict[str, Any], list[Target], list[Target]]] = [
    ({}, [Target()], [Target(database="a"), Target(schema="a"), Target("tenants/a")]),
    (
        {"targets": [{"name": "x", "secret_id": "tenants/a"}, {"database": "b*"}]},
        [Target("tenants/a"), Target(database="b*")],
        [Target("tenants/b"), Target(database="bc"), Target(schema="b*"), Target(database="x")],
    ),
    (
        {"secret_prefix": "tenants/"},
        [Target("tenants/a"), Target("arn:aws:secretsmanager:eu-central-1:123456789012:secret:tenants/a-AbCdEf")],
        [Target("tenant"), Target("tenants/a", "b"), Target(schema="a")],
    ),
    ({"secret_tag": {"key": "k", "value": "v"}}, [Target("any/secret")], [Target(database="a"), Target(schema="a")]),
    (
        {"query": "SELECT 1", "secret_prefix": "tenants/"},
        [Target("tenants/a", "b", "c"), Target(database="b")],
        [Target("other/a"), Target(database="template1"), Target(schema="pg_toast")],
    ),
]


@pytest.mark.parametrize("rollout,allowed,refused", ROLLOUTS, ids=["own", "targets", "prefix", "tag", "query"])
@pytest.mark.parametrize("deployed", [False, True], ids=["by the function", "as the stack writes it"])
def test_a_stages_rollout_allows_its_own_targets(
    rollout: dict[str, Any], allowed: list[Target], refused: list[Target], *, deployed: bool
) -> None:
    written = Stage.model_validate({"database": {"secret": "app/db"}, "rollout": rollout}).targets_allowed_as_variable
    settings = stage(TARGETS_ALLOWED=written or "") if deployed else stage(rollout=rollout)

    assert [target for target in allowed if not is_allowed(settings, target)] == []
    assert [target for target in refused if is_allowed(settings, target)] == []


def test_the_setting_narrows_what_the_rows_of_a_query_may_name() -> None:
    settings = stage({"database": ["tenant_*"], "schema": []}, {"query": "SELECT 1"})

    assert is_allowed(settings, Target("any", "tenant_1"))
    assert not is_allowed(settings, Target(database="postgres"))
    assert not is_allowed(settings, Target(schema="public"))


# --- the rows of a rollout's source ---

GOOD = {"name": "acme", "database": "acme"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "b", "database": "b", "priority": math.nan}, "priority must be a finite number"),
    ({"name": "b", "database": "b", "priority": Decimal("Infinity")}, "priority must be a finite number"),
    ({"name": "b", "database": "b", "priority": "first"}, "priority must be a number"),
    ({"name": "b", "database": "b", "priority": True}, "priority must be a number"),
    ({"name": "b", "database": ["b"]}, "database must be a text, not list"),
    ({"name": "b", "schema": b"b"}, "schema must be a text, not bytes"),
    ({"name": "b", "secret_id": True}, "secret_id must be a text, not bool"),
    ({"name": "b", "database": "x" * 300_000}, "target.database must be a text of 1 to 63 bytes"),
    ({"name": "b", "schema": "a\x00b"}, "target.schema must be a text"),
    ({"name": "b", "schema": "b", "server": "s" * 300_000}, "server must be a text of 1 to 255"),
    ({"name": "n" * 300_000, "database": "b"}, "name must be a text of 1 to 512"),
    ({"name": "a\nb", "database": "b"}, "name must be a text"),
    ({"name": 1.5, "database": "b"}, "name must be a text, not float"),
    ({"server": "s"}, "it names no place"),
    ({}, "it names no place"),
    ({"name": "b"}, "it names no place"),
    ({"name": "b", "database": None}, "its database is NULL"),
    ({"name": "b", "schema": ""}, "its schema is empty"),
    ({"name": "b", "database": "b", "secret_id": None}, "its secret_id is NULL"),
    ({"name": None, "database": "b"}, "its name is NULL or empty"),
    (GOOD, "rows 1 and 2 are both named 'acme'"),
]


@pytest.mark.parametrize("row,reason", WRONG)
def test_a_wrong_row_is_one_failing_target_and_comes_after_the_others(row: dict[str, Any], reason: str) -> None:
    first, wrong, third = rows.tenants([GOOD, row, {"schema": "c", "priority": 9}])

    assert (first.problem, third.problem) == ("", "")
    assert reason in wrong.problem
    assert len(wrong.problem) < 300
    assert wrong.target == {}
    assert len({first.name, wrong.name, third.name}) == 3
    canaries, rest = arrange([first, wrong, third], Rules())
    assert [tenant.name for tenant in canaries.tenants] == ["acme"]
    assert rest.tenants[-1] is wrong


def test_a_wrong_row_keeps_its_name_if_that_can_be_used() -> None:
    _, named, long, again = rows.tenants(
        [GOOD, {"name": "b", "priority": "x"}, {"name": "n" * 9999}, {"name": "acme", "database": "z"}]
    )

    assert named.name == "b"
    assert long.name == f"{'n' * 60} (row 3)"
    assert again.name == "acme (row 4)"


def test_numbers_are_names_too_and_texts_are_priorities() -> None:
    (tenant,) = rows.tenants([{"name": 7, "schema": 12, "priority": "2.5", "server": None}])

    assert (tenant.name, tenant.target, tenant.priority, tenant.problem) == ("7", {"schema": "12"}, 2.5, "")


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text())


@given(st.lists(st.dictionaries(st.sampled_from(sorted(rows.FIELDS)), VALUES)))
def test_whatever_the_rows_are_each_is_a_target_that_can_be_sent_or_fails(given_rows: list[dict[str, Any]]) -> None:
    tenants = list(rows.tenants(given_rows))

    assert len(tenants) == len(given_rows)
    for tenant in tenants:
        parse_target(tenant.target)
        assert 0 < len(tenant.name) <= rows.LONGEST_NAME
        assert math.isfinite(tenant.priority)
