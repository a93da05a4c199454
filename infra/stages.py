"""The stages of cdk.json as typed settings, so that a typo is an error with its path before anything is deployed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from infra.aws_rules import (
    LONGEST_VARIABLE,
    AccountId,
    AlarmReceiver,
    KeyArn,
    Name,
    PolicyArn,
    RegionName,
    RetentionDays,
    RoleArn,
    ServiceName,
    TagKey,
    TagValue,
    check_names,
    check_tags,
    check_variables,
)
from infra.environment import as_texts
from infra.errors import StageError, invalid, problem
from infra.names import Names
from infra.settings.database import DatabaseSettings
from infra.settings.github import GithubSettings
from infra.settings.network import NetworkSettings
from infra.settings.rollout import RolloutSettings, TargetsAllowed
from infra.settings.runs import LongRunSettings, SnapshotSettings
from infra.settings.section import Section
from lambda_migrate.invocation.allowed import with_rollout

if TYPE_CHECKING:
    from typing_extensions import Self

# The names that are valid for dependency groups in pyproject.toml.
GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
DistributionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]


class AccountSettings(Section):
    """The settings of a stage that refer to an account."""

    account: AccountId | None = Field(
        default=None, description="The AWS account. Default: the account of the AWS profile"
    )
    region: RegionName | None = Field(
        default=None,
        description="The region. Default: the region of the AWS profile",
    )
    database: DatabaseSettings = Field(description="Where the database is, and how to log in: see below")
    network: NetworkSettings | None = Field(
        default=None, description="The VPC of the database: see below. Without it, the function is in no VPC"
    )
    kms_key: KeyArn | None = Field(
        default=None,
        description="ARN of the key that encrypts logs, alarms, executions and rollouts: see below",
    )
    bootstrap_qualifier: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]{1,10}$",
        description="A CDK bootstrap stack that can deploy only this stage, with the policies of `make"
        " execution-policy`: [ci.md](ci.md#the-deploy-role)",
    )


class Options(Section):
    """The settings of a function other than `AccountSettings`: settings of a stage, and arguments of `Migrations`."""

    backend: str = Field(default="back", description="The backend's folder, relative to `cdk.json`")
    alembic_config: str | None = Field(
        default=None,
        description="The path of an ini file or a `pyproject.toml` in that folder. Default: `alembic.ini`, a"
        " `pyproject.toml` with `[tool.alembic]`, or the only one of them in a folder below",
    )
    runtime: Literal["python3.11", "python3.12", "python3.13", "python3.14", "local"] = Field(
        default="python3.13",
        description="Lambda's Python runtime. `local`: this machine's Python under AWS's runtime client, for the"
        " local cloud",
    )
    architecture: Literal["arm64", "x86_64"] = Field(
        default="arm64", description="The function's processor. Any machine can build the package for it"
    )
    dependency_group: GroupName | None = Field(
        default=None,
        description="A dependency group of the backend's lock. The package contains it instead of all dependencies",
    )
    extras: Sequence[GroupName] = Field(default=(), description="Extras of the backend's own project to package")
    exclude: Sequence[DistributionName] = Field(
        default=(), description="Distributions of the lock to leave out of the package"
    )
    requirements: Literal["locked", "traced"] = Field(
        default="locked",
        description="`traced`: package only those locked distributions that the migrations import: see below",
    )
    requirements_file: str | None = Field(
        default=None,
        description="The path of another lock or requirements file in the backend's folder, such as"
        " `requirements/prod.txt`",
    )
    aws_services: Sequence[ServiceName] = Field(
        default=(),
        description="AWS services that the backend uses and the build does not find in its code: see below",
    )
    package_files: Sequence[str] = Field(
        default=(),
        description="Patterns of files that revisions, `env.py` or your application read, such as `sql/*.sql`",
    )
    packaging: Literal["zip", "image"] = Field(
        default="zip",
        description="`image`: a container image, for a package larger than 250 MB, Lambda's limit for an archive",
    )
    memory_mb: int = Field(
        default=512, ge=128, le=10240, description="The function's memory. Lambda assigns processor time in proportion"
    )
    timeout_s: int = Field(
        default=900, ge=30, le=900, description="The function's time limit. A run stops cleanly before it"
    )
    # Lambda takes 20 KB in a function's own policy, and each role takes about 400 bytes of it.
    invokers: Sequence[RoleArn] = Field(
        default=(),
        max_length=40,
        description="ARNs of at most 40 roles that may invoke the function, in this account or another",
    )
    github: GithubSettings | None = Field(
        default=None, description="A GitHub workflow that may invoke the function and read its log: see below"
    )
    alarms: AlarmReceiver | None = Field(
        default=None,
        description="An e-mail address, or the ARN of an SNS topic. Without it, alarms notify nobody",
    )
    log_retention_days: RetentionDays = Field(
        default=90, description="The days for which CloudWatch Logs keeps the log"
    )
    protect: bool | None = Field(
        default=None,
        description="The stack refuses to be deleted, and its log outlives it. Default: true for the stage `prod`",
    )
    rollout: RolloutSettings | None = Field(
        default=None, description="A database or schema for each tenant: [rollouts.md](rollouts.md)"
    )
    long_runs: LongRunSettings | None = Field(
        default=None,
        description="A CodeBuild project for statements that exceed the function's time limit: see below",
    )
    snapshot: SnapshotSettings | None = Field(
        default=None,
        description="The state machine makes a snapshot of the database before a dangerous run: see below",
    )
    targets_allowed: TargetsAllowed = Field(
        default_factory=TargetsAllowed,
        description="Patterns of the names that an event's `target` may have: see below",
    )
    allow_downgrade: bool = Field(default=False, description="Permits `downgrade` and `stamp`")
    preflight: Literal["off", "warn", "enforce"] = Field(
        default="warn",
        description="If a revision would fail on this database's rows or block for long: do not check (`off`), log it"
        " (`warn`), or refuse the upgrade (`enforce`) ([contract.md](contract.md#preflight))",
    )
    migrate_on_deploy: bool = Field(
        default=False, description="The deployment runs the migration, and fails if it fails: see below"
    )
    environment: Mapping[str, str] = Field(
        default_factory=dict,
        description="More variables for the function. They override those of the stack. `DATABASE_ENV` and"
        " `ALEMBIC_X` may be objects ([the list](contract.md#environment-variables))",
    )
    permissions_boundary: PolicyArn | None = Field(
        default=None,
        description="ARN of a managed policy that limits every role of the stack. `bootstrap_qualifier` has its own",
    )
    tags: Mapping[TagKey, TagValue] = Field(
        default_factory=dict,
        # AWS allows 50 for a resource.
        max_length=48,
        description="Tags for every resource, in addition to `project` and `stage`",
    )

    @field_validator("environment", mode="before")
    @classmethod
    def _objects_are_json(cls, environment: object) -> object:
        return as_texts(environment) if isinstance(environment, Mapping) else environment

    @model_validator(mode="after")
    def _variables_are_ones_to_set(self) -> Self:
        check_variables(self.environment)
        return self

    @field_validator("tags")
    @classmethod
    def _tags_are_not_awss_own(cls, tags: Mapping[str, str]) -> Mapping[str, str]:
        check_tags(tags)
        return tags

    @model_validator(mode="after")
    def _fits_lambdas_variables(self) -> Self:
        size = len(self.targets_allowed_as_variable or "") + len(self.rollout.as_variable if self.rollout else "")
        if size > LONGEST_VARIABLE:
            raise invalid(
                f"rollout and targets_allowed have {size} characters, and Lambda's variables hold {LONGEST_VARIABLE}:"
                " name the targets by secret_prefix, secret_tag, query or a pattern"
            )
        return self

    @property
    def targets_allowed_as_variable(self) -> str | None:
        """Return the patterns of `targets_allowed` and `rollout` as JSON, or None if there are none."""
        given = self.targets_allowed.model_dump(mode="json", by_alias=True, exclude_none=True)
        rollout = self.rollout.model_dump(mode="json", by_alias=True) if self.rollout else None
        allowed = with_rollout(given, rollout)
        return json.dumps(allowed, separators=(",", ":"), sort_keys=True) if allowed else None

    @model_validator(mode="after")
    def _one_of_them_migrates(self) -> Self:
        if self.migrate_on_deploy and self.rollout:
            raise invalid(
                "migrate_on_deploy migrates one database, and rollout many: remove migrate_on_deploy, deploy, then run"
                " `migrate rollout --stage STAGE`"
            )
        if self.migrate_on_deploy and self.long_runs:
            raise invalid(
                "migrate_on_deploy ends after 15 minutes, as CloudFormation waits for at most an hour, and long_runs"
                " take longer: remove migrate_on_deploy, deploy, then run `migrate upgrade --long --stage STAGE`"
            )
        return self

    @model_validator(mode="after")
    def _a_snapshot_is_of_the_stages_own_database(self) -> Self:
        if self.snapshot and self.rollout:
            raise invalid(
                "snapshot is for the stage's one database, and the targets of rollout may be on several servers: make"
                " their snapshots before the rollout"
            )
        if self.snapshot and self.migrate_on_deploy:
            raise invalid(
                "migrate_on_deploy does not use the state machine, which makes the snapshot: remove migrate_on_deploy,"
                " deploy, then run `migrate rollout`"
            )
        return self

    @model_validator(mode="after")
    def _an_image_has_a_runtime_of_lambdas(self) -> Self:
        if self.packaging == "image" and self.runtime == "local":
            raise invalid("packaging image needs one of Lambda's runtimes, and local is not one")
        return self

    @property
    def in_full_cloud(self) -> bool:
        """Return whether the stage is for AWS. The local cloud's CloudFormation refuses some resources.

        These are saved queries (``AWS::Logs::QueryDefinition``) and alarms on an expression.
        """
        return self.runtime != "local"

    def is_protected(self, names: Names) -> bool:
        """Return whether the stack refuses to be deleted."""
        return names.is_production if self.protect is None else self.protect

    def all_tags(self, names: Names) -> dict[str, str]:
        """Return the tags of every resource."""
        return {"project": names.prefix, "stage": names.stage, **self.tags}

    def check_routes(self, *, secrets_endpoint: object, s3_prefix_list: object, logs_endpoint: object) -> None:
        """Refuse rollouts and long runs in a VPC without a route to the services that they use.

        Raises:
            StageError: there is no route to S3 or to CloudWatch Logs.
        """
        if secrets_endpoint == "nat":
            return
        if self.rollout and not s3_prefix_list:
            raise StageError(
                "rollout stores objects in S3: set network.s3_prefix_list, or network.secrets_endpoint to nat"
            )
        if self.long_runs and not (s3_prefix_list and logs_endpoint):
            raise StageError(
                "long_runs: CodeBuild reads the package from S3 and writes to CloudWatch Logs from within the VPC: set"
                " network.secrets_endpoint to nat, or both network.s3_prefix_list and network.logs_endpoint"
            )


class Stage(Options, AccountSettings):
    """One stage of cdk.json: all settings of one function."""

    @model_validator(mode="after")
    def _one_boundary_limits_roles(self) -> Self:
        if self.bootstrap_qualifier and self.permissions_boundary:
            raise invalid("permissions_boundary: bootstrap_qualifier has its own boundary; set only one of them")
        return self

    @model_validator(mode="after")
    def _tags_are_looked_up_somewhere(self) -> Self:
        if self.network and self.network.has_lookups and not (self.account and self.region):
            raise invalid("network: a lookup by tags needs the stage's account and region")
        return self

    @model_validator(mode="after")
    def _iam_is_for_all(self) -> Self:
        rollout = self.rollout
        if rollout and (rollout.resource_ids or rollout.users) and self.database.auth != "iam":
            raise invalid("rollout: resource_ids and users need database.auth iam")
        return self

    @model_validator(mode="after")
    def _a_port_of_the_secret_has_one(self) -> Self:
        if self.network and self.network.database_port == "secret" and (self.database.port or not self.database.secret):
            raise invalid("network: database_port secret needs database.secret, and no database.port")
        return self

    @model_validator(mode="after")
    def _has_routes(self) -> Self:
        if self.network:
            try:
                self.check_routes(
                    secrets_endpoint=self.network.secrets_endpoint,
                    s3_prefix_list=self.network.s3_prefix_list,
                    logs_endpoint=self.network.logs_endpoint,
                )
            except StageError as error:
                raise invalid(str(error)) from None
        return self


class Project(Section):
    """``project`` of cdk.json: the parts of every name, and the stages."""

    prefix: Name = Field(default="template-saas", description="The first part of every name")
    service: Name = Field(
        default="api", description="The second part of every name: the backend whose database is migrated"
    )
    stages: Mapping[Name, Stage] = Field(description="The stages by name. Any number of them may share an account")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        stacks: dict[str, str] = {}
        for stage in self.stages:
            # IAM does not distinguish capitals, and the names of buckets have none.
            other = stacks.setdefault(self.names(stage).stack.lower(), stage)
            if other != stage:
                raise invalid(f"stages: {other} and {stage} have the same names in AWS: rename one of them")
        return self

    def stage(self, name: str) -> Stage:
        """Return the settings of one stage.

        Raises:
            StageError: there is no such stage.
        """
        if name not in self.stages:
            known = ", ".join(self.stages)
            wrong = f"there is no stage {name!r} in cdk.json" if name else "no stage was chosen"
            raise StageError(f"{wrong}: pass -c stage=NAME, one of {known}")
        try:
            check_names(self.names(name))
        except StageError as error:
            raise StageError(f"cdk.json: {error}") from None
        return self.stages[name]

    def names(self, stage: str) -> Names:
        """Return the names of a stage's resources."""
        return Names(self.prefix, self.service, stage)


def read_project(context: object) -> Project:
    """Return the checked ``project`` of cdk.json's context.

    Raises:
        StageError: names the path of the first wrong or unknown key, and the valid values.
    """
    try:
        return Project.model_validate(context)
    except ValidationError as error:
        raise StageError(f"cdk.json: {problem(error, 'project')}") from None
