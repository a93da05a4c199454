"""A VPC, an Aurora Serverless v2 cluster and its migrations in one stack.

The deployment makes the database, migrates it, and goes on with what needs the tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_rds as rds

from infra.migrations import Migrations

if TYPE_CHECKING:
    from constructs import Construct


class Shop(cdk.Stack):
    """One environment of the shop."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(scope, construct_id, **options)
        isolated = ec2.SubnetConfiguration(name="database", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        vpc = ec2.Vpc(self, "Vpc", max_azs=2, nat_gateways=0, subnet_configuration=[isolated])
        cluster = rds.DatabaseCluster(
            self,
            "Database",
            engine=rds.DatabaseClusterEngine.aurora_postgres(version=rds.AuroraPostgresEngineVersion.VER_17_4),
            writer=rds.ClusterInstance.serverless_v2("Writer"),
            serverless_v2_min_capacity=0.5,
            serverless_v2_max_capacity=4,
            default_database_name="shop",
            storage_encrypted=True,
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
        )
        if cluster.secret is None:  # only a cluster that was imported has none
            raise TypeError
        self.migrations = Migrations(
            self,
            "Migrations",
            service="shop",
            stage=stage,
            backend="../backend",
            vpc=vpc,
            database=cluster,
            secret=cluster.secret,
            migrate_on_deploy=True,
        )
        # What serves requests comes after the migration:
        # service.node.add_dependency(self.migrations)  # noqa: ERA001 - an example


if __name__ == "__main__":
    app = cdk.App()
    Shop(app, "shop-dev", stage="dev")
    app.synth()
