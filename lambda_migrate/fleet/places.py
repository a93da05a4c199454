"""Finds the server of each target, and two targets with the same database and schema."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lambda_migrate.database.credential_store import parse_secret, read_secret
from lambda_migrate.database.open_session import open_session
from lambda_migrate.invocation.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRequest,
    MigrationError,
    MigrationIncomplete,
    SecretMalformed,
    SecretUnavailable,
)
from lambda_migrate.invocation.request import Target
from lambda_migrate.invocation.settings import settings_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from lambda_migrate.database.common import Server
    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.database.session import Session
    from lambda_migrate.fleet.waves import Tenant
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.invocation import Invocation

UNKNOWN_SERVER = "unknown"
# The schema of a session whose search_path has none that exists: env.py's own then decides, and most use this one.
_PUBLIC = "public"

# Timeout of a query at a target's server, so that a server that does not answer does not delay the others.
_CONNECT_S = 10
# For the comparison of host names with all servers, in seconds, and at most a quarter of the time. Then the others are
# compared by their names alone.
_COMPARE_S = 60
# Number of logins to try at a server if they cannot connect.
_MOST_LOGINS = 3
# Number of threads that read secrets and query servers. A server that does not answer delays one of them.
_READERS = 16
# Secrets are read 16 at a time. More would take too long; then each target must name its server itself.
_MOST_SECRETS = 20_000


def placed(invocation: Invocation, tenants: Sequence[Tenant]) -> list[Tenant]:
    """Return the targets with their servers. The default is the host in the target's secret, which is read once.

    Raises:
        ConfigurationError: two targets are one database and schema.
        MigrationIncomplete: time ran out before all secrets were read.
    """
    without_server = {_secret(tenant) for tenant in tenants if not (tenant.server or tenant.problem)}
    all_secrets = {_secret(tenant) for tenant in tenants if not tenant.problem}
    known = _read(invocation, all_secrets if len(all_secrets) <= _MOST_SECRETS else without_server)
    unknown = check_places(invocation, tenants, known)
    found = [replace(tenant, problem=unknown.get(tenant.name, tenant.problem)) for tenant in tenants]
    return [tenant if tenant.server else replace(tenant, server=_server(tenant, known)) for tenant in found]


def _secret(tenant: Tenant) -> str | None:
    return tenant.target.get("secret_id")


def _server(tenant: Tenant, known: Mapping[str | None, Credentials | None]) -> str:
    credentials = None if tenant.problem else known.get(_secret(tenant))
    return f"{credentials.host}:{credentials.port}" if credentials is not None else UNKNOWN_SERVER


def _read(invocation: Invocation, secrets: set[str | None]) -> dict[str | None, Credentials | None]:
    """Return the credentials in each secret. None if it has none: the target itself fails when its turn comes."""

    def read(secret_id: str | None) -> Credentials | None:
        if invocation.deadline.left() <= 0:
            raise MigrationIncomplete(
                f"Lambda's timeout came before {len(secrets)} secrets were read: raise timeout_s of the stage"
            )
        own = settings_for(Target(secret_id=secret_id), invocation.settings)
        try:
            return parse_secret(read_secret(own.secret_id), own)
        except (SecretUnavailable, SecretMalformed, InvalidRequest):
            return None

    ordered = list(secrets)
    with ThreadPoolExecutor(max_workers=_READERS) as readers:
        return dict(zip(ordered, readers.map(read, ordered), strict=True))


def check_places(
    invocation: Invocation, tenants: Sequence[Tenant], known: Mapping[str | None, Credentials | None]
) -> dict[str, str]:
    """Return the names of targets whose schema could not be compared with the others', each with the reason.

    The server is queried only for targets without a schema that share their database with others: their schema is the
    default of their login. If a database's name is listed at several hosts, their servers are queried, too: they may be
    one. Without credentials, only the fields of the targets are compared.

    Raises:
        ConfigurationError: two targets are one database and schema. One would be migrated as the other.
    """

    def at(tenant: Tenant) -> Credentials | None:
        return None if tenant.problem else known.get(_secret(tenant))

    _refuse_equal([tenant for tenant in tenants if not tenant.problem and at(tenant) is None])
    databases: dict[_Address, list[Tenant]] = {}
    for tenant in tenants:
        if (credentials := at(tenant)) is not None:
            database = tenant.target.get("database", credentials.database)
            databases.setdefault(_Address(credentials.host.lower(), credentials.port, database), []).append(tenant)
    unknown: dict[str, str] = {}
    for database, sharing in _merged(invocation, databases):
        if len(sharing) == 1:
            continue
        schemas, problems = _schemas(invocation, database, sharing)
        unknown |= problems
        found: dict[str, Tenant] = {}
        for tenant, schema in schemas:
            other = found.setdefault(schema, tenant)
            if other is not tenant:
                hosts = dict.fromkeys(found_at.host.lower() for each in (other, tenant) if (found_at := at(each)))
                one = f" (hosts {' and '.join(hosts)} are one server)" if len(hosts) > 1 else ""
                raise ConfigurationError(
                    f"the targets {other.name!a} and {tenant.name!a} are both schema {schema!a} of database"
                    f" {database!a}{one}: leave one out; nothing was started"
                )
    return unknown


def _schemas(
    invocation: Invocation, database: str, sharing: Sequence[Tenant]
) -> tuple[list[tuple[Tenant, str]], dict[str, str]]:
    """Return the targets of one database with their schemas, and the names of those whose schema is not known now.

    A target without a schema has its login's default. One that fails anyway when its turn comes is in neither.
    """
    schemas: list[tuple[Tenant, str]] = []
    unknown: dict[str, str] = {}
    silent = 0
    error: DatabaseUnavailable | SecretUnavailable | None = None
    for tenant in sharing:
        schema = tenant.target.get("schema")
        if schema is None and silent < _MOST_LOGINS:
            if invocation.deadline.left() <= 0:
                raise MigrationIncomplete(
                    "Lambda's timeout came before the default schemas of the targets were known: give each its `schema`"
                )
            try:
                schema, error, silent = _default_schema(invocation, tenant), None, 0
            except (DatabaseUnavailable, SecretUnavailable) as unavailable:
                error = unavailable
                silent += isinstance(unavailable, DatabaseUnavailable)
        if schema is not None:
            schemas.append((tenant, schema))
        elif error is not None:
            unknown[tenant.name] = (
                f"its default schema could not be compared with those of the other targets in database"
                f" {database!a}: {error}; give it its `schema`, or retry it"
            )
    return schemas, unknown


class _Address(NamedTuple):
    """A database as the secrets have it. Another host may be another name of the same server."""

    host: str
    port: int
    database: str


def _merged(invocation: Invocation, databases: Mapping[_Address, Sequence[Tenant]]) -> list[tuple[str, list[Tenant]]]:
    """Return each database's name with its targets. Addresses that lead to one database count as one.

    Only servers that share a database's name are queried. One that does not answer counts as another server.
    """
    names = Counter(address.database for address in databases)
    until = invocation.deadline.until(min(_COMPARE_S, invocation.deadline.left() / 4))
    queried = [address for address in databases if names[address.database] > 1]
    with ThreadPoolExecutor(max_workers=_READERS) as readers:
        answers = readers.map(lambda address: _server_of(invocation, databases[address], until), queried)
        servers = dict(zip(queried, answers, strict=True))
    found: dict[_Address | Server, list[Tenant]] = {}
    for address, sharing in databases.items():
        found.setdefault(servers.get(address) or address, []).extend(sharing)
    return [(place.database, sharing) for place, sharing in found.items()]


def _server_of(invocation: Invocation, sharing: Sequence[Tenant], until: Deadline) -> Server | None:
    """Return the server and database of targets at one address, None if none of their logins can tell."""
    logins: dict[str | None, Tenant] = {}
    for tenant in sharing:
        logins.setdefault(_secret(tenant), tenant)
    for tenant in list(logins.values())[:_MOST_LOGINS]:
        if until.left() <= 0:
            return None
        with suppress(MigrationError), _session_of(invocation, tenant) as session:
            return session.server
    return None


def _refuse_equal(tenants: Sequence[Tenant]) -> None:
    """Raise `ConfigurationError` if two targets have the same fields."""
    known: dict[str, Tenant] = {}
    for tenant in tenants:
        same = known.setdefault(json.dumps(tenant.target, sort_keys=True), tenant)
        if same is not tenant:
            raise ConfigurationError(
                f"the targets {same.name!a} and {tenant.name!a} have the same secret_id, database and schema: leave"
                " one out; nothing was started"
            )


def _default_schema(invocation: Invocation, tenant: Tenant) -> str | None:
    """Return the default schema of a target's login, or None if the target fails anyway when its turn comes.

    Raises:
        DatabaseUnavailable: its database does not answer now. It may answer when the target's turn comes.
        SecretUnavailable: its secret cannot be read now.
    """
    try:
        with _session_of(invocation, tenant) as session:
            return session.default_schema or _PUBLIC
    except (DatabaseUnavailable, SecretUnavailable):
        raise
    except MigrationError:
        return None


def _session_of(invocation: Invocation, tenant: Tenant) -> AbstractContextManager[Session]:
    """Return a session with the login of a target, on its database. Its schema need not exist."""
    target = Target(**{**tenant.target, "schema": None})
    own = replace(
        invocation,
        request=replace(invocation.request, target=target),
        settings=replace(settings_for(target, invocation.settings), connect_timeout_s=_CONNECT_S),
    )
    return closing(open_session(own))
