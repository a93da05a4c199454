"""Lists the targets of a rollout and writes each wave to S3.

The waves are not part of the answer: Lambda returns 6 MB and Step Functions passes on 256 KB, which a few thousand
tenants fill. A Distributed Map reads a wave's object item by item.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg2

from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.session import find_untrusted
from lambda_migrate.database.untrusted import refuse
from lambda_migrate.fleet import rows
from lambda_migrate.fleet.bucket import ChangedMeanwhile, bucket_of
from lambda_migrate.fleet.folder import FAILED, LATEST, ROLLOUT, SUPERSEDED, Folder, wave_file
from lambda_migrate.fleet.places import placed
from lambda_migrate.fleet.target import answer, folder_of, listing_of, rollout_fields
from lambda_migrate.fleet.waves import Rules, Tenant, Wave, arrange, items_of
from lambda_migrate.invocation.aws import AwsError, calling, client
from lambda_migrate.invocation.errors import (
    ConfigurationError,
    InvalidRequest,
    SecretUnavailable,
)
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.request import is_rollout_name
from lambda_migrate.revisions.manifest import for_settings, package_digest
from lambda_migrate.run.account import log_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lambda_migrate.fleet.bucket import Bucket
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Result
    from lambda_migrate.invocation.settings import Settings

_EXECUTION = re.compile(r"arn:aws[a-z-]*:states:[a-z0-9-]*:[0-9]{12}:execution:[^:\s]{1,80}:(?P<name>[^:\s]{1,80})")
# Of a wave: the targets of one part at least, as multiples of those at work at once too, and the parts at most, because
# Step Functions passes on 256 KB.
_SMALLEST_PART = 500
_ROUNDS_OF_A_PART = 20
_PARTS = 200
_NAMES_SHOWN = 5
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
    _check_execution(fields)
    known = folder.read(ROLLOUT)
    if known is not None and known.get("execution") != fields["execution"]:
        raise InvalidRequest(f"there was a rollout {folder.name!a} already: give this one another name")
    latest = _take_over(bucket_of(invocation.settings), fields)
    if latest is not None:
        return answer(invocation, {"latest": latest})
    rules, listed = _rules(invocation.settings), _tenants(invocation)
    package = package_digest(invocation.settings)
    names = options.names
    if options.retry_of is not None:
        names = _failed_in(replace(folder, name=options.retry_of), listed)
        rules = replace(rules, canaries=0, waves=())
    elif options.approved is not None:
        names = _approved(replace(folder, name=options.approved), listed, package)
    tenants = _chosen(listed, names)
    if not isinstance(rules.canaries, (int, str)) and names is not None:
        chosen = {tenant.name for tenant in tenants}
        rules = replace(rules, canaries=[name for name in rules.canaries if name in chosen])
    waves = arrange(tenants, rules)
    written = [
        _write(folder, wave, first, check=options.check) for wave, first in zip(waves, _firsts(waves), strict=True)
    ]
    parts = [part for wave in written for part in wave.pop("part_objects")]
    servers = len({tenant.server for tenant in tenants})
    rollout = {
        "rollout": fields["name"],
        "execution": fields["execution"],
        "stage": invocation.settings.stage,
        "plan": options.plan,
        **({"check": True} if options.check else {}),
        "started": fields["started"],
        "targets": len(tenants),
        "servers": servers,
        "chosen": None if names is None else list(names),
        "package": package,
        "heads": _heads(invocation.settings),
        "waves": written,
    }
    folder.bucket.write(folder.key(ROLLOUT), json.dumps(rollout))
    action = "status" if options.plan else "upgrade"
    return answer(
        invocation,
        {
            "count": len(tenants),
            "servers": servers,
            "run": action,
            "package": package,
            "waves": parts,
            "last": len(parts),
        },
    )


@dataclass(frozen=True)
class _Options:
    """A rollout's input. ``names`` are the names of the targets to migrate, None for all.

    ``retry_of`` is a rollout whose failed targets are migrated, ``approved`` a plan whose targets are. ``check`` is a
    plan that compares the targets' schemas.
    """

    plan: bool = False
    check: bool = False
    names: tuple[str, ...] | None = None
    retry_of: str | None = None
    approved: str | None = None


def _options(given: Mapping[str, Any]) -> _Options:
    unknown = sorted(given.keys() - {"approved", "check", "plan", "targets", "retry_of"})
    if unknown:
        raise InvalidRequest(
            f"unknown field {unknown[0]!a} in the rollout's input; known: approved, check, plan, retry_of, targets"
        )
    plan, check, names = given.get("plan", False), given.get("check", False), given.get("targets")
    retry_of, approved = given.get("retry_of"), given.get("approved")
    if not isinstance(plan, bool):
        raise InvalidRequest("plan must be true or false in the rollout's input")
    if not isinstance(check, bool) or (check and not plan):
        raise InvalidRequest("check must be true or false in the rollout's input, and only a plan checks")
    if not (names is None or _is_list_of_names(names)):
        raise InvalidRequest("targets must be a list of names in the rollout's input")
    for name, value in (("retry_of", retry_of), ("approved", approved)):
        if not (value is None or _is_name_of_rollout(value)):
            raise InvalidRequest(f"{name} must be the name of a rollout in the rollout's input")
        if value is not None and names is not None:
            raise InvalidRequest(f"{name} names the targets: leave targets out of the rollout's input")
    if approved is not None and (plan or retry_of is not None):
        raise InvalidRequest("approved runs a plan: leave plan and retry_of out of the rollout's input")
    return _Options(plan, check, None if names is None else tuple(names), retry_of, approved)


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _is_name_of_rollout(value: object) -> bool:
    return isinstance(value, str) and is_rollout_name(value)


def _check_execution(fields: Mapping[str, Any]) -> None:
    """Check what the objects in S3 keep of this execution: every later rollout reads it."""
    execution = _EXECUTION.fullmatch(fields["execution"])
    if execution is None or execution["name"] != fields["name"]:
        raise InvalidRequest("rollout.execution must be the ARN of the execution that rollout.name names")
    try:
        started = datetime.fromisoformat(fields["started"].replace("Z", "+00:00"))
    except ValueError:
        started = None
    if started is None or started.tzinfo is None:
        raise InvalidRequest("rollout.started must be a time such as 2026-11-23T10:00:00Z")


def _is_ours(latest: object, fields: Mapping[str, Any]) -> bool:
    """Return whether latest.json names an execution of this state machine; only such a one may still be running."""
    execution = latest.get("execution") if isinstance(latest, dict) else None
    machine = fields["execution"].rpartition(":")[0]
    return isinstance(execution, str) and execution.rpartition(":")[0] == machine


def _take_over(bucket: Bucket, fields: Mapping[str, Any]) -> str | None:
    """Become the newest rollout, or return the execution of another one that may still run."""
    own = json.dumps({"rollout": fields["name"], "execution": fields["execution"], "started": fields["started"]})
    found = bucket.read(LATEST)
    try:
        if found is None:
            bucket.write(LATEST, own, IfNoneMatch="*")
        elif not _is_ours(found[0], fields):
            bucket.write(LATEST, own, IfMatch=found[1])
        elif found[0]["execution"] == fields.get("instead_of"):
            _supersede(bucket, found[0]["execution"], fields["name"])
            bucket.write(LATEST, own, IfMatch=found[1])
        elif found[0]["execution"] != fields["execution"]:
            return str(found[0]["execution"])
    except ChangedMeanwhile:
        return _take_over(bucket, fields)
    return None


def _supersede(bucket: Bucket, execution: str, name: str) -> None:
    """Halt a rollout that ended, so that no redrive of its execution migrates beside this one or any later one."""
    ended = execution.rpartition(":")[2]
    if is_rollout_name(ended):
        Folder(bucket, ended).halt(SUPERSEDED, f"rollout {name} has begun since, so this one begins nothing more")


def _tenants(invocation: Invocation) -> list[Tenant]:
    settings = invocation.settings
    if not settings.rollout.keys() & {"query", "secret_tag", "secret_prefix", "targets"}:
        # Without a source of targets, the stage's own database is the only one.
        return placed(invocation, [Tenant(settings.stage, {})])
    tenants = list(rows.tenants(_rows(invocation)))
    if not tenants:
        raise ConfigurationError("there is no target: nothing matches what `rollout` in the stage's settings names")
    problem = next((tenant.problem for tenant in tenants if tenant.problem), None)
    # The settings are a list that somebody wrote. The rows of a query and the tags of secrets are data of many.
    if problem and not settings.rollout.keys() & {"query", "secret_tag", "secret_prefix"}:
        raise ConfigurationError(f"{problem}: correct `rollout` in the stage's settings")
    return placed(invocation, tenants)


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
    targets: Iterable[Mapping[str, Any]] = given.get("targets") or ()
    return targets


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
            # The stage's own query finds its tables by the database's search_path.
            found = find_untrusted(session, None)
            if refuse(found, invocation.settings):
                log_untrusted(found, session.server.database, None)
            cursor.execute(f"RESET search_path; SET statement_timeout = {_QUERY_MS}")
            cursor.execute(query)
            if cursor.description is None:
                raise ConfigurationError("the query of `rollout` gives no rows: it must be a SELECT")
            columns = [column.name for column in cursor.description]
            unknown = sorted(set(columns) - rows.FIELDS)
            if unknown:
                known = ", ".join(sorted(rows.FIELDS))
                raise ConfigurationError(f"the query of `rollout` has a column {unknown[0]!r}; known: {known}")
            if len(set(columns)) < len(columns):
                raise ConfigurationError("the query of `rollout` has a column twice: give each column one name")
            while chunk := cursor.fetchmany(_CHUNK):
                for row in chunk:
                    yield dict(zip(columns, row, strict=True))
        except psycopg2.Error as error:
            raise ConfigurationError(f"the query of `rollout` failed: {one_line(error)}") from None


def _chosen(tenants: list[Tenant], names: tuple[str, ...] | None) -> list[Tenant]:
    if names is None:
        return tenants
    known = {tenant.name for tenant in tenants}
    for name in names:
        if name not in known:
            raise InvalidRequest(f"there is no target {name!a}; there are {len(known)}")
    wanted = set(names)
    return [tenant for tenant in tenants if tenant.name in wanted]


def _failed_in(folder: Folder, listed: Sequence[Tenant]) -> tuple[str, ...]:
    """Return the names of the targets that failed in a rollout, as far as they are still targets."""
    rollout = listing_of(folder)
    numbers = {outcome.number for outcome in folder.outcomes(outcome=FAILED)}
    failed = {item["name"] for wave in rollout["waves"] for item in folder.items(wave) if item["number"] in numbers}
    if not failed:
        raise InvalidRequest(f"nothing failed in rollout {folder.name!a}")
    names = tuple(tenant.name for tenant in listed if tenant.name in failed)
    if not names:
        raise InvalidRequest(
            f"none of the {len(failed)} targets that failed in rollout {folder.name!a} is one any more"
        )
    return names


def _approved(folder: Folder, listed: Sequence[Tenant], package: str) -> tuple[str, ...] | None:
    """Return the names of the targets that a plan was about, if nothing has changed since.

    Raises:
        InvalidRequest: it was no plan, or the package or the targets are others by now. Nothing was begun.
    """
    plan = listing_of(folder)
    if not plan["plan"] or plan.get("check"):
        raise InvalidRequest(f"rollout {folder.name!a} was no plan, so it cannot be approved")
    if plan.get("package") != package:
        raise InvalidRequest(f"the function was deployed since plan {folder.name!a}: plan again")
    chosen = plan.get("chosen")
    names = None if chosen is None else tuple(chosen)
    now = {tenant.name: dict(tenant.target) for tenant in listed if names is None or tenant.name in names}
    then = {item["name"]: item["target"] for wave in plan["waves"] for item in folder.items(wave)}
    if now != then:
        changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        shown = ", ".join(f"{name!a}" for name in changed[:_NAMES_SHOWN])
        raise InvalidRequest(
            f"{len(changed)} targets are new, gone or another place since plan {folder.name!a}: {shown}; plan again"
        )
    return names


def _heads(settings: Settings) -> list[str]:
    """Return the heads that the rollout brings its targets to, as the manifest has them."""
    manifest = for_settings(settings)
    return list(manifest.heads) if manifest is not None else []


def _rules(settings: Settings) -> Rules:
    given = settings.rollout
    return Rules(**{name: given[name] for name in Rules.__dataclass_fields__ if given.get(name) is not None})


def _firsts(waves: Sequence[Wave]) -> Iterator[int]:
    first = 1
    for wave in waves:
        yield first
        first += len(wave.tenants)


def _write(folder: Folder, wave: Wave, first: int, *, check: bool) -> dict[str, Any]:
    """Write a wave in parts, and return its entry in rollout.json, with an entry for each part for the machine.

    The machine looks between two parts whether the rollout is halted. Without parts, each target that is left of a wave
    of 95,000 would still be an execution of its own, only to find that out.
    """
    size = max(_SMALLEST_PART, _ROUNDS_OF_A_PART * wave.concurrency, -(-len(wave.tenants) // _PARTS))
    parts = []
    for number, start in enumerate(range(0, len(wave.tenants), size), start=1):
        part = replace(wave, tenants=wave.tenants[start : start + size])
        key = folder.key(wave_file(wave.number, number))
        folder.bucket.write(key, items_of(part, first + start, check=check))
        parts.append({"key": key, "concurrency": min(wave.concurrency, len(part.tenants))})
    return {
        "wave": wave.number,
        "key": parts[0]["key"],
        "parts": len(parts),
        "count": len(wave.tenants),
        "concurrency": wave.concurrency,
        "tolerated_failures": wave.tolerated_failures,
        "canary": wave.canary,
        "part_objects": parts,
    }
