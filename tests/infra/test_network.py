"""In a VPC: two ways out, one way in to the database, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template
from pydantic import ValidationError

from infra.names import Names
from infra.stack import MigrateStack
from infra.stages import NetworkSettings, Stage

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = {"vpc": "vpc-0a", "subnets": ["subnet-0a", "subnet-0b"], "database_security_group": "sg-0db"}
ENDPOINTS = ("create", "nat", "sg-0e")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    package: Path = tmp_path_factory.mktemp("package")
    (package / "code.py").write_text("")
    app = cdk.App(outdir=str(tmp_path_factory.mktemp("cdk.out")))
    made = {}
    for number, endpoint in enumerate(ENDPOINTS):
        settings = {
            "database": {"secret": "x", "port": 6543},
            "network": {**NETWORK, "secrets_endpoint": endpoint},
            "account": "123456789012",
            "region": "eu-central-1",
        }
        names = Names("template-saas", "api", f"n{number}")
        stage = Stage.model_validate(settings)
        environment = cdk.Environment(account=stage.account, region=stage.region)
        made[endpoint] = MigrateStack(
            app, names.stack, names=names, stage=stage, package=package, asset_hash="0" * 64, env=environment
        )
    return {endpoint: Template.from_stack(stack).to_json() for endpoint, stack in made.items()}


def of_kind(template: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each["Properties"] for each in template["Resources"].values() if each["Type"] == kind]


def rules(template: dict[str, Any], direction: str) -> list[tuple[int, int]]:
    """The ports of every rule that lets something out or in, written in its group or apart."""
    inline = [
        rule
        for group in of_kind(template, "AWS::EC2::SecurityGroup")
        for rule in group.get(f"SecurityGroup{direction}", [])
        # What the CDK writes for "nothing", since a group without a rule lets everything out.
        if rule.get("CidrIp") != "255.255.255.255/32"
    ]
    apart = of_kind(template, f"AWS::EC2::SecurityGroup{direction}")
    return sorted((rule["FromPort"], rule["ToPort"]) for rule in [*inline, *apart])


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_function_is_in_the_private_subnets(templates: dict[str, Any], endpoint: str) -> None:
    [function] = of_kind(templates[endpoint], "AWS::Lambda::Function")
    assert function["VpcConfig"]["SubnetIds"] == ["subnet-0a", "subnet-0b"]
    assert len(function["VpcConfig"]["SecurityGroupIds"]) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_it_gets_out_to_the_database_and_to_secrets_manager_only(templates: dict[str, Any], endpoint: str) -> None:
    assert rules(templates[endpoint], "Egress") == [(443, 443), (6543, 6543)]


def test_the_database_lets_it_in_on_its_port(templates: dict[str, Any]) -> None:
    let_in = of_kind(templates["nat"], "AWS::EC2::SecurityGroupIngress")
    assert [(rule["GroupId"], rule["FromPort"], rule["ToPort"]) for rule in let_in] == [("sg-0db", 6543, 6543)]


def test_only_https_through_a_nat_gateway_goes_to_any_address(templates: dict[str, Any]) -> None:
    anywhere = {
        endpoint: [
            rule["FromPort"]
            for group in of_kind(template, "AWS::EC2::SecurityGroup")
            for rule in group.get("SecurityGroupEgress", [])
            if rule.get("CidrIp") == "0.0.0.0/0"
        ]
        for endpoint, template in templates.items()
    }
    assert anywhere == {"create": [], "nat": [443], "sg-0e": []}


def test_an_endpoint_is_made_only_where_it_is_asked_for(templates: dict[str, Any]) -> None:
    made = {endpoint: of_kind(template, "AWS::EC2::VPCEndpoint") for endpoint, template in templates.items()}
    assert {endpoint: len(each) for endpoint, each in made.items()} == {"create": 1, "nat": 0, "sg-0e": 0}
    [endpoint] = made["create"]
    assert endpoint["ServiceName"] == "com.amazonaws.eu-central-1.secretsmanager"
    assert endpoint["PrivateDnsEnabled"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"vpc": "my-vpc"},
        {"subnets": []},
        {"subnets": ["10.0.0.0/24"]},
        {"database_security_group": "default"},
        {"secrets_endpoint": "yes"},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NetworkSettings.model_validate({**NETWORK, **wrong})
