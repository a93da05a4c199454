"""From a stage's name to the function that belongs to it, and the AWS that it lives in."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError

from migrate_cli.errors import CommandError, ExitCode, UsageError

# boto3, the stages' settings and the local cloud load half a second long: a command that needs no stage does without.
if TYPE_CHECKING:
    import boto3

    from infra.names import Names
    from infra.stages import Project
    from localcloud.emulator import Emulator

ROOT = Path(__file__).resolve().parent.parent
LOCAL = "local"
PRODUCTION = "prod"

# Any of these means that somebody has said which AWS is meant.
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


@dataclass(frozen=True)
class Function:
    """A stage's function: its names, its account if cdk.json fixes one, and the session for its AWS."""

    stage: str
    names: Names
    account: str | None
    session: boto3.Session
    emulator: Emulator | None = None

    @property
    def name(self) -> str:
        """Its name in Lambda."""
        return self.names.function

    @property
    def log_group(self) -> str:
        """Its log group in CloudWatch."""
        return self.names.log_group

    def client(self, service: str, *, connect_s: int, read_s: int) -> Any:  # noqa: ANN401 - each service's is its own
        """A client that asks once: what came back late or not at all may have been done all the same.

        It keeps its connection alive, as something between here and AWS may forget one that is silent for minutes.

        Raises:
            CommandError: the AWS settings make no sense.
        """
        config = Config(
            connect_timeout=connect_s, read_timeout=read_s, retries={"total_max_attempts": 1}, tcp_keepalive=True
        )
        options: dict[str, Any] = {"config": config}
        if self.emulator is not None:
            # An address of this machine is none for a proxy.
            options = {"config": config.merge(Config(proxies={})), "endpoint_url": self.emulator.endpoint}
        try:
            return self._untyped().client(service, **options)
        except BotoCoreError:  # some of them are ValueErrors, too
            raise
        except ValueError as error:
            raise CommandError(
                "InvalidSettings",
                f"the AWS settings cannot be used: {error}",
                ExitCode.AWS,
                advice="Nothing was run. Look at AWS_ENDPOINT_URL and the profile: env | grep ^AWS_",
            ) from None

    def arn(self, client: Any) -> str:  # noqa: ANN401 - as above
        """What to invoke. With its account, so that credentials of another account reach nothing of the same name."""
        if self.account is None:
            return self.name
        return f"arn:{client.meta.partition}:lambda:{client.meta.region_name}:{self.account}:function:{self.name}"

    def _untyped(self) -> Any:  # noqa: ANN401 - boto3's types know services by literal names only
        return self.session


def project() -> Project:
    """The project that cdk.json describes.

    Raises:
        UsageError: it cannot be read.
    """
    from infra.stages import StageError, read_project  # noqa: PLC0415 - see above

    try:
        content = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))
        return read_project(content.get("context", {}).get("project"))
    except (OSError, ValueError, AttributeError, StageError) as error:
        raise UsageError(f"cdk.json cannot be used: {error}") from None


def must_be_meant(stage: str) -> bool:
    """Whether nobody changes this stage in passing: `prod`, and each that cdk.json protects."""
    settings = project().stages.get(stage)
    return stage == PRODUCTION or bool(settings and settings.protect)


def find(stage: str, region: str | None, profile: str | None) -> Function:
    """The function of a stage. Its region is the option's, that of cdk.json, or that of the AWS settings.

    Raises:
        CommandError: there is no such stage, or the local cloud is meant and is not up.
    """
    import boto3  # noqa: PLC0415 - see above

    known = project()
    if stage not in known.stages:
        raise UsageError(
            f"there is no stage {stage!r} in cdk.json", advice=f"Say --stage with one of {', '.join(known.stages)}."
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
    # The aws command, version 2, knows AWS_REGION; boto3 knows AWS_DEFAULT_REGION only.
    region = region or settings.region or os.environ.get("AWS_REGION")
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
    except BotoCoreError as error:
        raise CommandError(
            type(error).__name__, str(error), ExitCode.AWS, advice="The profiles there are: aws configure list-profiles"
        ) from None
    return Function(stage, names, settings.account, session)


def _local_cloud() -> Emulator:
    from localcloud import cloud  # noqa: PLC0415 - see above

    emulator = cloud.running_emulator(ROOT)
    if emulator is None:
        raise CommandError(
            "LocalCloudDown",
            "the local cloud is not up",
            ExitCode.AWS,
            advice="Run `make migrate` first: it starts the local cloud and deploys stage local.",
        )
    return emulator
