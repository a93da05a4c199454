"""``migrate_on_deploy``: what the deployment runs, when, and under which permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from infra.names import Names
from tests.infra.synthesis import ACCOUNT, REGION, Stack

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.xdist_group("deployment")

NETWORK = {"vpc": "vpc-0a", "subnets": ["subnet-0a"], "database_security_group": "sg-0db"}
TRIGGER = "Custom::Trigger"
STAGES: dict[str, tuple[Names, Mapping[str, Any]]] = {
    "migrating": (
        Names("template-saas", "api", "dev"),
        {
            "account": ACCOUNT,
            "region": REGION,
            "database": {"secret": "x"},
            "network": NETWORK,
            "timeout_s": 600,
            "migrate_on_deploy": True,
        },
    ),
    "strict": (
        Names("template-saas", "api", "strict"),
        {"database": {"secret": "x"}, "migrate_on_deploy": True, "environment": {"NEWER_DATABASE": "error"}},
    ),
    "plain": (Names("template-saas", "api", "plain"), {"database": {"secret": "x"}}),
}


@pytest.fixture(scope="module")
def migrating(stacks: dict[str, Stack]) -> Stack:
    return stacks["migrating"]


def test_a_deployment_migrates_only_where_the_stage_says_so(stacks: dict[str, Stack]) -> None:
    assert [len(stacks[stage].all(TRIGGER)) for stage in ("migrating", "plain")] == [1, 0]
    assert stacks["plain"].all("AWS::Lambda::Version") == []


def test_it_invokes_the_version_that_was_just_deployed_and_waits_for_its_answer(migrating: Stack) -> None:
    (version,) = migrating.names("AWS::Lambda::Version")
    called = migrating.properties(TRIGGER)

    # The version's id holds a digest of code and settings: both changed, it is another, and the trigger runs.
    assert called["HandlerArn"] == {"Ref": version}
    assert called["InvocationType"] == "RequestResponse"
    assert called["Timeout"] == "600000"


def test_it_comes_last_so_that_the_database_can_be_reached(migrating: Stack) -> None:
    waits_for = set(migrating.one(TRIGGER)["DependsOn"])

    own = {name for name in migrating.resources if "TriggerCustomResourceProvider" not in name}
    needed = own - set(migrating.names(TRIGGER))
    assert needed <= waits_for
    assert migrating.names("AWS::EC2::SecurityGroupIngress")


def test_what_the_new_version_applied_does_not_stop_the_old_one_from_being_rolled_back_to(
    stacks: dict[str, Stack],
) -> None:
    assert stacks["migrating"].variables["NEWER_DATABASE"] == "ok"
    assert stacks["strict"].variables["NEWER_DATABASE"] == "error"
    assert "NEWER_DATABASE" not in stacks["plain"].variables


def test_what_invokes_may_do_nothing_else(migrating: Stack) -> None:
    (role,) = [name for name in migrating.names("AWS::IAM::Role") if "TriggerCustomResourceProvider" in name]
    (policy,) = migrating.resource(role)["Properties"]["Policies"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    function = migrating.function_name

    assert statement["Action"] == ["lambda:InvokeFunction"]
    assert statement["Resource"] == [{"Fn::Join": ["", [{"Fn::GetAtt": [function, "Arn"]}, ":*"]]}]
