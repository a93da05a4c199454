"""`network` of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from infra.aws_rules import Peer, PrefixListId, SecretsEndpoint, SecurityGroupId, SubnetId, VpcId
from infra.errors import invalid
from infra.settings.section import Section

if TYPE_CHECKING:
    from typing_extensions import Self

Tags = Annotated[Mapping[str, str], Field(min_length=1)]


class NetworkSettings(Section):
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
