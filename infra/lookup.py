"""Finds a security group by its tags during the synthesis, and stores the id in cdk.context.json.

The CDK's own lookups find a security group only by id or name. As with them, the result stays in the committed file. So
a synthesis without credentials, for instance in CI, uses the stored id.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import aws_cdk as cdk

from infra.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from constructs import Construct

_FILE = "cdk.context.json"
_TIMEOUT_S = 10


def security_group_id(scope: Construct, tags: Mapping[str, str]) -> str:
    """Return the id of the one security group with these tags, in the account and region of the stack.

    Raises:
        StageError: no group or several groups have them, or the id is not stored and the credentials are missing.
    """
    stack = cdk.Stack.of(scope)
    wanted = ",".join(f"{key}={value}" for key, value in sorted(tags.items()))
    key = f"security-group-by-tags:account={stack.account}:region={stack.region}:{wanted}"
    known = scope.node.try_get_context(key)
    if known:
        return str(known)
    found = _find(stack.account, stack.region, tags, wanted)
    file = Path(_FILE)
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**content, key: found}, indent=2) + "\n", encoding="utf-8")
    return found


def _find(account: str, region: str, tags: Mapping[str, str], wanted: str) -> str:
    import boto3  # noqa: PLC0415 - most stages have no lookup
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    config = Config(connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 2})
    advice = "set AWS_PROFILE to credentials of that account and synthesize once, or set the group's id"
    try:
        own = boto3.client("sts", region_name=region, config=config).get_caller_identity()["Account"]
        filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
        answer = boto3.client("ec2", region_name=region, config=config).describe_security_groups(Filters=filters)
    except (BotoCoreError, ClientError) as error:
        raise StageError(
            f"network: the security group with {wanted} in {account}, {region} is not in {_FILE} and could not be"
            f" looked up ({' '.join(str(error).split())}): {advice}"
        ) from None
    if own != account:
        raise StageError(
            f"network: the security group with {wanted} is in account {account}, and the credentials are for {own}:"
            f" {advice}"
        )
    groups = [group["GroupId"] for group in answer["SecurityGroups"]]
    if len(groups) != 1:
        many = f"{len(groups)} security groups have" if groups else "no security group has"
        raise StageError(
            f"network: {many} {wanted} in {account}, {region}"
            + (f" ({', '.join(groups[:3])}): add a tag that only one group has" if groups else "")
        )
    return str(groups[0])
