"""The migrations of a database that exists, in a VPC that exists and has a NAT gateway.

The pipeline's role may invoke the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager

from infra.migrations import Migrations

if TYPE_CHECKING:
    from constructs import Construct


class ShopMigrations(cdk.Stack):
    """The function beside what another team has made."""

    def __init__(self, scope: Construct, construct_id: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(scope, construct_id, **options)
        key = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
        migrations = Migrations(
            self,
            "Migrations",
            service="shop",
            stage="prod",
            backend="../backend",
            vpc=ec2.Vpc.from_lookup(self, "Vpc", tags={"team": "platform"}),
            database=ec2.SecurityGroup.from_security_group_id(self, "Database", "sg-0123456789abcdef0"),
            secret=secretsmanager.Secret.from_secret_name_v2(self, "Secret", "shop/prod/database"),
            secrets_endpoint="nat",
            key=kms.Key.from_key_arn(self, "Key", key),
            # Every other setting of docs/stages.md, by its name.
            log_retention_days=365,
            rollout={"query": "SELECT schema FROM tenants", "canaries": 2},
        )
        migrations.grant_invoke(iam.Role.from_role_name(self, "Pipeline", "pipeline"))
        cdk.CfnOutput(self, "MigrationsArn", value=migrations.function.function_arn)
        cdk.CfnOutput(self, "RolloutsArn", value=migrations.state_machine.state_machine_arn)


if __name__ == "__main__":
    app = cdk.App()
    ShopMigrations(app, "shop-migrations-prod", env=cdk.Environment(account="123456789012", region="eu-central-1"))
    app.synth()
