"""`rollout` and `targets_allowed` of a stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from infra.aws_rules import LONGEST_VARIABLE, KeyArn, ResourceId, SecretId
from infra.errors import invalid
from infra.settings.section import Section

if TYPE_CHECKING:
    from typing_extensions import Self

Share = Annotated[str, Field(pattern=r"^(100|[0-9]{1,2})(\.[0-9]{1,3})?%$")]
Count = Annotated[int, Field(ge=0)]
Gate = Annotated[int, Field(ge=0, le=604_800)] | Literal["approval"]
Patterns = Sequence[Annotated[str, Field(min_length=1, max_length=2048)]]
# Settings that the function does not need.
_OF_THE_STACK = {"approval_hours", "kms_key", "resource_ids", "retries", "runs", "soak_alarm", "users"}


class SecretTag(Section):
    """The tag of the targets' secrets."""

    key: str = Field(min_length=1, max_length=128, description="The tag's key")
    value: str = Field(min_length=1, max_length=256, description="The tag's value")


class RolloutTarget(Section):
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


class ExcludedTarget(Section):
    """A target that rollouts leave out until a date."""

    name: str = Field(min_length=1, max_length=512, description="The target's name")
    reason: str = Field(min_length=1, max_length=200, description="The reason, for the report")
    until: date = Field(description="The last day of the exclusion in UTC, such as `2026-12-31`")


class RolloutSettings(Section):
    """The targets that the stage's state machine migrates, and the limits of a rollout."""

    targets: Sequence[RolloutTarget] = Field(
        default=(), description="A list of targets. Use it if there are only a few"
    )
    secret_prefix: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^[A-Za-z0-9/_+=.@-]+$",
        description="Every secret whose name begins with this prefix is a target. With `query`, the prefix adds no"
        " targets: it limits the secrets that the rows may name",
    )
    secret_tag: SecretTag | None = Field(default=None, description="Every secret with this tag is a target")
    query: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="A SELECT on the stage's own database. Each row is a target. Allowed columns: `secret_id`,"
        " `database`, `schema`, `name`, `server`, `priority`, `group`",
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
        description="The first wave: a list of names, or a share. One failure in this wave stops the rollout. If every"
        " named canary is excluded, the first other target is the canary. With `--target`, a named canary counts only"
        " if it is among these targets",
    )
    waves: Sequence[Annotated[int, Field(ge=1)] | Share] = Field(
        default=(),
        max_length=50,
        description="The sizes of the following waves, as shares. The last wave contains the remaining targets",
    )
    concurrency: int = Field(default=10, ge=1, le=1000, description="Maximum number of targets that run at once")
    per_server: int = Field(
        default=5, ge=1, le=1000, description="Maximum number of targets that run at once on one database server"
    )
    tolerated_failures: Count | Share = Field(
        default=0,
        description="Number or share of targets that may fail in each wave after the canaries. One more failure stops"
        " the rollout",
    )
    retries: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="Number of retries after `MigrationLocked`, `LockTimeout` or `DatabaseUnavailable`",
    )
    retry_after_s: int = Field(
        default=5,
        ge=1,
        le=600,
        description="Pause before the first retry, in seconds. It doubles for each retry, up to a minute, with random"
        " jitter",
    )
    runs: int = Field(default=100, ge=1, le=1000, description="Maximum number of function runs for one target")
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
        default=0,
        description="A pause in seconds, or `approval`, before the first wave of each further group. `0`: use"
        " `between_waves`",
    )
    approval_hours: int = Field(
        default=24, ge=1, le=2160, description="The rollout stops if nobody approves it within this number of hours"
    )
    soak_s: Annotated[int, Field(ge=0, le=604_800)] = Field(
        default=0, description="Minimum pause after the canaries, in seconds"
    )
    soak_alarm: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="The name of a CloudWatch alarm. If it is in state ALARM during `soak_s`, the rollout stops",
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


class TargetsAllowed(Section):
    """Patterns of the names that an event's ``target`` may have, in addition to the targets of ``rollout``."""

    secret_id: Patterns | None = Field(default=None, description="Patterns of names or ARNs of secrets")
    database: Patterns | None = Field(default=None, description="Patterns of names of databases")
    schema_: Patterns | None = Field(default=None, alias="schema", description="Patterns of names of schemas")
