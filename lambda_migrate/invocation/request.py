"""The event of an invocation, checked: docs/contract.md#the-event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lambda_migrate.invocation.errors import InvalidRequest

DEFAULT_REVISION = "head"

_LONGEST_SHOWN = 60

# The fields of each action beside "action" and "target". Any other field is refused: a typo must never upgrade
# production.
ACTIONS: Mapping[str, frozenset[str]] = {
    "upgrade": frozenset({"revision", "preflight", "snapshot"}),
    "plan": frozenset({"revision"}),
    "status": frozenset(),
    "history": frozenset(),
    "doctor": frozenset(),
    "check": frozenset(),
    "downgrade": frozenset({"revision", "confirm"}),
    "stamp": frozenset({"revision", "confirm", "verify"}),
}
PREFLIGHT_MODES = ("off", "warn", "enforce")

# The fields of "rollout", which only the state machine sends, with their types; one with a question mark may be missing
# or null. From "targets" on, the actions are the state machine's own.
ROLLOUT_FIELDS: Mapping[str, Mapping[str, type]] = {
    "upgrade": {"name": str, "item": dict, "runs": int, "looks?": int, "package?": str},
    "status": {"name": str, "item": dict, "runs": int, "looks?": int, "package?": str},
    "downgrade": {"name": str, "item": dict, "runs": int, "looks?": int, "package?": str},
    "targets": {"name": str, "execution": str, "started": str, "input?": dict, "instead_of?": str, "again?": bool},
    "ask": {"name": str, "key": str, "token": str},
    "halt": {"name": str, "message": str},
    "record": {"name": str, "item": dict, "runs": int, "error": dict, "began?": str},
    "report": {"name": str, "problem?": dict},
    # For a stage without targets: is a snapshot needed?
    "dangers": {"name": str},
}
# The input of a rollout's execution. A stage without targets takes none of them.
ROLLOUT_INPUT = ("approved", "check", "downgrade_to", "exclude", "migrated_by", "plan", "retry_of", "targets")
# The fields of a rollout's target in "item", as `fleet.waves` writes them.
_ITEM: Mapping[str, type] = {
    "number": int,
    "name": str,
    "server": str,
    "wave": int,
    "target": dict,
    "problem?": str,
    "check?": bool,
    # For a rollout that reverts revisions: the target revision, and the revision that the database must have.
    "revision?": str,
    "confirm?": str,
}
# Longer than any that the state machine sends: names are limited, and a cause has 256 KB at most.
_LONGEST_TEXT = 262_144
_LARGEST_NUMBER = 10_000_000
# These need a revision in the event: an action that takes something back has no default.
GUARDED_ACTIONS = frozenset({"downgrade", "stamp"})

# Alembic refuses these characters in an id itself ("@", "+" and "-" have a meaning in a revision expression).
_ID = r"[^\s@+\-,:\x00-\x1f\x7f]{1,255}"
REVISION_ID = re.compile(_ID)
_REVISIONS = {
    "upgrade": (re.compile(rf"\+[1-9][0-9]{{0,5}}|(?!base$){_ID}"), "head, heads, a revision id or +N"),
    "plan": (re.compile(rf"\+[1-9][0-9]{{0,5}}|(?!base$){_ID}"), "head, heads, a revision id or +N"),
    "downgrade": (re.compile(rf"-[1-9][0-9]{{0,5}}|(?!heads?$){_ID}"), "base, a revision id or -N"),
    "stamp": (re.compile(_ID), "head, heads, base or a revision id"),
}
# The name of an execution of Step Functions, which becomes part of an object's key.
_ROLLOUT_NAME = re.compile(r"[^\s/\x00-\x1f\x7f\ud800-\udfff]{1,80}")
# As RDS names a snapshot, or its ARN.
_SNAPSHOT = re.compile(r"[A-Za-z][A-Za-z0-9:-]{0,511}")
# No name in PostgreSQL or AWS can hold these: control characters, and surrogates, which JSON lets through.
UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# The most bytes. PostgreSQL truncates a longer identifier to another name; names and ARNs of secrets are shorter.
_TARGET_FIELDS = {"secret_id": 2048, "database": 63, "schema": 63}


@dataclass(frozen=True)
class Target:
    """A tenant's secret, database or schema. A field that is None is the stage's own."""

    secret_id: str | None = None
    database: str | None = None
    schema: str | None = None


@dataclass(frozen=True)
class Request:
    """A checked event. ``confirm`` is the revision that the caller believes the database to be at.

    ``preflight`` is one of `PREFLIGHT_MODES`, None for the stage's. With ``verify``, a stamp compares the database's
    schema with the revision's before it writes.

    ``snapshot`` is the identifier of a snapshot that was made before, for the log and the result.

    ``rollout`` holds the fields that the state machine sends, as in `ROLLOUT_FIELDS`.
    """

    action: str = "upgrade"
    revision: str = DEFAULT_REVISION
    confirm: str | None = None
    preflight: str | None = None
    verify: bool = False
    snapshot: str | None = None
    target: Target = Target()
    rollout: Mapping[str, Any] | None = None

    @property
    def is_target_of_rollout(self) -> bool:
        """Return whether this is the upgrade, the downgrade or the status of one target of a rollout."""
        return self.rollout is not None and self.action in ACTIONS


def parse_request(event: object) -> Request:
    """Return the request in an invocation's event. ``null``, ``{}`` and no event at all mean an upgrade to head.

    Raises:
        InvalidRequest: the event is not exactly a known action with the fields of that action.
    """
    if event is None:
        return Request()
    if not isinstance(event, Mapping):
        raise InvalidRequest(f"the event must be a JSON object or null, not {_kind(event)}")
    event = _of_rollout(event)
    action = _action(event)
    return Request(
        action=action,
        revision=_revision(action, event.get("revision", DEFAULT_REVISION)),
        confirm=_confirm(event),
        preflight=_preflight(event),
        verify=_verify(event),
        snapshot=_snapshot(event),
        target=parse_target(event["target"]) if "target" in event else Target(),
        rollout=_rollout(action, event),
    )


def _of_rollout(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event of a downgrade in a rollout with its revisions, which are in the target's item."""
    rollout = event.get("rollout")
    item = rollout.get("item") if isinstance(rollout, Mapping) else None
    if event.get("action") != "downgrade" or not isinstance(item, Mapping):
        return event
    if {"revision", "confirm"} & event.keys():
        raise InvalidRequest("revision and confirm of a rollout's downgrade belong in rollout.item")
    return {**event, **{name: item[name] for name in ("revision", "confirm") if name in item}}


def _action(event: Mapping[str, Any]) -> str:
    """Return the event's action, after checking that each field of the event belongs to it."""
    action = event.get("action", "upgrade")
    if not isinstance(action, str) or action not in ACTIONS.keys() | ROLLOUT_FIELDS.keys():
        raise InvalidRequest(f"unknown action {_shown(action)}; known: {', '.join(sorted(ACTIONS))}")
    known = ACTIONS[action] | {"action", "target"} if action in ACTIONS else {"action"}
    allowed = known | {"rollout"} if action in ROLLOUT_FIELDS else known
    unknown = sorted(str(name) for name in event if name not in allowed)
    if unknown:
        raise InvalidRequest(
            f"unknown field {', '.join(_shown(name) for name in unknown[:5])} for action {action}; "
            f"known: {', '.join(sorted(known))}"
        )
    if action in GUARDED_ACTIONS and "revision" not in event:
        raise InvalidRequest(f"{action} needs a revision: {_REVISIONS[action][1]}")
    return action


def _confirm(event: Mapping[str, Any]) -> str | None:
    confirm = event.get("confirm")
    if confirm is not None and not isinstance(confirm, str):
        raise InvalidRequest(f"confirm must be the database's current revision, or null, not {_shown(confirm)}")
    return confirm


def _preflight(event: Mapping[str, Any]) -> str | None:
    if "preflight" not in event:
        return None
    mode = event["preflight"]
    if not isinstance(mode, str) or mode not in PREFLIGHT_MODES:
        raise InvalidRequest(f"preflight must be one of {', '.join(PREFLIGHT_MODES)}, not {_shown(mode)}")
    return mode


def _verify(event: Mapping[str, Any]) -> bool:
    wanted = event.get("verify", False)
    if not isinstance(wanted, bool):
        raise InvalidRequest(f"verify must be true or false, not {_shown(wanted)}")
    return wanted


def _snapshot(event: Mapping[str, Any]) -> str | None:
    snapshot = event.get("snapshot") or None
    if snapshot is not None and not (isinstance(snapshot, str) and _SNAPSHOT.fullmatch(snapshot)):
        raise InvalidRequest(f"snapshot must be the identifier of a snapshot, not {_shown(snapshot)}")
    return snapshot


def _revision(action: str, value: object) -> str:
    if action not in _REVISIONS:
        return DEFAULT_REVISION
    allowed, form = _REVISIONS[action]
    if isinstance(value, str) and allowed.fullmatch(value):
        return value
    raise InvalidRequest(f"revision must be {form}, not {_shown(value)}")


def _rollout(action: str, event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if "rollout" not in event and action in ACTIONS:
        return None
    value = event.get("rollout")
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"rollout must be a JSON object, not {_kind(value)}")
    _check_fields(value, ROLLOUT_FIELDS[action], "rollout", f" for action {action}")
    if "item" in ROLLOUT_FIELDS[action]:
        _check_fields(value["item"], _ITEM, "rollout.item", "")
        parse_target(value["item"]["target"])
    if not _ROLLOUT_NAME.fullmatch(value["name"]):
        raise InvalidRequest(f"rollout.name must be the name of an execution, not {_shown(value['name'])}")
    return value


def is_downgrade(value: object) -> bool:
    """Return whether a downgrade to it is possible for many databases: base or an id, because -N differs in each."""
    return isinstance(value, str) and not value.startswith("-") and bool(_REVISIONS["downgrade"][0].fullmatch(value))


def is_rollout_name(value: str) -> bool:
    """Return whether a text may be the name of an execution of Step Functions."""
    return _ROLLOUT_NAME.fullmatch(value) is not None


def _check_fields(value: Mapping[str, Any], known: Mapping[str, type], path: str, where: str) -> None:
    """Check that each field is one of ``known`` and has its type; one with a question mark may be missing or null."""
    fields = {name.rstrip("?"): (kind, name.endswith("?")) for name, kind in known.items()}
    unknown = sorted(str(name) for name in value if name not in fields)
    if unknown:
        raise InvalidRequest(f"unknown field {_shown(unknown[0])} in {path}{where}")
    for name, (kind, optional) in fields.items():
        given = value.get(name)
        if optional and given is None:
            continue
        if type(given) is not kind:
            raise InvalidRequest(f"{path}.{name} must be {_kind(kind())}, not {_kind(given)}")
        if isinstance(given, int) and not 0 <= given <= _LARGEST_NUMBER:
            raise InvalidRequest(f"{path}.{name} must be a number from 0 to {_LARGEST_NUMBER}, not {_shown(given)}")
        if isinstance(given, str) and len(given) > _LONGEST_TEXT:
            raise InvalidRequest(f"{path}.{name} must be a shorter text, not {_shown(given)}")


def parse_target(value: object) -> Target:
    """Return the target in an event, or raise as `parse_request`."""
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"target must be a JSON object, not {_kind(value)}")
    unknown = sorted(str(name) for name in value if name not in _TARGET_FIELDS)
    if unknown:
        raise InvalidRequest(f"unknown field {_shown(unknown[0])} in target; known: {', '.join(_TARGET_FIELDS)}")
    for name, text in value.items():
        longest = _TARGET_FIELDS[name]
        if not isinstance(text, str) or not text.strip() or UNUSABLE.search(text) or len(text.encode()) > longest:
            raise InvalidRequest(f"target.{name} must be a text of 1 to {longest} bytes, not {_shown(text)}")
    return Target(**value)


def _kind(value: object) -> str:
    kinds = {
        type(None): "null",
        list: "an array",
        str: "a string",
        dict: "a JSON object",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """Return a caller's value for a message: short, on one line, and quoted if it is text."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
