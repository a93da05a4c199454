"""The database that a function migrates: its secret, the settings that override it, and the users for IAM."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import lambda_migrate
from infra.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_secretsmanager as secretsmanager

DEFAULT_PORT = 5432
_BUNDLE = Path(lambda_migrate.__file__).with_name("rds-ca-bundle.pem")


@dataclass(frozen=True)
class Login:
    """The login, if the secret does not contain all of it. Values may be tokens of the CDK.

    ``name`` is the database on the server. With ``iam_resource_ids``, the function logs in as ``user`` with an RDS IAM
    token. They are the resource ids of the instance, cluster or proxy. ``ca_bundle`` is a PEM file of the authority
    that signed the server's certificate. Default: Amazon's bundle for RDS.
    """

    host: str | None = None
    port: int | None = None
    name: str | None = None
    user: str | None = None
    iam_resource_ids: Sequence[str] = ()
    ca_bundle: Path | None = None


@dataclass(frozen=True)
class Database:
    """The secret of a database, with its name for the function and its ARN for policies, and the login.

    With IAM there may be no secret.
    """

    secret_id: str | None
    secret_arn: str | None
    secret_key_arn: str | None
    login: Login


def database_of(secret: secretsmanager.ISecret | None, secret_key: kms.IKey | None, login: Login) -> Database:
    """Return the database that the secret and the login describe.

    Raises:
        StageError: a part of the login is missing.
    """
    if login.iam_resource_ids and not login.user:
        raise StageError("login: iam_resource_ids need user")
    if secret is None:
        if not (login.iam_resource_ids and login.host and login.name):
            raise StageError("secret is required, unless login has iam_resource_ids, host, name and user")
        return Database(None, None, None, login)
    key = secret_key or secret.encryption_key
    # Secrets Manager ends an ARN with six random characters. A "*" in their place would let the function read every
    # secret whose name begins like this one.
    return Database(
        secret_id=secret.secret_full_arn or secret.secret_name,
        secret_arn=secret.secret_full_arn or f"{secret.secret_arn}-??????",
        secret_key_arn=key.key_arn if key else None,
        login=login,
    )


@cache
def regions_of_the_bundle() -> frozenset[str]:
    """Return the regions whose RDS certificate authorities are in the package. Each authority has its region's name."""
    pems = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END", _BUNDLE.read_text(encoding="ascii"), flags=re.DOTALL)
    names = [re.search(rb"Amazon RDS ([a-z]+-[a-z-]+-[0-9]) Root CA", base64.b64decode(pem)) for pem in pems]
    return frozenset(name[1].decode() for name in names if name)
