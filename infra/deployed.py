"""What is deployed already, as far as this machine's credentials can tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from infra.stages import StageError

if TYPE_CHECKING:
    from infra.names import Names

_PACKAGING: dict[str, Literal["zip", "image"]] = {"Zip": "zip", "Image": "image"}
_TIMEOUT_S = 5


def refuse_another_packaging(names: Names, packaging: str) -> None:
    """Refuse to make an image of a function that is deployed as an archive, or the other way round.

    Lambda cannot change it. CloudFormation would make a second function of the same name, and fail.

    Raises:
        StageError: the function is deployed in the other way; the message has the two steps that lead there.
    """
    deployed = deployed_packaging(names.function)
    if deployed is not None and deployed != packaging:
        raise StageError(
            f"cdk.json: project.stages.{names.stage}.packaging: {names.function} is deployed as {deployed}, and Lambda"
            f" cannot make it {packaging} in place. Deploy twice: `cdk deploy -c stage={names.stage} -c aside=true`"
            f" moves the function to the name {names.moved_aside.function}, and `cdk deploy -c stage={names.stage}`"
            " moves it back"
        )


def deployed_packaging(function: str) -> Literal["zip", "image"] | None:
    """Return how a function is packaged in the account that is deployed to, or None if that is unknown.

    The CDK's command sets ``CDK_DEFAULT_ACCOUNT`` where it has found credentials. Without them nothing is asked.
    """
    account, region = os.environ.get("CDK_DEFAULT_ACCOUNT"), os.environ.get("CDK_DEFAULT_REGION")
    if not account or not region:
        return None
    import boto3  # noqa: PLC0415 - a synthesis without credentials does without it
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    once = Config(connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 1})
    try:
        found = boto3.client("lambda", region_name=region, config=once).get_function_configuration(
            FunctionName=function
        )
    except (BotoCoreError, ClientError):
        # It is not deployed, or its deployer may not look. CloudFormation then says what is wrong.
        return None
    # A profile that the CDK's command was given is not known here.
    if found["FunctionArn"].split(":")[3:5] != [region, account]:
        return None
    return _PACKAGING.get(found.get("PackageType", "Zip"))
