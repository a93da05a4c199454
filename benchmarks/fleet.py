"""How much time does a rollout take for each target, with one revision pending and at head?

`python -m benchmarks.fleet` prints it. It has its own goals and is not part of `make bench`, because 2,000 schemas take
minutes. The processor time depends less on the machine's other work than the wall time does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import functions, ground, many_targets
from benchmarks.histories import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.many_targets import Fleet, Tenant
    from localcloud.runtime_api import Function

_REVISIONS = 30
# The default of `per_server`.
_FUNCTIONS = 5


def main() -> None:
    """Measure the wall time for each target and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schemas", type=int, default=2000)
    parser.add_argument("--databases", type=int, default=300)
    given = parser.parse_args()
    history = changes(_REVISIONS)
    with ground.own() as prepared:
        package = functions.ours(prepared, str(_REVISIONS), history)
        for made, count in (
            (many_targets.many_schemas, given.schemas),
            (many_targets.many_databases, given.databases),
        ):
            with made(prepared, count, history[-2]) as fleet, ExitStack() as stack:
                deployed = functions.our_function(prepared, package, fleet.stage)
                pool = [stack.enter_context(deployed.start()) for _ in range(_FUNCTIONS)]
                _measure(fleet, pool, stack.enter_context(many_targets.postmaster(prepared)))


def _measure(fleet: Fleet, pool: Sequence[Function], server_time: Callable[[], float]) -> None:
    # The first invocation of each function loads libraries.
    _walk(fleet.tenants[: len(pool)], pool)
    rest = fleet.tenants[len(pool) :]
    for what in ("one pending", "at head"):
        used, served = many_targets.used_by(pool), server_time()
        wall, ours, its = (
            1000 * each / len(rest)
            for each in (_walk(rest, pool), many_targets.used_by(pool) - used, server_time() - served)
        )
        sys.stdout.write(
            f"{len(rest):,} {fleet.kind}, {what}: {wall:.1f} ms a target, processor time {ours:.1f} ms of the"
            f" functions and {its:.1f} ms of the server\n"
        )
        sys.stdout.flush()


def _walk(tenants: Sequence[Tenant], pool: Sequence[Function]) -> float:
    left = deque(tenants)

    def work(function: Function) -> None:
        while left:
            try:
                tenant = left.popleft()
            except IndexError:
                return
            functions.succeeded(function.invoke({"action": "upgrade", "target": tenant.target}), function)

    began = time.perf_counter()
    many_targets.for_each(work, pool)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
