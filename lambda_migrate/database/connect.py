"""Reaching the server within a budget, and telling why it cannot be reached."""

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

from lambda_migrate.invocation.deadline import within
from lambda_migrate.invocation.errors import AuthenticationFailed, ConfigurationError, DatabaseUnavailable
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.invocation.deadline import Deadline

# One attempt to connect; libpq counts whole seconds. A new instance of a paused Aurora takes longer and is tried again.
_ATTEMPT_S = 5
# A server that does not even answer on TCP is behind a missing route or rule: nobody should wait a minute to be told.
_NO_ROUTE_S = 12
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)


def connect(
    credentials: Credentials, budget: Deadline, deadline: Deadline, name: str
) -> psycopg2.extensions.connection:
    """A connection, tried for until it works, until it cannot work, or until the budget is used up.

    Raises:
        AuthenticationFailed: the server refused the login.
        DatabaseUnavailable: says whether it was the name, the route, the port, TLS or the server.
        ConfigurationError: there is no such database.
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
        # libpq counts it for each address of the name, and not while it resolves the name.
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
            told = _told(cause, message, credentials)
            raise cause.error(f"{told} (tried {attempt} time{'s' if attempt > 1 else ''} in {waited:.1f} s)")
        time.sleep(pause)
    raise AssertionError("unreachable: the pauses never end")


@dataclass(frozen=True)
class _Cause:
    """A reason for which no connection was made, known by the words of libpq or of the server.

    A failed connection carries no SQLSTATE in psycopg2. ``passing`` says that trying again can help, ``no_route`` that
    nothing was reached at all. ``told`` may name ``where said host port user database sslmode ca``.
    """

    words: str
    error: type[AuthenticationFailed | ConfigurationError | DatabaseUnavailable]
    told: str
    passing: bool = False
    no_route: bool = False


_WRONG_PASSWORD = r"password authentication failed|PAM authentication failed|no password supplied|SCRAM"  # noqa: S105
_SILENCE = r"timeout expired|timed out|No route to host|Network is unreachable"

_CAUSES = (
    _Cause(
        _WRONG_PASSWORD,
        AuthenticationFailed,
        "{where} refused the password of user {user!r} from the secret: {said}",
    ),
    _Cause(
        r'no pg_hba.conf entry|is not permitted to log in|role ".*" does not exist',
        AuthenticationFailed,
        "{where} does not let user {user!r} in: {said}",
    ),
    _Cause(
        r'database ".*" does not exist',
        ConfigurationError,
        "there is no database {database!r} on {where}; correct the secret's dbname or DB_NAME",
    ),
    _Cause(
        r"does not support SSL",
        DatabaseUnavailable,
        "{where} offers no TLS and DB_SSLMODE is {sslmode}: turn TLS on at the server ({said})",
    ),
    _Cause(
        r"certificate verify failed|root certificate file|does not match host name|SSL error",
        DatabaseUnavailable,
        "{where} failed the TLS check of sslmode {sslmode}: {said} (is the host name the one in the certificate, and"
        " is the certificate signed by an authority in {ca}? See DB_HOST and DB_SSLROOTCERT)",
    ),
    _Cause(
        r"could not translate host name",
        DatabaseUnavailable,
        "the name {host!r} could not be resolved: {said} (check the secret's host or DB_HOST)",
        passing=True,
        no_route=True,
    ),
    _Cause(
        r"Connection refused",
        DatabaseUnavailable,
        "{where} refused the connection: is the server running, and is {port} its port? ({said})",
        passing=True,
    ),
)
_NO_ROUTE = _Cause(
    _SILENCE,
    DatabaseUnavailable,
    "{where} does not answer: {said} (the function must run in the database's VPC, and the database's security group"
    " must let the function's in on port {port})",
    passing=True,
    no_route=True,
)
_SLOW = _Cause(
    _SILENCE,
    DatabaseUnavailable,
    "{where} accepts connections but PostgreSQL does not answer on it: {said}",
    passing=True,
)
# Starting up, shutting down, too many connections: whatever the server says of itself may pass.
_OTHER = _Cause("", DatabaseUnavailable, "no connection to database {database!r} on {where}: {said}", passing=True)


def _cause(message: str, credentials: Credentials) -> _Cause:
    for cause in _CAUSES:
        if re.search(cause.words, message):
            return cause
    if re.search(_SILENCE, message):
        return _SLOW if _answers(credentials) else _NO_ROUTE
    return _OTHER


def _told(cause: _Cause, message: str, credentials: Credentials) -> str:
    return cause.told.format(
        where=f"{credentials.host}:{credentials.port}",
        said=one_line(message),
        host=credentials.host,
        port=credentials.port,
        user=credentials.user,
        database=credentials.database,
        sslmode=credentials.sslmode,
        ca=credentials.sslrootcert.name,
    )


def is_authentication_failure(message: str) -> bool:
    """Whether these words of libpq, asyncpg or the server say that the password is wrong."""
    return re.search(_WRONG_PASSWORD, message) is not None


def _answers(credentials: Credentials) -> bool:
    """Whether anything accepts a TCP connection there: a slow server is no missing route."""
    try:
        with socket.create_connection((credentials.host, credentials.port), timeout=2):
            return True
    except OSError:
        return False


def pauses() -> Iterator[float]:
    """Seconds between attempts: growing, then steady, and never in step with another function's."""
    for pause in _PAUSES_S:
        yield pause * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
    while True:
        yield _PAUSES_S[-1] * random.uniform(0.5, 1)  # noqa: S311
