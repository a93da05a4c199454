"""The stages of cdk.json as typed settings, so that a typo is an error with its path and not a surprise on AWS."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from infra.names import Names
from lambda_migrate.invocation.allowed import with_rollout

if TYPE_CHECKING:
    from typing_extensions import Self

# As a retention that CloudWatch Logs accepts (its API's PutRetentionPolicy).
RetentionDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3653
]
_LONGEST_FUNCTION_NAME = 64
# Lambda's limit for all variables together is 4 KB.
_LONGEST_VARIABLE = 3000
_SECURITY_GROUP = r"^sg-[0-9a-f]+$"
# A partition, a service and an account; the rest is each resource's own.
_ARN = r"^arn:aws[a-z-]*:"
_SNS_TOPIC = _ARN + r"sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$"
_COMPLETE_ARN = r"-[A-Za-z0-9]{6}$"
# What the function need not know of its rollouts.
_OF_THE_STACK = {"approval_hours", "kms_key", "resource_ids", "retries", "runs", "soak_alarm", "users"}
# As Lambda's developer guide lists them ("Defined runtime environment variables"): it refuses a function that sets one.
RESERVED_VARIABLES = frozenset(
    {
        *("_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV"),
        *(f"AWS_LAMBDA_FUNCTION_{name}" for name in ("NAME", "MEMORY_SIZE", "VERSION")),
        *("AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"),
        *("AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"),
    }
)
# Variables that are JSON; a stage may write them as objects.
_OBJECTS = ("DATABASE_ENV", "ALEMBIC_X")
_EMAIL = r"^[^@\s:]+@[^@\s:]+\.[^@\s:]+$"
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
# A key and not its alias: what a role may decrypt is said by the key.
KeyArn = Annotated[str, Field(pattern=_ARN + r"kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$")]
# As the groups of a pyproject.toml are called, and AWS's services in boto3.
GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
DistributionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
ServiceName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
ResourceId = Annotated[str, Field(pattern=r"^(db|cluster|prx)-[A-Za-z0-9]+$")]
# A security group or a CIDR, of IPv4 or IPv6.
_CIDR = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$|^[0-9a-f:]+/[0-9]{1,3}$"
# A parameter of SSM; with "#1", the second value of a StringList.
_PARAMETER = r"^ssm:/[A-Za-z0-9_./-]+(#[0-9]{1,2})?$"
Peer = Annotated[str, Field(pattern=f"{_SECURITY_GROUP}|{_CIDR}|{_PARAMETER}")]
Tags = Annotated[Mapping[str, str], Field(min_length=1)]
PolicyArn = Annotated[str, Field(pattern=_ARN + r"iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$")]
RoleArn = Annotated[str, Field(pattern=_ARN + r"iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$")]


class StageError(Exception):
    """cdk.json or the context names no usable stage. The message is one line with the path of what is wrong."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(_Settings):
    """Where the stage's database is and what the function may read to log in."""

    secret: str | None = Field(
        default=None,
        min_length=1,
        description="Name or complete ARN of the secret in Secrets Manager; required, but for `iam` with `host`, `name`"
        " and `user`",
    )
    host: str | None = Field(default=None, description="Where the secret holds none, as one that RDS manages")
    port: int | None = Field(default=None, ge=1, le=65535, description="Likewise")
    name: str | None = Field(default=None, min_length=1, description="The database in that server, likewise")
    user: str | None = Field(default=None, min_length=1, description="The role to log in as, likewise")
    kms_key: KeyArn | None = Field(
        default=None, description="ARN of the secret's key, where that is not the account's own `aws/secretsmanager`"
    )
    auth: Literal["password", "iam"] = Field(
        default="password", description="`iam`: with an RDS IAM token; needs `user` and `resource_id`"
    )
    resource_id: ResourceId | None = Field(
        default=None,
        description="With `iam`, the resource id of the instance, cluster or proxy: who may log in is said by it",
    )
    ca_bundle: str | None = Field(
        default=None,
        description="PEM file, relative to `cdk.json`, of the authority that signed the server's certificate; packaged"
        " with the function. Without it, Amazon's own for RDS.",
    )

    @model_validator(mode="after")
    def _iam_needs_to_know_whom(self) -> Self:
        if self.secret is None and not (self.auth == "iam" and self.host and self.name and self.user):
            raise _wrong("required, unless auth is iam and host, name and user are given", key="secret")
        if self.secret and self.secret.startswith("arn:") and not re.search(_COMPLETE_ARN, self.secret):
            raise _wrong("the ARN is not complete: it ends in a hyphen and six characters", key="secret")
        if self.auth == "iam" and not (self.user and self.resource_id):
            raise _wrong("auth iam needs user and resource_id beside it")
        if self.auth == "password" and self.resource_id:
            raise _wrong("resource_id is for auth iam only")
        return self


class NetworkSettings(_Settings):
    """The VPC that the database is in, and how the function reaches Secrets Manager from there."""

    vpc: Annotated[str, Field(pattern=rf"^vpc-[0-9a-f]+$|{_PARAMETER}")] | Tags = Field(
        description="Its id, a parameter of SSM that holds it, or its tags: see below"
    )
    subnets: Sequence[Annotated[str, Field(pattern=rf"^subnet-[0-9a-f]+$|{_PARAMETER}")]] | Tags = Field(
        min_length=1,
        description="Private subnets, by id, parameter or one tag; two in different zones survive the loss of one",
    )
    database_security_group: Peer | Tags | Annotated[Sequence[Peer | Tags], Field(min_length=1)] = Field(
        description="The database's own, by id, parameter or tags, or a list of several and of CIDRs; the function is"
        " let out to each on the database's port, and let in at the groups"
    )
    database_port: Annotated[int, Field(ge=1, le=65535)] | Literal["secret"] | None = Field(
        default=None,
        description="The port that is opened, where `database` has no `port` and it is not 5432; `secret`: the `port`"
        " in the secret, which is then JSON, when the stack is deployed",
    )
    secrets_endpoint: Annotated[str, Field(pattern=rf"^(create|nat)$|{_SECURITY_GROUP}|{_PARAMETER}")] | Tags = Field(
        default="create",
        description="`create`: make an interface endpoint for Secrets Manager; `nat`: the subnets have a NAT gateway;"
        " or the security group of an endpoint that the VPC has already (it can have only one)",
    )
    s3_prefix_list: str | None = Field(
        default=None,
        pattern=r"^pl-[0-9a-f]+$",
        description="With `rollout` or `long_runs` and no NAT gateway: the id of S3's prefix list in the region; the"
        " subnets' route tables have a gateway endpoint for S3",
    )
    logs_endpoint: Annotated[str, Field(pattern=f"{_SECURITY_GROUP}|{_PARAMETER}")] | Tags | None = Field(
        default=None,
        description="With `long_runs` and no NAT gateway: the security group of the VPC's interface endpoint for"
        " CloudWatch Logs, which has private DNS",
    )

    @model_validator(mode="after")
    def _tags_are_looked_up_together(self) -> Self:
        by_tags = [isinstance(each, Mapping) for each in (self.vpc, self.subnets)]
        if any(by_tags) and not all(by_tags):
            raise _wrong("vpc and subnets are both given by tags, or both by ids and parameters")
        if isinstance(self.subnets, Mapping) and len(self.subnets) != 1:
            raise _wrong("subnets: one tag, which all of them have and others have not")
        return self

    @property
    def databases(self) -> Sequence[str | Mapping[str, str]]:
        """The security groups and CIDRs of the databases."""
        given = self.database_security_group
        return [given] if isinstance(given, (str, Mapping)) else given

    @property
    def has_lookups(self) -> bool:
        """Whether something is given by its tags, which are looked up in the account."""
        return any(
            isinstance(each, Mapping) for each in (self.vpc, *self.databases, self.secrets_endpoint, self.logs_endpoint)
        )


class GithubSettings(_Settings):
    """Which workflow may invoke the function, without a key of AWS in GitHub."""

    repository: str = Field(pattern=r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", description="`owner/name`")
    environment: str = Field(
        pattern=r"^[A-Za-z0-9._-]+$",
        description="The workflow's `environment`: its protection rules say who may migrate this stage",
    )
    owner_id: int | None = Field(
        default=None, ge=1, description="The owner's number, where GitHub sends it: see [ci.md](ci.md#set-up-once)"
    )
    repository_id: int | None = Field(default=None, ge=1, description="The repository's number, likewise")

    @model_validator(mode="after")
    def _numbers_come_together(self) -> Self:
        if (self.owner_id is None) != (self.repository_id is None):
            raise _wrong("owner_id and repository_id need each other: GitHub sends both or neither")
        return self

    @property
    def subject(self) -> str:
        """The subject of the tokens that GitHub gives to such a workflow."""
        repository = self.repository
        if self.owner_id is not None:
            owner, name = repository.split("/")
            repository = f"{owner}@{self.owner_id}/{name}@{self.repository_id}"
        return f"repo:{repository}:environment:{self.environment}"


Share = Annotated[str, Field(pattern=r"^(100|[0-9]{1,2})(\.[0-9]{1,3})?%$")]
Count = Annotated[int, Field(ge=0)]
Gate = Annotated[int, Field(ge=0, le=604_800)] | Literal["approval"]


class RolloutTarget(_Settings):
    """A tenant: its secret, database or schema, each where it is not the stage's own."""

    name: str | None = Field(default=None, min_length=1, description="By default made of the others")
    secret_id: str | None = Field(default=None, min_length=1, description="Name or complete ARN of its secret")
    database: str | None = Field(default=None, min_length=1, description="Its database in that server")
    schema_: str | None = Field(default=None, min_length=1, alias="schema", description="Its schema in that database")
    server: str | None = Field(
        default=None, min_length=1, description="Any name for its server; by default host and port of its secret"
    )
    priority: float = Field(default=0, description="Lower ones come first")
    group: str | None = Field(default=None, min_length=1, description="The name of its group, as in `groups`")

    @model_validator(mode="after")
    def _is_a_place(self) -> Self:
        if not (self.name or self.secret_id or self.database or self.schema_):
            raise _wrong("a target needs a name, secret_id, database or schema")
        return self


class ExcludedTarget(_Settings):
    """A target that is left out for a time."""

    name: str = Field(min_length=1, max_length=512, description="Its name")
    reason: str = Field(min_length=1, max_length=200, description="Why, for the report")
    until: date = Field(description="The last day, such as `2026-12-31`; after it the target is migrated again")


class LongRunSettings(_Settings):
    """Runs without Lambda's limit of 15 minutes: a CodeBuild project, which costs only while it runs."""

    hours: int = Field(default=8, ge=1, le=35, description="The time that one such run has")
    compute: Literal["small", "medium", "large"] = Field(
        default="small",
        description="CodeBuild's sizes: 2, 4 and 8 processors. The server does the work, so the smallest will do",
    )


Identifier = Annotated[str, Field(pattern=r"^[a-zA-Z](-?[a-zA-Z0-9])*$", max_length=63)]


class SnapshotSettings(_Settings):
    """The cluster or instance of which the state machine makes a snapshot before a dangerous run."""

    cluster: Identifier | None = Field(default=None, description="The identifier of the Aurora or Multi-AZ cluster")
    instance: Identifier | None = Field(default=None, description="Or that of the RDS instance")
    timeout_minutes: int = Field(
        default=120, ge=5, le=720, description="After so many minutes without a snapshot nothing is run"
    )

    @model_validator(mode="after")
    def _is_of_one_database(self) -> Self:
        if (self.cluster is None) == (self.instance is None):
            raise _wrong("a snapshot is of a cluster or of an instance: give one of them")
        return self

    @property
    def kind(self) -> str:
        """`cluster` or `instance`."""
        return "cluster" if self.cluster else "instance"

    @property
    def identifier(self) -> str:
        """The identifier of the database that is copied."""
        return self.cluster or self.instance or ""


class SecretTag(_Settings):
    """The tag that the secrets of all targets have."""

    key: str = Field(min_length=1, max_length=128, description="The tag's key")
    value: str = Field(min_length=1, max_length=256, description="And its value")


class RolloutSettings(_Settings):
    """Which targets the stage's state machine migrates, and how carefully."""

    targets: Sequence[RolloutTarget] = Field(default=(), description="The targets, where they are few")
    secret_prefix: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^[A-Za-z0-9/_+=.@-]+$",
        description="Every secret whose name begins so is a target; with `query`, those that its rows may name",
    )
    secret_tag: SecretTag | None = Field(default=None, description="Every secret with this tag is a target")
    query: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="A SELECT on the stage's own database whose rows are the targets; its columns are any of"
        " `secret_id`, `database`, `schema`, `name`, `server`, `priority`, `group`",
    )
    kms_key: KeyArn | None = Field(
        default=None, description="ARN of the targets' secrets' key, where that is not `aws/secretsmanager`"
    )
    resource_ids: Sequence[ResourceId] = Field(
        default=(),
        description="With `database.auth` `iam`: the resource ids of the targets' servers, where these are others",
    )
    users: Sequence[Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?.-]+$")]] = Field(
        default=(),
        description="With `iam`: the users that the targets' secrets name, where these are others; `*` is any letters",
    )
    canaries: Sequence[str] | Count | Share = Field(
        default=1, description="The first wave, in which nothing may fail: names, a number, or a share such as `5%`"
    )
    waves: Sequence[Annotated[int, Field(ge=1)] | Share] = Field(
        default=(),
        max_length=50,
        description="How many of the others each further wave has, numbers or shares; what is left is the last one",
    )
    concurrency: int = Field(default=10, ge=1, le=1000, description="At most so many targets at once")
    per_server: int = Field(default=5, ge=1, le=1000, description="And so many on one database server")
    tolerated_failures: Count | Share = Field(
        default=0, description="Of each wave after the canaries, a number or a share: with one more, nothing is begun"
    )
    retries: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="How often `MigrationLocked`, `LockTimeout` and `DatabaseUnavailable` are met by trying again",
    )
    retry_after_s: int = Field(
        default=5, ge=1, le=600, description="The first pause; it doubles, up to a minute, and is cut at random"
    )
    runs: int = Field(default=100, ge=1, le=1000, description="So many functions in a row for one target, at most")
    excluded: Sequence[ExcludedTarget] = Field(
        default=(), description="Targets that are known to be bad: they are left out until a date, and reported"
    )
    groups: Sequence[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default=(), max_length=50, description="The order of the targets' groups; those of no such group come last"
    )
    between_waves: Gate = Field(
        default=0, description="Before each wave but the first: a pause of so many seconds, or `approval`"
    )
    between_groups: Gate = Field(
        default=0, description="The same before the first wave of a further group, where that is to be another one"
    )
    approval_hours: int = Field(
        default=24, ge=1, le=2160, description="An approval that nobody gives for so long stops the rollout"
    )
    soak_s: Annotated[int, Field(ge=0, le=604_800)] = Field(
        default=0, description="After the canaries, a pause of so many seconds at least"
    )
    soak_alarm: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="The name of a CloudWatch alarm: if it is on while the canaries soak, the rollout stops",
    )

    @model_validator(mode="after")
    def _an_alarm_is_looked_at_in_a_soak_time(self) -> Self:
        if self.soak_alarm and not self.soak_s:
            raise _wrong("soak_alarm needs soak_s: it is looked at while the canaries soak")
        return self

    @model_validator(mode="after")
    def _from_one_source(self) -> Self:
        sources = [self.targets, self.secret_tag, self.query, None if self.query else self.secret_prefix]
        if sum(1 for source in sources if source) > 1:
            raise _wrong("targets come from one of targets, secret_prefix, secret_tag and query")
        if len(self.as_variable) > _LONGEST_VARIABLE:
            raise _wrong(
                f"that is more than Lambda's variables hold ({_LONGEST_VARIABLE} characters): name the targets by"
                " secret_prefix, secret_tag or query"
            )
        return self

    @property
    def as_variable(self) -> str:
        """What the function has to know of it, as JSON."""
        known = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_OF_THE_STACK)
        return json.dumps(known, separators=(",", ":"), sort_keys=True)


Patterns = Sequence[Annotated[str, Field(min_length=1, max_length=2048)]]


class TargetsAllowed(_Settings):
    """The names that an event's ``target`` may have, beside the targets of ``rollout``."""

    secret_id: Patterns | None = Field(default=None, description="Names or ARNs of secrets")
    database: Patterns | None = Field(default=None, description="Names of databases")
    schema_: Patterns | None = Field(default=None, alias="schema", description="Names of schemas")


class Place(_Settings):
    """What a stage uses of an account: all that has an id there."""

    account: str | None = Field(default=None, pattern=r"^[0-9]{12}$", description="Without it, that of the AWS profile")
    region: str | None = Field(
        default=None, pattern=r"^[a-z]{2,4}(-[a-z]+)+-[0-9]$", description="Without it, that of the AWS profile"
    )
    database: DatabaseSettings = Field(description="Where the database is, and how to log in: see below")
    network: NetworkSettings | None = Field(
        default=None, description="Without it the function is in no VPC; otherwise see below"
    )
    kms_key: KeyArn | None = Field(
        default=None,
        description="ARN of the key that encrypts what is kept: logs, alarms, executions, rollouts; see below",
    )
    bootstrap_qualifier: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]{1,10}$",
        description="The bootstrap stack of the CDK that deploys this stage only, with the policies of"
        " `make execution-policy`: [ci.md](ci.md#the-deploy-role)",
    )


class Options(_Settings):
    """What a function can be told beside its place: settings of a stage, and arguments of `Migrations`."""

    backend: str = Field(default="back", description="The backend's folder, relative to `cdk.json`")
    alembic_config: str | None = Field(
        default=None,
        description="The path of an ini file or a `pyproject.toml` in that folder. Without it, `alembic.ini`, or else a"
        " `pyproject.toml` that has `[tool.alembic]`",
    )
    runtime: Literal["python3.11", "python3.12", "python3.13", "python3.14", "local"] = Field(
        default="python3.13",
        description="`local`: this machine's interpreter under AWS's own runtime client, for the local cloud",
    )
    architecture: Literal["arm64", "x86_64"] = Field(
        default="arm64", description="The package is built for it, on any machine"
    )
    dependency_group: GroupName | None = Field(
        default=None,
        description="A dependency group of the backend's lock, packaged in place of all its dependencies",
    )
    extras: Sequence[GroupName] = Field(
        default=(), description="Extras of the backend's own project, packaged beside its dependencies"
    )
    exclude: Sequence[DistributionName] = Field(
        default=(), description="Distributions of the lock that are left out of the package"
    )
    requirements: Literal["locked", "traced"] = Field(
        default="locked", description="`traced`: of what is locked, package only what the migrations import; see below"
    )
    aws_services: Sequence[ServiceName] = Field(
        default=(),
        description="Services of AWS that the backend uses, beside those that are found in its code; see below",
    )
    package_files: Sequence[str] = Field(
        default=(), description="Patterns of files that revisions read outside their tree, such as `sql/*.sql`"
    )
    packaging: Literal["zip", "image"] = Field(
        default="zip",
        description="`image`: a container image, for more than the 250 MB that Lambda takes as an archive",
    )
    memory_mb: int = Field(default=512, ge=128, le=10240, description="Lambda gives processor time in proportion")
    timeout_s: int = Field(default=900, ge=30, le=900, description="A run stops cleanly before it")
    invokers: Sequence[RoleArn] = Field(
        default=(), description="ARNs of roles, of this account or another, that may invoke the function"
    )
    github: GithubSettings | None = Field(
        default=None, description="A GitHub workflow that may invoke the function and read its log: see below"
    )
    alarms: str | None = Field(
        default=None,
        pattern=f"{_SNS_TOPIC}|{_EMAIL}",
        description="An e-mail address, or the ARN of an SNS topic; without it alarms tell nobody",
    )
    log_retention_days: RetentionDays = Field(default=90, description="As CloudWatch Logs has them")
    protect: bool | None = Field(
        default=None,
        description="The stack refuses to be deleted, and its log outlives it; true by default for the stage `prod`",
    )
    rollout: RolloutSettings | None = Field(
        default=None, description="A database or schema for each tenant: [rollouts.md](rollouts.md)"
    )
    long_runs: LongRunSettings | None = Field(
        default=None,
        description="A CodeBuild project for a statement that takes longer than a function may run: see below",
    )
    snapshot: SnapshotSettings | None = Field(
        default=None,
        description="The state machine makes a snapshot of the database before a run that the reviewer calls dangerous:"
        " see below",
    )
    targets_allowed: TargetsAllowed = Field(
        default_factory=TargetsAllowed,
        description="Patterns of the names that an event's `target` may have: see below",
    )
    allow_downgrade: bool = Field(default=False, description="Permits `downgrade` and `stamp`")
    preflight: Literal["off", "warn", "enforce"] = Field(
        default="warn",
        description="What an upgrade does about a revision that would fail on this database's rows or block for long:"
        " nothing, log it, or refuse to begin ([contract.md](contract.md#preflight))",
    )
    migrate_on_deploy: bool = Field(
        default=False, description="The deployment itself migrates, and fails where the migration fails: see below"
    )
    environment: Mapping[str, str] = Field(
        default_factory=dict,
        description="More variables for the function, with the last word; `DATABASE_ENV` and `ALEMBIC_X` may be"
        " objects; [contract.md](contract.md#environment-variables) has their list",
    )
    permissions_boundary: PolicyArn | None = Field(
        default=None,
        description="ARN of a managed policy that limits every role of the stack; with"
        " `bootstrap_qualifier` there is one already",
    )
    tags: Mapping[str, str] = Field(
        default_factory=dict, description="On everything in the stack, beside `project` and `stage`"
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
        for name in self.environment:
            if name in RESERVED_VARIABLES:
                raise _wrong(f"environment: Lambda itself sets {name}, and refuses a function that does")
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]+", name):
                raise _wrong(f"environment: {name!r} is no name of a variable that Lambda takes")
        return self

    @model_validator(mode="after")
    def _fits_lambdas_variables(self) -> Self:
        size = len(self.targets_allowed_as_variable or "") + len(self.rollout.as_variable if self.rollout else "")
        if size > _LONGEST_VARIABLE:
            raise _wrong(
                f"rollout and targets_allowed are {size} characters, and Lambda's variables hold {_LONGEST_VARIABLE}:"
                " name the targets by secret_prefix, secret_tag, query or a pattern"
            )
        return self

    @property
    def targets_allowed_as_variable(self) -> str | None:
        """The patterns of `targets_allowed` and `rollout` as JSON, or None if there are none."""
        given = self.targets_allowed.model_dump(mode="json", by_alias=True, exclude_none=True)
        rollout = self.rollout.model_dump(mode="json", by_alias=True) if self.rollout else None
        allowed = with_rollout(given, rollout)
        return json.dumps(allowed, separators=(",", ":"), sort_keys=True) if allowed else None

    @model_validator(mode="after")
    def _one_of_them_migrates(self) -> Self:
        if self.migrate_on_deploy and self.rollout:
            raise _wrong(
                "migrate_on_deploy is for the stage's one database, and rollout for many: deploy, then run"
                " `migrate rollout`"
            )
        if self.migrate_on_deploy and self.long_runs:
            raise _wrong(
                "migrate_on_deploy ends after 15 minutes, and long_runs are for what takes longer: CloudFormation waits"
                " for a migration for an hour at most. Deploy, then run `migrate rollout`, or `migrate upgrade --long`"
            )
        return self

    @model_validator(mode="after")
    def _a_snapshot_is_of_the_stages_own_database(self) -> Self:
        if self.snapshot and self.rollout:
            raise _wrong(
                "snapshot is of the stage's one database, and the targets of rollout may be on several servers: make"
                " theirs before the rollout"
            )
        if self.snapshot and self.migrate_on_deploy:
            raise _wrong(
                "snapshot is made by the state machine, and migrate_on_deploy does without it: deploy, then run"
                " `migrate rollout`"
            )
        return self

    @model_validator(mode="after")
    def _an_image_has_a_runtime_of_lambdas(self) -> Self:
        if self.packaging == "image" and self.runtime == "local":
            raise _wrong("packaging image is for a runtime of Lambda's, and local is none")
        return self

    @property
    def in_full_cloud(self) -> bool:
        """Whether everything can be deployed: the local cloud's CloudFormation refuses some of what AWS's knows.

        Those are saved queries (``AWS::Logs::QueryDefinition``) and alarms on an expression.
        """
        return self.runtime != "local"


class Stage(Options, Place):
    """One environment of cdk.json: everything that differs between two functions."""

    @model_validator(mode="after")
    def _one_boundary_limits_roles(self) -> Self:
        if self.bootstrap_qualifier and self.permissions_boundary:
            raise _wrong("permissions_boundary: bootstrap_qualifier has a boundary of its own; leave one of them out")
        return self

    @model_validator(mode="after")
    def _tags_are_looked_up_somewhere(self) -> Self:
        if self.network and self.network.has_lookups and not (self.account and self.region):
            raise _wrong("network: a VPC or a group is looked up by tags only where the stage has account and region")
        return self

    @model_validator(mode="after")
    def _iam_is_for_all(self) -> Self:
        rollout = self.rollout
        if rollout and (rollout.resource_ids or rollout.users) and self.database.auth != "iam":
            raise _wrong("rollout: resource_ids and users are for database.auth iam")
        return self

    @model_validator(mode="after")
    def _a_port_of_the_secret_has_one(self) -> Self:
        if self.network and self.network.database_port == "secret" and (self.database.port or not self.database.secret):
            raise _wrong("network: database_port secret needs database.secret, and no database.port that overrides it")
        return self

    @model_validator(mode="after")
    def _rollouts_reach_s3(self) -> Self:
        if self.network:
            try:
                reach_s3(self.rollout, self.network.secrets_endpoint, self.network.s3_prefix_list)
                if self.long_runs:
                    network = self.network
                    reach_codebuilds_services(network.secrets_endpoint, network.s3_prefix_list, network.logs_endpoint)
            except StageError as error:
                raise _wrong(str(error)) from None
        return self


class Project(_Settings):
    """cdk.json's ``project``: the names everything is made from, and the stages."""

    prefix: Name = Field(default="template-saas", description="The first part of every name")
    service: Name = Field(default="api", description="The second: the backend whose database is migrated")
    stages: Mapping[Name, Stage] = Field(description="By name; any number of them may share an account")

    def stage(self, name: str) -> Stage:
        """The settings of one stage.

        Raises:
            StageError: there is no such stage.
        """
        if name not in self.stages:
            known = ", ".join(self.stages)
            wrong = f"there is no stage {name!r} in cdk.json" if name else "no stage was chosen"
            raise StageError(f"{wrong}: say -c stage=NAME, one of {known}")
        if len(self.names(name).function) > _LONGEST_FUNCTION_NAME:
            raise StageError(
                f"cdk.json: project.prefix, project.service and the stage's name {name!r} make a function name longer"
                f" than Lambda's {_LONGEST_FUNCTION_NAME} characters"
            )
        return self.stages[name]

    def names(self, stage: str) -> Names:
        """Return the names of a stage's resources."""
        return Names(self.prefix, self.service, stage)


def _wrong(message: str, *, key: str = "") -> PydanticCustomError:
    """What is wrong with several keys together; pydantic adds the path to them, and `problem` the one that is meant."""
    # A text of ours: without braces, so pydantic takes it as it is.
    return PydanticCustomError("combination", message, {"key": key})


def read_project(context: object) -> Project:
    """The checked ``project`` of cdk.json's context.

    Raises:
        StageError: names the path of the first wrong or unknown key, and what it must be.
    """
    try:
        return Project.model_validate(context)
    except ValidationError as error:
        raise StageError(f"cdk.json: {problem(error, 'project')}") from None


def problem(error: ValidationError, *within: str) -> str:
    """Return one line: the path of the first wrong or unknown key, and what it must be."""
    first = error.errors(include_url=False, include_input=False)[0]
    meant = (first.get("ctx") or {}).get("key")
    parts = [*within, *(str(part) for part in first["loc"] if part != "[key]"), *([meant] if meant else [])]
    path = ".".join(parts)
    message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return f"{path}: {message}" if path else message


def reach_s3(rollout: RolloutSettings | None, secrets_endpoint: object, s3_prefix_list: str | None) -> None:
    """Refuse rollouts of a function whose VPC has no way to S3.

    Raises:
        StageError: there is none.
    """
    if rollout and secrets_endpoint != "nat" and not s3_prefix_list:
        raise StageError("rollout keeps objects in S3: network needs s3_prefix_list, or the secrets_endpoint nat")


def reach_codebuilds_services(secrets_endpoint: object, s3_prefix_list: str | None, logs_endpoint: object) -> None:
    """Refuse long runs in a VPC from which CodeBuild could not fetch the package or write the log.

    Raises:
        StageError: a way is missing.
    """
    if secrets_endpoint != "nat" and not (s3_prefix_list and logs_endpoint):
        raise StageError(
            "long_runs: CodeBuild fetches the package from S3 and writes to CloudWatch Logs from within the VPC:"
            " network needs the secrets_endpoint nat, or s3_prefix_list and logs_endpoint"
        )
