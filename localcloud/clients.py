"""boto3 clients for the emulator, independent of the caller's AWS settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from localcloud.emulator import Emulator


def client(emulator: Emulator, service: str) -> Any:  # noqa: ANN401 - each service's client is a type of its own
    """Return a client for one service. It does not retry, and waits as long as a function may run."""
    settings = emulator.settings()
    session: Any = boto3.Session(
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name=emulator.region,
    )
    config = Config(read_timeout=910, retries={"total_max_attempts": 1})
    return session.client(service, endpoint_url=emulator.endpoint, config=config)
