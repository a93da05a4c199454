"""botocore's clients, with their timeouts, and its errors as one class.

Importing botocore takes a tenth of a second. So it is loaded at the first call, and a request that is refused before
that does not pay for it. boto3 is not used: its resources and S3 transfers would add half as much again.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.settings import endpoint_url

if TYPE_CHECKING:
    from collections.abc import Iterator

# A function in a VPC without a route to AWS waits for each of these. Two attempts end well before the 15 s within which
# the contract promises an error.
_CONNECT_TIMEOUT_S = 3
_READ_TIMEOUT_S = 5
_ATTEMPTS = 2

# The classes of botocore's errors if a service cannot be reached, as in a VPC without a route to it.
NO_ANSWER = frozenset({"ConnectTimeoutError", "ReadTimeoutError", "EndpointConnectionError", "ConnectionClosedError"})


class AwsError(Exception):
    """A call to AWS failed.

    ``code`` is the error code of the service's answer, or the class of botocore's error if there was no answer.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@lru_cache(maxsize=8)
def client(service: str, *, read_timeout_s: int = _READ_TIMEOUT_S, attempts: int = _ATTEMPTS) -> Any:  # noqa: ANN401
    """Return a client of an AWS service, the same one in each run. botocore generates its type.

    Raises:
        AwsError: there is no region.
    """
    config = load("botocore.config").Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": attempts, "mode": "standard"},
    )
    with calling():
        session = load("botocore.session").get_session()
        # The variable is botocore's own, but the backend may have locked a botocore that does not know it.
        return session.create_client(service, config=config, endpoint_url=endpoint_url(service))


def rds_token(host: str, port: int, user: str) -> str:
    """Return an IAM password for an RDS user, valid for 15 minutes. It is signed here, without a call.

    Raises:
        AwsError: the function has no credentials or no region.
    """
    with calling():
        token: str = load("botocore.signers").generate_db_auth_token(client("rds"), host, port, user)
    return token


@contextmanager
def calling() -> Iterator[None]:
    """Raise the errors of botocore as `AwsError`."""
    exceptions = load("botocore.exceptions")
    try:
        yield
    except exceptions.ClientError as error:
        answer = error.response.get("Error", {})
        raise AwsError(str(answer.get("Code", "Unknown")), " ".join(str(answer.get("Message", "")).split())) from error
    except exceptions.BotoCoreError as error:
        raise AwsError(type(error).__name__, " ".join(str(error).split())) from error
