"""Synthesizes a stage's template without a package and without the CDK's command, for the tests of this folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk.assertions import Template

from infra.stack import MigrateStack
from infra.stages import Stage
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from infra.names import Names

ACCOUNT = "123456789012"
REGION = "eu-central-1"


class Stack:
    """A template, by the kind of its resources."""

    def __init__(self, template: dict[str, Any], *, termination_protection: bool | None = None) -> None:
        self.termination_protection = termination_protection
        self.template = template
        self.text = json.dumps(template)
        self.outputs = template["Outputs"]
        self.resources: dict[str, dict[str, Any]] = template["Resources"]

    def names(self, kind: str) -> list[str]:
        """The logical ids of these resources."""
        return [name for name, resource in self.resources.items() if resource["Type"] == kind]

    def resource(self, name: str) -> dict[str, Any]:
        return self.resources[name]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [resource for resource in self.resources.values() if resource["Type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (resource,) = self.all(kind)
        return resource

    def properties(self, kind: str) -> Any:  # noqa: ANN401 - JSON
        return self.one(kind)["Properties"]

    @property
    def function_name(self) -> str:
        """Return the logical id of the migration function, not of the one that invokes it in a deployment."""
        (name,) = [name for name in self.names("AWS::Lambda::Function") if "CustomResourceProvider" not in name]
        return name

    @property
    def function(self) -> Any:  # noqa: ANN401 - JSON
        return self.resource(self.function_name)["Properties"]

    @property
    def log_group_name(self) -> str:
        """The logical id of the function's log group; the state machine has one, too."""
        return str(self.function["LoggingConfig"]["LogGroup"]["Ref"])

    @property
    def log_group(self) -> dict[str, Any]:
        return self.resource(self.log_group_name)

    @property
    def role(self) -> dict[str, Any]:
        """The role that the function runs as."""
        return self.resource(self.function["Role"]["Fn::GetAtt"][0])

    @property
    def machine(self) -> Any:  # noqa: ANN401 - JSON
        """The state machine."""
        return self.properties("AWS::StepFunctions::StateMachine")

    @property
    def variables(self) -> dict[str, Any]:
        return dict(self.function["Environment"]["Variables"])

    @property
    def statements(self) -> list[dict[str, Any]]:
        """Return all statements of all policies, in every kind of resource that can hold one."""
        policies = [*self.all("AWS::IAM::Policy"), *self.all("AWS::IAM::ManagedPolicy")]
        documents = [policy["Properties"]["PolicyDocument"] for policy in policies]
        for role in self.all("AWS::IAM::Role"):
            documents += [policy["PolicyDocument"] for policy in role["Properties"].get("Policies", [])]
        return [statement for document in documents for statement in document["Statement"]]

    def statements_of(self, role: str) -> list[dict[str, Any]]:
        """The statements of the policies that are attached to the role of this logical id."""
        policies = [policy["Properties"] for policy in self.all("AWS::IAM::Policy")]
        documents = [each["PolicyDocument"] for each in policies if {"Ref": role} in each["Roles"]]
        return [statement for document in documents for statement in document["Statement"]]


def synthesize(folder: Path, stages: Mapping[str, tuple[Names, Mapping[str, Any]]]) -> dict[str, Stack]:
    """The templates of these stages, made in one app, with files in `folder`. A stage may name account and region."""
    app = new_app(folder)
    made = {key: add_stack(app, folder, names, settings) for key, (names, settings) in stages.items()}
    return {
        key: Stack(dict(Template.from_stack(stack).to_json()), termination_protection=stack.termination_protection)
        for key, stack in made.items()
    }


def new_app(folder: Path, *, validated: bool = False) -> cdk.App:
    """An app with the feature flags of cdk.json, with files in `folder`.

    The CDK's validation takes several times as long as the rest. test_rules.py has it for stages of every kind.
    """
    context = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    flags = {name: value for name, value in context.items() if name.startswith("@aws-cdk")}
    return cdk.App(outdir=str(folder / "cdk.out"), context=flags, builtin_cloud_formation_validation=validated)


def add_stack(app: cdk.App, folder: Path, names: Names, settings: Mapping[str, Any]) -> MigrateStack:
    """Return one stage's stack, with an almost empty package."""
    package = folder / "package"
    package.mkdir(exist_ok=True)
    (package / "code.py").write_text("")
    (package / "Dockerfile").write_text("FROM scratch\n")
    stage = Stage.model_validate(settings)
    environment = cdk.Environment(account=stage.account, region=stage.region)
    return MigrateStack(
        app, names.stack, names=names, stage=stage, package=package, asset_hash="0" * 64, env=environment
    )


def as_list(value: object) -> list[Any]:
    """Return the values of an IAM element, which is one value or a list."""
    return value if isinstance(value, list) else [value]


def resolved(value: Any, logical_ids: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Resolve a part of a template as CloudFormation does in `ACCOUNT` and `REGION`."""
    if isinstance(value, list):
        return [resolved(each, logical_ids) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"Ref"}:
        known = {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT, **logical_ids}
        return known[value["Ref"]]
    if value.keys() == {"Fn::GetAtt"}:
        return logical_ids[".".join(value["Fn::GetAtt"])]
    if value.keys() == {"Fn::Join"}:
        separator, parts = value["Fn::Join"]
        return separator.join(resolved(parts, logical_ids))
    return {key: resolved(each, logical_ids) for key, each in value.items()}
