"""Places the function in its database's VPC, and opens the few connections that it needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2

from infra.database import DEFAULT_PORT
from lambda_migrate.invocation.settings import SECRETS_ENDPOINT_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_iam as iam
    from constructs import Construct, IDependable

_HTTPS = 443
_SELECTION = ("availability_zones", "one_per_az", "subnet_filters", "subnet_group_name", "subnets", "subnet_type")

# Make an endpoint, use the subnets' NAT gateway, or use the VPC's existing endpoint or its security group.
SecretsEndpoint = Literal["create", "nat"] | ec2.IConnectable


@dataclass(frozen=True)
class Network:
    """The VPC of a function, and the peers to which it may connect.

    ``databases`` are security groups, constructs that have some, or peers such as a CIDR. The default of
    ``database_port`` is the construct's own port, or PostgreSQL's.
    """

    vpc: ec2.IVpc
    subnets: ec2.SubnetSelection | None
    databases: Sequence[ec2.IConnectable]
    database_port: int | None
    secrets_endpoint: SecretsEndpoint
    s3_prefix_list: str | None
    logs_endpoint: ec2.IConnectable | None


@dataclass(frozen=True)
class VpcAttachment:
    """A function's arguments for its VPC, its variables, and the resources that it needs before it can connect."""

    arguments: dict[str, Any]
    variables: Mapping[str, str]
    needs: Sequence[IDependable]


def attach(scope: Construct, network: Network, endpoint_policy: Sequence[iam.PolicyStatement]) -> VpcAttachment:
    """Make the function's own security group, and open the connections to its database and Secrets Manager.

    ``endpoint_policy`` is the policy of an endpoint that is made here.
    """
    vpc = network.vpc
    own = ec2.SecurityGroup(
        scope,
        "SecurityGroup",
        vpc=vpc,
        description="The migration function: out to its database and to Secrets Manager, and nothing in",
        allow_all_outbound=False,
    )
    variables: dict[str, str] = {}
    selected = vpc.select_subnets(**_as_arguments(network.subnets))
    given = ec2.Port.tcp(network.database_port) if network.database_port else None
    ways = _Ways(own)
    for database in network.databases:
        ways.open(database, given or database.connections.default_port or ec2.Port.tcp(DEFAULT_PORT), "PostgreSQL")
    if not endpoint_policy:
        # The function reads no secret, so it needs no connection to Secrets Manager.
        pass
    elif network.secrets_endpoint == "create":
        endpoint = _endpoint_group(scope, vpc, own)
        made = ec2.InterfaceVpcEndpoint(
            scope,
            "SecretsManager",
            vpc=vpc,
            service=ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
            subnets=ec2.SubnetSelection(subnets=_one_in_each_zone(selected.subnets)),
            security_groups=[endpoint],
            # With private DNS, it would answer for every server in the VPC and let none of them in. A VPC can have only
            # one such endpoint.
            private_dns_enabled=False,
            # Only the rule above opens it: to the function, not to the whole VPC.
            open=False,
        )
        for statement in endpoint_policy:
            made.add_to_policy(statement)
        own.add_egress_rule(endpoint, ec2.Port.tcp(_HTTPS), "Secrets Manager")
        # The first entry is the endpoint's name in the region. Each entry is "<hosted zone>:<name>".
        name = cdk.Fn.select(1, cdk.Fn.split(":", cdk.Fn.select(0, made.vpc_endpoint_dns_entries)))
        variables[SECRETS_ENDPOINT_VARIABLE] = f"https://{name}"
    elif network.secrets_endpoint == "nat":
        own.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(_HTTPS), "Secrets Manager, through the NAT gateway")
    else:
        ways.open(network.secrets_endpoint, ec2.Port.tcp(_HTTPS), "Secrets Manager")
    if network.s3_prefix_list:
        own.add_egress_rule(ec2.Peer.prefix_list(network.s3_prefix_list), ec2.Port.tcp(_HTTPS), "S3")
    if network.logs_endpoint is not None:
        ways.open(network.logs_endpoint, ec2.Port.tcp(_HTTPS), "CloudWatch Logs, for long runs")
    arguments = {
        "vpc": vpc,
        "vpc_subnets": ec2.SubnetSelection(subnets=selected.subnets),
        "security_groups": [own],
    }
    peers = [*network.databases]
    if not isinstance(network.secrets_endpoint, str):
        peers.append(network.secrets_endpoint)
    if network.logs_endpoint is not None:
        peers.append(network.logs_endpoint)
    # The groups contain the rules that let the function in.
    groups = [group for peer in peers for group in peer.connections.security_groups]
    return VpcAttachment(arguments, variables, [selected.internet_connectivity_established, *groups])


class _Ways:
    """The connections from the function's own group to its peers. EC2 refuses a group that has a rule twice."""

    def __init__(self, own: ec2.SecurityGroup) -> None:
        self._own = own
        self._opened: set[tuple[str, str]] = set()

    def open(self, peer: ec2.IConnectable, port: ec2.Port, what: str) -> None:
        """Open the connection to a peer, and add the inbound rule if the peer has security groups."""
        groups = peer.connections.security_groups
        for group in groups:
            # Several peers may have one group, for instance all endpoints of a VPC.
            rule = (json.dumps(cdk.Stack.of(self._own).resolve(group.security_group_id)), port.to_string())
            if rule not in self._opened:
                self._opened.add(rule)
                self._own.add_egress_rule(group, port, what)
                # In the function's stack: the stack of a database that another stack makes must not depend on it.
                group.add_ingress_rule(self._own, port, "The migration function", True)  # noqa: FBT003 - remote_rule
        if not groups:
            self._own.connections.allow_to(peer, port, what)


def _one_in_each_zone(subnets: Sequence[ec2.ISubnet]) -> list[ec2.ISubnet]:
    """Return subnets in which AWS makes one endpoint: it refuses two subnets of one zone."""
    chosen: dict[str, ec2.ISubnet] = {}
    for subnet in subnets:
        zone = subnet.availability_zone
        chosen.setdefault(subnet.node.path if cdk.Token.is_unresolved(zone) else zone, subnet)
    return list(chosen.values())


def _as_arguments(selection: ec2.SubnetSelection | None) -> dict[str, Any]:
    if selection is None:
        return {}
    return {name: getattr(selection, name) for name in _SELECTION}


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
