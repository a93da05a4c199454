"""Lists the targets of a rollout and writes each wave to S3.

The waves are not part of the answer: Lambda returns 6 MB and Step Functions passes on 256 KB, which a few thousand
tenants fill. A Distributed Map reads a wave's object item by item.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import psycopg2

from lambda_migrate.database.open_session import open_session
from lambda_migrate.database.session import find_untrusted
from lambda_migrate.database.untrusted import refuse
from lambda_migrate.fleet import rows
from lambda_migrate.fleet.bucket import ChangedMeanwhile, bucket_of
from lambda_migrate.fleet.choosing import choose, excluded_names, parse_options
from lambda_migrate.fleet.folder import LATEST, MOST_PARTS, ROLLOUT, SUPERSEDED, Folder, wave_file
from lambda_migrate.fleet.places import placed
from lambda_migrate.fleet.target import answer, folder_of, listing_of, rollout_fields
from lambda_migrate.fleet.waves import NO_GATE, Gate, Rules, Tenant, Wave, arrange, gate_of_the_new, items_of
from lambda_migrate.invocation.aws import AwsError, calling, client
from lambda_migrate.invocation.errors import (
    ConfigurationError,
    InvalidRequest,
    SecretUnavailable,
)
from lambda_migrate.invocation.redaction import one_line
from lambda_migrate.invocation.request import is_rollout_name
from lambda_migrate.revisions.manifest import for_settings, package_digest
from lambda_migrate.run.run_record import log_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lambda_migrate.fleet.bucket import Bucket
    from lambda_migrate.fleet.choosing import Chosen, Options
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Result
    from lambda_migrate.invocation.settings import Settings

_EXECUTION = re.compile(r"arn:aws[a-z-]*:states:[a-z0-9-]*:[0-9]{12}:execution:[^:\s]{1,80}:(?P<name>[^:\s]{1,80})")
# Of a wave: the targets of one part at least, as multiples of those at work at once too.
_SMALLEST_PART = 500
_ROUNDS_OF_A_PART = 20
# Step Functions passes on 256 KB, in which the report must have room, too.
_MOST_BYTES = 200_000
# Of the 25,000 events of an execution: those of one part, and what all parts and pauses may have. The others are for
# the listing, the targets that are created meanwhile, the report and what is retried.
_EVENTS_OF_A_PART = 21
_MOST_EVENTS = 21_000
# As many as the function lists within 512 MB.
MOST_TARGETS = 250_000
_SOURCES = frozenset({"query", "secret_tag", "secret_prefix", "targets"})
_QUERY_MS = 120_000
_FETCH = "FETCH 10000 FROM targets_of_rollout"


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
    options = parse_options(fields.get("input") or {})
    _check_execution(fields)
    known = folder.read(ROLLOUT)
    if known is not None and not (isinstance(known, dict) and known.get("execution") == fields["execution"]):
        raise InvalidRequest(f"there was a rollout {folder.name!a} already: give this one another name")
    latest = _take_over(bucket_of(invocation.settings), fields)
    if latest is not None:
        return answer(invocation, {"latest": latest})
    if fields.get("again"):
        return _again(invocation, folder, options)
    settings, listed = invocation.settings, _tenants(invocation)
    package = package_digest(settings)
    chosen = choose(options, listed, folder, settings=settings, package=package)
    waves = arrange(chosen.tenants, rules_of(settings, options, chosen))
    written = [
        _write(folder, wave, first, check=options.check) for wave, first in zip(waves, _firsts(waves), strict=True)
    ]
    parts = [part for wave in written for part in wave.pop("part_objects")]
    check_size(parts, [wave.gate for wave in waves], fields.get("input") or {})
    servers = len({tenant.server for tenant in chosen.tenants})
    rollout = {
        "rollout": fields["name"],
        "execution": fields["execution"],
        "stage": settings.stage,
        "plan": options.plan,
        **({"check": True} if options.check else {}),
        "started": fields["started"],
        "targets": len(chosen.tenants),
        "servers": servers,
        "chosen": None if chosen.names is None else list(chosen.names),
        "excluded": [{"name": name, "reason": reason} for name, reason in chosen.excluded.items()],
        "package": package,
        "heads": _heads(settings),
        "waves": written,
    }
    if options.downgrade_to is not None:
        rollout |= {"downgrade_to": options.downgrade_to, "migrated_by": options.migrated_by}
    folder.bucket.write(folder.key(ROLLOUT), json.dumps(rollout))
    action = "status" if options.plan else "upgrade" if options.downgrade_to is None else "downgrade"
    return answer(
        invocation,
        {
            "count": len(chosen.tenants),
            "servers": servers,
            "run": action,
            "package": package,
            "waves": parts,
            "last": len(parts),
            # The end of the rollout looks for tenants that were created since.
            "again": chosen.names is None and not options.plan and bool(settings.rollout.keys() & _SOURCES),
        },
    )


def _again(invocation: Invocation, folder: Folder, options: Options) -> Result:
    """List the targets again at the end of a rollout of all targets. New ones are one more wave.

    If a plan was approved, new targets were not, and the report lists them.
    """
    listing = dict(listing_of(folder))
    waves = [wave for wave in listing["waves"] if not wave.get("new")]
    known = {item["name"] for wave in waves for item in folder.items(wave)}
    listed = _tenants(invocation)
    known |= excluded_names(replace(options, exclude=()), listed, invocation.settings).keys()
    known |= {entry["name"] for entry in listing.get("excluded") or ()}
    new = [tenant for tenant in listed if tenant.name not in known]
    parts: list[dict[str, Any]] = []
    targets = sum(wave["count"] for wave in waves)
    if new and options.approved is not None:
        listing |= {"new": [tenant.name for tenant in new]}
    elif new:
        rules = replace(rules_of(invocation.settings), canaries=0, waves=(), groups=())
        [wave] = arrange(new, rules, first=waves[-1]["wave"] + 1)
        written = {**_write(folder, replace(wave, gate=gate_of_the_new(rules)), targets + 1), "new": True}
        parts = written.pop("part_objects")
        listing |= {"waves": [*waves, written], "targets": targets + len(new)}
    if new:
        folder.bucket.write(folder.key(ROLLOUT), json.dumps(listing))
    given = {"run": "upgrade", "package": listing["package"], "waves": parts, "last": len(parts)}
    return answer(invocation, {**given, "count": len(new), "again": False})


def _check_execution(fields: Mapping[str, Any]) -> None:
    """Check the objects in S3 for this execution, because every later rollout reads them."""
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
    """Halt a rollout that has ended, so that a redrive of its execution never migrates beside another rollout."""
    ended = execution.rpartition(":")[2]
    if is_rollout_name(ended):
        Folder(bucket, ended).halt(
            SUPERSEDED, f"rollout {name} was started since, so this one starts no further target"
        )


def _tenants(invocation: Invocation) -> list[Tenant]:
    settings = invocation.settings
    if not settings.rollout.keys() & _SOURCES:
        # Without a source of targets, the stage's own database is the only one.
        return placed(invocation, [Tenant(settings.stage, {})])
    tenants = list(islice(rows.tenants(_rows(invocation)), MOST_TARGETS + 1))
    if len(tenants) > MOST_TARGETS:
        raise ConfigurationError(
            f"there are more than {MOST_TARGETS:,} targets, the most of one rollout: divide them over several stages"
        )
    if not tenants:
        raise ConfigurationError("there is no target: nothing matches what `rollout` in the stage's settings names")
    problem = next((tenant.problem for tenant in tenants if tenant.problem), None)
    # A person wrote a list in the settings. Rows of a query and tags of secrets come from many sources.
    if problem and not settings.rollout.keys() & {"query", "secret_tag", "secret_prefix"}:
        raise ConfigurationError(f"{problem}: correct `rollout` in the stage's settings")
    return placed(invocation, tenants)


def _rows(invocation: Invocation) -> Iterable[Mapping[str, Any]]:
    """Return a row for each target, from the source that the stage's settings name."""
    given = invocation.settings.rollout
    if given.get("query"):
        return queried(invocation, given["query"])
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
    """Yield each matching secret as a row, and its tags. ``server``, ``priority`` and ``group`` belong to the row."""
    wanted = [{"Key": key, "Values": [value]} for key, value in filters.items()]
    try:
        with calling():
            paginator = client("secretsmanager").get_paginator("list_secrets")
            for page in paginator.paginate(Filters=wanted, PaginationConfig={"PageSize": 100}):
                for secret in page["SecretList"]:
                    tags = {tag["Key"]: tag["Value"] for tag in secret.get("Tags", ())}
                    ours = {name: tags[name] for name in ("server", "priority", "group") if name in tags}
                    yield {"name": secret["Name"], "secret_id": secret["Name"], **ours}, tags
    except AwsError as error:
        raise SecretUnavailable(
            f"the secrets of the targets could not be listed: {error.code}: {one_line(error)} (the function's role"
            " needs secretsmanager:ListSecrets)"
        ) from None


def queried(invocation: Invocation, query: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of the query on the stage's own database by column name, in a session that cannot write."""
    with closing(open_session(invocation)) as session, session.connection.cursor() as cursor:
        try:
            # The stage's own query finds its tables by the database's search_path.
            found = find_untrusted(session, None)
            if refuse(found, invocation.settings):
                log_untrusted(found, session.server.database, None)
            cursor.execute(f"RESET search_path; SET statement_timeout = {_QUERY_MS}; BEGIN READ ONLY")
            # Without a cursor on the server, the function would need memory for all rows, even beyond the limit.
            # In parentheses, a second statement is a syntax error. It would run, and its rows would be lost.
            one = query.rstrip().rstrip(";")
            cursor.execute(f"DECLARE targets_of_rollout NO SCROLL CURSOR FOR SELECT * FROM (\n{one}\n) AS targets")  # noqa: S608 - the operator's own query
            cursor.execute(_FETCH)
            columns = [column.name for column in cursor.description or ()]
            unknown = sorted(set(columns) - rows.FIELDS)
            if unknown:
                known = ", ".join(sorted(rows.FIELDS))
                raise ConfigurationError(f"the query of `rollout` has a column {unknown[0]!r}; known: {known}")
            if len(set(columns)) < len(columns):
                raise ConfigurationError("the query of `rollout` has a column twice: give each column one name")
            while chunk := cursor.fetchall():
                for row in chunk:
                    yield dict(zip(columns, row, strict=True))
                cursor.execute(_FETCH)
        except psycopg2.Error as error:
            raise ConfigurationError(
                f"the query of `rollout` failed; it must be one SELECT: {one_line(error)}"
            ) from None


def _heads(settings: Settings) -> list[str]:
    """Return the heads that the rollout brings its targets to, as the manifest has them."""
    manifest = for_settings(settings)
    return list(manifest.heads) if manifest is not None else []


def rules_of(settings: Settings, options: Options | None = None, chosen: Chosen | None = None) -> Rules:
    """Return the settings' rules, without the canaries and waves that the rollout has not."""
    given = settings.rollout
    rules = Rules(**{name: given[name] for name in Rules.__dataclass_fields__ if given.get(name) is not None})
    if options is not None and options.retry_of is not None:
        return replace(rules, canaries=0, waves=())
    if chosen is not None and not isinstance(rules.canaries, (int, str)):
        names = {tenant.name for tenant in chosen.tenants}
        left_out = chosen.excluded if chosen.names is None else rules.canaries
        canaries = [name for name in rules.canaries if name in names or name not in left_out]
        if rules.canaries and not canaries and options is not None and options.names is None:
            # All that the settings name are left out. Then another target goes first.
            return replace(rules, canaries=Rules.canaries)
        rules = replace(rules, canaries=canaries)
    return rules


def check_size(parts: Sequence[Mapping[str, Any]], gates: Iterable[Gate], given: Mapping[str, Any]) -> None:
    """Check that one execution can have these parts and pauses. ``given`` is the rollout's input.

    Raises:
        ConfigurationError: it cannot.
    """
    size = len(json.dumps([parts, given]))
    events = _EVENTS_OF_A_PART * len(parts) + sum(gate.events for gate in gates)
    if size > _MOST_BYTES or events > _MOST_EVENTS:
        raise ConfigurationError(
            f"the rollout is too large for one execution of Step Functions: {len(parts):,} parts of waves need about"
            f" {size:,} of {_MOST_BYTES:,} bytes, and with their pauses {events:,} of {_MOST_EVENTS:,} events: set"
            " fewer waves, groups or pauses in `rollout`"
        )


def _firsts(waves: Sequence[Wave]) -> Iterator[int]:
    first = 1
    for wave in waves:
        yield first
        first += len(wave.tenants)


def _write(folder: Folder, wave: Wave, first: int, *, check: bool = False) -> dict[str, Any]:
    """Write a wave in parts, and return its entry in rollout.json, with an entry for each part for the machine.

    The machine looks between two parts whether the rollout is halted. Without parts, each target that is left of a wave
    of 95,000 would still be an execution of its own, only to find that out.
    """
    size = max(_SMALLEST_PART, _ROUNDS_OF_A_PART * wave.concurrency, -(-len(wave.tenants) // MOST_PARTS))
    parts = []
    for number, start in enumerate(range(0, len(wave.tenants), size), start=1):
        part = replace(wave, tenants=wave.tenants[start : start + size])
        key = folder.key(wave_file(wave.number, number))
        folder.bucket.write(key, items_of(part, first + start, check=check))
        gate = wave.gate if number == 1 else NO_GATE
        parts.append({"key": key, "concurrency": min(wave.concurrency, len(part.tenants)), **gate.as_json()})
    return {
        "wave": wave.number,
        "key": parts[0]["key"],
        "parts": len(parts),
        "count": len(wave.tenants),
        "concurrency": wave.concurrency,
        "tolerated_failures": wave.tolerated_failures,
        "canary": wave.canary,
        **({"group": wave.group} if wave.group else {}),
        "part_objects": parts,
    }
