"""The stack of one stage of cdk.json: `Migrations`, with the ids from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_ssm as ssm

from infra.code import Code
from infra.database import Login
from infra.errors import StageError
from infra.execution_policy import names_of_policies
from infra.lookup import security_group_id
from infra.migrations import Migrations
from infra.stages import Options

# The kinds of resources without a name of ours, with the longest name and the property that sets it. A bucket gets no
# other name: it outlives the stack, and the next deployment could not make it again.
_NAMED = {
    "AWS::IAM::Role": (64, "RoleName"),
    "AWS::Lambda::Function": (64, "FunctionName"),
    "AWS::S3::Bucket": (63, "BucketName"),
}
# The hyphen and the random characters at the end of a generated name.
_RANDOM = 13

if TYPE_CHECKING:
    from constructs import Construct

    from infra.names import Names
    from infra.settings.database import DatabaseSettings
    from infra.settings.network import NetworkSettings
    from infra.stages import Stage


class MigrateStack(cdk.Stack):
    """One stage's migration function. ``package`` is the folder with its code, and ``asset_hash`` is its digest."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        names: Names,
        stage: Stage,
        package: Path,
        asset_hash: str,
        **options: Any,  # noqa: ANN401
    ) -> None:
        if stage.bootstrap_qualifier:
            options["synthesizer"] = cdk.DefaultStackSynthesizer(qualifier=stage.bootstrap_qualifier)
        tags = stage.all_tags(names)
        protect = stage.is_protected(names)
        super().__init__(
            scope, construct_id, stack_name=names.stack, termination_protection=protect, tags=tags, **options
        )
        database = stage.database
        # The CDK leaves the id "Default" out of logical ids, so the construct does not change the resources' ids.
        self.migrations = Migrations(
            self,
            "Default",
            prefix=names.prefix,
            service=names.service,
            stage=names.stage,
            aside=names.aside,
            backend=Code(package, asset_hash),
            secret=self._secret(database.secret),
            secret_key=self._key("SecretKey", database.kms_key),
            login=_login(database),
            key=self._key("Key", stage.kms_key),
            **self._network(stage.network, database.secret),
            # The backend is already packaged.
            **{
                name: getattr(stage, name)
                for name in Options.model_fields
                if name in stage.model_fields_set - {"backend"}
            },
        )
        if stage.bootstrap_qualifier:
            _, boundary, _ = names_of_policies(names)
            policy = iam.ManagedPolicy.from_managed_policy_name(self, "Boundary", boundary)
            iam.PermissionsBoundary.of(self).apply(policy)
            self._keep_names_whole(names)
        # These also tag resources that the CDK adds to the stack itself.
        for tag, value in tags.items():
            cdk.Tags.of(self).add(tag, value)

    def _keep_names_whole(self, names: Names) -> None:
        """Name the resources whose generated name would not begin with the stack's name.

        The policies of `infra.execution_policy` select resources by this beginning. CloudFormation makes a name of
        the stack's name, the logical id and random characters. If it is too long, CloudFormation cuts the stack's
        name, too.

        Raises:
            StageError: the stack's name is too long for such a resource.
        """
        for resource in (each for each in self.node.find_all() if isinstance(each, cdk.CfnResource)):
            limit, field = _NAMED.get(resource.cfn_resource_type, (0, ""))
            generated = len(f"{names.stack}-{self.resolve(resource.logical_id)}") + _RANDOM
            path = resource.node.path
            if generated <= limit or not limit or path == f"{self.migrations.function.node.path}/Resource":
                continue
            # The first is for the function that invokes others in a deployment, and for its role.
            own = f"{names.stack}-{'on-deploy' if 'CustomResourceProvider' in path else path.split('/')[-2]}"
            too_long = generated - limit if field == "BucketName" else len(own) - limit
            if too_long > 0:
                raise StageError(
                    f"bootstrap_qualifier: its policies know resources by their names, and {field} would be too long"
                    f" for {names.stack}: shorten the prefix, the service or the stage's name by {too_long}"
                )
            resource.add_property_override(field, own)

    def _secret(self, name_or_arn: str | None) -> secretsmanager.ISecret | None:
        if name_or_arn is None:
            return None
        if name_or_arn.startswith("arn:"):
            return secretsmanager.Secret.from_secret_complete_arn(self, "Secret", name_or_arn)
        return secretsmanager.Secret.from_secret_name_v2(self, "Secret", name_or_arn)

    def _key(self, construct_id: str, arn: str | None) -> kms.IKey | None:
        return kms.Key.from_key_arn(self, construct_id, arn) if arn else None

    def _network(self, settings: NetworkSettings | None, secret: str | None) -> dict[str, Any]:
        if settings is None:
            return {}
        endpoint: Any = settings.secrets_endpoint
        if endpoint not in ("create", "nat"):
            endpoint = self._group("Endpoint", endpoint)
        return {
            **self._vpc(settings),
            "database": [self._peer(number, name) for number, name in enumerate(settings.databases)],
            "database_port": _port_of_secret(secret) if settings.database_port == "secret" else settings.database_port,
            "secrets_endpoint": endpoint,
            "s3_prefix_list": settings.s3_prefix_list,
            "logs_endpoint": self._group("LogsEndpoint", settings.logs_endpoint) if settings.logs_endpoint else None,
        }

    def _group(self, construct_id: str, given: str | Mapping[str, str]) -> ec2.ISecurityGroup:
        group = security_group_id(self, given) if isinstance(given, Mapping) else self._id(given)
        return ec2.SecurityGroup.from_security_group_id(self, construct_id, group)

    def _vpc(self, settings: NetworkSettings) -> dict[str, Any]:
        if isinstance(settings.vpc, Mapping) and isinstance(settings.subnets, Mapping):
            # The CDK's command looks the VPC up in the account, and writes the result into cdk.context.json.
            ((tag, value),) = settings.subnets.items()
            found = ec2.Vpc.from_lookup(self, "Vpc", tags=settings.vpc, subnet_group_name_tag=tag)
            return {"vpc": found, "vpc_subnets": ec2.SubnetSelection(subnet_group_name=value)}
        subnets = [self._id(subnet) for subnet in settings.subnets]
        vpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=self._id(str(settings.vpc)),
            # The CDK wants one for each subnet. It uses their names only for subnets that it makes.
            availability_zones=[f"zone-{number}" for number in range(len(subnets))],
            private_subnet_ids=subnets,
        )
        cdk.Annotations.of(vpc).acknowledge_warning(
            "@aws-cdk/aws-ec2:noSubnetRouteTableId",
            "the stack adds no routes: the subnets are for the function only",
        )
        return {"vpc": vpc, "vpc_subnets": ec2.SubnetSelection(subnets=vpc.private_subnets)}

    def _id(self, given: str) -> str:
        """Return an id, or the token of a parameter that CloudFormation reads during the deployment."""
        if not given.startswith("ssm:"):
            return given
        name, _, index = given.removeprefix("ssm:").partition("#")
        if index:
            return cdk.Fn.select(int(index), ssm.StringListParameter.value_for_typed_list_parameter(self, name))
        return ssm.StringParameter.value_for_string_parameter(self, name)

    def _peer(self, number: int, name: str | Mapping[str, str]) -> ec2.IConnectable:
        if isinstance(name, Mapping) or name.startswith(("sg-", "ssm:")):
            return self._group(f"Database{number or ''}", name)
        return ec2.Peer.ipv6(name) if ":" in name else ec2.Peer.ipv4(name)


def _port_of_secret(secret: str | None) -> int:
    """Return the port in a secret, which CloudFormation reads during the deployment."""
    reference = cdk.CfnDynamicReference(cdk.CfnDynamicReferenceService.SECRETS_MANAGER, f"{secret}:SecretString:port")
    return int(cdk.Token.as_number(reference))


def _login(database: DatabaseSettings) -> Login:
    return Login(
        host=database.host,
        port=database.port,
        name=database.name,
        user=database.user,
        iam_resource_ids=[database.resource_id] if database.resource_id else (),
        ca_bundle=Path(database.ca_bundle) if database.ca_bundle else None,
    )
