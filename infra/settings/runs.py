"""`long_runs` and `snapshot` of a stage: runs of the state machine that are not plain function runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from infra.aws_rules import DatabaseIdentifier
from infra.errors import invalid
from infra.settings.section import Section

if TYPE_CHECKING:
    from typing_extensions import Self


class LongRunSettings(Section):
    """A CodeBuild project for runs without Lambda's limit of 15 minutes. It costs only while it runs."""

    hours: int = Field(default=8, ge=1, le=35, description="The time limit of one long run")
    compute: Literal["small", "medium", "large"] = Field(
        default="small",
        description="CodeBuild's size: 2, 4 or 8 processors. The database server does the work, so `small` is enough",
    )


class SnapshotSettings(Section):
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
