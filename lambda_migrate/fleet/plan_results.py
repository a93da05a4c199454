"""Records the results of a plan or a check at its targets: preflights, and comparisons of schemas.

A target's verdict is part of an object's key, so that one request reads a thousand verdicts. The rollout reads only the
objects of targets with a problem, and that of the longest block.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.server_limit import ServerBusy
from lambda_migrate.fleet.folder import BEHIND, has_form
from lambda_migrate.invocation.errors import MigrationError
from lambda_migrate.invocation.loading import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_migrate.fleet.folder import Folder
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import RunState

_PREFLIGHTS = "preflights/"
_SCHEMAS = "schemas/"
# The objects that a report reads, and the differences that it shows of a group.
_MOST_READ = 1000
_MOST_DIFFERENCES = 20
_MOST_GROUPS = 50
_FINGERPRINT_CHARACTERS = 12
# The forms of the two objects.
_CHECK = {"revision": str, "check": str, "table": str, "columns": [str], "violations": int}
_LONGEST = {"revision": str, "table": str, "blocks": str, "estimated_ms": int}
_PREFLIGHT = {"name": str, "server": str, "checks": [_CHECK], "longest": (None, _LONGEST)}
_SCHEMA = {"name": str, "differences": [str], "more": int, "reason": (None, str)}
_VERDICTS = ("fails", "slow", "unknown", "ok")
_SCHEMA_STATES = ("equal", "different", "unknown")


def record(invocation: Invocation, folder: Folder, item: Mapping[str, Any], state: RunState, outcome: str) -> None:
    """Record the preflight of a target in a plan or a check. Unknown parts are omitted.

    Raises:
        ServerBusy: as many runs as allowed are active on the server.
    """
    try:
        if item.get("check"):
            _look_at_schema(invocation, folder, item, state)
        elif outcome == BEHIND:
            _look_ahead(invocation, folder, item, state)
    except ServerBusy:
        raise
    except MigrationError:
        # The target's outcome is unchanged.
        return


def _look_ahead(invocation: Invocation, folder: Folder, item: Mapping[str, Any], state: RunState) -> None:
    found = load("lambda_migrate.run.preflight").of_pending(invocation, state)
    if not found:
        return
    verdict = min((each["verdict"] for _, each in found), key=_VERDICTS.index)
    blocked = [
        {
            "revision": revision,
            "table": table["table"],
            "blocks": table["blocks"],
            "estimated_ms": table["estimated_ms"],
        }
        for revision, each in found
        for table in each["tables"]
        if table["blocks"] != "nothing" and table["estimated_ms"]
    ]
    longest = max(blocked, key=lambda table: table["estimated_ms"], default=None)
    failed = [
        {"revision": revision, **{name: check[name] for name in ("check", "table", "columns", "violations")}}
        for revision, each in found
        for check in each["checks"]
        if check["result"] == "failed"
    ]
    longest_ms = longest["estimated_ms"] if longest is not None else 0
    body = {"name": item["name"], "server": item["server"], "checks": failed, "longest": longest}
    folder.put(f"{_PREFLIGHTS}{int(item['number'])}/{verdict}/{longest_ms}", body)


def _look_at_schema(invocation: Invocation, folder: Folder, item: Mapping[str, Any], state: RunState) -> None:
    found = load("lambda_migrate.run.drift").of_state(invocation, state)
    print_ = (found.fingerprint or "")[:_FINGERPRINT_CHARACTERS] or "none"
    differences = list(found.differences[:_MOST_DIFFERENCES])
    body = {
        "name": item["name"],
        "differences": differences,
        "more": len(found.differences) - len(differences),
        "reason": found.reason,
    }
    folder.put(f"{_SCHEMAS}{int(item['number'])}/{found.schema}/{print_}", body)


def sections(folder: Folder) -> dict[str, Any]:
    """Return the report's ``preflight`` and ``schema``, each only if something was found."""
    found: dict[str, Any] = {}
    if preflight := _preflight(folder):
        found["preflight"] = preflight
    if groups := _groups(folder):
        found["schema"] = groups
    return found


def _preflight(folder: Folder) -> dict[str, Any] | None:
    seen = [(verdict, int(longest_ms), key) for verdict, longest_ms, key in _keys(folder, _PREFLIGHTS, _VERDICTS)]
    if not seen:
        return None
    verdicts = Counter(verdict for verdict, *_ in seen)
    by_trouble = sorted(seen, key=lambda each: (_VERDICTS.index(each[0]), -each[1]))
    wanted = [key for verdict, _, key in by_trouble if verdict in {"fails", "slow"}][:_MOST_READ]
    longest_key = max(seen, key=lambda each: each[1])[2]
    bodies = {key: body for key in {*wanted, longest_key} if (body := _body(folder, key, _PREFLIGHT)) is not None}
    verdict_of = {key: (verdict, longest_ms) for verdict, longest_ms, key in seen}
    servers: dict[str, dict[str, Any]] = {}
    for key, body in bodies.items():
        verdict, longest_ms = verdict_of[key]
        server = servers.setdefault(body["server"], {"server": body["server"], "fails": 0, "slow": 0, "longest_ms": 0})
        if verdict in {"fails", "slow"}:
            server[verdict] += 1
        server["longest_ms"] = max(server["longest_ms"], longest_ms)
    longest = bodies.get(longest_key)
    return {
        "verdicts": {verdict: verdicts[verdict] for verdict in _VERDICTS if verdicts[verdict]},
        "checks": _checks(bodies[key] for key in wanted if key in bodies),
        "longest": {"name": longest["name"], "server": longest["server"], **longest["longest"]}
        if longest is not None and longest.get("longest")
        else None,
        "servers": sorted(servers.values(), key=lambda each: (-each["fails"], -each["longest_ms"], each["server"])),
    }


def _checks(bodies: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each check that would fail, with the number of targets and one example, most targets first."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for body in bodies:
        for check in body["checks"]:
            key = (check["revision"], check["check"], check["table"], *check["columns"])
            shown = {name: check[name] for name in ("revision", "check", "table", "columns")}
            entry = found.setdefault(key, {**shown, "targets": 0, "violations": 0, "example": body["name"]})
            entry["targets"] += 1
            entry["violations"] = max(entry["violations"], check["violations"])
    return sorted(found.values(), key=lambda each: -each["targets"])


def _groups(folder: Folder) -> list[dict[str, Any]]:
    """Return the groups of targets with the same result of the schema comparison, equal schemas first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for state, print_, key in _keys(folder, _SCHEMAS, _SCHEMA_STATES):
        # Targets with the recorded schema are equal, even if their databases contain other objects.
        groups.setdefault((state, "" if state == "equal" else print_), []).append(key)
    found = []
    for (state, print_), keys in sorted(groups.items(), key=lambda each: (each[0][0] != "equal", -len(each[1]))):
        body = _body(folder, keys[0], _SCHEMA) or {"name": "", "differences": [], "more": 0, "reason": None}
        found.append(
            {
                "schema": state,
                "fingerprint": print_ or None,
                "targets": len(keys),
                "example": body["name"],
                "differences": body["differences"],
                "more": body["more"],
                "reason": body.get("reason"),
            }
        )
    return found[:_MOST_GROUPS]


def _keys(folder: Folder, prefix: str, known: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield the last two parts of each key, and the key, once for each target."""
    seen: dict[str, tuple[str, str, str]] = {}
    start = folder.key(prefix)
    for key in folder.bucket.keys(start):
        parts = key[len(start) :].split("/")
        # Step Functions may invoke twice: the last one counts. Who may invoke the function can write other keys.
        if len(parts) == 3 and parts[0].isdigit() and parts[1] in known and parts[2].isalnum():  # noqa: PLR2004 - as written
            seen[parts[0]] = (parts[1], parts[2], key)
    yield from seen.values()


def _body(folder: Folder, key: str, form: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the content of an object, or None if the function does not write such an object."""
    found = folder.bucket.read(key)
    return found[0] if found is not None and has_form(found[0], form) else None
