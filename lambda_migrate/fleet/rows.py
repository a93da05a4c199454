"""Turns the rows of a rollout's source into targets. A row that is wrong is a target that fails, with the reason."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lambda_migrate.fleet.waves import Tenant
from lambda_migrate.invocation.errors import InvalidRequest
from lambda_migrate.invocation.request import UNUSABLE, parse_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_TARGET_FIELDS = ("secret_id", "database", "schema")
FIELDS = frozenset({*_TARGET_FIELDS, "name", "server", "priority", "group"})

# A name is part of the report, of log lines and of messages. A secret's name has at most 512 characters.
LONGEST_NAME = 512
LONGEST_SERVER = 255
_SHOWN = 60


class _Wrong(Exception):  # noqa: N818 - the target fails with it later
    """A value of a row is wrong. The message is part of the target's error."""


def tenants(rows: Iterable[Mapping[str, Any]]) -> Iterator[Tenant]:
    """Yield a target for each row. A target with a wrong row has a ``problem`` and a name made from its row."""
    names: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        tenant = _tenant(row, number)
        first = names.setdefault(tenant.name, number)
        if first != number:
            problem = (
                f"rows {first} and {number} are both named {tenant.name[:_SHOWN]!a}: give each a `name` of its own"
            )
            tenant = Tenant(_made_up(tenant.name, number), {}, problem=problem)
        yield tenant


def _tenant(row: Mapping[str, Any], number: int) -> Tenant:
    name = ""
    try:
        name = _text(row, "name", LONGEST_NAME)
        target = _target(row)
        server = _text(row, "server", LONGEST_SERVER)
        priority = _priority(row.get("priority"))
        group = _text(row, "group", LONGEST_SERVER)
    except (_Wrong, InvalidRequest) as wrong:
        problem = f"row {number} of the targets is wrong: {wrong}"
        return Tenant(name or _made_up(row.get("name"), number), {}, problem=problem)
    # A name that is made of the other fields may be longer than a given one may be.
    return Tenant(name or "/".join(target.values())[:LONGEST_NAME], target, server, priority, group=group)


def _made_up(name: object, number: int) -> str:
    """Return a name that no other row has. It begins with the row's own name if that is a text."""
    shown = UNUSABLE.sub("?", name[:_SHOWN]) if isinstance(name, str) else ""
    return f"{shown} (row {number})".strip()


def _target(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the place of a target. A NULL in it would mean the stage's own database, which belongs to no tenant."""
    target = {field: _text(row, field) for field in _TARGET_FIELDS if field in row}
    for field, text in target.items():
        if not text:
            raise _Wrong(f"its {field} is {'NULL' if row[field] is None else 'empty'}")
    if not target:
        raise _Wrong("it names no place: a secret_id, database or schema")
    parse_target(target)
    return target


def _text(row: Mapping[str, Any], field: str, longest: int | None = None) -> str:
    """Return a text of the row, empty if it has none. Numbers are common as the names of tenants."""
    value = row.get(field)
    if field == "name" and field in row and value in (None, ""):
        raise _Wrong("its name is NULL or empty")
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _Wrong(f"{field} must be a text, not {type(value).__name__}")
    text = str(value)
    if longest is not None and (len(text) > longest or UNUSABLE.search(text) or not text.strip()):
        raise _Wrong(f"{field} must be a text of 1 to {longest} printable characters")
    return text


def _priority(value: object) -> float:
    if value is None or value == "":
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise _Wrong(f"priority must be a number, not {type(value).__name__}")
    try:
        priority = float(value)
    except (ValueError, OverflowError):
        raise _Wrong("priority must be a number") from None
    if not math.isfinite(priority):
        raise _Wrong("priority must be a finite number")
    return priority
