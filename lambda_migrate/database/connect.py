"""Connects to the server within a time budget. If it cannot, the error names the cause."""

from __future__ import annotations

import math
import random
import re
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psycopg2
import psycopg2.extensions

from lambda_migrate.database.common import WRONG_PASSWORD
from lambda_migrate.invocation.deadline import within
from lambda_migrate.invocation.errors import AuthenticationFailed, ConfigurationError, DatabaseUnavailable
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.invocation.deadline import Deadline

# Timeout of one attempt, in whole seconds because libpq takes no fractions. A paused Aurora takes longer to start a new
# instance, and a later attempt reaches it.
_ATTEMPT_S = 5
# A server that does not answer on TCP is behind a missing route or security group rule. The error comes after 12 s and
# not only at the end of CONNECT_TIMEOUT_S, which is 60 s by default.
_NO_ROUTE_S = 12
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)


def connect(
    credentials: Credentials, budget: Deadline, deadline: Deadline, name: str
) -> psycopg2.extensions.connection:
    """Return a connection, retrying while the cause may pass and the budget lasts.

    Raises:
        AuthenticationFailed: the server refused the login.
        DatabaseUnavailable: the message names the cause: host name, route, port, TLS or server.
        ConfigurationError: the server has no such database.
    """
    started = time.monotonic()
    opening: partial[psycopg2.extensions.connection] = partial(
        psycopg2.connect,
        host=credentials.host,
        port=credentials.port,
        dbname=credentials.database,
        user=credentials.user,
        password=credentials.password,
        sslmode=credentials.sslmode,
        sslrootcert=str(credentials.sslrootcert),
        application_name=name,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
    )
    for attempt, pause in enumerate(pauses(), start=1):
        # libpq applies the timeout to each address of the host name, and not to resolving the name.
        timeout = max(2, min(_ATTEMPT_S, round(budget.left())))
        try:
            return within(deadline.patience(math.inf), partial(opening, connect_timeout=timeout))
        except psycopg2.OperationalError as error:
            message = str(error)
        except TimeoutError as late:
            raise DatabaseUnavailable(
                f"{credentials.host}:{credentials.port} does not answer: {late}, and Lambda's timeout is near"
            ) from None
        cause = _cause(message, credentials)
        waited = time.monotonic() - started
        hopeless = not cause.passing or (cause.no_route and waited + pause > _NO_ROUTE_S)
        if hopeless or budget.left() <= pause:
            explanation = _explanation(cause, message, credentials)
            raise cause.error(f"{explanation} (tried {counted(attempt, 'time')} in {waited:.1f} s)")
        time.sleep(pause)
    raise AssertionError("unreachable: the pauses never end")


@dataclass(frozen=True)
class _Cause:
    """A cause of a failed connection, recognized by the message of libpq or of the server.

    psycopg2 gives a failed connection no SQLSTATE, so ``pattern`` matches the message. ``template`` explains the cause;
    its placeholders are ``where error host port user database sslmode ca``. ``passing`` is True if a retry can help,
    ``no_route`` if nothing was reached at all.
    """

    pattern: str
    error: type[AuthenticationFailed | ConfigurationError | DatabaseUnavailable]
    template: str
    passing: bool = False
    no_route: bool = False


_SILENCE = r"timeout expired|timed out|No route to host|Network is unreachable"

_CAUSES = (
    _Cause(
        WRONG_PASSWORD,
        AuthenticationFailed,
        "{where} refused the password of user {user!r} from the secret: {error}",
    ),
    _Cause(
        r'no pg_hba.conf entry|is not permitted to log in|role ".*" does not exist',
        AuthenticationFailed,
        "{where} refused the login of user {user!r}: {error}",
    ),
    _Cause(
        r'database ".*" does not exist',
        ConfigurationError,
        "there is no database {database!r} on {where}; correct the secret's dbname, or the stage's"
        " `database.name` (DB_NAME)",
    ),
    _Cause(
        r"does not support SSL",
        DatabaseUnavailable,
        "{where} offers no TLS and DB_SSLMODE is {sslmode}: turn TLS on at the server ({error})",
    ),
    _Cause(
        r"certificate verify failed|root certificate file|does not match host name|SSL error",
        DatabaseUnavailable,
        "{where} failed the TLS check of sslmode {sslmode}: {error} (is the host name the one in the certificate, and"
        " is the certificate signed by an authority in {ca}? See the stage's"
        " `database.host` and `database.ca_bundle` (DB_HOST and DB_SSLROOTCERT))",
    ),
    _Cause(
        r"could not translate host name",
        DatabaseUnavailable,
        "the name {host!r} could not be resolved: {error} (check the secret's host, or the stage's"
        " `database.host`, DB_HOST)",
        passing=True,
        no_route=True,
    ),
    _Cause(
        r"Connection refused",
        DatabaseUnavailable,
        "{where} refused the connection: is the server running, and is {port} its port? ({error})",
        passing=True,
    ),
)
_NO_ROUTE = _Cause(
    _SILENCE,
    DatabaseUnavailable,
    "{where} does not answer: {error} (the function must run in the database's VPC, and the database's security group"
    " must allow the function's on port {port})",
    passing=True,
    no_route=True,
)
_SLOW = _Cause(
    _SILENCE,
    DatabaseUnavailable,
    "{where} accepts connections but PostgreSQL does not answer on it: {error}",
    passing=True,
)
# Starting up, shutting down, too many connections: all other states that the server reports may pass.
_OTHER = _Cause("", DatabaseUnavailable, "no connection to database {database!r} on {where}: {error}", passing=True)


def _cause(message: str, credentials: Credentials) -> _Cause:
    for cause in _CAUSES:
        if re.search(cause.pattern, message):
            return cause
    if re.search(_SILENCE, message):
        return _SLOW if _answers(credentials) else _NO_ROUTE
    return _OTHER


def _explanation(cause: _Cause, message: str, credentials: Credentials) -> str:
    return cause.template.format(
        where=f"{credentials.host}:{credentials.port}",
        error=one_line(message),
        host=credentials.host,
        port=credentials.port,
        user=credentials.user,
        database=credentials.database,
        sslmode=credentials.sslmode,
        ca=credentials.sslrootcert.name,
    )


def _answers(credentials: Credentials) -> bool:
    """Return whether the address accepts a TCP connection. If it does, the server is slow and no route is missing."""
    try:
        with socket.create_connection((credentials.host, credentials.port), timeout=2):
            return True
    except OSError:
        return False


def pauses() -> Iterator[float]:
    """Yield the seconds between attempts: growing, then constant, with jitter so that retries spread."""
    for pause in _PAUSES_S:
        yield pause * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
    while True:
        yield _PAUSES_S[-1] * random.uniform(0.5, 1)  # noqa: S311
