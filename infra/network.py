"""Where the function runs when its database is in a VPC, and the few ways that lead out of there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aws_cdk import aws_ec2 as ec2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from constructs import Construct

    from infra.stages import NetworkSettings

_HTTPS = 443


@dataclass(frozen=True)
class Network:
    """What a function needs to be placed in a VPC."""

    vpc: ec2.IVpc
    subnets: ec2.SubnetSelection
    security_groups: Sequence[ec2.ISecurityGroup]


def place(scope: Construct, settings: NetworkSettings, *, database_port: int, secrets_manager: str) -> Network:
    """Make the function's own security group and open the two ways that it needs: its database and Secrets Manager.

    ``secrets_manager`` is the name of that service's endpoint in the region.
    """
    vpc = ec2.Vpc.from_vpc_attributes(
        scope,
        "Vpc",
        vpc_id=settings.vpc,
        # The CDK wants as many as subnets, and their names only for what we do not make.
        availability_zones=[f"zone-{number}" for number in range(len(settings.subnets))],
        private_subnet_ids=list(settings.subnets),
    )
    own = ec2.SecurityGroup(
        scope,
        "SecurityGroup",
        vpc=vpc,
        description="The migration function: out to its database and to Secrets Manager, and nothing in",
        allow_all_outbound=False,
    )
    database = ec2.SecurityGroup.from_security_group_id(scope, "Database", settings.database_security_group)
    own.add_egress_rule(database, ec2.Port.tcp(database_port), "PostgreSQL")
    database.add_ingress_rule(own, ec2.Port.tcp(database_port), "The migration function")
    subnets = ec2.SubnetSelection(subnets=vpc.private_subnets)
    if settings.secrets_endpoint == "create":
        endpoint = _endpoint_group(scope, vpc, own)
        ec2.InterfaceVpcEndpoint(
            scope,
            "SecretsManager",
            vpc=vpc,
            service=ec2.InterfaceVpcEndpointService(secrets_manager, _HTTPS),
            subnets=subnets,
            security_groups=[endpoint],
            private_dns_enabled=True,
            # Only to the function, by the rule above, not to the whole VPC.
            open=False,
        )
        own.add_egress_rule(endpoint, ec2.Port.tcp(_HTTPS), "Secrets Manager")
    elif settings.secrets_endpoint == "nat":
        own.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(_HTTPS), "Secrets Manager, through the NAT gateway")
    else:
        existing = ec2.SecurityGroup.from_security_group_id(scope, "Endpoint", settings.secrets_endpoint)
        own.add_egress_rule(existing, ec2.Port.tcp(_HTTPS), "Secrets Manager")
        existing.add_ingress_rule(own, ec2.Port.tcp(_HTTPS), "The migration function")
    if settings.s3_prefix_list:
        own.add_egress_rule(ec2.Peer.prefix_list(settings.s3_prefix_list), ec2.Port.tcp(_HTTPS), "S3, for rollouts")
    return Network(vpc, subnets, [own])


def _endpoint_group(scope: Construct, vpc: ec2.IVpc, own: ec2.SecurityGroup) -> ec2.SecurityGroup:
    group = ec2.SecurityGroup(
        scope,
        "EndpointSecurityGroup",
        vpc=vpc,
        description="The interface endpoint of Secrets Manager: in from the migration function",
        allow_all_outbound=False,
    )
    group.add_ingress_rule(own, ec2.Port.tcp(_HTTPS), "The migration function")
    return group
