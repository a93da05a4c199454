"""Lists the targets of a rollout and writes each wave to S3.

The waves are not part of the answer: Lambda returns 6 MB and Step Functions passes on 256 KB, which a few thousand
tenants fill. A Distributed Map reads a wave's object item by item.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg2

from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.secret import parse_secret, read_secret
from lambda_migrate.fleet.bucket import ChangedMeanwhile, bucket_of
from lambda_migrate.fleet.folder import FAILED, LATEST, ROLLOUT, wave_file
from lambda_migrate.fleet.target import answer, folder_of, rollout_fields
from lambda_migrate.fleet.waves import Rules, Tenant, Wave, arrange, items_of
from lambda_migrate.invocation.aws import AwsError, calling, client
from lambda_migrate.invocation.errors import (
    ConfigurationError,
    InvalidRequest,
    MigrationIncomplete,
    SecretMalformed,
    SecretUnavailable,
)
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.request import Target
from lambda_migrate.invocation.settings import settings_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lambda_migrate.fleet.bucket import Bucket
    from lambda_migrate.fleet.folder import Folder
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Result
    from lambda_migrate.invocation.settings import Settings

UNKNOWN_SERVER = "unknown"

_TARGET_FIELDS = ("secret_id", "database", "schema")
_FIELDS = frozenset({*_TARGET_FIELDS, "name", "server", "priority"})
_READERS = 16
_QUERY_MS = 120_000
_CHUNK = 10_000


def targets(invocation: Invocation) -> Result:
    """List a rollout's targets, write its waves to S3, and return the waves without their targets.

    If another execution began last, it returns only that execution, as ``latest``. The state machine then checks
    whether that one still runs. If it does not, the state machine sends the request again with ``instead_of``.

    Raises:
        InvalidRequest: the rollout's input is malformed, or names a target that does not exist.
        ConfigurationError: the query fails, or two targets have the same name.
        SecretUnavailable: secrets cannot be listed.
    """
    fields, folder = rollout_fields(invocation), folder_of(invocation)
    options = _options(fields.get("input") or {})
    latest = _take_over(bucket_of(invocation.settings), fields)
    if latest is not None:
        return answer(invocation, {"latest": latest})
    rules = _rules(invocation.settings)
    if options.retry_of is not None:
        tenants = _failed_in(replace(folder, name=options.retry_of))
        rules = replace(rules, canaries=0, waves=())
    else:
        tenants = _chosen(_tenants(invocation), options.names)
    waves = arrange(tenants, rules)
    written = [_write(folder, wave, first) for wave, first in zip(waves, _firsts(waves), strict=True)]
    servers = len({tenant.server for tenant in tenants})
    rollout = {
        "rollout": fields["name"],
        "execution": fields["execution"],
        "stage": invocation.settings.stage,
        "plan": options.plan,
        "started": fields["started"],
        "targets": len(tenants),
        "servers": servers,
        "waves": written,
    }
    folder.bucket.write(folder.key(ROLLOUT), json.dumps(rollout))
    action = "status" if options.plan else "upgrade"
    return answer(
        invocation, {"count": len(tenants), "servers": servers, "run": action, "waves": written, "last": len(waves)}
    )


@dataclass(frozen=True)
class _Options:
    """A rollout's input. ``names`` are the names of the targets to migrate, None for all."""

    plan: bool = False
    names: tuple[str, ...] | None = None
    retry_of: str | None = None


def _options(given: Mapping[str, Any]) -> _Options:
    unknown = sorted(given.keys() - {"plan", "targets", "retry_of"})
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0]!a} in the rollout's input; known: plan, retry_of, targets")
    plan, names, retry_of = given.get("plan", False), given.get("targets"), given.get("retry_of")
    if not isinstance(plan, bool):
        raise InvalidRequest("plan must be true or false in the rollout's input")
    if not (names is None or _is_list_of_names(names)):
        raise InvalidRequest("targets must be a list of names in the rollout's input")
    if not (retry_of is None or _is_name_of_rollout(retry_of)):
        raise InvalidRequest("retry_of must be the name of a rollout in the rollout's input")
    if retry_of is not None and names is not None:
        raise InvalidRequest("retry_of names the targets: leave targets out of the rollout's input")
    return _Options(plan, None if names is None else tuple(names), retry_of)


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _is_name_of_rollout(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "/" not in value


def _take_over(bucket: Bucket, fields: Mapping[str, Any]) -> str | None:
    """Become the newest rollout, or return the execution of another one that may still run."""
    own = json.dumps({"rollout": fields["name"], "execution": fields["execution"], "started": fields["started"]})
    found = bucket.read(LATEST)
    try:
        if found is None:
            bucket.write(LATEST, own, IfNoneMatch="*")
        elif found[0]["execution"] == fields.get("instead_of"):
            bucket.write(LATEST, own, IfMatch=found[1])
        elif found[0]["execution"] != fields["execution"]:
            return str(found[0]["execution"])
    except ChangedMeanwhile:
        return _take_over(bucket, fields)
    return None


def _tenants(invocation: Invocation) -> list[Tenant]:
    settings = invocation.settings
    tenants = [_tenant(row) for row in _rows(invocation)]
    if not tenants:
        raise ConfigurationError("there is no target: nothing matches what `rollout` in the stage's settings names")
    for name, count in Counter(tenant.name for tenant in tenants).items():
        if count > 1:
            raise ConfigurationError(f"two targets are named {name!r}: give each a `name` of its own")
    return _with_servers(tenants, settings, invocation.deadline)


def _rows(invocation: Invocation) -> Iterable[Mapping[str, Any]]:
    """Return a row for each target, from the source that the stage's settings name."""
    given = invocation.settings.rollout
    if given.get("query"):
        return _queried(invocation, given["query"])
    if given.get("secret_tag"):
        key, value = given["secret_tag"]["key"], given["secret_tag"]["value"]
        return (row for row, tags in _secrets({"tag-key": key, "tag-value": value}) if tags.get(key) == value)
    if given.get("secret_prefix"):
        prefix = given["secret_prefix"]
        # The filter of Secrets Manager ignores case.
        return (row for row, _ in _secrets({"name": prefix}) if row["secret_id"].startswith(prefix))
    if given.get("targets"):
        targets: Iterable[Mapping[str, Any]] = given["targets"]
        return targets
    return [{"name": invocation.settings.stage}]


def _secrets(filters: Mapping[str, str]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield each matching secret as a row, and its tags. The tags ``server`` and ``priority`` belong to the row."""
    wanted = [{"Key": key, "Values": [value]} for key, value in filters.items()]
    try:
        with calling():
            paginator = client("secretsmanager").get_paginator("list_secrets")
            for page in paginator.paginate(Filters=wanted, PaginationConfig={"PageSize": 100}):
                for secret in page["SecretList"]:
                    tags = {tag["Key"]: tag["Value"] for tag in secret.get("Tags", ())}
                    ours = {name: tags[name] for name in ("server", "priority") if name in tags}
                    yield {"name": secret["Name"], "secret_id": secret["Name"], **ours}, tags
    except AwsError as error:
        raise SecretUnavailable(
            f"the secrets of the targets could not be listed: {error.code}: {one_line(error)} (the function's role"
            " needs secretsmanager:ListSecrets)"
        ) from None


def _queried(invocation: Invocation, query: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of the query on the stage's own database by column name, in a session that cannot write."""
    with closing(open_session(invocation)) as session, session.connection.cursor() as cursor:
        try:
            cursor.execute(f"SET default_transaction_read_only = on; SET statement_timeout = {_QUERY_MS}")
            cursor.execute(query)
            if cursor.description is None:
                raise ConfigurationError("the query of `rollout` gives no rows: it must be a SELECT")
            columns = [column.name for column in cursor.description]
            unknown = sorted(set(columns) - _FIELDS)
            if unknown:
                known = ", ".join(sorted(_FIELDS))
                raise ConfigurationError(f"the query of `rollout` has a column {unknown[0]!r}; known: {known}")
            while rows := cursor.fetchmany(_CHUNK):
                for row in rows:
                    yield dict(zip(columns, row, strict=True))
        except psycopg2.Error as error:
            raise ConfigurationError(f"the query of `rollout` failed: {one_line(error)}") from None


def _tenant(row: Mapping[str, Any]) -> Tenant:
    target = {name: str(row[name]) for name in _TARGET_FIELDS if row.get(name) not in (None, "")}
    name = row.get("name") or "/".join(target.values())
    if not name:
        raise ConfigurationError("a target of `rollout` has neither a name nor a secret_id, database or schema")
    try:
        priority = float(row.get("priority") or 0)
    except (TypeError, ValueError):
        raise ConfigurationError(f"the priority of target {name!r} must be a number") from None
    return Tenant(str(name), target, str(row.get("server") or ""), priority)


def _chosen(tenants: list[Tenant], names: tuple[str, ...] | None) -> list[Tenant]:
    if names is None:
        return tenants
    known = {tenant.name for tenant in tenants}
    for name in names:
        if name not in known:
            raise InvalidRequest(f"there is no target {name!a}; there are {len(known)}")
    wanted = set(names)
    return [tenant for tenant in tenants if tenant.name in wanted]


def _failed_in(folder: Folder) -> list[Tenant]:
    rollout = folder.read(ROLLOUT)
    if rollout is None:
        raise InvalidRequest(f"there is no rollout {folder.name!a} to retry")
    failed = {outcome.number for outcome in folder.outcomes(outcome=FAILED)}
    if not failed:
        raise InvalidRequest(f"nothing failed in rollout {folder.name!a}")
    items = [item for wave in rollout["waves"] for item in folder.read(wave_file(wave["wave"]))]
    return [Tenant(item["name"], item["target"], item["server"]) for item in items if item["number"] in failed]


def _with_servers(tenants: list[Tenant], settings: Settings, deadline: Deadline) -> list[Tenant]:
    """Return the targets with their servers. The default is the host in the target's secret, which is read once."""
    secrets = {tenant.target.get("secret_id") for tenant in tenants if not tenant.server}

    def look(secret_id: str | None) -> str:
        if deadline.left() <= 0:
            raise MigrationIncomplete(
                f"Lambda's timeout came before the servers of {len(tenants)} targets were known: set each one's"
                " `server`, in the query or as the secret's tag"
            )
        return _server_of(secret_id, settings)

    with ThreadPoolExecutor(max_workers=_READERS) as readers:
        known = dict(zip(secrets, readers.map(look, secrets), strict=True))
    return [
        tenant if tenant.server else replace(tenant, server=known[tenant.target.get("secret_id")]) for tenant in tenants
    ]


def _server_of(secret_id: str | None, settings: Settings) -> str:
    own = settings_for(Target(secret_id=secret_id), settings)
    try:
        credentials = parse_secret(read_secret(own.secret_id), own)
    except (SecretUnavailable, SecretMalformed):
        # The target itself fails with this error when its turn comes.
        return UNKNOWN_SERVER
    return f"{credentials.host}:{credentials.port}"


def _rules(settings: Settings) -> Rules:
    given = settings.rollout
    return Rules(**{name: given[name] for name in Rules.__dataclass_fields__ if given.get(name) is not None})


def _firsts(waves: Sequence[Wave]) -> Iterator[int]:
    first = 1
    for wave in waves:
        yield first
        first += len(wave.tenants)


def _write(folder: Folder, wave: Wave, first: int) -> dict[str, Any]:
    key = folder.key(wave_file(wave.number))
    folder.bucket.write(key, items_of(wave, first))
    return {
        "wave": wave.number,
        "key": key,
        "count": len(wave.tenants),
        "concurrency": wave.concurrency,
        "tolerated_failures": wave.tolerated_failures,
        "canary": wave.canary,
    }
