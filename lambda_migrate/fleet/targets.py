"""Which targets a rollout has, and in which order: `targets` lists them and writes each wave down in S3.

They are written and not answered: Lambda answers with 6 MB and Step Functions hands on 256 KB, which a few thousand
tenants fill. A Distributed Map reads a wave's object item by item.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING, Any

import psycopg2

from lambda_migrate.database.secret import parse_secret, read_secret
from lambda_migrate.fleet.bucket import ChangedMeanwhile, bucket_of
from lambda_migrate.fleet.folder import FAILED, LATEST, ROLLOUT, wave_file
from lambda_migrate.fleet.target import answer, folder_of, said_of
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lambda_migrate.fleet.bucket import Bucket
    from lambda_migrate.fleet.folder import Folder
    from lambda_migrate.invocation.invocation import Invocation, Progress
    from lambda_migrate.invocation.result import Result
    from lambda_migrate.invocation.settings import Settings

UNKNOWN_SERVER = "unknown"

_TARGET_FIELDS = ("secret_id", "database", "schema")
_FIELDS = frozenset({*_TARGET_FIELDS, "name", "server", "priority"})
_READERS = 16
_QUERY_MS = 120_000
_CHUNK = 10_000


@dataclass(frozen=True)
class Tenant:
    """A target with what orders it: lower ``priority`` first, and the server that it shares with others."""

    name: str
    target: Mapping[str, str]
    server: str = ""
    priority: float = 0


@dataclass(frozen=True)
class Rules:
    """How a stage's rollouts go, as its settings say it. A share is a number, or a percentage such as "5%"."""

    canaries: Sequence[str] | int | str = 1
    waves: Sequence[int | str] = ()
    concurrency: int = 10
    per_server: int = 5
    tolerated_failures: int | str = 0


@dataclass(frozen=True)
class Wave:
    """Targets that are migrated together, in their order. ``tolerated_failures`` and ``concurrency`` are numbers."""

    number: int
    tenants: Sequence[Tenant]
    canary: bool
    concurrency: int
    tolerated_failures: int


def targets(invocation: Invocation, progress: Progress) -> Result:  # noqa: ARG001 - as every action
    """List a rollout's targets, write its waves down, and answer with what the state machine needs to know of them.

    Answers with ``latest`` alone, the execution that began last, when that is another one: the state machine looks
    whether it still runs, and if it does not, asks again with ``instead_of``.

    Raises:
        InvalidRequest: the rollout's input names a target that does not exist, or makes no sense.
        ConfigurationError: the query fails, or two targets have the same name.
        SecretUnavailable: secrets cannot be listed.
    """
    said, folder = said_of(invocation), folder_of(invocation)
    options = _options(said.get("input") or {})
    latest = _take_over(bucket_of(invocation.settings), said)
    if latest is not None:
        return answer(invocation, {"latest": latest})
    rules = _rules(invocation.settings)
    if options.retry_of is not None:
        tenants = _failed_in(replace(folder, name=options.retry_of))
        rules = replace(rules, canaries=0, waves=())
    else:
        tenants = _named(_tenants(invocation), options.names)
    waves = arrange(tenants, rules)
    written = [_write(folder, wave, first) for wave, first in zip(waves, _firsts(waves), strict=True)]
    servers = len({tenant.server for tenant in tenants})
    rollout = {
        "rollout": said["name"],
        "execution": said["execution"],
        "stage": invocation.settings.stage,
        "plan": options.plan,
        "started": said["started"],
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
    """A rollout's input. ``names``: of the only targets that are meant; None: all."""

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
    if names is not None and not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise InvalidRequest("targets must be a list of names in the rollout's input")
    if retry_of is not None and not (isinstance(retry_of, str) and retry_of and "/" not in retry_of):
        raise InvalidRequest("retry_of must be the name of a rollout in the rollout's input")
    if retry_of is not None and names is not None:
        raise InvalidRequest("retry_of names the targets: leave targets out of the rollout's input")
    return _Options(plan, None if names is None else tuple(names), retry_of)


def _take_over(bucket: Bucket, said: Mapping[str, Any]) -> str | None:
    """Become the newest rollout, unless there is another one that may be at work: that one's execution."""
    own = json.dumps({"rollout": said["name"], "execution": said["execution"], "started": said["started"]})
    found = bucket.read(LATEST)
    try:
        if found is None:
            bucket.write(LATEST, own, IfNoneMatch="*")
        elif found[0]["execution"] == said.get("instead_of"):
            bucket.write(LATEST, own, IfMatch=found[1])
        elif found[0]["execution"] != said["execution"]:
            return str(found[0]["execution"])
    except ChangedMeanwhile:
        return _take_over(bucket, said)
    return None


# --- where they come from ---


def _tenants(invocation: Invocation) -> list[Tenant]:
    settings = invocation.settings
    given = settings.rollout
    if given.get("query"):
        rows: Iterable[Mapping[str, Any]] = _queried(invocation, given["query"])
    elif given.get("secret_tag"):
        key, value = given["secret_tag"]["key"], given["secret_tag"]["value"]
        rows = (row for row, tags in _secrets({"tag-key": key, "tag-value": value}) if tags.get(key) == value)
    elif given.get("secret_prefix"):
        prefix = given["secret_prefix"]
        # Secrets Manager compares without regard to case.
        rows = (row for row, _ in _secrets({"name": prefix}) if row["secret_id"].startswith(prefix))
    elif given.get("targets"):
        rows = given["targets"]
    else:
        rows = [{"name": settings.stage}]
    tenants = [_tenant(row) for row in rows]
    if not tenants:
        raise ConfigurationError("there is no target: nothing matches what `rollout` in the stage's settings names")
    seen: set[str] = set()
    for tenant in tenants:
        if tenant.name in seen:
            raise ConfigurationError(f"two targets are named {tenant.name!r}: give each a `name` of its own")
        seen.add(tenant.name)
    return _with_servers(tenants, settings, invocation)


def _secrets(filters: Mapping[str, str]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Every secret that the filters match, and its tags, of which ``server`` and ``priority`` are ours."""
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
    """The rows of the query on the stage's own database, by their columns' names, in a session that cannot write."""
    with closing(invocation.open_session()) as session, session.connection.cursor() as cursor:
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


def _named(tenants: list[Tenant], names: tuple[str, ...] | None) -> list[Tenant]:
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


def _with_servers(tenants: list[Tenant], settings: Settings, invocation: Invocation) -> list[Tenant]:
    """Each with its server: as it was told, or the host in its secret, which is read once for all that have it."""
    secrets = {tenant.target.get("secret_id") for tenant in tenants if not tenant.server}

    def look(secret_id: str | None) -> str:
        if invocation.deadline.left() <= 0:
            raise MigrationIncomplete(
                f"Lambda's timeout came before the servers of {len(tenants)} targets were known: say each one's"
                " `server`, in the query or as the secret's tag"
            )
        return _server_of(secret_id, settings)

    with ThreadPoolExecutor(max_workers=_READERS) as readers:
        known = dict(zip(secrets, readers.map(look, secrets), strict=True))
    return [
        tenant if tenant.server else replace(tenant, server=known[tenant.target.get("secret_id")]) for tenant in tenants
    ]


def _server_of(secret_id: str | None, settings: Settings) -> str:
    from lambda_migrate.actions.perform import settings_for  # noqa: PLC0415 - which imports this module

    own = settings_for(Target(secret_id=secret_id), settings)
    try:
        credentials = parse_secret(read_secret(own.secret_id), own)
    except (SecretUnavailable, SecretMalformed):
        # It is that target's own failure, and told as such when its turn comes.
        return UNKNOWN_SERVER
    return f"{credentials.host}:{credentials.port}"


def _rules(settings: Settings) -> Rules:
    given = settings.rollout
    return Rules(**{name: given[name] for name in Rules.__dataclass_fields__ if given.get(name) is not None})


# --- in which order ---


def arrange(tenants: Sequence[Tenant], rules: Rules) -> list[Wave]:
    """The canaries, then the other waves: each target in exactly one, by priority, servers evenly mixed.

    Raises:
        ConfigurationError: a canary is named that does not exist.
    """
    ordered = in_order(tenants)
    if isinstance(rules.canaries, (int, str)):
        count = share(rules.canaries, len(ordered), up=True)
        canaries, rest = ordered[:count], ordered[count:]
    else:
        wanted = set(rules.canaries)
        canaries = [tenant for tenant in ordered if tenant.name in wanted]
        rest = [tenant for tenant in ordered if tenant.name not in wanted]
        if missing := wanted - {tenant.name for tenant in canaries}:
            raise ConfigurationError(f"there is no target {min(missing)!r} to be a canary")
    groups = [canaries] if canaries else []
    left = list(rest)
    for size in rules.waves:
        count = min(share(size, len(rest), up=True), len(left))
        groups.append(left[:count])
        left = left[count:]
    groups.append(left)
    return [
        _wave(number, group, rules, canary=number == 1 and bool(canaries))
        for number, group in enumerate((group for group in groups if group), start=1)
    ]


def in_order(tenants: Sequence[Tenant]) -> list[Tenant]:
    """By priority, and within one evenly mixed over the servers: none is alone at the end, or all at the beginning."""
    ordered: list[Tenant] = []
    for _, group in groupby(sorted(tenants, key=_priority), key=_priority):
        equal = list(group)
        totals: dict[str, int] = {}
        for tenant in equal:
            totals[tenant.server] = totals.get(tenant.server, 0) + 1
        seen: dict[str, int] = {}
        places = []
        for place, tenant in enumerate(equal):
            seen[tenant.server] = nth = seen.get(tenant.server, 0) + 1
            # The nth of so many is at that part of the way.
            places.append(((2 * nth - 1) / (2 * totals[tenant.server]), place))
        ordered += [equal[place] for _, place in sorted(places)]
    return ordered


def _priority(tenant: Tenant) -> float:
    return tenant.priority


def share(said: float | str, whole: int, *, up: bool) -> int:
    """A number as it is, or that percentage of the whole, rounded up or down; never more than there is."""
    if not isinstance(said, str):
        return min(int(said), whole)
    part = Fraction(said.rstrip("% ")) * whole / 100
    return min(math.ceil(part) if up else math.floor(part), whole)


def _wave(number: int, tenants: Sequence[Tenant], rules: Rules, *, canary: bool) -> Wave:
    servers = len({tenant.server for tenant in tenants})
    return Wave(
        number=number,
        tenants=tenants,
        canary=canary,
        concurrency=min(rules.concurrency, rules.per_server * servers, len(tenants)),
        tolerated_failures=0 if canary else share(rules.tolerated_failures, len(tenants), up=False),
    )


# --- written down ---


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


def items_of(wave: Wave, first: int) -> bytes:
    """The wave as a JSON array, which is what a Distributed Map reads.

    Made piece by piece: the objects of a hundred thousand items take more memory than the function may have.
    """
    text = bytearray(b"[")
    encoder = json.JSONEncoder(separators=(",", ":"))
    for number, tenant in enumerate(wave.tenants, start=first):
        item = {
            "number": number,
            "name": tenant.name,
            "server": tenant.server,
            "wave": wave.number,
            "target": tenant.target,
        }
        text += encoder.encode(item).encode() + b","
    text[-1:] = b"]"
    return bytes(text)
