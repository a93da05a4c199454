"""What AWS accepts: formats of ids, ARNs and names, limits of sizes and counts, and the routes that a VPC needs.

A check belongs here if AWS would refuse the value, or if the deployed stack could not work with it. A check of which
settings exclude or need each other belongs to their class in `infra.settings` or `infra.stages`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from infra.errors import StageError, invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from infra.names import Names

# The retentions that CloudWatch Logs accepts (PutRetentionPolicy in its API reference).
RetentionDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3653
]
_LONGEST_FUNCTION_NAME = 64
# Lambda's limit for all variables together is 4 KB.
LONGEST_VARIABLE = 3000
_SECURITY_GROUP = r"^sg-[0-9a-f]+$"
# The beginning of any ARN, with a partition.
_ARN = r"^arn:aws[a-z-]*:"
_SNS_TOPIC = _ARN + r"sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$"
# Variables that a function must not set (Lambda developer guide, "Defined runtime environment variables").
RESERVED_VARIABLES = frozenset(
    {
        *("_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV"),
        *(f"AWS_LAMBDA_FUNCTION_{name}" for name in ("NAME", "MEMORY_SIZE", "VERSION")),
        *("AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"),
        *("AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"),
    }
)
_EMAIL = r"^[^@\s:]+@[^@\s:]+\.[^@\s:]+$"
AlarmReceiver = Annotated[str, Field(pattern=f"{_SNS_TOPIC}|{_EMAIL}")]
_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,30}$"
Name = Annotated[str, Field(pattern=_NAME)]
# The ARN of a key and not of an alias: policies name keys.
KeyArn = Annotated[str, Field(pattern=_ARN + r"kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$")]
# The tags that every service of the stack accepts.
_TAG = r"^[\p{L}\p{N} _.:/=+@-]*$"
TagKey = Annotated[str, Field(pattern=_TAG, min_length=1, max_length=128)]
TagValue = Annotated[str, Field(pattern=_TAG, max_length=256)]
AccountId = Annotated[str, Field(pattern=r"^[0-9]{12}$")]
RegionName = Annotated[str, Field(pattern=r"^[a-z]{2,4}(-[a-z]+)+-[0-9]$")]
ServiceName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
# The identifier of a cluster or an instance of RDS.
DatabaseIdentifier = Annotated[str, Field(pattern=r"^[a-zA-Z](-?[a-zA-Z0-9])*$", max_length=63)]
ResourceId = Annotated[str, Field(pattern=r"^(db|cluster|prx)-[A-Za-z0-9]+$")]
# A CIDR of IPv4 or IPv6.
_CIDR = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$|^[0-9a-f:]+/[0-9]{1,3}$"
# A parameter of SSM. "#1" is the second value of a StringList.
_PARAMETER = r"^ssm:/[A-Za-z0-9_./-]+(#[0-9]{1,2})?$"
VpcId = Annotated[str, Field(pattern=rf"^vpc-[0-9a-f]+$|{_PARAMETER}")]
SubnetId = Annotated[str, Field(pattern=rf"^subnet-[0-9a-f]+$|{_PARAMETER}")]
SecurityGroupId = Annotated[str, Field(pattern=f"{_SECURITY_GROUP}|{_PARAMETER}")]
SecretsEndpoint = Annotated[str, Field(pattern=rf"^(create|nat)$|{_SECURITY_GROUP}|{_PARAMETER}")]
PrefixListId = Annotated[str, Field(pattern=r"^pl-[0-9a-f]+$")]
Peer = Annotated[str, Field(pattern=f"{_SECURITY_GROUP}|{_CIDR}|{_PARAMETER}")]
PolicyArn = Annotated[str, Field(pattern=_ARN + r"iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$")]
RoleArn = Annotated[str, Field(pattern=_ARN + r"iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$")]


def _complete(secret: str) -> str:
    if secret.startswith("arn:") and not re.search(r"-[A-Za-z0-9]{6}$", secret):
        raise invalid("the ARN is not complete: it ends in a hyphen and six characters")
    return secret


# A name or a complete ARN, without the wildcards of IAM: the role may read exactly this secret. The construct also
# takes a secret of the same app, whose ARN the CDK writes so.
_UNRESOLVED = r"^\$\{Token\[[^\]]+\]\}$"
_NAME_IN_SECRETS_MANAGER = r"[A-Za-z0-9/_+=.@!-]{1,512}$"
SecretId = Annotated[
    str,
    Field(
        pattern=f"^{_NAME_IN_SECRETS_MANAGER}|{_UNRESOLVED}"
        f"|{_ARN}secretsmanager:[a-z0-9-]+:[0-9]{{12}}:secret:{_NAME_IN_SECRETS_MANAGER}"
    ),
    AfterValidator(_complete),
]


def check_names(names: Names) -> None:
    """Refuse parts of names that AWS would refuse.

    Raises:
        StageError: a part has another form, or the function's name is too long.
    """
    for what, part in (("prefix", names.prefix), ("service", names.service), ("stage", names.stage)):
        if not re.search(_NAME, part):
            raise StageError(
                f"{what} {part!r} must begin with a letter, and have at most 31 letters, digits, hyphens and"
                " underscores"
            )
    if len(names.function) > _LONGEST_FUNCTION_NAME:
        raise StageError(
            f"prefix, service and the stage's name {names.stage!r} make a function name longer than Lambda's"
            f" {_LONGEST_FUNCTION_NAME} characters: {names.function}"
        )


def check_variables(names: Iterable[str]) -> None:
    """Refuse variables that Lambda would refuse."""
    for name in names:
        if name in RESERVED_VARIABLES:
            raise invalid(f"environment: remove {name}, which only Lambda itself may set")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]+", name):
            raise invalid(f"environment: {name!r} is not a valid name of a variable in Lambda")


def check_tags(keys: Iterable[str]) -> None:
    """Refuse tags that AWS reserves."""
    reserved = [key for key in keys if key.lower().startswith("aws:")]
    if reserved:
        raise invalid(f"remove {reserved[0]}: AWS reserves tags that begin with aws:")
