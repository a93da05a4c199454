"""In a VPC, the function has two outbound rules, the database one inbound rule, and there are no others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import boto3
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk.assertions import Template
from moto import mock_aws
from pydantic import ValidationError

from infra.code import Code
from infra.errors import StageError
from infra.migrations import Migrations
from infra.names import Names
from infra.settings.network import NetworkSettings
from infra.stack import MigrateStack
from infra.stages import Stage
from lambda_migrate.invocation.settings import SECRETS_ENDPOINT_VARIABLE
from tests.infra.synthesis import add_stack, new_app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# One synthesis, in one worker.
pytestmark = pytest.mark.xdist_group("network")

NETWORK = {"vpc": "vpc-0a", "subnets": ["subnet-0a", "subnet-0b"], "database_security_group": "sg-0db"}
SEVERAL = {
    "vpc": "vpc-0a",
    "subnets": ["subnet-0a"],
    "database_security_group": ["sg-0a", "10.1.0.0/16", "sg-0b", "fd00::/8"],
    "database_port": "secret",
}
PARAMETERS = {
    "vpc": "ssm:/net/vpc",
    "subnets": ["ssm:/net/private#0", "ssm:/net/private#1"],
    "database_security_group": "ssm:/net/db",
}
TAGS = {
    "vpc": {"team": "platform"},
    # Before a lookup, the CDK knows this name of a group.
    "subnets": {"aws-cdk:subnet-name": "Private"},
    "database_security_group": "sg-0db",
    "secrets_endpoint": "nat",
}
OTHERS: dict[str, Any] = {"several": SEVERAL, "parameters": PARAMETERS, "tags": TAGS}
ENDPOINTS = ("create", "nat", "sg-0e")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    package: Path = tmp_path_factory.mktemp("package")
    (package / "code.py").write_text("")
    app = cdk.App(outdir=str(tmp_path_factory.mktemp("cdk.out")), builtin_cloud_formation_validation=False)
    made = {}
    for number, endpoint in enumerate([*ENDPOINTS, *OTHERS]):
        settings = {
            "database": {"secret": "x", "port": 6543} if endpoint != "several" else {"secret": "x"},
            "network": OTHERS.get(endpoint) or {**NETWORK, "secrets_endpoint": endpoint},
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
    """Return the ports of all rules of security groups, inside a group or separate."""
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


def test_it_is_let_in_at_each_group_and_out_to_each_cidr_on_the_port_that_the_secret_has(
    templates: dict[str, Any],
) -> None:
    port = "{{resolve:secretsmanager:x:SecretString:port}}"

    let_in = of_kind(templates["several"], "AWS::EC2::SecurityGroupIngress")
    assert {(rule["GroupId"], rule["FromPort"], rule["ToPort"]) for rule in let_in if rule["FromPort"] != 443} == {
        ("sg-0a", port, port),
        ("sg-0b", port, port),
    }
    let_out = of_kind(templates["several"], "AWS::EC2::SecurityGroupEgress")
    assert {(rule.get("CidrIp"), rule.get("CidrIpv6"), rule["FromPort"]) for rule in let_out} >= {
        ("10.1.0.0/16", None, port),
        (None, "fd00::/8", port),
    }


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
    assert {endpoint: ports for endpoint, ports in anywhere.items() if ports} == {"nat": [443], "tags": [443]}


def test_an_endpoint_is_made_only_if_the_setting_says_create(templates: dict[str, Any]) -> None:
    made = {endpoint: of_kind(template, "AWS::EC2::VPCEndpoint") for endpoint, template in templates.items()}
    assert {endpoint for endpoint, each in made.items() if each} == {"create", "several", "parameters"}
    [endpoint] = made["create"]
    assert endpoint["ServiceName"] == "com.amazonaws.eu-central-1.secretsmanager"


def test_the_endpoint_answers_for_the_function_alone_so_that_other_servers_in_the_vpc_keep_their_own_way(
    templates: dict[str, Any],
) -> None:
    [endpoint] = of_kind(templates["create"], "AWS::EC2::VPCEndpoint")
    [role] = [name for name in templates["create"]["Resources"] if name.startswith("Role") and "Policy" not in name]
    [statement] = endpoint["PolicyDocument"]["Statement"]

    # Private DNS is for a whole VPC: it would also be the reason why a second stage could not be made there.
    assert endpoint["PrivateDnsEnabled"] is False
    assert statement["Action"] == "secretsmanager:GetSecretValue"
    assert statement["Condition"] == {"ArnEquals": {"aws:PrincipalArn": {"Fn::GetAtt": [role, "Arn"]}}}
    [read] = [
        each
        for policy in of_kind(templates["create"], "AWS::IAM::Policy")
        for each in policy["PolicyDocument"]["Statement"]
        if each.get("Sid") == "ReadTheSecret"
    ]
    assert statement["Resource"] == read["Resource"]


def test_the_function_knows_the_endpoints_own_name(templates: dict[str, Any]) -> None:
    variables = {endpoint: of_kind(template, "AWS::Lambda::Function")[0] for endpoint, template in templates.items()}
    endpoints = {
        name: each["Environment"]["Variables"].get(SECRETS_ENDPOINT_VARIABLE) for name, each in variables.items()
    }
    [made] = [
        name for name, each in templates["create"]["Resources"].items() if each["Type"] == "AWS::EC2::VPCEndpoint"
    ]

    first = {"Fn::Select": [0, {"Fn::GetAtt": [made, "DnsEntries"]}]}
    name = {"Fn::Select": [1, {"Fn::Split": [":", first]}]}
    assert endpoints["create"] == {"Fn::Join": ["", ["https://", name]]}
    assert (endpoints["nat"], endpoints["sg-0e"]) == (None, None)


def test_ids_may_be_in_parameters_of_ssm(templates: dict[str, Any]) -> None:
    template = templates["parameters"]
    parameters = {each["Default"]: name for name, each in template["Parameters"].items() if "Default" in each}
    [function] = of_kind(template, "AWS::Lambda::Function")
    listed = {"Ref": parameters["/net/private"]}

    # Each type is that of CloudFormation for the parameter's type in SSM: String and StringList.
    assert {
        name: template["Parameters"][parameters[name]]["Type"] for name in ("/net/vpc", "/net/db")
    } == dict.fromkeys(("/net/vpc", "/net/db"), "AWS::SSM::Parameter::Value<String>")
    assert template["Parameters"][parameters["/net/private"]]["Type"] == "AWS::SSM::Parameter::Value<List<String>>"
    assert function["VpcConfig"]["SubnetIds"] == [{"Fn::Select": [number, listed]} for number in (0, 1)]
    assert {
        each["VpcId"] for each in of_kind(template, "AWS::EC2::SecurityGroup") if isinstance(each["VpcId"], str)
    } == set()
    let_in = {str(rule["GroupId"]) for rule in of_kind(template, "AWS::EC2::SecurityGroupIngress")}
    assert str({"Ref": parameters["/net/db"]}) in let_in


def test_a_vpc_and_its_subnets_may_be_looked_up_by_their_tags(templates: dict[str, Any]) -> None:
    # What a lookup gives before the CDK's command has asked the account.
    [group] = of_kind(templates["tags"], "AWS::EC2::SecurityGroup")
    assert group["VpcId"] == "vpc-12345"


@pytest.mark.parametrize(
    "wrong",
    [
        {"vpc": "my-vpc"},
        {"vpc": "ssm:vpc"},
        {"vpc": {"Name": "main"}},
        {"subnets": {"tier": "private"}},
        {"vpc": {"Name": "main"}, "subnets": {"tier": "private", "zone": "a"}},
        {"vpc": {}, "subnets": {"tier": "private"}},
        {"subnets": []},
        {"subnets": ["10.0.0.0/24"]},
        {"database_security_group": "default"},
        {"database_security_group": []},
        {"database_security_group": ["sg-0a", "10.0.0.0"]},
        {"database_port": 0},
        {"database_port": "env"},
        {"secrets_endpoint": "yes"},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NetworkSettings.model_validate({**NETWORK, **wrong})


# --- what EC2 would refuse ---


@pytest.mark.parametrize(
    "network",
    [
        {"secrets_endpoint": "sg-0e", "logs_endpoint": "sg-0e"},
        pytest.param(
            {"secrets_endpoint": "ssm:/net/endpoints", "logs_endpoint": "ssm:/net/endpoints"}, marks=pytest.mark.stress
        ),
        {"database_security_group": ["sg-0db", "sg-0db", "10.1.0.0/16", "10.1.0.0/16"]},
        {"database_security_group": "sg-0e", "secrets_endpoint": "sg-0e", "database_port": 443},
    ],
)
def test_peers_with_one_group_get_each_rule_once(tmp_path: Path, network: dict[str, Any]) -> None:
    """EC2 answers a second rule like the first with InvalidPermission.Duplicate, and the deployment fails."""
    settings = {
        "database": {"secret": "x"},
        "long_runs": {},
        "network": {**NETWORK, "s3_prefix_list": "pl-1", "logs_endpoint": "sg-0f", **network},
    }

    template = synthesized(tmp_path, settings)

    rules = [
        (name, {key: value for key, value in rule.items() if key != "Description"})
        for way in ("Ingress", "Egress")
        for name, rule in (
            *((way, each) for each in of_kind(template, f"AWS::EC2::SecurityGroup{way}")),
            *(
                (way, each)
                for own in of_kind(template, "AWS::EC2::SecurityGroup")
                for each in own.get(f"SecurityGroup{way}", [])
            ),
        )
    ]
    assert len(rules) >= 3
    assert [rule for number, rule in enumerate(rules) if rule in rules[:number]] == []


def test_the_endpoint_is_in_one_subnet_of_each_zone(tmp_path: Path) -> None:
    """EC2 refuses an endpoint in two subnets of a zone with DuplicateSubnetsInSameZone."""
    stack = cdk.Stack(new_app(tmp_path), "stack")
    vpc = ec2.Vpc.from_vpc_attributes(
        stack,
        "Vpc",
        vpc_id="vpc-0a",
        availability_zones=["a", "b"],
        private_subnet_ids=[f"subnet-0{number}" for number in range(4)],
    )
    unknown_zones = [
        ec2.Subnet.from_subnet_attributes(stack, name, subnet_id=name, availability_zone=cdk.Fn.import_value("zone"))
        for name in ("subnet-0a", "subnet-0b")
    ]
    database = ec2.Peer.ipv4("10.0.0.0/8")
    (tmp_path / "package").mkdir()
    code = Code(tmp_path / "package", "0" * 64)
    for stage, subnets in (("all", None), ("named", ec2.SubnetSelection(subnets=unknown_zones))):
        secret = secretsmanager.Secret.from_secret_name_v2(stack, f"Secret{stage}", "x")
        Migrations(
            stack, stage, stage=stage, backend=code, vpc=vpc, vpc_subnets=subnets, database=database, secret=secret
        )

    template = dict(Template.from_stack(stack).to_json())

    assert [each["SubnetIds"] for each in of_kind(template, "AWS::EC2::VPCEndpoint")] == [
        ["subnet-00", "subnet-01"],
        ["subnet-0a", "subnet-0b"],
    ]
    functions = [each["VpcConfig"]["SubnetIds"] for each in of_kind(template, "AWS::Lambda::Function")]
    assert functions == [[f"subnet-0{number}" for number in range(4)], ["subnet-0a", "subnet-0b"]]


# --- security groups by tags ---

BY_TAGS = {
    "vpc": "vpc-0123456789abcdef0",
    "subnets": ["subnet-0123456789abcdef0"],
    "database_security_group": [{"role": "database", "team": "platform"}, "10.1.0.0/16"],
    "secrets_endpoint": {"role": "endpoint"},
}
LOOKED_UP = {"account": "123456789012", "region": "eu-central-1", "database": {"secret": "x"}, "network": BY_TAGS}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An account with three groups, by their purpose. The process runs in its own folder."""
    for name, value in (("ACCESS_KEY_ID", "testing"), ("SECRET_ACCESS_KEY", "testing")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "123456789012")
    monkeypatch.chdir(tmp_path)
    with mock_aws():
        client = boto3.client("ec2", region_name="eu-central-1")
        made = {}
        for name, tags in (
            ("database", {"role": "database", "team": "platform"}),
            ("others", {"role": "database", "team": "other"}),
            ("endpoint", {"role": "endpoint"}),
        ):
            specification = [
                {"ResourceType": "security-group", "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}
            ]
            made[name] = client.create_security_group(
                GroupName=name, Description=name, TagSpecifications=specification
            )["GroupId"]
        yield made


def synthesized(folder: Path, settings: dict[str, Any], context: dict[str, str] | None = None) -> dict[str, Any]:
    app = new_app(folder)
    for key, value in (context or {}).items():
        app.node.set_context(key, value)
    return dict(Template.from_stack(add_stack(app, folder, Names("template-saas", "api", "t"), settings)).to_json())


def test_groups_are_found_by_their_tags_and_remembered(account: dict[str, str], tmp_path: Path) -> None:
    first = synthesized(tmp_path, LOOKED_UP)

    let_in = {each["GroupId"] for each in of_kind(first, "AWS::EC2::SecurityGroupIngress")}
    assert let_in == {account["database"], account["endpoint"]}
    remembered = json.loads((tmp_path / "cdk.context.json").read_text())
    assert set(remembered.values()) == let_in
    # As in CI, where nobody has credentials: another answer would be found now.
    boto3.client("ec2", region_name="eu-central-1").delete_security_group(GroupId=account["database"])
    assert synthesized(tmp_path, LOOKED_UP, remembered) == first


@pytest.mark.stress
@pytest.mark.parametrize(
    "tags,message",
    [
        ({"role": "database"}, "2 security groups have role=database in 123456789012, eu-central-1"),
        ({"role": "nothing"}, "no security group has role=nothing"),
    ],
)
@pytest.mark.usefixtures("account")
def test_tags_that_do_not_single_out_a_group_are_refused(tmp_path: Path, tags: dict[str, str], message: str) -> None:
    settings = {**LOOKED_UP, "network": {**BY_TAGS, "database_security_group": tags}}

    with pytest.raises(StageError, match=message):
        synthesized(tmp_path, settings)


@pytest.mark.stress
@pytest.mark.usefixtures("account")
def test_another_accounts_credentials_find_nothing(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="the credentials are for 123456789012"):
        synthesized(tmp_path, {**LOOKED_UP, "account": "210987654321"})


def test_the_error_without_credentials_and_a_stored_id_has_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=r"is not in cdk\.context\.json and could not be looked up .*AWS_PROFILE"):
        synthesized(tmp_path, LOOKED_UP)


def test_tags_of_a_group_need_an_account_and_a_region_too() -> None:
    with pytest.raises(ValidationError, match=r"needs the stage.s account and region"):
        Stage.model_validate({"database": {"secret": "x"}, "network": BY_TAGS})
