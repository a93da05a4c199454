"""The stages of cdk.json as typed settings, so that a typo is an error with its path before anything is deployed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infra.aws_rules import (
    LONGEST_VARIABLE,
    AccountId,
    AlarmReceiver,
    DatabaseIdentifier,
    KeyArn,
    Name,
    Peer,
    PolicyArn,
    PrefixListId,
    RegionName,
    ResourceId,
    RetentionDays,
    RoleArn,
    SecretId,
    SecretsEndpoint,
    SecurityGroupId,
    ServiceName,
    SubnetId,
    TagKey,
    TagValue,
    VpcId,
    check_codebuild_routes,
    check_names,
    check_s3_route,
    check_tags,
    check_variables,
)
from infra.errors import StageError, invalid, problem
from infra.names import Names
from lambda_migrate.invocation.allowed import with_rollout

if TYPE_CHECKING:
    from typing_extensions import Self

# The names that are valid for dependency groups in pyproject.toml.
GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
DistributionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
Tags = Annotated[Mapping[str, str], Field(min_length=1)]
Share = Annotated[str, Field(pattern=r"^(100|[0-9]{1,2})(\.[0-9]{1,3})?%$")]
Count = Annotated[int, Field(ge=0)]
Gate = Annotated[int, Field(ge=0, le=604_800)] | Literal["approval"]
Patterns = Sequence[Annotated[str, Field(min_length=1, max_length=2048)]]
# Settings of a rollout that the function does not need.
_OF_THE_STACK = {"approval_hours", "kms_key", "resource_ids", "retries", "runs", "soak_alarm", "users"}
# Variables whose values are JSON. A stage may write them as objects.
_OBJECTS = ("DATABASE_ENV", "ALEMBIC_X")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(_Settings):
    """The stage's database, and how the function logs in."""

    secret: SecretId | None = Field(
        default=None,
        description="Name or complete ARN of the secret in Secrets Manager. Optional only for `iam` with `host`,"
        " `name` and `user`",
    )
    host: str | None = Field(
        default=None, description="Set it if the secret has no host. Secrets that RDS manages have none"
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="Set it if the secret has no port")
    name: str | None = Field(
        default=None, min_length=1, description="The database's name. Set it if the secret has none"
    )
    user: str | None = Field(
        default=None, min_length=1, description="The role to log in as. Set it if the secret has no user"
    )
    kms_key: KeyArn | None = Field(
        default=None, description="ARN of the key that encrypts the secret, if it is not `aws/secretsmanager`"
    )
    auth: Literal["password", "iam"] = Field(
        default="password",
        description="`password`, or `iam` for an RDS IAM token. `iam` needs `user` and `resource_id`",
    )
    resource_id: ResourceId | None = Field(
        default=None,
        description="With `iam`: the resource id of the instance, cluster or proxy. The function's role may log in"
        " only there",
    )
    ca_bundle: str | None = Field(
        default=None,
        description="PEM file with the authority that signed the server's certificate, relative to `cdk.json`. The"
        " package contains it. Default: Amazon's bundle for RDS",
    )

    @model_validator(mode="after")
    def _iam_needs_to_know_whom(self) -> Self:
        if self.secret is None and not (self.auth == "iam" and self.host and self.name and self.user):
            raise invalid("required, unless auth is iam and host, name and user are given", key="secret")
        if self.auth == "iam" and not (self.user and self.resource_id):
            raise invalid("auth iam needs user and resource_id beside it")
        if self.auth == "password" and self.resource_id:
            raise invalid("resource_id is for auth iam only")
        return self


class NetworkSettings(_Settings):
    """The database's VPC, and how the function reaches Secrets Manager from it."""

    vpc: VpcId | Tags = Field(description="The VPC's id, an SSM parameter with the id, or the VPC's tags: see below")
    subnets: Sequence[SubnetId] | Tags = Field(
        min_length=1,
        description="Private subnets, by id, parameter or one tag. Choose two in different zones, so that the"
        " function survives the loss of a zone",
    )
    database_security_group: Peer | Tags | Annotated[Sequence[Peer | Tags], Field(min_length=1)] = Field(
        description="The database's security group, by id, parameter or tags, or a list of groups and CIDRs. The"
        " stack allows the function to connect to each of them on the database's port, and adds the"
        " inbound rule to the groups"
    )
    database_port: Annotated[int, Field(ge=1, le=65535)] | Literal["secret"] | None = Field(
        default=None,
        description="The database's port, if `database` has no `port` and it is not 5432. `secret`: CloudFormation"
        " reads `port` from the secret, which must be JSON, during the deployment",
    )
    secrets_endpoint: SecretsEndpoint | Tags = Field(
        default="create",
        description="`create`: the stack makes an interface endpoint for Secrets Manager. `nat`: the subnets have a"
        " NAT gateway. Otherwise the security group of the VPC's existing endpoint; a VPC has at most one"
        " with private DNS",
    )
    s3_prefix_list: PrefixListId | None = Field(
        default=None,
        description="With `rollout` or `long_runs` and without a NAT gateway: the id of S3's prefix list in the"
        " region. The subnets' route tables need a gateway endpoint for S3",
    )
    logs_endpoint: SecurityGroupId | Tags | None = Field(
        default=None,
        description="With `long_runs` and without a NAT gateway: the security group of the VPC's interface endpoint"
        " for CloudWatch Logs. The endpoint needs private DNS",
    )

    @model_validator(mode="after")
    def _tags_are_looked_up_together(self) -> Self:
        by_tags = [isinstance(each, Mapping) for each in (self.vpc, self.subnets)]
        if any(by_tags) and not all(by_tags):
            raise invalid("vpc and subnets are both given by tags, or both by ids and parameters")
        if isinstance(self.subnets, Mapping) and len(self.subnets) != 1:
            raise invalid("subnets: one tag, which all of them have and others have not")
        return self

    @property
    def databases(self) -> Sequence[str | Mapping[str, str]]:
        """Return the security groups and CIDRs of the databases."""
        given = self.database_security_group
        return [given] if isinstance(given, (str, Mapping)) else given

    @property
    def has_lookups(self) -> bool:
        """Return whether a setting is given by tags, which the synthesis looks up in the account."""
        return any(
            isinstance(each, Mapping) for each in (self.vpc, *self.databases, self.secrets_endpoint, self.logs_endpoint)
        )


class GithubSettings(_Settings):
    """The workflow that may invoke the function, without an AWS key in GitHub."""

    repository: str = Field(pattern=r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", description="`owner/name`")
    environment: str = Field(
        pattern=r"^[A-Za-z0-9._-]+$",
        description="The workflow's `environment`. Its protection rules decide who can migrate this stage",
    )
    owner_id: int | None = Field(
        default=None,
        ge=1,
        description="The owner's numeric id, if GitHub's tokens contain it: see [ci.md](ci.md#set-up-once)",
    )
    repository_id: int | None = Field(
        default=None, ge=1, description="The repository's numeric id. Set both ids or neither"
    )

    @model_validator(mode="after")
    def _numbers_come_together(self) -> Self:
        if (self.owner_id is None) != (self.repository_id is None):
            raise invalid("owner_id and repository_id need each other: GitHub sends both or neither")
        return self

    @property
    def subject(self) -> str:
        """Return the subject of the tokens that GitHub issues to this workflow."""
        repository = self.repository
        if self.owner_id is not None:
            owner, name = repository.split("/")
            repository = f"{owner}@{self.owner_id}/{name}@{self.repository_id}"
        return f"repo:{repository}:environment:{self.environment}"


class RolloutTarget(_Settings):
    """A tenant: its secret, database or schema. Each defaults to the stage's own."""

    name: str | None = Field(
        default=None, min_length=1, description="The target's name. Default: made of the other fields"
    )
    secret_id: SecretId | None = Field(default=None, description="Name or complete ARN of the target's secret")
    database: str | None = Field(default=None, min_length=1, description="The target's database on its server")
    schema_: str | None = Field(
        default=None, min_length=1, alias="schema", description="The target's schema in its database"
    )
    server: str | None = Field(
        default=None, min_length=1, description="Any name for the target's server. Default: host and port of its secret"
    )
    priority: float = Field(default=0, description="Targets with a lower priority run first")
    group: str | None = Field(default=None, min_length=1, description="The name of the target's group, as in `groups`")

    @model_validator(mode="after")
    def _is_a_place(self) -> Self:
        if not (self.name or self.secret_id or self.database or self.schema_):
            raise invalid("a target needs a name, secret_id, database or schema")
        return self


class ExcludedTarget(_Settings):
    """A target that rollouts leave out until a date."""

    name: str = Field(min_length=1, max_length=512, description="The target's name")
    reason: str = Field(min_length=1, max_length=200, description="The reason, for the report")
    until: date = Field(description="The last day of the exclusion in UTC, such as `2026-12-31`")


class LongRunSettings(_Settings):
    """A CodeBuild project for runs without Lambda's limit of 15 minutes. It costs only while it runs."""

    hours: int = Field(default=8, ge=1, le=35, description="The time limit of one long run")
    compute: Literal["small", "medium", "large"] = Field(
        default="small",
        description="CodeBuild's size: 2, 4 or 8 processors. The database server does the work, so `small` is enough",
    )


class SnapshotSettings(_Settings):
    """The cluster or instance whose snapshot the state machine makes before a dangerous run."""

    cluster: DatabaseIdentifier | None = Field(
        default=None, description="The identifier of the Aurora or Multi-AZ cluster"
    )
    instance: DatabaseIdentifier | None = Field(
        default=None, description="The identifier of the RDS instance. Set either `cluster` or `instance`"
    )
    timeout_minutes: int = Field(
        default=120,
        ge=5,
        le=720,
        description="The longest time to wait for the snapshot. After it, the migration does not run",
    )

    @model_validator(mode="after")
    def _is_of_one_database(self) -> Self:
        if (self.cluster is None) == (self.instance is None):
            raise invalid("a snapshot is of a cluster or of an instance: give one of them")
        return self

    @property
    def kind(self) -> str:
        """`cluster` or `instance`."""
        return "cluster" if self.cluster else "instance"

    @property
    def identifier(self) -> str:
        """Return the identifier of the database whose snapshot is made."""
        return self.cluster or self.instance or ""


class SecretTag(_Settings):
    """The tag of the targets' secrets."""

    key: str = Field(min_length=1, max_length=128, description="The tag's key")
    value: str = Field(min_length=1, max_length=256, description="The tag's value")


class RolloutSettings(_Settings):
    """The targets that the stage's state machine migrates, and the limits of a rollout."""

    targets: Sequence[RolloutTarget] = Field(
        default=(), description="A list of targets. Use it if there are only a few"
    )
    secret_prefix: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^[A-Za-z0-9/_+=.@-]+$",
        description="Every secret whose name begins with this prefix is a target. With `query`, its rows may name"
        " only such secrets",
    )
    secret_tag: SecretTag | None = Field(default=None, description="Every secret with this tag is a target")
    query: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="A SELECT on the stage's own database that returns one target a row. It returns any of the"
        " columns `secret_id`, `database`, `schema`, `name`, `server`, `priority`, `group`",
    )
    kms_key: KeyArn | None = Field(
        default=None, description="ARN of the key that encrypts the targets' secrets, if it is not `aws/secretsmanager`"
    )
    resource_ids: Sequence[ResourceId] = Field(
        default=(),
        description="With `iam`: the resource ids of the targets' servers, if they differ from the stage's own",
    )
    users: Sequence[Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?.-]+$")]] = Field(
        default=(),
        description="With `iam`: the users in the targets' secrets, if they differ from the stage's own. `*` matches"
        " any characters",
    )
    canaries: Sequence[str] | Count | Share = Field(
        default=1,
        description="The first wave: names, a number, or a share such as `5%`. A single failure in it stops the"
        " rollout. If all named canaries are left out of a rollout, one other target is the canary; with `--target`,"
        " there is none",
    )
    waves: Sequence[Annotated[int, Field(ge=1)] | Share] = Field(
        default=(),
        max_length=50,
        description="The sizes of the following waves, as numbers or shares. The last wave contains the remaining"
        " targets",
    )
    concurrency: int = Field(default=10, ge=1, le=1000, description="The most targets that run at once")
    per_server: int = Field(
        default=5, ge=1, le=1000, description="The most targets that run at once on one database server"
    )
    tolerated_failures: Count | Share = Field(
        default=0,
        description="The failures that each wave after the canaries may have, as a number or a share. After one more,"
        " no further target starts",
    )
    retries: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="The retries after `MigrationLocked`, `LockTimeout` and `DatabaseUnavailable`",
    )
    retry_after_s: int = Field(
        default=5,
        ge=1,
        le=600,
        description="The pause before the first retry. It doubles for each retry, up to a minute, and is shortened at"
        " random",
    )
    runs: int = Field(default=100, ge=1, le=1000, description="The most function runs for one target")
    excluded: Sequence[ExcludedTarget] = Field(
        default=(), description="Targets that the rollout leaves out until a date, and lists in its report"
    )
    groups: Sequence[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default=(),
        max_length=50,
        description="The order of the targets' groups. Targets without a listed group come last",
    )
    between_waves: Gate = Field(
        default=0, description="A pause in seconds, or `approval`, before each wave but the first"
    )
    between_groups: Gate = Field(
        default=0, description="The same before the first wave of each further group. With 0, `between_waves` applies"
    )
    approval_hours: int = Field(
        default=24, ge=1, le=2160, description="The rollout stops if nobody approves it for this time"
    )
    soak_s: Annotated[int, Field(ge=0, le=604_800)] = Field(
        default=0, description="The shortest pause after the canaries, in seconds"
    )
    soak_alarm: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="The name of a CloudWatch alarm. If it is on during `soak_s`, the rollout stops",
    )

    @model_validator(mode="after")
    def _an_alarm_is_looked_at_in_a_soak_time(self) -> Self:
        if self.soak_alarm and not self.soak_s:
            raise invalid("soak_alarm needs soak_s: the rollout reads the alarm only while the canaries soak")
        return self

    @model_validator(mode="after")
    def _from_one_source(self) -> Self:
        sources = [self.targets, self.secret_tag, self.query, None if self.query else self.secret_prefix]
        if sum(1 for source in sources if source) > 1:
            raise invalid(
                "set only one of targets, secret_tag, query and secret_prefix (query may have a secret_prefix)"
            )
        if len(self.as_variable) > LONGEST_VARIABLE:
            raise invalid(
                f"the settings exceed the {LONGEST_VARIABLE} characters of Lambda's variables: name the targets by"
                " secret_prefix, secret_tag or query"
            )
        return self

    @property
    def as_variable(self) -> str:
        """Return the settings that the function needs, as JSON."""
        known = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_OF_THE_STACK)
        return json.dumps(known, separators=(",", ":"), sort_keys=True)


class TargetsAllowed(_Settings):
    """Patterns of the names that an event's ``target`` may have, in addition to the targets of ``rollout``."""

    secret_id: Patterns | None = Field(default=None, description="Patterns of names or ARNs of secrets")
    database: Patterns | None = Field(default=None, description="Patterns of names of databases")
    schema_: Patterns | None = Field(default=None, alias="schema", description="Patterns of names of schemas")


class AccountSettings(_Settings):
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


class Options(_Settings):
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
        if not isinstance(environment, Mapping):
            return environment
        objects = {name: environment[name] for name in _OBJECTS if isinstance(environment.get(name), Mapping)}
        return {**environment, **{name: json.dumps(value) for name, value in objects.items()}}

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
    def _rollouts_check_s3_route(self) -> Self:
        if self.network:
            try:
                check_s3_route(self.rollout, self.network.secrets_endpoint, self.network.s3_prefix_list)
                if self.long_runs:
                    network = self.network
                    check_codebuild_routes(network.secrets_endpoint, network.s3_prefix_list, network.logs_endpoint)
            except StageError as error:
                raise invalid(str(error)) from None
        return self


class Project(_Settings):
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
