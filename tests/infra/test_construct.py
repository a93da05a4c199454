"""`Migrations` in other CDK apps: the examples of docs/construct.md, and the construct's errors."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from aws_cdk.assertions import Template

from infra import migrations
from infra.code import Code, build_code
from infra.database import Login
from infra.errors import StageError
from infra.migrations import Migrations
from infra.names import Names
from infra.package.errors import PackageError
from infra.stages import Options
from tests.infra.synthesis import ACCOUNT, REGION, Stack, as_list
from tests.support.checkout import ROOT, with_tools
from tests.support.samples import sampled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A backend is packaged, once for all.
pytestmark = pytest.mark.xdist_group("stack")

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The examples' app is beside its backend."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "backend").symlink_to(ROOT / "back")
    (folder / "app").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "app")
        # The examples have the same backend, which is packaged for the first of them.
        built: list[Code] = []

        def build_once(*given: Any) -> Code:  # noqa: ANN401
            built.extend([] if built else [build_code(*given)])
            return built[0]

        patch.setattr(migrations, "build_code", build_once)
        yield folder


@pytest.fixture(scope="module")
def aurora(folder: Path) -> Stack:
    app = cdk.App(outdir=str(folder / "aurora"))
    made = runpy.run_path(str(EXAMPLES / "aurora.py"))["Shop"](app, "shop-dev", stage="dev")
    return Stack(dict(Template.from_stack(made).to_json()))


@pytest.fixture(scope="module")
def existing(folder: Path) -> Stack:
    app = cdk.App(outdir=str(folder / "existing"))
    made = runpy.run_path(str(EXAMPLES / "existing_vpc.py"))["ShopMigrations"](
        app, "shop-migrations-prod", env=cdk.Environment(account=ACCOUNT, region=REGION)
    )
    return Stack(dict(Template.from_stack(made).to_json()))


def ids(stack: Stack, kind: str, prefix: str = "") -> list[str]:
    return [name for name in stack.names(kind) if name.startswith(prefix)]


# --- a VPC, Aurora and the migrations in one stack ---


@pytest.mark.stress
def test_the_cluster_lets_the_function_in_on_its_own_port(aurora: Stack) -> None:
    (cluster,) = aurora.names("AWS::RDS::DBCluster")
    (own,) = ids(aurora, "AWS::EC2::SecurityGroup", "MigrationsSecurityGroup")
    (group,) = ids(aurora, "AWS::EC2::SecurityGroup", "Database")
    port = {"Fn::GetAtt": [cluster, "Endpoint.Port"]}

    (way_in,) = [
        rule["Properties"]
        for rule in aurora.all("AWS::EC2::SecurityGroupIngress")
        if rule["Properties"]["GroupId"] == {"Fn::GetAtt": [group, "GroupId"]}
    ]
    assert way_in["SourceSecurityGroupId"] == {"Fn::GetAtt": [own, "GroupId"]}
    assert (way_in["FromPort"], way_in["ToPort"]) == (port, port)
    ports = [rule["Properties"]["FromPort"] for rule in aurora.all("AWS::EC2::SecurityGroupEgress")]
    assert port in ports


@pytest.mark.stress
def test_the_function_reads_the_clusters_secret_and_no_other(aurora: Stack) -> None:
    (attachment,) = aurora.names("AWS::SecretsManager::SecretTargetAttachment")
    role = aurora.function["Role"]["Fn::GetAtt"][0]

    assert aurora.variables["DB_SECRET_ID"] == {"Ref": attachment}
    (statement,) = [each for each in aurora.statements_of(role) if each.get("Sid") == "ReadTheSecret"]
    assert statement["Resource"] == {"Ref": attachment}


@pytest.mark.stress
def test_the_deployment_migrates_once_the_writer_is_up_and_lets_the_function_in(aurora: Stack) -> None:
    waits_for = set(aurora.one("Custom::Trigger")["DependsOn"])

    needed = {
        *aurora.names("AWS::RDS::DBCluster"),
        *aurora.names("AWS::RDS::DBInstance"),
        *aurora.names("AWS::EC2::SecurityGroupIngress"),
        *aurora.names("AWS::EC2::SecurityGroupEgress"),
        *ids(aurora, "AWS::EC2::VPCEndpoint", "Migrations"),
        *aurora.names("AWS::SecretsManager::SecretTargetAttachment"),
    }
    assert needed <= waits_for


@pytest.mark.stress
def test_names_are_those_of_the_contract_wherever_the_construct_is(aurora: Stack) -> None:
    assert aurora.function["FunctionName"] == "template-saas-shop-migrate-lambda-dev"
    assert aurora.machine["StateMachineName"] == "template-saas-shop-migrate-dev"


# --- a VPC that exists ---


@pytest.mark.stress
def test_the_function_is_placed_in_the_vpc_that_was_looked_up(existing: Stack) -> None:
    # What a lookup gives before the CDK's command has asked the account.
    assert existing.function["VpcConfig"]["SubnetIds"] == ["p-12345", "p-67890"]
    assert existing.all("AWS::EC2::VPCEndpoint") == []


@pytest.mark.stress
def test_a_granted_role_may_invoke_and_nothing_else(existing: Stack) -> None:
    (policy,) = [
        each["Properties"] for each in existing.all("AWS::IAM::Policy") if each["Properties"]["Roles"] == ["pipeline"]
    ]
    statements = policy["PolicyDocument"]["Statement"]

    assert {action for each in statements for action in as_list(each["Action"])} == {"lambda:InvokeFunction"}


@pytest.mark.stress
def test_options_are_the_settings_of_a_stage(existing: Stack) -> None:
    assert {each["Properties"]["RetentionInDays"] for each in existing.all("AWS::Logs::LogGroup")} == {365}
    assert json.loads(existing.variables["ROLLOUT"])["canaries"] == 2
    assert len(existing.all("AWS::S3::Bucket")) == 1


# --- CDK Pipelines ---


@pytest.mark.stress
def test_the_pipeline_deploys_and_so_migrates_dev_then_production_after_an_approval(folder: Path) -> None:
    app = cdk.App(outdir=str(folder / "pipeline"))
    made = runpy.run_path(str(EXAMPLES / "pipeline.py"))["Pipeline"]
    made(app, "shop-pipeline", env=cdk.Environment(account=ACCOUNT, region=REGION))

    assembly = app.synth()

    template = assembly.get_stack_by_name("shop-pipeline").template
    (pipeline,) = [each for each in template["Resources"].values() if each["Type"] == "AWS::CodePipeline::Pipeline"]
    stages = [each["Name"] for each in pipeline["Properties"]["Stages"]]
    assert stages[-2:] == ["Dev", "Prod"]
    actions = sorted(pipeline["Properties"]["Stages"][-1]["Actions"], key=lambda action: action["RunOrder"])
    assert actions[0]["Name"] == "Approve"
    for stage in ("Dev", "Prod"):
        nested = next(path for path in (folder / "pipeline").glob(f"assembly-*{stage}/*.template.json"))
        resources = json.loads(nested.read_text(encoding="utf-8"))["Resources"].values()
        assert [each["Type"] for each in resources].count("Custom::Trigger") == 1


@pytest.mark.stress
def test_cfn_lint_finds_nothing_in_the_examples(aurora: Stack, folder: Path) -> None:
    assert aurora.resources
    template = folder / "aurora" / "shop-dev.template.json"

    # W3005: the CDK writes each dependency out, also where a reference implies it.
    command = ["cfn-lint", "--format", "json", "--ignore-checks", "W3005", "--", str(template)]
    done = subprocess.run(command, env=with_tools(dict(os.environ)), capture_output=True, text=True, check=False)

    assert json.loads(done.stdout) == []


# --- what it refuses, and what it offers ---


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Code:
    package = tmp_path_factory.mktemp("package")
    (package / "code.py").write_text("")
    return Code(package, "0" * 64)


def construct(code: Code, stack: cdk.Stack, **options: Any) -> Migrations:  # noqa: ANN401
    secret = secretsmanager.Secret.from_secret_name_v2(stack, "Secret", "x")
    return Migrations(stack, "Migrations", stage="dev", backend=code, **{"secret": secret, **options})


@pytest.fixture
def stack(tmp_path: Path) -> cdk.Stack:
    environment = cdk.Environment(account=ACCOUNT, region=REGION)
    return cdk.Stack(cdk.App(outdir=str(tmp_path / "cdk.out")), "stack", env=environment)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"memory": 512}, "stack/Migrations: memory: extra inputs are not permitted"),
        ({"timeout_s": 901}, "stack/Migrations: timeout_s: input should be less than or equal to 900"),
        ({"network": {}}, "stack/Migrations: network: extra inputs are not permitted"),
        (
            {"environment": {"A_LIST": "x" * 4000}},
            (
                "stack/Migrations: environment: the function's variables are 4124 bytes, and Lambda allows 4096; the"
                " largest are A_LIST, POWERTOOLS_METRICS_NAMESPACE, POWERTOOLS_SERVICE_NAME"
            ),
        ),
        (
            {"migrate_on_deploy": True, "environment": {"DEADLINE_RESERVE_MS": "20000"}},
            (
                "stack/Migrations: environment: with migrate_on_deploy and timeout_s 900, DEADLINE_RESERVE_MS must be"
                " at least 70000, or the deployment would end without the migration's message: remove it, or lower"
                " timeout_s"
            ),
        ),
        (
            {"alarms": f"arn:aws:sns:us-east-1:{ACCOUNT}:alarms"},
            f"stack/Migrations: alarms: arn:aws:sns:us-east-1:{ACCOUNT}:alarms is not in the stage's region, {REGION}",
        ),
        (
            {"secret": None},
            "stack/Migrations: secret is required, unless login has iam_resource_ids, host, name and user",
        ),
        (
            {"service": "My Shop"},
            (
                "stack/Migrations: service 'My Shop' must begin with a letter, and have at most 31 letters, digits,"
                " hyphens and underscores"
            ),
        ),
        (
            {"service": "s" * 31, "prefix": "p" * 12, "aside": True},
            (
                "stack/Migrations: prefix, service and the stage's name 'dev' make a function name longer than Lambda's"
                f" 64 characters: {'p' * 12}-{'s' * 31}-migrate-lambda-dev-aside"
            ),
        ),
        ({"database_port": 5433}, "stack/Migrations: database_port needs vpc"),
        ({"secrets_endpoint": "nat"}, "stack/Migrations: secrets_endpoint needs vpc"),
        (
            {"invokers": ["arn:aws-cn:iam::123456789012:role/ci"]},
            (
                "stack/Migrations: invokers.0: arn:aws-cn:iam::123456789012:role/ci is not in the partition of"
                f" {REGION}, aws"
            ),
        ),
        ({"login": Login(iam_resource_ids=["db-A"])}, "stack/Migrations: login: iam_resource_ids need user"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(
    code: Code, stack: cdk.Stack, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(StageError) as caught:
        construct(code, stack, **options)

    assert str(caught.value) == message


@pytest.mark.parametrize("what", ["secret", "key", "kms_key"])
def test_a_secret_or_key_of_another_region_is_refused(code: Code, stack: cdk.Stack, what: str) -> None:
    key = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
    secret = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:x-AbCdEf"
    options: dict[str, Any] = {
        "secret": {"secret": secretsmanager.Secret.from_secret_complete_arn(stack, "Elsewhere", secret)},
        "key": {"key": kms.Key.from_key_arn(stack, "Key", key)},
        "kms_key": {"rollout": {"kms_key": key}},
    }

    with pytest.raises(StageError, match=rf"{what}: arn:aws:.* is not in the stage's region, {REGION}"):
        construct(code, stack, **options[what])


@pytest.mark.parametrize(
    "region,partition",
    [
        ("eu-central-1", "aws"),
        ("eusc-de-east-1", "aws-eusc"),
        *(
            pytest.param(region, partition, marks=pytest.mark.stress)
            for region, partition in {
                "us-gov-west-1": "aws-us-gov",
                "us-iso-east-1": "aws-iso",
                "us-isob-east-1": "aws-iso-b",
                "eu-isoe-west-1": "aws-iso-e",
                "us-isof-south-1": "aws-iso-f",
            }.items()
        ),
    ],
)
def test_a_role_must_be_of_the_partition_of_the_region(code: Code, tmp_path: Path, region: str, partition: str) -> None:
    stack = cdk.Stack(cdk.App(), "stack", env=cdk.Environment(account=ACCOUNT, region=region))
    login = Login(ca_bundle=tmp_path / "ca.pem")

    with pytest.raises(StageError, match=f"is not in the partition of {region}, {partition}$"):
        construct(code, stack, login=login, invokers=[f"arn:aws-cn:iam::{ACCOUNT}:role/ci"])


def test_a_region_that_the_cdk_does_not_know_may_be_of_any_partition(code: Code, tmp_path: Path) -> None:
    stack = cdk.Stack(cdk.App(), "stack", env=cdk.Environment(account=ACCOUNT, region="us-moon-1"))

    construct(
        code,
        stack,
        login=Login(ca_bundle=tmp_path / "ca.pem"),
        invokers=[f"arn:aws-moon:iam::{ACCOUNT}:role/ci"],
    )


AUTHORITIES = {
    "eu-central-1": True,
    "ap-southeast-3": True,
    "us-gov-west-1": False,
    "cn-north-1": False,
    "eusc-de-east-1": False,
}


@pytest.mark.parametrize("region", sampled(AUTHORITIES, {"eu-central-1", "cn-north-1"}))
def test_where_the_package_has_no_certificate_authority_one_is_required(
    code: Code, tmp_path: Path, region: str
) -> None:
    app = cdk.App(outdir=str(tmp_path / "cdk.out"))
    environment = cdk.Environment(account=ACCOUNT, region=region)

    if AUTHORITIES[region]:
        construct(code, cdk.Stack(app, "plain", env=environment))
    else:
        with pytest.raises(StageError, match=f"database.ca_bundle: .* RDS in {region}"):
            construct(code, cdk.Stack(app, "plain", env=environment))
    construct(code, cdk.Stack(app, "own", env=environment), login=Login(ca_bundle=tmp_path / "ca.pem"))
    construct(code, cdk.Stack(app, "unverified", env=environment), environment={"DB_SSLMODE": "require"})


def _cluster(stack: cdk.Stack, vpc: ec2.IVpc, construct_id: str = "Cluster") -> rds.DatabaseCluster:
    engine = rds.DatabaseClusterEngine.aurora_postgres(version=rds.AuroraPostgresEngineVersion.VER_17_4)
    writer = rds.ClusterInstance.serverless_v2("Writer")
    return rds.DatabaseCluster(stack, construct_id, engine=engine, writer=writer, vpc=vpc, port=6001)


def _instance(stack: cdk.Stack, vpc: ec2.IVpc) -> rds.DatabaseInstance:
    engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.VER_17)
    return rds.DatabaseInstance(stack, "Instance", engine=engine, vpc=vpc, port=6002)


def _proxy(stack: cdk.Stack, vpc: ec2.IVpc) -> rds.DatabaseProxy:
    cluster = _cluster(stack, vpc, "Proxied")
    return cluster.add_proxy("Proxy", secrets=[cast("secretsmanager.ISecret", cluster.secret)], vpc=vpc)


def _imported(stack: cdk.Stack, _: ec2.IVpc) -> rds.IDatabaseCluster:
    groups = [ec2.SecurityGroup.from_security_group_id(stack, "Known", "sg-0123456789abcdef0")]
    return rds.DatabaseCluster.from_database_cluster_attributes(
        stack, "Imported", cluster_identifier="shop", port=6003, security_groups=groups
    )


@pytest.mark.parametrize(
    "database", sampled([_cluster, _instance, _proxy, _imported], {_cluster, _proxy}), ids=lambda made: made.__name__
)
def test_every_kind_of_database_lets_the_function_in_on_its_own_port(
    code: Code, stack: cdk.Stack, database: Callable[[cdk.Stack, ec2.IVpc], Any]
) -> None:
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
    made = database(stack, vpc)
    own_port = made.connections.default_port
    # A proxy listens on PostgreSQL's port, whatever its database's is.
    port = stack.resolve(own_port.to_rule_json()["fromPort"]) if own_port else 5432
    construct(code, stack, vpc=vpc, database=[made, ec2.Peer.ipv4("10.1.0.0/16")], secrets_endpoint="nat")

    template = Stack({"Outputs": {}, **Template.from_stack(stack).to_json()})

    own = {"Fn::GetAtt": [ids(template, "AWS::EC2::SecurityGroup", "MigrationsSecurityGroup")[0], "GroupId"]}
    rules = [each["Properties"] for each in template.all("AWS::EC2::SecurityGroupIngress")]
    assert [each["FromPort"] for each in rules if each.get("SourceSecurityGroupId") == own] == [port]


def test_two_functions_of_one_stack_share_nothing_but_the_invoker_of_deployments(code: Code, stack: cdk.Stack) -> None:
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
    cluster = _cluster(stack, vpc)
    for service in ("shop", "billing"):
        Migrations(
            stack,
            service,
            service=service,
            stage="dev",
            backend=code,
            vpc=vpc,
            database=cluster,
            secret=cluster.secret,
            migrate_on_deploy=True,
            alarms="team@example.com",
        )

    template = Stack(dict(Template.from_stack(stack).to_json()))

    for kind, name in (
        ("AWS::Lambda::Function", "FunctionName"),
        ("AWS::Logs::LogGroup", "LogGroupName"),
        ("AWS::StepFunctions::StateMachine", "StateMachineName"),
        ("AWS::CloudWatch::Alarm", "AlarmName"),
        ("AWS::CloudWatch::Dashboard", "DashboardName"),
        ("AWS::SNS::Topic", "TopicName"),
    ):
        names = [str(each["Properties"][name]) for each in template.all(kind) if name in each["Properties"]]
        assert len(names) >= 2
        assert len(set(names)) == len(names)
    assert len(template.all("Custom::Trigger")) == 2
    assert len([each for each in template.names("AWS::Lambda::Function") if "CustomResourceProvider" in each]) == 1


def test_a_vpc_without_a_database_is_refused(code: Code, stack: cdk.Stack) -> None:
    with pytest.raises(StageError, match="database is required with vpc"):
        construct(code, stack, vpc=ec2.Vpc(stack, "Vpc"))


def test_the_migration_waits_for_the_constructs_passed_to_after(code: Code, stack: cdk.Stack) -> None:
    made_of_it = construct(code, stack, migrate_on_deploy=True)
    first, after = sqs.Queue(stack, "First"), sqs.Queue(stack, "After")
    made_of_it.after(first)
    after.node.add_dependency(made_of_it)

    made = Stack({**Template.from_stack(stack).to_json(), "Outputs": {}})
    (trigger,) = made.names("Custom::Trigger")
    queues = {name: made.resource(name).get("DependsOn", []) for name in made.names("AWS::SQS::Queue")}
    (queue,) = [name for name in queues if name.startswith("First")]
    assert queue in made.resource(trigger)["DependsOn"]
    (later,) = [name for name in queues if name.startswith("After")]
    assert trigger in queues[later]


def test_after_without_a_migration_in_the_deployment_is_refused(code: Code, stack: cdk.Stack) -> None:
    made = construct(code, stack)

    with pytest.raises(StageError, match="migrate_on_deploy"):
        made.after(sqs.Queue(stack, "Queue"))


@pytest.mark.parametrize("where", ["stack", "nested"])
def test_vpc_and_database_may_be_made_in_another_stack(code: Code, stack: cdk.Stack, where: str) -> None:
    """The rule that lets the function in is in the function's stack. Otherwise both stacks would need each other."""
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
    database = ec2.SecurityGroup(stack, "Database", vpc=vpc)
    environment = cdk.Environment(account=ACCOUNT, region=REGION)
    own = cdk.NestedStack(stack, "own") if where == "nested" else cdk.Stack(cdk.Stage.of(stack), "own", env=environment)
    construct(code, own, vpc=vpc, database=database, migrate_on_deploy=True)

    # With a cycle, the synthesis of two stacks fails.
    made = Stack({"Outputs": {}, **Template.from_stack(own).to_json()})
    others = Stack({"Outputs": {}, **Template.from_stack(stack).to_json()})

    assert others.all("AWS::EC2::SecurityGroupIngress") == []
    let_in = {name: made.resource(name)["Properties"] for name in made.names("AWS::EC2::SecurityGroupIngress")}
    [rule] = [name for name, each in let_in.items() if (each["FromPort"], each["ToPort"]) == (5432, 5432)]
    assert rule in made.one("Custom::Trigger")["DependsOn"]


def test_grant_invoke_allows_only_the_given_role(code: Code, stack: cdk.Stack) -> None:
    user = iam.User(stack, "User")
    construct(code, stack).grant_invoke(user).assert_success()


def test_the_setting_requirements_file_reaches_the_build(tmp_path: Path) -> None:
    options = Options(requirements_file="requirements/gone.txt")
    with pytest.raises(PackageError, match=r"^no file requirements/gone\.txt in "):
        build_code(options, ROOT / "back", tmp_path / "out", None)


def test_two_migrations_of_one_stack_share_the_invoking_function_and_its_log(code: Code, stack: cdk.Stack) -> None:
    options: dict[str, Any] = {"backend": code, "migrate_on_deploy": True, "log_retention_days": 30}
    secret = secretsmanager.Secret.from_secret_name_v2(stack, "Secret", "x")
    for service in ("shop", "billing"):
        Migrations(stack, service, stage="dev", service=service, secret=secret, **options)

    made = Stack(dict(Template.from_stack(stack).to_json()))

    [invoker] = [
        each["Properties"] for each in made.all("AWS::Lambda::Function") if "FunctionName" not in each["Properties"]
    ]
    [group] = [name for name in made.names("AWS::Logs::LogGroup") if "DeploymentLogs" in name]
    assert invoker["LoggingConfig"] == {"LogGroup": {"Ref": group}}
    assert len(made.all("Custom::Trigger")) == 2


@pytest.mark.parametrize(
    "name,value",
    [
        ("permissions_boundary", f"arn:aws:iam::{ACCOUNT}:policy/boundary"),
        ("log_retention_days", 7),
        ("key", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"),
    ],
)
def test_two_migrations_of_one_stack_need_the_same_settings_for_the_invoking_function(
    code: Code,
    stack: cdk.Stack,
    name: str,
    value: Any,  # noqa: ANN401
) -> None:
    secret = secretsmanager.Secret.from_secret_name_v2(stack, "Secret", "x")
    given = {name: kms.Key.from_key_arn(stack, "Key", value) if name == "key" else value}

    def make(service: str, **options: Any) -> None:  # noqa: ANN401
        Migrations(stack, service, stage="dev", service=service, backend=code, secret=secret, **options)

    make("shop", migrate_on_deploy=True)
    make("later", **given)
    with pytest.raises(
        StageError, match=f"stack/billing: {name} differs from that of stack/shop: both have migrate_on"
    ):
        make("billing", migrate_on_deploy=True, **given)


def test_names_may_have_capitals_and_underscores_where_aws_takes_them(code: Code, stack: cdk.Stack) -> None:
    secret = secretsmanager.Secret.from_secret_name_v2(stack, "Secret", "x")
    rollout = {"query": "SELECT 1"}
    options: dict[str, Any] = {"rollout": rollout, "long_runs": {}, "alarms": "a@example.com"}
    Migrations(stack, "M", prefix="Acme", service="my_shop", stage="Prod", backend=code, secret=secret, **options)

    made = Stack(dict(Template.from_stack(stack).to_json()))

    assert made.function["FunctionName"] == "Acme-my_shop-migrate-lambda-Prod"
    assert made.machine["StateMachineName"] == "Acme-my-shop-migrate-Prod"
    assert made.variables["STAGE"] == "Prod"
    # Protected like the stage prod.
    assert made.log_group["DeletionPolicy"] == "RetainExceptOnCreate"
    assert Names.of_function("Acme-my_shop-migrate-lambda-Prod") == Names("Acme", "my_shop", "Prod")
