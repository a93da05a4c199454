"""The stages of cdk.json as typed settings, so that a typo is an error with its path and not a surprise on AWS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# As a retention that CloudWatch Logs accepts (its API's PutRetentionPolicy).
RetentionDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3653
]
_LONGEST_FUNCTION_NAME = 64
_SECURITY_GROUP = r"^sg-[0-9a-f]+$"
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


class StageError(Exception):
    """cdk.json or the context names no usable stage. The message is one line with the path of what is wrong."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(_Settings):
    """Where the stage's database is and what the function may read to log in."""

    secret: str = Field(min_length=1, description="Name or complete ARN of the secret in Secrets Manager")
    host: str | None = Field(default=None, description="Where the secret holds none, as one that RDS manages")
    port: int | None = Field(default=None, ge=1, le=65535)
    name: str | None = None
    ca_bundle: str | None = Field(
        default=None,
        description="PEM file, relative to cdk.json, of the authority that signed the server's certificate; packaged"
        " with the function. Without it, Amazon's own for RDS.",
    )


class NetworkSettings(_Settings):
    """The VPC that the database is in, and how the function reaches Secrets Manager from there."""

    vpc: str = Field(pattern=r"^vpc-[0-9a-f]+$")
    subnets: Sequence[Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")]] = Field(
        min_length=1, description="Private subnets; two in different zones survive the loss of one"
    )
    database_security_group: str = Field(
        pattern=_SECURITY_GROUP, description="The database's own; the function is let in there on the database's port"
    )
    secrets_endpoint: Annotated[str, Field(pattern=rf"^(create|nat|{_SECURITY_GROUP[1:-1]})$")] = Field(
        default="create",
        description="create: make an interface endpoint for Secrets Manager; nat: the subnets have a NAT gateway;"
        " or the security group of an endpoint that the VPC has already (it can have only one)",
    )


class Stage(_Settings):
    """One environment: everything that differs between two functions."""

    account: str | None = Field(default=None, pattern=r"^[0-9]{12}$", description="Without it, that of the AWS profile")
    region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")
    backend: str = Field(default="back", description="The backend's folder, relative to cdk.json")
    alembic_config: str = Field(default="alembic.ini", description="alembic.ini or pyproject.toml in that folder")
    runtime: Literal["python3.12", "python3.13", "python3.14", "local"] = Field(
        default="python3.13",
        description="local: this machine's interpreter under AWS's own runtime client, for the local cloud",
    )
    architecture: Literal["arm64", "x86_64"] = "arm64"
    memory_mb: int = Field(default=512, ge=128, le=10240)
    timeout_s: int = Field(default=900, ge=30, le=900)
    database: DatabaseSettings
    network: NetworkSettings | None = Field(default=None, description="Without it the function is in no VPC")
    log_retention_days: RetentionDays = 90
    environment: Mapping[str, str] = Field(
        default_factory=dict, description="More variables for the function; docs/contract.md has their list"
    )


class Project(_Settings):
    """cdk.json's ``project``: the names everything is made from, and the stages."""

    prefix: Name = "template-saas"
    service: Name = "api"
    stages: Mapping[Name, Stage]

    def stage(self, name: str) -> Stage:
        """The settings of one stage.

        Raises:
            StageError: there is no such stage.
        """
        if name not in self.stages:
            known = ", ".join(self.stages)
            wrong = f"there is no stage {name!r} in cdk.json" if name else "no stage was chosen"
            raise StageError(f"{wrong}: say -c stage=NAME, one of {known}")
        if len(f"{self.prefix}-{self.service}-migrate-lambda-{name}") > _LONGEST_FUNCTION_NAME:
            raise StageError(
                f"cdk.json: project.prefix, project.service and the stage's name {name!r} make a function name longer"
                f" than Lambda's {_LONGEST_FUNCTION_NAME} characters"
            )
        return self.stages[name]


def read_project(context: object) -> Project:
    """The checked ``project`` of cdk.json's context.

    Raises:
        StageError: names the path of the first wrong or unknown key, and what it must be.
    """
    try:
        return Project.model_validate(context)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(["project", *(str(part) for part in first["loc"] if part != "[key]")])
        raise StageError(f"cdk.json: {path}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
