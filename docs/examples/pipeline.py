"""CDK Pipelines: each environment is deployed and migrated in turn, production after an approval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import pipelines

from docs.examples.aurora import Shop

if TYPE_CHECKING:
    from constructs import Construct

CONNECTION = "arn:aws:codeconnections:eu-central-1:123456789012:connection/11111111-2222-3333-4444-555555555555"


class Environment(cdk.Stage):
    """One environment: its stack migrates as the last step of its deployment."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(scope, construct_id, **options)
        Shop(self, "shop", stage=stage)


class Pipeline(cdk.Stack):
    """The pipeline, which also updates itself."""

    def __init__(self, scope: Construct, construct_id: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(scope, construct_id, **options)
        source = pipelines.CodePipelineSource.connection("acme/shop", "main", connection_arn=CONNECTION)
        pipeline = pipelines.CodePipeline(
            self,
            "Pipeline",
            cross_account_keys=True,
            synth=pipelines.ShellStep(
                "Synth",
                input=source,
                install_commands=["make -C migrate tools"],
                commands=[
                    "PYTHONPATH=migrate migrate/node_modules/.bin/cdk synth --app 'migrate/.venv/bin/python app.py'"
                ],
            ),
        )
        region = "eu-central-1"
        dev = Environment(self, "Dev", stage="dev", env=cdk.Environment(account="123456789012", region=region))
        prod = Environment(self, "Prod", stage="prod", env=cdk.Environment(account="210987654321", region=region))
        pipeline.add_stage(dev)
        pipeline.add_stage(prod, pre=[pipelines.ManualApprovalStep("Approve")])


if __name__ == "__main__":
    app = cdk.App()
    Pipeline(app, "shop-pipeline", env=cdk.Environment(account="123456789012", region="eu-central-1"))
    app.synth()
