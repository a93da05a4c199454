"""The template of a stage: names, permissions, and the effects of the settings."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from infra.names import Names
from tests.infra.synthesis import Stack
from tests.support.checkout import copy_checkout, with_tools

if TYPE_CHECKING:
    from pathlib import Path

# Starting the CDK's own process and building a package take the time, so once.
pytestmark = pytest.mark.xdist_group("stack")

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds!db-1-AbCdEf"

KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"

# How an ELF file says that it is for arm64.
EM_AARCH64 = (183).to_bytes(2, "little")

# Each exists for what differs from the first.
STAGES: dict[str, tuple[Names, dict[str, Any]]] = {
    "dev": (Names("template-saas", "api", "dev"), {"database": {"secret": "template-saas/api/dev/database"}}),
    "prod": (
        Names("template-saas", "api", "prod"),
        {
            "database": {"secret": ARN, "host": "db.example", "port": 6543, "name": "app", "ca_bundle": "ca.pem"},
            "runtime": "python3.14",
            "architecture": "x86_64",
            "memory_mb": 1024,
            "timeout_s": 60,
            "log_retention_days": 365,
            "alarms": "team@example.com",
            "kms_key": KEY,
            "alembic_config": "pyproject.toml",
            "allow_downgrade": True,
            "preflight": "enforce",
            "tags": {"team": "payments", "stage": "production"},
            "environment": {"LOG_LEVEL": "DEBUG", "DB_NAME": "overridden"},
        },
    ),
    "other": (
        Names("acme", "billing", "qa"),
        {"database": {"secret": "x"}, "alarms": TOPIC, "protect": True, "backend": "back"},
    ),
    "open": (Names("acme", "open", "prod"), {"database": {"secret": "x"}, "protect": False}),
    "local": (Names("template-saas", "api", "local"), {"database": {"secret": "x"}, "runtime": "local"}),
}


@pytest.fixture(scope="module")
def prod(stacks: dict[str, Stack]) -> Stack:
    """A stage that sets everything."""
    return stacks["prod"]


# --- names ---


def test_names_are_those_of_the_contract(dev: Stack) -> None:
    assert STAGES["dev"][0].stack == "template-saas-api-migrate-dev"
    assert dev.function["FunctionName"] == "template-saas-api-migrate-lambda-dev"
    assert dev.function["Handler"] == "lambda_migrate.handler.handler"
    assert dev.machine["StateMachineName"] == "template-saas-api-migrate-dev"
    assert dev.log_group["Properties"]["LogGroupName"] == "/aws/lambda/template-saas-api-migrate-lambda-dev"
    assert dev.variables["POWERTOOLS_METRICS_NAMESPACE"] == "template-saas/migrate"


def test_prefix_and_service_change_every_name(stacks: dict[str, Stack]) -> None:
    other = stacks["other"]

    assert STAGES["other"][0].stack == "acme-billing-migrate-qa"
    assert other.function["FunctionName"] == "acme-billing-migrate-lambda-qa"
    assert "template-saas" not in other.text
    assert '"api' not in other.text


def test_outputs_name_the_function_and_its_log_group(dev: Stack) -> None:
    assert {"FunctionName", "FunctionArn", "LogGroupName"} <= dev.outputs.keys()


def test_every_resource_that_can_be_is_tagged_with_project_and_stage(dev: Stack) -> None:
    tags = [{"Key": "project", "Value": "template-saas"}, {"Key": "stage", "Value": "dev"}]

    for kind in ("AWS::Lambda::Function", "AWS::IAM::Role", "AWS::Logs::LogGroup", "AWS::StepFunctions::StateMachine"):
        for each in dev.all(kind):
            assert all(tag in each["Properties"]["Tags"] for tag in tags), kind


def test_a_stages_own_tags_are_added_and_have_the_last_word(prod: Stack) -> None:
    tags = {each["Key"]: each["Value"] for each in prod.function["Tags"]}

    assert tags == {"project": "template-saas", "stage": "production", "team": "payments"}


# --- the function ---


def test_a_failed_migration_is_not_tried_again_by_lambda(dev: Stack) -> None:
    # As it is deployed, and as a version.
    configured = [each["Properties"] for each in dev.all("AWS::Lambda::EventInvokeConfig")]
    assert [each["MaximumRetryAttempts"] for each in configured] == [0, 0]


def test_it_reserves_no_concurrency_of_which_a_new_account_has_none_to_spare(dev: Stack) -> None:
    assert "ReservedConcurrentExecutions" not in dev.function


def test_it_is_traced(dev: Stack) -> None:
    assert dev.function["TracingConfig"] == {"Mode": "Active"}


def test_a_failed_asynchronous_run_notifies_the_topic(stacks: dict[str, Stack]) -> None:
    def expected(stage: str) -> list[object]:
        configured = [each["Properties"] for each in stacks[stage].all("AWS::Lambda::EventInvokeConfig")]
        return [each.get("DestinationConfig") for each in configured]

    (made,) = stacks["prod"].names("AWS::SNS::Topic")
    assert expected("prod") == [{"OnFailure": {"Destination": {"Ref": made}}}] * 2
    assert expected("other") == [{"OnFailure": {"Destination": TOPIC}}] * 2
    assert expected("dev") == [None, None]


def test_an_address_gets_a_topic_that_alarms_of_this_account_may_publish_to(prod: Stack) -> None:
    subscription = prod.properties("AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "team@example.com")
    statements = prod.properties("AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    assert {(each["Effect"], next(iter(each["Condition"]))) for each in statements} == {
        ("Deny", "Bool"),  # without TLS
        ("Allow", "StringEquals"),  # CloudWatch, in the name of this account
    }


def test_the_topics_key_is_for_publishing_only(prod: Stack) -> None:
    (statement,) = [each for each in prod.statements if each.get("Sid") == "EncryptForTheTopic"]

    assert statement["Resource"] == KEY
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert list(statement["Condition"]["StringEquals"]) == ["kms:ViaService"]


def test_the_stages_defaults_are_what_the_function_gets(dev: Stack) -> None:
    assert dev.function["Runtime"] == "python3.13"
    assert dev.function["Architectures"] == ["arm64"]
    assert (dev.function["MemorySize"], dev.function["Timeout"]) == (512, 900)


def test_the_stages_settings_are_what_the_function_gets(prod: Stack) -> None:
    assert prod.function["Runtime"] == "python3.14"
    assert prod.function["Architectures"] == ["x86_64"]
    assert (prod.function["MemorySize"], prod.function["Timeout"]) == (1024, 60)


def test_the_local_stage_brings_its_own_runtime(stacks: dict[str, Stack]) -> None:
    assert stacks["local"].function["Runtime"] == "provided.al2023"


def test_variables_that_the_stage_does_not_set_are_absent(dev: Stack) -> None:
    assert dev.variables == {
        "STAGE": "dev",
        "DB_SECRET_ID": "template-saas/api/dev/database",
        "POWERTOOLS_SERVICE_NAME": "template-saas-api-migrate",
        "POWERTOOLS_METRICS_NAMESPACE": "template-saas/migrate",
    }


def test_the_stages_database_becomes_variables_and_its_own_environment_has_the_last_word(prod: Stack) -> None:
    assert prod.variables == {
        "STAGE": "prod",
        "DB_SECRET_ID": ARN,
        "DB_HOST": "db.example",
        "DB_PORT": "6543",
        "DB_NAME": "overridden",
        "DB_SSLROOTCERT": "database-ca.pem",
        "ALEMBIC_CONFIG": "pyproject.toml",
        "ALLOW_DOWNGRADE": "true",
        "PREFLIGHT": "enforce",
        "POWERTOOLS_SERVICE_NAME": "template-saas-api-migrate",
        "POWERTOOLS_METRICS_NAMESPACE": "template-saas/migrate",
        "LOG_LEVEL": "DEBUG",
    }


# --- the log ---


@pytest.mark.parametrize("stage, days", [("dev", 90), ("prod", 365)])
def test_logs_are_kept_for_as_long_as_the_stage_says(stacks: dict[str, Stack], stage: str, days: int) -> None:
    assert {each["Properties"]["RetentionInDays"] for each in stacks[stage].all("AWS::Logs::LogGroup")} == {days}


PROTECTED = [("dev", False), ("local", False), ("prod", True), ("other", True), ("open", False)]


@pytest.mark.parametrize("stage, protected", PROTECTED)
def test_a_protected_stages_log_outlives_its_stack(stacks: dict[str, Stack], stage: str, *, protected: bool) -> None:
    group = stacks[stage].log_group
    # A failed first deployment leaves none behind, whose name would be in the way of the next.
    policies = ("RetainExceptOnCreate", "Retain") if protected else ("Delete", "Delete")

    assert (group["DeletionPolicy"], group["UpdateReplacePolicy"]) == policies


@pytest.mark.parametrize("stage, protected", PROTECTED)
def test_a_protected_stage_is_not_deleted_by_mistake(stacks: dict[str, Stack], stage: str, *, protected: bool) -> None:
    assert stacks[stage].termination_protection is protected


def test_log_and_topic_are_encrypted_with_the_stages_key(prod: Stack) -> None:
    assert {each["Properties"]["KmsKeyId"] for each in prod.all("AWS::Logs::LogGroup")} == {KEY}
    assert prod.properties("AWS::SNS::Topic")["KmsMasterKeyId"] == KEY


def test_the_function_writes_to_the_log_group_of_its_stack(dev: Stack) -> None:
    assert dev.log_group["Type"] == "AWS::Logs::LogGroup"


def test_lambda_drops_no_lines_of_the_stages_log_level(dev: Stack, prod: Stack) -> None:
    assert "ApplicationLogLevel" not in dev.function["LoggingConfig"]
    assert prod.function["LoggingConfig"]["ApplicationLogLevel"] == "DEBUG"


# --- the command ---


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that no other test builds the same package at the same time."""
    return copy_checkout(tmp_path_factory.mktemp("checkout") / "copy")


def synth(checkout: Path, *context: str, validation: bool = False) -> subprocess.CompletedProcess[str]:
    """The environment of `make synth` without an AWS account, region or credentials."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_DEFAULT_"))}
    nowhere = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_VALIDATION": str(validation).lower(),
    }
    return subprocess.run(
        ["cdk", "synth", *context],
        cwd=checkout,
        env=with_tools({**kept, **nowhere}),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def synthesized(checkout: Path) -> Stack:
    """Stage dev, printed by the command after it has built the package."""
    done = synth(checkout, "-c", "stage=dev", "--json", validation=True)
    assert done.returncode == 0, done.stderr
    return Stack(json.loads(done.stdout))


@pytest.mark.stress
def test_cdk_synth_prints_a_stages_template_without_an_aws_account(synthesized: Stack) -> None:
    assert synthesized.function["FunctionName"] == "template-saas-api-migrate-lambda-dev"


@pytest.mark.stress
def test_the_same_tree_on_another_path_gives_the_same_template_and_package(synthesized: Stack, tmp_path: Path) -> None:
    elsewhere = synth(copy_checkout(tmp_path / "somewhere else" / "copy"), "-c", "stage=dev", "--json")

    assert elsewhere.returncode == 0, elsewhere.stderr
    assert synthesized.function["Code"]["S3Key"]  # named by the digest of what is in the package
    assert json.dumps(json.loads(elsewhere.stdout)) == synthesized.text


@pytest.mark.stress
@pytest.mark.usefixtures("synthesized")
def test_the_package_is_built_for_the_stages_processor_and_not_for_this_machines(checkout: Path) -> None:
    machines = {file.read_bytes()[18:20] for file in (checkout / ".local" / "package" / "dev").rglob("*.so")}

    assert machines == {EM_AARCH64}


@pytest.mark.stress
@pytest.mark.parametrize(
    "context, expected",
    [
        ((), "error: no stage was chosen: pass -c stage=NAME, one of local, dev, prod"),
        (
            ("-c", "stage=dve"),
            "error: there is no stage 'dve' in cdk.json: pass -c stage=NAME, one of local, dev, prod",
        ),
    ],
)
def test_cdk_synth_lists_the_stages_if_none_is_chosen(checkout: Path, context: tuple[str, ...], expected: str) -> None:
    done = synth(checkout, *context)

    assert done.returncode != 0
    assert expected in done.stderr.splitlines()
    assert "Traceback" not in done.stderr
