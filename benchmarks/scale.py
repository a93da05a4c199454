"""Computes the time and the first bottleneck of a rollout over a fleet, for docs/scale.md.

Each input has a name, so that it can be corrected: AWS's published quotas, measurements (`many_targets` in
results.json), and assumptions.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.cases import DATABASES, MANY_TARGETS, PROCESSOR, SERVER
from benchmarks.ground import ROOT
from benchmarks.measurement import OURS
from benchmarks.report import RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PAGE = ROOT / "docs" / "scale.md"
BEGIN = "<!-- begin: written by `python -m benchmarks.scale` -->"
END = "<!-- end: written by `python -m benchmarks.scale` -->"

SIZES = (1_000, 10_000, 100_000)

_TRANSITIONS = "state transitions"
_TRANSITIONS_ELSEWHERE = "state transitions, in other regions"
# The canaries, and the rest.
_WAVES = 2


@dataclass(frozen=True)
class Published:
    """Quotas in AWS's documentation. Quotas that can be raised have their defaults."""

    # Step Functions developer guide, "Step Functions service quotas": the state transitions of standard workflows in
    # N. Virginia, Oregon and Ireland, and everywhere else.
    transitions_a_second: int = 5_000
    transitions_a_second_elsewhere: int = 800
    history_events: int = 25_000
    children_at_once: int = 10_000
    # Lambda developer guide, "Lambda quotas", "Lambda scaling behavior" and "Configure Lambda function memory".
    functions_at_once: int = 1_000
    new_environments_in_10_s: int = 1_000
    mb_of_one_vcpu: int = 1_769
    # Secrets Manager user guide, "AWS Secrets Manager quotas".
    secret_reads_a_second: int = 10_000
    # S3 user guide, "Best practices design patterns: optimizing Amazon S3 performance", for one prefix.
    s3_writes_a_second: int = 3_500
    s3_reads_a_second: int = 5_500
    # Prescriptive guidance, "max_connections": LEAST(DBInstanceClassMemory / 9531392, 5000).
    bytes_a_connection: int = 9_531_392
    most_connections: int = 5_000


@dataclass(frozen=True)
class Assumed:
    """Assumptions. Times are in seconds."""

    tenants_a_server: int = 500
    memory_mb: int = 512
    # On Lambda: statements of both sessions, each a round trip within a region.
    round_trips: int = 35
    round_trip_s: float = 0.001
    s3_request_s: float = 0.03
    secret_s: float = 0.02
    # The time that Step Functions adds to each target: the start of a child, its three states, its end.
    machine_s: float = 0.25
    # The first invocation of each execution environment: 0.7 s of a whole core.
    cold_s: float = 3.0
    # A database server, and the share of it that a rollout may use beside the application.
    server_vcpus: int = 2
    server_gib: int = 8
    server_share: float = 0.5
    connection_share: float = 0.1
    # The share of the account's functions that a rollout may use.
    account_share: float = 0.5
    item_bytes: int = 200
    list_s: float = 0.1


@dataclass(frozen=True)
class Implementation:
    """Figures of this code: a target's work, and the limits of the settings. Tests compare them with the code."""

    states: int = 3  # Migrate, "Was there room on its server?", Done
    child_events: int = 11  # begin and end, 5 of the task, 2 of each other state
    parent_events_a_wave: int = 22
    parent_events: int = 30
    sessions: int = 2
    s3_requests: int = 2  # is it halted, and the outcome
    default_concurrency: int = 10
    default_per_server: int = 5
    most_concurrency: int = 1_000
    readers: int = 16
    most_waves: int = 51


@dataclass(frozen=True)
class Measured:
    """Processor time for each target in seconds: of the function on a whole core, and of the server."""

    function_s: float
    server_s: float


PUBLISHED, ASSUMED, IMPLEMENTATION = Published(), Assumed(), Implementation()


@dataclass(frozen=True)
class Plan:
    """A rollout over a number of tenants, with its settings."""

    measured: Measured
    tenants: int
    concurrency: int
    per_server: int

    @property
    def servers(self) -> int:
        """Return the number of database servers."""
        return math.ceil(self.tenants / ASSUMED.tenants_a_server)

    def limits(self) -> dict[str, float]:
        """Return the targets a second that each limit allows, the tightest limit first."""
        took = invocation_s(self.measured)
        child = took + ASSUMED.machine_s
        found = {
            # A wave has at most as many children as its servers have places.
            "`per_server`": self.servers * self.per_server / child,
            "`concurrency`": self.concurrency / child,
            "the servers' processors": self.servers
            * ASSUMED.server_vcpus
            * ASSUMED.server_share
            / self.measured.server_s,
            "Lambda's concurrent executions": PUBLISHED.functions_at_once / took,
            _TRANSITIONS: PUBLISHED.transitions_a_second / IMPLEMENTATION.states,
            _TRANSITIONS_ELSEWHERE: PUBLISHED.transitions_a_second_elsewhere / IMPLEMENTATION.states,
            "GetSecretValue": PUBLISHED.secret_reads_a_second,
            "S3's writes": PUBLISHED.s3_writes_a_second,
            "S3's reads": PUBLISHED.s3_reads_a_second,
        }
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def first(self, *, elsewhere: bool = False) -> tuple[str, float]:
        """Return the first bottleneck and its targets a second, in the three large regions or elsewhere."""
        other = _TRANSITIONS if elsewhere else _TRANSITIONS_ELSEWHERE
        return next((what, rate) for what, rate in self.limits().items() if what != other)

    def seconds(self, *, elsewhere: bool = False) -> float:
        """Return the time from the start of the first target to the end of the last one."""
        return _WAVES * ASSUMED.cold_s + self.tenants / self.first(elsewhere=elsewhere)[1]


def invocation_s(measured: Measured) -> float:
    """Return the time of a warm invocation for one target, on Lambda."""
    slower = PUBLISHED.mb_of_one_vcpu / ASSUMED.memory_mb
    waits = (
        ASSUMED.round_trips * ASSUMED.round_trip_s
        + IMPLEMENTATION.s3_requests * ASSUMED.s3_request_s
        + ASSUMED.secret_s
    )
    return measured.function_s * slower + measured.server_s + waits


def bearable(measured: Measured, vcpus: int, gib: int) -> int:
    """Return `per_server` for a server of this size, limited by its processors and its connections."""
    return min(by_processor(measured, vcpus), by_connections(gib))


def by_processor(measured: Measured, vcpus: int) -> int:
    """Return the targets at once that use the rollout's share of the server's processor time."""
    return max(1, math.floor(vcpus * ASSUMED.server_share * invocation_s(measured) / measured.server_s))


def by_connections(gib: int) -> int:
    """Return the targets at once that use the rollout's share of `max_connections`."""
    return max(1, math.floor(max_connections(gib) * ASSUMED.connection_share / IMPLEMENTATION.sessions))


def max_connections(gib: int) -> int:
    """Return the default of RDS for PostgreSQL."""
    return min(gib * 2**30 // PUBLISHED.bytes_a_connection, PUBLISHED.most_connections)


def as_it_comes(measured: Measured, tenants: int) -> Plan:
    """Return a plan with the default settings."""
    servers = math.ceil(tenants / ASSUMED.tenants_a_server)
    concurrency = min(IMPLEMENTATION.default_concurrency, IMPLEMENTATION.default_per_server * servers)
    return Plan(measured, tenants, concurrency, IMPLEMENTATION.default_per_server)


def set_for(measured: Measured, tenants: int) -> Plan:
    """Return a plan with the settings that the page recommends."""
    servers = math.ceil(tenants / ASSUMED.tenants_a_server)
    per_server = bearable(measured, ASSUMED.server_vcpus, ASSUMED.server_gib)
    account = math.floor(PUBLISHED.functions_at_once * ASSUMED.account_share)
    return Plan(measured, tenants, min(per_server * servers, account, IMPLEMENTATION.most_concurrency), per_server)


def measured_in(results: Mapping[str, Any]) -> Measured | None:
    """Return the times that the benchmark measured for databases, or None if it has not run."""
    if MANY_TARGETS not in results["questions"]:
        return None
    rows = results["questions"][MANY_TARGETS]["rows"]

    def median(what: str) -> float:
        return next(
            float(row["median"])
            for row in rows
            if row["contestant"] == OURS and row["case"].endswith(f"{DATABASES}, {what}")
        )

    return Measured(median(PROCESSOR), median(SERVER))


def section(measured: Measured) -> str:
    """Return the generated part of the page."""
    return "\n".join(_lines(measured)) + "\n"


def _lines(measured: Measured) -> Iterator[str]:
    defaults = [as_it_comes(measured, size) for size in SIZES]
    plans = [set_for(measured, size) for size in SIZES]
    yield ""
    yield (
        f"One target takes {_ms(measured.function_s)} of a core in the function, {_ms(measured.server_s)} on the"
        f" server, and {_ms(invocation_s(measured))} of a warm function with {ASSUMED.memory_mb} MB."
    )
    yield ""
    yield from _table(
        ["", *(f"{size:,} tenants" for size in SIZES)],
        [
            [f"servers, with {ASSUMED.tenants_a_server} tenants each", *(f"{plan.servers:,}" for plan in plans)],
            ["**Default settings**", *("" for _ in plans)],
            [
                (
                    f"`concurrency` {IMPLEMENTATION.default_concurrency},"
                    f" `per_server` {IMPLEMENTATION.default_per_server}: time"
                ),
                *(_time(plan.seconds()) for plan in defaults),
            ],
            ["first bottleneck", *(plan.first()[0] for plan in defaults)],
            ["**Recommended settings**", *("" for _ in plans)],
            ["`concurrency`", *(f"{plan.concurrency:,}" for plan in plans)],
            ["`per_server`", *(f"{plan.per_server:,}" for plan in plans)],
            ["time, in N. Virginia, Oregon, Ireland", *(_time(plan.seconds()) for plan in plans)],
            ["first bottleneck", *(plan.first()[0] for plan in plans)],
            ["time, in any other region", *(_time(plan.seconds(elsewhere=True)) for plan in plans)],
            ["first bottleneck", *(plan.first(elsewhere=True)[0].partition(",")[0] for plan in plans)],
            ["**Other**", *("" for _ in plans)],
            ["listing, from secrets", *(_time(_listing_s(size)) for size in SIZES)],
            ["reading the outcomes for the report", *(_time(_report_s(size)) for size in SIZES)],
            ["connections to one server, at most", *(f"{plan.per_server * IMPLEMENTATION.sessions}" for plan in plans)],
            ["connections, total", *(f"{plan.concurrency * IMPLEMENTATION.sessions:,}" for plan in plans)],
        ],
    )
    yield ""
    yield "### A server"
    yield ""
    yield (
        "The `per_server` that uses half of a server's processors and a tenth of its connections, with"
        f" {IMPLEMENTATION.sessions} connections for each target:"
    )
    yield ""
    yield from _table(
        ["vCPU", "GiB", "`max_connections`", "by connections", "by processors", "`per_server`"],
        [
            [
                str(vcpus),
                str(gib),
                f"{max_connections(gib):,}",
                str(by_connections(gib)),
                str(by_processor(measured, vcpus)),
                f"**{bearable(measured, vcpus, gib)}**",
            ]
            for vcpus, gib in ((2, 2), (2, 4), (2, 8), (4, 16), (8, 32), (16, 64))
        ],
    )
    yield ""
    yield "### Quotas"
    yield ""
    busiest = plans[-1]
    a_second = busiest.first()[1]
    parent = IMPLEMENTATION.parent_events + IMPLEMENTATION.most_waves * IMPLEMENTATION.parent_events_a_wave
    yield f"At {busiest.tenants:,} tenants, {a_second:,.0f} a second:"
    yield ""
    yield from _table(
        ["", "used", "of"],
        [
            ["events in a target's history", f"{IMPLEMENTATION.child_events}", f"{PUBLISHED.history_events:,}"],
            [
                f"events in the rollout's own, {IMPLEMENTATION.most_waves} waves",
                f"{parent:,}",
                f"{PUBLISHED.history_events:,}",
            ],
            ["children at once", f"{busiest.concurrency:,}", f"{PUBLISHED.children_at_once:,}"],
            [
                "state transitions a second",
                f"{a_second * IMPLEMENTATION.states:,.0f}",
                f"{PUBLISHED.transitions_a_second:,}; elsewhere {PUBLISHED.transitions_a_second_elsewhere:,}",
            ],
            ["functions at once", f"{busiest.concurrency:,}", f"{PUBLISHED.functions_at_once:,}, the account's"],
            [
                "execution environments started in the first 10 s",
                f"{busiest.concurrency:,}",
                f"{PUBLISHED.new_environments_in_10_s:,}",
            ],
            ["GetSecretValue a second", f"{a_second:,.0f}", f"{PUBLISHED.secret_reads_a_second:,}"],
            ["objects written to S3 a second", f"{a_second:,.0f}", f"{PUBLISHED.s3_writes_a_second:,}"],
            ["a wave's object in S3", f"{busiest.tenants * ASSUMED.item_bytes / 1e6:,.0f} MB", ""],
        ],
    )
    yield ""


def _listing_s(tenants: int) -> float:
    return tenants / 100 * ASSUMED.list_s + tenants * ASSUMED.secret_s / IMPLEMENTATION.readers


def _report_s(tenants: int) -> float:
    return math.ceil(tenants / 1000) * ASSUMED.list_s


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"| --- |{' ---: |' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _time(seconds: float) -> str:
    if seconds < 100:  # noqa: PLR2004 - longer times are in minutes
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"  # noqa: PLR2004 - of an hour


def write(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Write the numbers into the page. Without the benchmark's results the page stays unchanged."""
    measured = measured_in(json.loads(results.read_text(encoding="utf-8")))
    if measured is None:
        return
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{section(measured)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
