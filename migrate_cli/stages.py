"""Finds the function of a stage, and its AWS account and region."""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.environment import as_texts
from migrate_cli.errors import CommandError, ExitCode, UsageError

# boto3, the stages' settings and the local cloud take half a second to load, so commands without a stage skip them.
if TYPE_CHECKING:
    import boto3

    from infra.names import Names
    from infra.stages import Project
    from localcloud.emulator import Emulator

ROOT = Path(__file__).resolve().parent.parent
CDK_JSON = "cdk.json"
LOCAL = "local"
# The characters of a function's name in Lambda.
_FUNCTION = re.compile(r"[A-Za-z0-9_-]{1,64}")
PRODUCTION = "prod"

# If one of these is set, the caller has chosen an AWS account or endpoint, so stage `local` is not the local cloud.
_OWN_SETTINGS = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_LAMBDA",
)


# The seconds before the first probe, the seconds between probes, and the unanswered probes that end the connection.
# macOS has another name for the first.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
    if hasattr(socket, name)
]


@dataclass(frozen=True)
class Function:
    """A stage's function: its names, its account if cdk.json sets one, and the session for its AWS."""

    stage: str
    names: Names
    account: str | None
    session: boto3.Session
    emulator: Emulator | None = None

    @property
    def name(self) -> str:
        """Return its name in Lambda."""
        return self.names.function

    @property
    def log_group(self) -> str:
        """Return its log group in CloudWatch."""
        return self.names.log_group

    def client(self, service: str, *, connect_s: int, read_s: int) -> Any:  # noqa: ANN401 - each service has its own
        """Return a client that never retries: a request whose answer is late or lost may have been executed.

        Raises:
            CommandError: the AWS settings are invalid.
        """
        from botocore.config import Config  # noqa: PLC0415 - see above

        config = Config(
            connect_timeout=connect_s, read_timeout=read_s, retries={"total_max_attempts": 1}, tcp_keepalive=True
        )
        options: dict[str, Any] = {"config": config}
        if self.emulator is not None:
            # A proxy cannot reach an address of this machine.
            options = {"config": config.merge(Config(proxies={})), "endpoint_url": self.emulator.endpoint}
        try:
            client = self._untyped().client(service, **options)
        except BotoCoreError:  # some of them are ValueErrors, too
            raise
        except ValueError as error:
            raise CommandError(
                "InvalidSettings",
                f"the AWS settings are invalid: {error}",
                ExitCode.AWS,
                advice="Nothing was run. Check AWS_ENDPOINT_URL and the profile: env | grep ^AWS_",
            ) from None
        _probe_when_idle(client)
        return client

    def arn(self, client: Any) -> str:  # noqa: ANN401 - as above
        """Return the ARN to invoke. It has the account, so another account's function of this name is never invoked."""
        if self.account is None:
            return self.name
        return f"arn:{client.meta.partition}:lambda:{client.meta.region_name}:{self.account}:function:{self.name}"

    def _untyped(self) -> Any:  # noqa: ANN401 - boto3's types have services by literal names only
        return self.session


def own_account(function: Function) -> str:
    """Return the account of the credentials. AWS requires no permission for this."""
    try:
        account: str = function.client("sts", connect_s=3, read_s=5).get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        return f"unknown: {error}"
    return account


def _probe_when_idle(client: Any) -> None:  # noqa: ANN401 - as above
    """Let the operating system probe an idle connection each minute.

    NAT gateways and networks of CI drop a connection that is silent for 4 to 6 minutes. botocore only switches
    keepalive on, and Linux then sends the first probe after two hours. botocore has no setting for the interval, so
    this extends the list of socket options for its pools of connections.
    """
    client._endpoint.http_session._socket_options.extend(_KEEPALIVE)  # noqa: SLF001 - see above


def _cdk_json() -> Path:
    """Return the checkout's cdk.json. An installed command searches the current folder and its parents.

    Raises:
        UsageError: none of them has a cdk.json.
    """
    if (found := _find_cdk_json()) is not None:
        return found
    raise UsageError(
        f"there is no cdk.json in {Path.cwd()} or above it, so there are no stages",
        advice="Run this in the folder of cdk.json, or pass the function's name: --function NAME",
    )


def _find_cdk_json() -> Path | None:
    here = Path.cwd()
    files = (folder / CDK_JSON for folder in (ROOT, here, *here.parents))
    return next((file for file in files if file.is_file()), None)


def project() -> Project:
    """Return the project in cdk.json.

    Raises:
        UsageError: it cannot be read.
    """
    from infra.errors import StageError  # noqa: PLC0415 - see above
    from infra.stages import read_project  # noqa: PLC0415 - see above

    try:
        content = json.loads(_cdk_json().read_text(encoding="utf-8"))
        return read_project(content.get("context", {}).get("project"))
    except (OSError, ValueError, AttributeError, StageError) as error:
        raise UsageError(f"cdk.json is invalid: {error}") from None


def environment(stage: str | None) -> dict[str, str]:
    """Return the variables that cdk.json gives a stage's function; without a stage, those that are equal in all stages.

    It does not validate the file. Without a cdk.json no stage has variables.

    Raises:
        UsageError: cdk.json cannot be read, or has no such stage.
    """
    if stage is None and _find_cdk_json() is None:
        return {}
    variables = _environments()
    if stage is not None:
        if stage not in variables:
            raise UsageError(f"there is no stage {stage} in cdk.json", advice=f"Stages: {', '.join(variables)}.")
        return variables[stage]
    given: dict[str, set[str]] = {}
    for each in variables.values():
        for name, value in each.items():
            given.setdefault(name, set()).add(str(value))
    return {name: next(iter(values)) for name, values in given.items() if len(values) == 1}


def variables_of_all() -> frozenset[str]:
    """Return the names of the variables in any stage's `environment` of cdk.json.

    Raises:
        UsageError: cdk.json cannot be read.
    """
    return frozenset[str]() if _find_cdk_json() is None else frozenset[str]().union(*_environments().values())


def _environments() -> dict[str, dict[str, str]]:
    try:
        content = json.loads(_cdk_json().read_text(encoding="utf-8"))
        stages: dict[str, Any] = content.get("context", {}).get("project", {}).get("stages", {})
        return {name: as_texts(settings.get("environment", {})) for name, settings in stages.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"cdk.json is invalid: {error}") from None


def needs_confirmation(stage: str) -> bool:
    """Return whether a change of this stage needs a confirmation: `prod`, and the stages that cdk.json protects."""
    settings = project().stages.get(stage)
    return stage == PRODUCTION or bool(settings and settings.protect)


def named(function: str, region: str | None, profile: str | None) -> Function:
    """Return the function of this name, in the AWS of the options or the AWS settings. Needs no cdk.json.

    Raises:
        CommandError: no function can have this name, or there is no such profile.
    """
    from infra.names import Names, OtherNames  # noqa: PLC0415 - see above

    if not _FUNCTION.fullmatch(function):
        raise UsageError(
            f"{function!r} is not a valid name of a function", advice="--function takes a name, not an ARN."
        )
    names = Names.of_function(function) or OtherNames(function)
    return Function(function, names, None, _session(region or os.environ.get("AWS_REGION"), profile))


def find(stage: str, region: str | None, profile: str | None) -> Function:
    """Return the function of a stage. Its region is the option's, the one in cdk.json, or that of the AWS settings.

    Raises:
        CommandError: there is no such stage, or the local cloud is not up.
    """
    import boto3  # noqa: PLC0415 - see above

    known = project()
    if stage not in known.stages:
        raise UsageError(
            f"there is no stage {stage!r} in cdk.json", advice=f"Pass --stage with one of {', '.join(known.stages)}."
        )
    settings = known.stages[stage]
    names = known.names(stage)
    if stage == LOCAL and profile is None and not any(os.environ.get(variable) for variable in _OWN_SETTINGS):
        emulator = _local_cloud()
        given = emulator.settings()
        session = boto3.Session(
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            region_name=emulator.region,
        )
        return Function(stage, names, settings.account, session, emulator)
    # Version 2 of the aws command reads AWS_REGION. boto3 reads AWS_DEFAULT_REGION only.
    return Function(
        stage, names, settings.account, _session(region or settings.region or os.environ.get("AWS_REGION"), profile)
    )


def _session(region: str | None, profile: str | None) -> boto3.Session:
    import boto3  # noqa: PLC0415 - see above

    try:
        return boto3.Session(profile_name=profile, region_name=region)
    except BotoCoreError as error:
        raise CommandError(
            type(error).__name__, str(error), ExitCode.AWS, advice="To list the profiles: aws configure list-profiles"
        ) from None


def _local_cloud() -> Emulator:
    try:
        from localcloud import cloud  # noqa: PLC0415 - see above

        emulator = cloud.running_emulator(ROOT)
    except ModuleNotFoundError:  # installed without a checkout, which would have the local cloud
        emulator = None
    if emulator is None:
        raise CommandError(
            "LocalCloudDown",
            "the local cloud is not up",
            ExitCode.AWS,
            advice="Run `make migrate` first: it starts the local cloud and deploys stage local.",
        )
    return emulator
