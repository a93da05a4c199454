"""The names of a stage's resources, as docs/contract.md promises them.

The command line imports this module, so it must not import aws_cdk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Names:
    """The names that follow from the project's prefix, the service and the stage."""

    prefix: str
    service: str
    stage: str
    # Whether the function has another name for one deployment, so that CloudFormation can replace it.
    aside: bool = False

    @classmethod
    def of_function(cls, function: str) -> Names | None:
        """Return the names of the stage whose function has this name, or None if its name has another form."""
        project, found, stage = function.partition("-migrate-lambda-")
        prefix, _, service = project.rpartition("-")
        return cls(prefix, service, stage) if found and prefix and service and stage else None

    @property
    def moved_aside(self) -> Names:
        """Return the names with the function's temporary one."""
        return replace(self, aside=True)

    @property
    def stack(self) -> str:
        """Return the CloudFormation stack's name, which cannot have underscores."""
        return f"{self.prefix}-{self.service}-migrate-{self.stage}".replace("_", "-")

    @property
    def is_production(self) -> bool:
        """Return whether the stage is protected by default."""
        return self.stage.lower() == "prod"

    @property
    def function(self) -> str:
        """Return the Lambda function's name."""
        return f"{self.prefix}-{self.service}-migrate-lambda-{self.stage}{'-aside' if self.aside else ''}"

    @property
    def log_group(self) -> str:
        """Return the function's log group: the name that Lambda itself would use."""
        return f"/aws/lambda/{replace(self, aside=False).function}"

    @property
    def deployment_log_group(self) -> str:
        """Return the log group of the function that invokes others in a deployment."""
        return f"/aws/lambda/{self.stack}-on-deploy"

    @property
    def state_machine(self) -> str:
        """Return the state machine's name."""
        return self.stack

    @property
    def state_machine_log_group(self) -> str:
        """Return the state machine's log group. AWS reserves its prefix for services that write logs."""
        return f"/aws/vendedlogs/states/{self.state_machine}"

    @property
    def long_runs(self) -> str:
        """Return the name of the CodeBuild project that runs the function without its time limit."""
        return self.stack

    @property
    def dashboard(self) -> str:
        """Return the CloudWatch dashboard's name."""
        return self.stack

    @property
    def telemetry_service(self) -> str:
        """Return ``service`` in the function's log lines."""
        return f"{self.prefix}-{self.service}-migrate"

    @property
    def metrics_namespace(self) -> str:
        """Return the namespace of the function's own metrics."""
        return f"{self.prefix}/migrate"


class OtherNames(Names):
    """The names of a function that has a name of another form. Only its log group follows from it."""

    def __init__(self, function: str) -> None:
        """Create the names of a function."""
        super().__init__(prefix="", service="", stage=function)

    @property
    def function(self) -> str:
        """Return the Lambda function's name."""
        return self.stage

    @property
    def log_group(self) -> str:
        """Return the log group that Lambda creates for it."""
        return f"/aws/lambda/{self.stage}"
