"""What others demand of a template: cdk-nag's AwsSolutions, the CDK's own validation, and cfn-lint.

Whatever is excused is excused beside its construct, with its reason.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from infra.names import Names
from tests.infra.synthesis import ACCOUNT, REGION, add_stack
from tests.support.checkout import with_tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("rules")

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
        "network": {**NETWORK, "s3_prefix_list": "pl-6da54004"},
        "rollout": {"query": "SELECT secret_id FROM tenants", "secret_prefix": "tenants/", "kms_key": KEY},
    },
    "tagged": {"database": {"secret": "x"}, "rollout": {"secret_tag": {"key": "tenants-of", "value": "api"}}},
    "create": {**FULL, "network": NETWORK},
    "nat": {**FULL, "network": {**NETWORK, "secrets_endpoint": "nat"}},
    "existing": {**FULL, "network": {**NETWORK, "secrets_endpoint": "sg-0123456789abcdef1"}},
}


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the templates, and with the report of what they were held against."""
    folder = tmp_path_factory.mktemp("synthesis")
    app = cdk.App(outdir=str(folder / "cdk.out"))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    for name, settings in STAGES.items():
        add_stack(app, folder, Names("template-saas", "api", name), settings)
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


def test_cfn_lint_finds_nothing(synthesized: Path) -> None:
    templates = [str(synthesized / f"template-saas-api-migrate-{stage}.template.json") for stage in STAGES]

    # W3005: the CDK writes each dependency out, also where a reference implies it.
    command = ["cfn-lint", "--format", "json", "--ignore-checks", "W3005", "--", *templates]
    done = subprocess.run(command, env=with_tools(dict(os.environ)), capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert json.loads(done.stdout) == []
