"""The order of a rollout: canaries first, then waves, each with its concurrency and its tolerated failures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Tenant:
    """A target, the server that it shares with other targets, and its priority: the lowest number comes first.

    ``problem`` is the reason why it cannot be migrated, empty for most. Such a target fails when its turn comes.
    """

    name: str
    target: Mapping[str, str]
    server: str = ""
    priority: float = 0
    problem: str = ""


@dataclass(frozen=True)
class Rules:
    """The settings of a stage's rollouts. A share is a number, or a percentage such as "5%"."""

    canaries: Sequence[str] | int | str = 1
    waves: Sequence[int | str] = ()
    concurrency: int = 10
    per_server: int = 5
    tolerated_failures: int | str = 0


@dataclass(frozen=True)
class Wave:
    """Targets that are migrated together, in their order."""

    number: int
    tenants: Sequence[Tenant]
    canary: bool
    concurrency: int
    tolerated_failures: int


def arrange(tenants: Sequence[Tenant], rules: Rules) -> list[Wave]:
    """Return the canaries and the other waves. Each target is in exactly one of them.

    Raises:
        ConfigurationError: a canary is named that does not exist.
    """
    canaries, rest = _canaries(in_order(tenants), rules.canaries)
    groups = [canaries]
    left = list(rest)
    for size in rules.waves:
        count = min(share(size, len(rest), up=True), len(left))
        groups.append(left[:count])
        left = left[count:]
    groups.append(left)
    return [
        _wave(number, group, rules, canary=group is canaries)
        for number, group in enumerate((group for group in groups if group), start=1)
    ]


def _canaries(ordered: list[Tenant], setting: Sequence[str] | int | str) -> tuple[list[Tenant], list[Tenant]]:
    """Return the canaries, chosen by number, percentage or names, and the other targets."""
    if isinstance(setting, (int, str)):
        count = share(setting, len(ordered), up=True)
        return ordered[:count], ordered[count:]
    wanted = set(setting)
    canaries = [tenant for tenant in ordered if tenant.name in wanted]
    if missing := wanted - {tenant.name for tenant in canaries}:
        raise ConfigurationError(f"there is no target {min(missing)!r} to be a canary")
    return canaries, [tenant for tenant in ordered if tenant.name not in wanted]


def in_order(tenants: Sequence[Tenant]) -> list[Tenant]:
    """Return the targets sorted by priority; within a priority, the targets of each server are spread evenly.

    Those with a problem come last, so that they become canaries only if nothing else is left.
    """
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
            # The nth of a server's targets is placed at that fraction of the whole.
            places.append(((2 * nth - 1) / (2 * totals[tenant.server]), place))
        ordered += [equal[place] for _, place in sorted(places)]
    return ordered


def _priority(tenant: Tenant) -> tuple[bool, float]:
    return bool(tenant.problem), tenant.priority


def share(setting: float | str, whole: int, *, up: bool) -> int:
    """Return a number as it is, or a percentage of the whole rounded up or down; at most the whole."""
    if not isinstance(setting, str):
        return min(int(setting), whole)
    part = Fraction(setting.rstrip("% ")) * whole / 100
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


def items_of(wave: Wave, first: int, *, check: bool = False) -> bytes:
    """Return the wave as a JSON array, which a Distributed Map reads. ``first`` is the number of its first target.

    With ``check``, the schema of each target is compared.

    It is encoded item by item: the objects of 100,000 items need more memory than the function has.
    """
    text = bytearray(b"[")
    encoder = json.JSONEncoder(separators=(",", ":"))
    for number, tenant in enumerate(wave.tenants, start=first):
        item: dict[str, Any] = {
            "number": number,
            "name": tenant.name,
            "server": tenant.server,
            "wave": wave.number,
            "target": tenant.target,
        }
        if tenant.problem:
            item["problem"] = tenant.problem
        if check:
            item["check"] = True
        text += encoder.encode(item).encode() + b","
    text[-1:] = b"]"
    return bytes(text)
