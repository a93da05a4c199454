"""Checks what is already deployed, if this machine has credentials."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from infra.errors import StageError

if TYPE_CHECKING:
    from infra.names import Names

_PACKAGING: dict[str, Literal["zip", "image"]] = {"Zip": "zip", "Image": "image"}
_TIMEOUT_S = 5


def refuse_another_packaging(names: Names, packaging: str) -> None:
    """Refuse to change a deployed function from an archive to an image, or back.

    Lambda cannot change it. CloudFormation would make a second function with the same name, and fail.

    Raises:
        StageError: the function is deployed in the other form. The message has the two steps for the change.
    """
    deployed = deployed_packaging(names.function)
    if deployed is not None and deployed != packaging:
        raise StageError(
            f"cdk.json: project.stages.{names.stage}.packaging: {names.function} is deployed as {deployed}, and Lambda"
            f" cannot change it to {packaging}. Deploy twice: `cdk deploy -c stage={names.stage} -c aside=true`"
            f" moves the function to the name {names.moved_aside.function}, and `cdk deploy -c stage={names.stage}`"
            " moves it back"
        )


def deployed_packaging(function: str) -> Literal["zip", "image"] | None:
    """Return how the deployed function is packaged, or None if that is unknown.

    The CDK's command sets ``CDK_DEFAULT_ACCOUNT`` if it has found credentials. Without them, nothing is called.
    """
    account, region = os.environ.get("CDK_DEFAULT_ACCOUNT"), os.environ.get("CDK_DEFAULT_REGION")
    if not account or not region:
        return None
    import boto3  # noqa: PLC0415 - a synthesis without credentials does not need it
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    once = Config(connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 1})
    try:
        found = boto3.client("lambda", region_name=region, config=once).get_function_configuration(
            FunctionName=function
        )
    except (BotoCoreError, ClientError):
        # It is not deployed, or the caller may not read it. Then CloudFormation reports the error.
        return None
    # The process does not know a profile that was passed to the CDK's command.
    if found["FunctionArn"].split(":")[3:5] != [region, account]:
        return None
    return _PACKAGING.get(found.get("PackageType", "Zip"))
