"""cdk.json's settings: valid ones, and errors of one line with the path of the wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import aws_cdk as cdk
import pytest

from infra.errors import StageError
from infra.stages import Project, Stage, read_project

ROOT = Path(__file__).resolve().parents[2]

MINIMAL = {"database": {"secret": "x"}}


def read(stage: object) -> Stage:
    return read_project({"stages": {"dev": stage}}).stage("dev")


def test_the_projects_own_cdk_json_is_fine() -> None:
    context = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]

    project = read_project(context["project"])

    assert {"local", "dev", "prod"} <= project.stages.keys()


def test_a_stage_needs_nothing_but_its_databases_secret() -> None:
    stage = read(MINIMAL)

    assert stage.database.secret == "x"
    assert (stage.account, stage.region, stage.environment) == (None, None, {})


def test_names_have_the_contracts_defaults() -> None:
    project = Project.model_validate({"stages": {}})

    assert (project.prefix, project.service) == ("template-saas", "api")


@pytest.mark.parametrize(
    "stage, path, expected",
    [
        ({}, "dev.database", "required"),
        ({"database": {}}, "dev.database.secret", "required"),
        ({"database": {"secret": ""}}, "dev.database.secret", "pattern"),
        ({"database": {"secret": "x", "hots": "y"}}, "dev.database.hots", "not permitted"),
        ({"database": {"secret": "x", "port": 0}}, "dev.database.port", "greater than or equal to 1"),
        ({"database": {"secret": "x", "port": 65536}}, "dev.database.port", "less than or equal to 65535"),
        ({"database": "x"}, "dev.database", "DatabaseSettings"),
        ({**MINIMAL, "memory": 512}, "dev.memory", "not permitted"),
        ({**MINIMAL, "memory_mb": "much"}, "dev.memory_mb", "integer"),
        ({**MINIMAL, "memory_mb": 127}, "dev.memory_mb", "128"),
        ({**MINIMAL, "memory_mb": 10241}, "dev.memory_mb", "10240"),
        ({**MINIMAL, "timeout_s": 29}, "dev.timeout_s", "30"),
        ({**MINIMAL, "timeout_s": 901}, "dev.timeout_s", "900"),
        ({**MINIMAL, "log_retention_days": 2}, "dev.log_retention_days", "1, 3, 5"),
        ({**MINIMAL, "runtime": "python3.9"}, "dev.runtime", "python3.12"),
        ({**MINIMAL, "architecture": "arm"}, "dev.architecture", "arm64"),
        ({**MINIMAL, "dependency_group": ""}, "dev.dependency_group", "pattern"),
        ({**MINIMAL, "requirements": "imported"}, "dev.requirements", "'locked' or 'traced'"),
        ({**MINIMAL, "aws_services": ["S3"]}, "dev.aws_services.0", "pattern"),
        ({**MINIMAL, "packaging": "jar"}, "dev.packaging", "'zip' or 'image'"),
        ({**MINIMAL, "packaging": "image", "runtime": "local"}, "dev", "local is not one"),
        ({**MINIMAL, "account": "12"}, "dev.account", "[0-9]{12}"),
        ({**MINIMAL, "region": "Frankfurt"}, "dev.region", "pattern"),
        ({**MINIMAL, "environment": {"LOG_LEVEL": 1}}, "dev.environment.LOG_LEVEL", "string"),
        ({"database": {"secret": "x", "kms_key": "alias/mine"}}, "dev.database.kms_key", "pattern"),
        ({"database": {"secret": "x", "user": ""}}, "dev.database.user", "at least 1"),
        ({"database": {"secret": "x", "auth": "none"}}, "dev.database.auth", "'password' or 'iam'"),
        ({"database": {"secret": "x", "auth": "iam"}}, "dev.database", "needs user and resource_id"),
        (
            {"database": {"auth": "iam", "user": "u", "resource_id": "db-A"}},
            "dev.database.secret",
            "host, name and user",
        ),
        (
            {"database": {"secret": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x"}},
            "dev.database.secret",
            "six",
        ),
        (
            {
                "database": {"secret": "x", "port": 1},
                "network": {
                    "vpc": "vpc-0a",
                    "subnets": ["subnet-0a"],
                    "database_security_group": "sg-0a",
                    "database_port": "secret",
                },
            },
            "dev",
            "no database.port",
        ),
        ({**MINIMAL, "rollout": {"users": ["u"]}}, "dev", "database.auth iam"),
        ({**MINIMAL, "rollout": {"resource_ids": ["db-A"]}}, "dev", "database.auth iam"),
        ({**MINIMAL, "rollout": {}, "migrate_on_deploy": True}, "dev", "migrate rollout"),
        ({**MINIMAL, "environment": {"AWS_REGION": "x"}}, "dev", "remove AWS_REGION, which only Lambda"),
        ({**MINIMAL, "environment": {"_HANDLER": "x"}}, "dev", "remove _HANDLER, which only Lambda"),
        ({**MINIMAL, "environment": {"LOG-LEVEL": "x"}}, "dev", "not a valid name of a variable"),
        ({"database": {"secret": "x", "auth": "iam", "user": "u"}}, "dev.database", "needs user and resource_id"),
        ({"database": {"secret": "x", "auth": "iam", "resource_id": "db-A"}}, "dev.database", "needs user"),
        ({"database": {"secret": "x", "resource_id": "db-A"}}, "dev.database", "for auth iam only"),
        ({"database": {"secret": "x", "resource_id": "mydb"}}, "dev.database.resource_id", "pattern"),
        ({**MINIMAL, "invokers": "arn:aws:iam::123456789012:role/ci"}, "dev.invokers", "Sequence"),
        ({**MINIMAL, "invokers": ["*"]}, "dev.invokers.0", "pattern"),
        ({**MINIMAL, "invokers": ["arn:aws:iam::123456789012:role/ci"] * 41}, "dev.invokers", "at most 40"),
        ({**MINIMAL, "invokers": ["arn:aws:iam::123456789012:user/me"]}, "dev.invokers.0", "pattern"),
        ({**MINIMAL, "github": {"repository": "acme/app"}}, "dev.github.environment", "required"),
        ({**MINIMAL, "github": {"repository": "acme", "environment": "e"}}, "dev.github.repository", "pattern"),
        ({**MINIMAL, "github": {"repository": "acme/*", "environment": "e"}}, "dev.github.repository", "pattern"),
        ({**MINIMAL, "github": {"repository": "acme/app", "environment": "*"}}, "dev.github.environment", "pattern"),
        ({**MINIMAL, "github": {"repository": "a/b", "environment": "e", "branch": "x"}}, "dev.github.branch", "not"),
        ({**MINIMAL, "github": {"repository": "a/b", "environment": "e", "owner_id": 1}}, "dev.github", "both"),
        ({**MINIMAL, "github": {"repository": "a/b", "environment": "e", "repository_id": 1}}, "dev.github", "both"),
        (
            {**MINIMAL, "github": {"repository": "a/b", "environment": "e", "owner_id": "a", "repository_id": 1}},
            "dev.github.owner_id",
            "integer",
        ),
        ({**MINIMAL, "alarms": "nobody"}, "dev.alarms", "pattern"),
        ({**MINIMAL, "alarms": "arn:aws:sqs:eu-central-1:123456789012:q"}, "dev.alarms", "pattern"),
        ({**MINIMAL, "kms_key": "mine"}, "dev.kms_key", "pattern"),
        ({**MINIMAL, "protect": "perhaps"}, "dev.protect", "boolean"),
        ({**MINIMAL, "allow_downgrade": "perhaps"}, "dev.allow_downgrade", "boolean"),
        ({**MINIMAL, "migrate_on_deploy": 2}, "dev.migrate_on_deploy", "boolean"),
        ({**MINIMAL, "tags": {"team": 1}}, "dev.tags.team", "string"),
        ({**MINIMAL, "tags": {"aws:team": "a"}}, "dev.tags", "AWS reserves tags"),
        ({**MINIMAL, "tags": {"team": "<a>"}}, "dev.tags.team", "pattern"),
        ({**MINIMAL, "tags": {"t" * 129: "a"}}, f"dev.tags.{'t' * 129}", "at most 128"),
        ({**MINIMAL, "tags": {f"tag-{number}": "" for number in range(49)}}, "dev.tags", "at most 48"),
        # The role may read what the name is, and IAM knows wildcards.
        ({"database": {"secret": "*"}}, "dev.database.secret", "pattern"),
        ({"database": {"secret": "prod/?"}}, "dev.database.secret", "pattern"),
        (
            {**MINIMAL, "rollout": {"targets": [{"secret_id": "tenants/*"}]}},
            "dev.rollout.targets.0.secret_id",
            "pattern",
        ),
        (
            {
                **MINIMAL,
                "rollout": {"targets": [{"secret_id": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x"}]},
            },
            "dev.rollout.targets.0.secret_id",
            "six",
        ),
        ([], "dev", "Stage"),
    ],
)
def test_a_wrong_setting_raises_one_line_with_its_path(stage: object, path: str, expected: str) -> None:
    with pytest.raises(StageError) as caught:
        read(stage)

    message = str(caught.value)
    assert message.startswith(f"cdk.json: project.stages.{path}: ")
    assert expected in message
    assert message.splitlines() == [message]


@pytest.mark.parametrize(
    "context, path",
    [
        (None, "project"),
        ({}, "project.stages"),
        ({"stages": {}, "perfix": "x"}, "project.perfix"),
        ({"stages": {}, "prefix": "Not A Name"}, "project.prefix"),
        ({"stages": {}, "service": ""}, "project.service"),
        ({"stages": {"de v": MINIMAL}}, "project.stages.de v"),
        ({"stages": {"a" * 32: MINIMAL}}, f"project.stages.{'a' * 32}"),
    ],
)
def test_a_wrong_project_raises_one_line_with_its_path(context: object, path: str) -> None:
    with pytest.raises(StageError) as caught:
        read_project(context)

    message = str(caught.value)
    assert message.startswith(f"cdk.json: {path}: ")
    assert message.splitlines() == [message]


def test_the_error_of_an_unknown_stage_lists_the_known_ones() -> None:
    project = read_project({"stages": {"dev": MINIMAL, "prod": MINIMAL}})

    with pytest.raises(StageError) as caught:
        project.stage("dve")

    assert str(caught.value) == "there is no stage 'dve' in cdk.json: pass -c stage=NAME, one of dev, prod"


def test_the_error_of_a_missing_stage_lists_the_known_ones() -> None:
    project = read_project({"stages": {"dev": MINIMAL}})

    with pytest.raises(StageError) as caught:
        project.stage("")

    assert str(caught.value) == "no stage was chosen: pass -c stage=NAME, one of dev"


def test_a_function_name_longer_than_lambda_allows_is_refused() -> None:
    project = read_project({"prefix": "p" * 28, "service": "s" * 20, "stages": {"dev": {"database": {"secret": "x"}}}})
    with pytest.raises(StageError, match="64 characters"):
        project.stage("dev")


def test_a_secret_may_be_one_of_the_same_app() -> None:
    arn = cdk.Token.as_string({"Ref": "TenantSecret"})

    assert read({"database": {"secret": arn}}).database.secret == arn


@pytest.mark.parametrize("names", [("Prod", "prod"), ("my_shop", "my-shop"), ("EU_1", "eu-1")])
def test_stages_with_the_same_names_in_aws_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(StageError, match=f"{names[0]} and {names[1]} have the same names in AWS"):
        read_project({"stages": dict.fromkeys(names, MINIMAL)})
    assert read_project({"stages": {names[0]: MINIMAL, "other": MINIMAL}}).stage(names[0]) == read(MINIMAL)
