"""The topic for alarms and failed asynchronous runs: a new one for an e-mail address, or an existing one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from constructs import Construct

    from infra.names import Names


def topic(scope: Construct, names: Names, alarms: str | None, key: kms.IKey | None) -> sns.ITopic | None:
    """Return the topic of the stage's ``alarms``, or None if the stage has none."""
    if alarms is None:
        return None
    if alarms.startswith("arn:"):
        return sns.Topic.from_topic_arn(scope, "Alarms", alarms)
    made = sns.Topic(
        scope,
        "Alarms",
        topic_name=f"{names.stack}-alarms",
        display_name=f"Migrations of {names.prefix} {names.service} {names.stage}",
        master_key=key,
        enforce_ssl=True,
    )
    made.add_subscription(subscriptions.EmailSubscription(alarms))
    # A topic with its own policy loses the default one, which lets its whole account publish.
    made.add_to_resource_policy(
        iam.PolicyStatement(
            sid="AlarmsOfThisAccount",
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=["sns:Publish"],
            resources=[made.topic_arn],
            conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}},
        )
    )
    return made
