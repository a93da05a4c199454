"""The order of a rollout: canaries first, then waves, each with its concurrency and its tolerated failures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
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
    ``take_back`` has the ``revision`` to downgrade to, and in ``confirm`` the one that it must be at.
    """

    name: str
    target: Mapping[str, str]
    server: str = ""
    priority: float = 0
    problem: str = ""
    group: str = ""
    take_back: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """The pause before a wave, and an approval if ``kind`` is "approval" and not "none".

    A pause is ``looks`` times ``look_s`` long. After each part, the machine checks whether the rollout is halted, and
    with ``soaks`` whether the alarm of the settings is on.
    """

    kind: str = "none"
    looks: int = 0
    look_s: int = 1
    soaks: bool = False

    @classmethod
    def of(cls, seconds: int, *, soaks: bool, approval: bool) -> Gate:
        """Return a pause of at least this length, none for 0 seconds, with or without an approval after it."""
        look_s = min(max(seconds, 1), _LOOK_S)
        return cls(_APPROVAL if approval else "none", math.ceil(seconds / look_s), look_s, soaks)

    @property
    def seconds(self) -> int:
        """Return the length of the pause."""
        return self.looks * self.look_s

    @property
    def events(self) -> int:
        """Return the number of history events that it costs, rounded up."""
        return self.looks * (_EVENTS_OF_A_SOAK if self.soaks else _EVENTS_OF_A_LOOK) + (
            _EVENTS_OF_AN_APPROVAL if self.kind == _APPROVAL else 0
        )

    def looking_every(self, seconds: int) -> Gate:
        """Return the same pause, at least as long, with a check at least once in this number of seconds."""
        looks = math.ceil(self.seconds / seconds)
        return replace(self, looks=looks, look_s=math.ceil(self.seconds / looks) if looks else 1)

    def as_json(self) -> dict[str, Any]:
        """Return the fields of a part for the state machine."""
        return {"gate": self.kind, "looks": self.looks, "look_s": self.look_s, "soaks": self.soaks}


NO_GATE = Gate()
_APPROVAL = "approval"
# The state machine checks once a minute, or less often if all pauses together would need more checks than this.
_LOOK_S = 60
_MOST_LOOKS = 700
_MOST_LOOKS_FOR_THE_NEW = 100
# Of the 25,000 events of an execution. The state machine reads the alarm only while canaries soak.
_EVENTS_OF_A_LOOK = 15
_EVENTS_OF_A_SOAK = 22
_EVENTS_OF_AN_APPROVAL = 13


@dataclass(frozen=True)
class Rules:
    """The settings of a stage's rollouts. A share is a number, or a percentage such as "5%".

    ``between_waves`` and ``between_groups`` are seconds, or "approval".
    """

    canaries: Sequence[str] | int | str = 1
    waves: Sequence[int | str] = ()
    concurrency: int = 10
    per_server: int = 5
    tolerated_failures: int | str = 0
    groups: Sequence[str] = ()
    between_waves: int | str = 0
    between_groups: int | str = 0
    soak_s: int = 0

    def group(self, tenant: Tenant) -> int:
        """Return the place of a target's group.

        The last place is for targets with a problem, and for those without a group of the settings.
        """
        is_known = tenant.group in self.groups and not tenant.problem
        return self.groups.index(tenant.group) if is_known else len(self.groups)


@dataclass(frozen=True)
class Wave:
    """Targets that are migrated together, in their order."""

    number: int
    tenants: Sequence[Tenant]
    canary: bool
    concurrency: int
    tolerated_failures: int
    group: str = ""
    gate: Gate = NO_GATE


def arrange(tenants: Sequence[Tenant], rules: Rules, *, first: int = 1) -> list[Wave]:
    """Return the canaries and the other waves, group by group. Each target is in exactly one of them.

    Raises:
        ConfigurationError: a canary is named that does not exist.
    """
    canaries, rest = _canaries(_in_groups(tenants, rules), rules.canaries)
    parts = [(canaries, "")] if canaries else []
    for order, group in groupby(rest, key=rules.group):
        name = rules.groups[order] if order < len(rules.groups) else ""
        parts += [(part, name) for part in _divided(list(group), rules.waves)]
    waves: list[Wave] = []
    for number, (part, name) in enumerate(parts, start=first):
        canary = part is canaries
        gate = _gate(waves[-1], name, rules) if waves else NO_GATE
        waves.append(replace(_wave(number, part, rules, canary=canary), group=name, gate=gate))
    every = _every(sum(wave.gate.seconds for wave in waves), _MOST_LOOKS)
    return [replace(wave, gate=wave.gate.looking_every(every)) for wave in waves]


def _every(seconds: int, looks: int) -> int:
    """Return the seconds between two checks, so that the pauses need no more than about this number of checks."""
    return max(_LOOK_S, math.ceil(seconds / looks))


def _divided(tenants: list[Tenant], sizes: Sequence[int | str]) -> list[list[Tenant]]:
    """Return the targets in waves of these sizes. The remaining targets are the last one."""
    waves = []
    left = tenants
    for size in sizes:
        count = min(share(size, len(tenants), up=True), len(left))
        waves.append(left[:count])
        left = left[count:]
    return [wave for wave in (*waves, left) if wave]


def gate_of_the_new(rules: Rules) -> Gate:
    """Return the gate before the wave of targets that were created while the rollout ran."""
    setting = rules.between_waves or rules.between_groups
    approval = setting == _APPROVAL
    gate = Gate.of(0 if approval else int(setting), soaks=False, approval=approval)
    return gate.looking_every(_every(gate.seconds, _MOST_LOOKS_FOR_THE_NEW))


def _gate(before: Wave, group: str, rules: Rules) -> Gate:
    """Return the gate between a wave and the next one, which is of this group."""
    setting = rules.between_groups if group != before.group and not before.canary else rules.between_waves
    setting = setting or rules.between_waves
    soak_s = rules.soak_s if before.canary else 0
    approval = setting == _APPROVAL
    seconds = soak_s if approval else max(int(setting), soak_s)
    return Gate.of(seconds, soaks=bool(soak_s), approval=approval)


def _in_groups(tenants: Sequence[Tenant], rules: Rules) -> list[Tenant]:
    """Return the targets in order, group by group. Those with a problem come last of all."""
    return sorted(in_order(tenants), key=rules.group)


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
        positions = []
        for index, tenant in enumerate(equal):
            seen[tenant.server] = nth = seen.get(tenant.server, 0) + 1
            # The nth of a server's targets is placed at that fraction of the whole.
            positions.append(((2 * nth - 1) / (2 * totals[tenant.server]), index))
        ordered += [equal[index] for _, index in sorted(positions)]
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
        item |= tenant.take_back
        text += encoder.encode(item).encode() + b","
    text[-1:] = b"]"
    return bytes(text)
