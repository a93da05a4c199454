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
    # Whether the function has another name for a while, so that one of its own name can be made anew.
    aside: bool = False

    @classmethod
    def of_function(cls, function: str) -> Names | None:
        """Return the names of a stage whose function has this name, None if it is named in another way."""
        project, found, stage = function.partition("-migrate-lambda-")
        prefix, _, service = project.rpartition("-")
        return cls(prefix, service, stage) if found and prefix and service and stage else None

    @property
    def moved_aside(self) -> Names:
        """The same names, with the function under another one."""
        return replace(self, aside=True)

    @property
    def stack(self) -> str:
        """The CloudFormation stack."""
        return f"{self.prefix}-{self.service}-migrate-{self.stage}"

    @property
    def function(self) -> str:
        """The Lambda function."""
        return f"{self.prefix}-{self.service}-migrate-lambda-{self.stage}{'-aside' if self.aside else ''}"

    @property
    def log_group(self) -> str:
        """The function's log group, under the name that Lambda itself would give it."""
        return f"/aws/lambda/{replace(self, aside=False).function}"

    @property
    def deployment_log_group(self) -> str:
        """The log group of what invokes the function in a deployment."""
        return f"/aws/lambda/{self.stack}-on-deploy"

    @property
    def state_machine(self) -> str:
        """The state machine that goes on where one run of the function ends."""
        return self.stack

    @property
    def state_machine_log_group(self) -> str:
        """The state machine's log group, under the prefix that AWS keeps for services that write logs."""
        return f"/aws/vendedlogs/states/{self.state_machine}"

    @property
    def long_runs(self) -> str:
        """The CodeBuild project that runs the function without its time limit."""
        return self.stack

    @property
    def dashboard(self) -> str:
        """The CloudWatch dashboard."""
        return self.stack

    @property
    def telemetry_service(self) -> str:
        """``service`` in the function's log lines."""
        return f"{self.prefix}-{self.service}-migrate"

    @property
    def metrics_namespace(self) -> str:
        """Where the function's own metrics are, with the stage as their dimension."""
        return f"{self.prefix}/migrate"


class OtherNames(Names):
    """The names beside a function that was named in another way. Only its log group follows from its name."""

    def __init__(self, function: str) -> None:
        """Create the names of a function."""
        super().__init__(prefix="", service="", stage=function)

    @property
    def function(self) -> str:
        """The Lambda function."""
        return self.stage

    @property
    def log_group(self) -> str:
        """The log group that Lambda itself gives it."""
        return f"/aws/lambda/{self.stage}"
