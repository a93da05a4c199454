"""Third-party rules for templates: cdk-nag's AwsSolutions, the CDK's validation, and cfn-lint."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk
import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from infra.names import Names
from tests.infra.synthesis import ACCOUNT, REGION, add_stack, new_app
from tests.support.checkout import ROOT, with_tools

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.xdist_group("rules")

PARTITIONS = "@aws-cdk/core:target-partitions"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
NETWORK = {
    "vpc": "vpc-0123456789abcdef0",
    "subnets": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    "database_security_group": "sg-0123456789abcdef0",
}
FULL: dict[str, Any] = {
    "account": ACCOUNT,
    "region": REGION,
    "database": {"secret": "x", "kms_key": KEY, "auth": "iam", "user": "u", "resource_id": "cluster-ABC"},
    "invokers": [f"arn:aws:iam::{ACCOUNT}:role/ci"],
    "github": {"repository": "acme/app", "environment": "production"},
    "alarms": "team@example.com",
    "kms_key": KEY,
    "migrate_on_deploy": True,
    "tags": {"team": "payments"},
}
STAGES: dict[str, dict[str, Any]] = {
    "minimal": {"database": {"secret": "x"}},
    "local": {"database": {"secret": "x"}, "runtime": "local"},
    "fleet": {
        **FULL,
        "migrate_on_deploy": False,
        "network": {**NETWORK, "s3_prefix_list": "pl-6da54004"},
        "rollout": {
            "query": "SELECT secret_id FROM tenants",
            "secret_prefix": "tenants/",
            "kms_key": KEY,
            "resource_ids": ["cluster-DEF"],
            "users": ["migrator_*"],
        },
    },
    "tagged": {"database": {"secret": "x"}, "rollout": {"secret_tag": {"key": "tenants-of", "value": "api"}}},
    "create": {**FULL, "network": NETWORK},
    "nat": {**FULL, "network": {**NETWORK, "secrets_endpoint": "nat"}},
    "port": {
        **FULL,
        "network": {
            **NETWORK,
            "database_security_group": ["sg-0123456789abcdef0", "sg-0123456789abcdef2", "10.1.0.0/16"],
            "database_port": "secret",
        },
    },
    "existing": {**FULL, "network": {**NETWORK, "secrets_endpoint": "sg-0123456789abcdef1"}},
    "long": {
        **FULL,
        "migrate_on_deploy": False,
        "network": {**NETWORK, "s3_prefix_list": "pl-6da54004", "logs_endpoint": "sg-0123456789abcdef1"},
        "long_runs": {"hours": 35},
        "snapshot": {"cluster": "app"},
    },
    "long-fleet": {"database": {"secret": "x"}, "rollout": {"secret_prefix": "tenants/"}, "long_runs": {}},
    "gates": {
        **FULL,
        "migrate_on_deploy": False,
        "database": {"auth": "iam", "host": "db", "name": "app", "user": "migrator", "resource_id": "cluster-ABC"},
        "rollout": {"targets": [{"secret_id": "a"}], "between_waves": "approval", "soak_s": 600, "soak_alarm": "slow"},
    },
    "newest": {
        **FULL,
        "alarms": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",
        "runtime": "python3.14",
        "architecture": "x86_64",
        "memory_mb": 1024,
        "timeout_s": 600,
        "log_retention_days": 365,
        "protect": True,
        "permissions_boundary": f"arn:aws:iam::{ACCOUNT}:policy/boundary",
        "environment": {"LOG_LEVEL": "DEBUG"},
    },
    "newest-long": {
        "database": {"secret": "x"},
        "runtime": "python3.14",
        "architecture": "x86_64",
        "packaging": "image",
        "long_runs": {"compute": "large"},
    },
    **{
        region: {
            "account": ACCOUNT,
            "region": region,
            "database": {"secret": "x", "ca_bundle": "ca.pem"},
            "architecture": "x86_64",
            "packaging": packaging,
            "long_runs": {},
            "snapshot": {"instance": "app"},
        }
        for region, packaging in (("cn-north-1", "zip"), ("us-gov-west-1", "image"), ("eusc-de-east-1", "zip"))
    },
}

# Of each kind of resource and of each partition's kind one; the others are variants of them.
SAMPLE = ("minimal", "fleet", "tagged", "port", "long", "gates", "newest", "cn-north-1")

# As the first stages were deployed. CloudFormation would replace what gets another id: what is kept would begin anew,
# and what has a name of its own could not be made beside the old one.
IDS = {
    "Logs6819BB44": "AWS::Logs::LogGroup",
    "RolloutLogs995B8566": "AWS::Logs::LogGroup",
    "Rollouts1951FC27": "AWS::S3::Bucket",
    "Function76856677": "AWS::Lambda::Function",
    "StateMachine2E01A3A5": "AWS::StepFunctions::StateMachine",
    "Role1ABCC5F0": "AWS::IAM::Role",
    "MachineRole7E10B2C3": "AWS::IAM::Role",
    "GithubRole1F7504EA": "AWS::IAM::Role",
    "Alarms04B5A0BF": "AWS::SNS::Topic",
    "SecurityGroupDD263621": "AWS::EC2::SecurityGroup",
    "EndpointSecurityGroupF840B798": "AWS::EC2::SecurityGroup",
    "SecretsManagerE2A3D9A6": "AWS::EC2::VPCEndpoint",
    "FailedRunD904EE28": "AWS::CloudWatch::Alarm",
    "Dashboard9E4231ED": "AWS::CloudWatch::Dashboard",
}


@pytest.fixture(scope="module")
def stages(rounds: Callable[[tuple[str, ...], tuple[str, ...]], tuple[str, ...]]) -> tuple[str, ...]:
    """The stages to look at: the sample, or with --stress all."""
    return rounds(SAMPLE, tuple(STAGES))


@pytest.fixture(scope="module")
def synthesized(stages: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the templates and the validation report."""
    folder = tmp_path_factory.mktemp("synthesis")
    app = new_app(folder, validated=True)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    for name in stages:
        add_stack(app, folder, Names("template-saas", "api", name), STAGES[name])
    app.synth()
    return folder / "cdk.out"


def test_nothing_is_found_that_has_no_written_reason(synthesized: Path) -> None:
    report = json.loads((synthesized / "validation-report.json").read_text(encoding="utf-8"))

    reports = {each["pluginName"]: each for each in report["pluginReports"]}
    assert "AwsSolutions" in reports
    found = [
        (violation["ruleName"], violation["description"], violation["violatingConstructs"])
        for each in reports.values()
        for violation in each["violations"]
    ]
    assert found == []


def test_cfn_lint_finds_nothing(stages: tuple[str, ...], synthesized: Path) -> None:
    templates = [str(synthesized / f"template-saas-api-migrate-{stage}.template.json") for stage in stages]

    # W3005: the CDK writes each dependency out, also where a reference implies it.
    command = ["cfn-lint", "--format", "json", "--ignore-checks", "W3005", "--", *templates]
    done = subprocess.run(command, env=with_tools(dict(os.environ)), capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert json.loads(done.stdout) == []


@pytest.mark.stress
def test_the_feature_flags_are_those_that_the_cdk_recommends() -> None:
    (archive,) = Path(aws_cdk.__file__).parent.glob("_jsii/aws-cdk-lib@*.tgz")
    with tarfile.open(archive) as library:
        file = library.extractfile("package/recommended-feature-flags.json")
        assert file is not None
        recommended = json.load(file)
    context = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    partitions = recommended.pop(PARTITIONS)

    assert {name: context.get(name) for name in recommended} == recommended
    assert {*partitions, "aws-us-gov", "aws-eusc"} <= set(context[PARTITIONS])


def test_deployed_resources_keep_their_logical_ids(synthesized: Path) -> None:
    template = json.loads((synthesized / "template-saas-api-migrate-fleet.template.json").read_text(encoding="utf-8"))

    assert {name: template["Resources"].get(name, {}).get("Type") for name in IDS} == IDS
