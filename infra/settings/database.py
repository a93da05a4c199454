"""`database` of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from infra.aws_rules import KeyArn, ResourceId, SecretId
from infra.errors import invalid
from infra.settings.section import Section

if TYPE_CHECKING:
    from typing_extensions import Self


class DatabaseSettings(Section):
    """The stage's database, and how the function logs in."""

    secret: SecretId | None = Field(
        default=None,
        description="Name or complete ARN of the secret in Secrets Manager. Optional only for `iam` with `host`,"
        " `name` and `user`",
    )
    host: str | None = Field(
        default=None, description="Set it if the secret has no host. Secrets that RDS manages have none"
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="Set it if the secret has no port")
    name: str | None = Field(
        default=None, min_length=1, description="The database's name. Set it if the secret has none"
    )
    user: str | None = Field(
        default=None, min_length=1, description="The role to log in as. Set it if the secret has no user"
    )
    kms_key: KeyArn | None = Field(
        default=None, description="ARN of the key that encrypts the secret, if it is not `aws/secretsmanager`"
    )
    auth: Literal["password", "iam"] = Field(
        default="password",
        description="`password`, or `iam` for an RDS IAM token. `iam` needs `user` and `resource_id`",
    )
    resource_id: ResourceId | None = Field(
        default=None,
        description="With `iam`: the resource id of the instance, cluster or proxy. The function's role may log in"
        " only there",
    )
    ca_bundle: str | None = Field(
        default=None,
        description="PEM file with the authority that signed the server's certificate, relative to `cdk.json`. The"
        " package contains it. Default: Amazon's bundle for RDS",
    )

    @model_validator(mode="after")
    def _iam_needs_to_know_whom(self) -> Self:
        if self.secret is None and not (self.auth == "iam" and self.host and self.name and self.user):
            raise invalid("required, unless auth is iam and host, name and user are given", key="secret")
        if self.auth == "iam" and not (self.user and self.resource_id):
            raise invalid("auth iam needs user and resource_id beside it")
        if self.auth == "password" and self.resource_id:
            raise invalid("resource_id is for auth iam only")
        return self
