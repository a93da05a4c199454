"""The stage's state machine, which migrates the one database or the targets of ``rollout``.

Three limits of AWS shape it (Step Functions developer guide, "Service quotas"): 25,000 events in an execution's
history, 256 KB between two states, 10,000 children of a Distributed Map at once. Therefore the targets of a rollout are
the items of an object in S3, each target has its own execution, and states pass little data. `infra.states` has them.

`lambda_migrate.fleet` decides before each target whether the rollout continues. The Map's own threshold cannot: AWS
ends running children when a Map Run exceeds it, and their outcomes would be missing in the report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import aws_cdk as cdk
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn

from infra.long_runs import let_machine_build
from infra.permissions import encrypt_executions, machine_role, use_key
from infra.snapshots import let_machine_snapshot
from infra.states.alone import Alone
from infra.states.fleet import Fleet

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_lambda as lambda_
    from constructs import Construct

    from infra.names import Names
    from infra.stages import Options

KEPT_DAYS = 90


def removal_policy(*, protect: bool) -> cdk.RemovalPolicy:
    """Return the fate of a log group when its stack is deleted. A failed first deployment always deletes it."""
    return cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if protect else cdk.RemovalPolicy.DESTROY


def rollouts_bucket(scope: Construct, key: kms.IKey | None) -> s3.Bucket:
    """Make the bucket of rollouts' targets, outcomes and reports. It outlives the stack as a record of the rollouts."""
    bucket = s3.Bucket(
        scope,
        "Rollouts",
        encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
        encryption_key=key,
        bucket_key_enabled=True if key else None,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        lifecycle_rules=[
            s3.LifecycleRule(
                # Step Functions allows the name of an execution again after 90 days.
                expiration=cdk.Duration.days(KEPT_DAYS),
                abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
            )
        ],
        # A failed first deployment deletes it, so that the deployment can be repeated.
        removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    )
    # The bucket must not outlive its policy, which enforces TLS.
    cast("s3.BucketPolicy", bucket.policy).apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
    cdk.Validations.of(bucket).acknowledge(
        cdk.Acknowledgment(
            id="AwsSolutions::AwsSolutions-S1",
            reason="it keeps names of tenants and errors for 90 days, and CloudTrail can log who reads them",
        )
    )
    return bucket


def state_machine(  # noqa: PLR0913 - the parts of a stage's machine
    scope: Construct,
    names: Names,
    stage: Options,
    function: lambda_.Function,
    *,
    bucket: s3.IBucket | None,
    key: kms.IKey | None,
    protect: bool,
) -> sfn.StateMachine:
    """Make the machine for the targets of ``rollout``, whose objects are in ``bucket``, or for the one database.

    It invokes the version of the function that the same deployment has published. An execution keeps its definition,
    so the whole execution runs the same code, even if another deployment happens meanwhile.
    """
    # Tests in the local cloud change the function's settings between two runs. A version's settings cannot change.
    invoked: lambda_.IFunction = function.current_version if stage.in_full_cloud else function
    log_group = logs.LogGroup(
        scope,
        "RolloutLogs",
        # AWS services may write to all log groups with this prefix. One policy for each group would exceed its size.
        log_group_name=names.state_machine_log_group,
        encryption_key=key,
        removal_policy=removal_policy(protect=protect),
    )
    cast("logs.CfnLogGroup", log_group.node.default_child).retention_in_days = stage.log_retention_days
    if stage.rollout is None or bucket is None:
        definition: sfn.IChainable = Alone(scope, names, stage, invoked).definition()
    else:
        definition = Fleet(scope, names, stage, stage.rollout, invoked, bucket).definition()
    reads_alarms = stage.rollout is not None and stage.rollout.soak_alarm is not None
    role = machine_role(scope, names, function, bucket, reads_alarms=reads_alarms)
    if stage.long_runs:
        let_machine_build(role, names)
    if stage.snapshot:
        let_machine_snapshot(role, names, stage.snapshot)
    if bucket:
        use_key(role, key, "s3")
    if key:
        encrypt_executions(role, names, key)
    machine = sfn.StateMachine(
        scope,
        "StateMachine",
        state_machine_name=names.state_machine,
        comment=f"Migrates {names.prefix} {names.service} {names.stage}, without the time limit of one function run",
        definition_body=sfn.DefinitionBody.from_chainable(definition),
        # The constructs would add permissions that it does not need, such as every object of the bucket.
        role=role.without_policy_updates(),
        encryption_configuration=sfn.CustomerManagedEncryptionConfiguration(key) if key else None,
        tracing_enabled=True,
        logs=sfn.LogOptions(destination=log_group, level=sfn.LogLevel.ALL),
    )
    # Remove the construct's policy: machine_role() already grants the same by name.
    machine.node.try_remove_child("DistributedMapPolicy")
    return machine
