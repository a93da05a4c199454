"""Estimates the time of work on a table, from its size, the reviewer's kinds of work, and this server's speed.

``benchmarks/estimates.py`` measures the error of the estimates. They are rather too long than too short: production is
busy, and its cache is cold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Milliseconds for each row, on a server that counts `_REFERENCE_ROWS_PER_MS` in a sample.
_ROW_MS: Mapping[str, float] = {
    "scan": 0.00025,
    "foreign_key": 0.0003,
    "index": 0.0011,
    "rewrite": 0.0008,
    "change": 0.006,
}
# For each index of the table: a rewrite builds it again, and a change of a row adds an entry.
_INDEX_MS: Mapping[str, float] = {"rewrite": 0.0009, "change": 0.006}
_REFERENCE_ROWS_PER_MS = 3_800
# One sample on a busy server varies by a factor of three, so it counts for its square root, within these bounds.
_FASTEST, _SLOWEST = 0.7, 2.0
# The passes over the table's bytes. If they take longer than the rows, they decide.
_PASSES: Mapping[str, float] = {"scan": 1, "foreign_key": 1, "index": 1.3, "rewrite": 3, "change": 4}
# The least time of a statement: a commit, the catalog.
_LEAST_MS = 5
# The estimate is the middle multiplied by this, and the shortest time is the middle divided by it.
CAUTION = 1.5


@dataclass(frozen=True)
class Size:
    """A table in this database: its estimated rows, its bytes with and without indexes, and the number of indexes."""

    rows: int
    bytes: int
    heap_bytes: int
    indexes: int


@dataclass(frozen=True)
class Speed:
    """The reading speed of this server, in bytes a second, and in rows a millisecond."""

    bytes_per_s: float
    rows_per_ms: float = _REFERENCE_ROWS_PER_MS


def milliseconds(work: Iterable[Mapping[str, Any]], sizes: Mapping[str, Size | None], speed: Speed) -> float | None:
    """Return the expected time of work, or None if a table does not exist yet.

    Each work has its ``table``, its ``kind``, and the ``share`` of the table's rows.
    """
    total = float(_LEAST_MS)
    slower = min(max(math.sqrt(_REFERENCE_ROWS_PER_MS / speed.rows_per_ms), _FASTEST), _SLOWEST)
    for each in work:
        size = sizes.get(each["table"])
        if size is None:
            return None
        kind, share = each["kind"], each.get("share", 1.0)
        a_row = _ROW_MS[kind] + _INDEX_MS.get(kind, 0) * size.indexes
        rows_ms = slower * a_row * size.rows * share
        # A scan reads all pages, however few rows it changes then.
        bytes_ms = max(1.0, _PASSES[kind] * share) * size.heap_bytes / speed.bytes_per_s * 1000
        total += max(rows_ms, bytes_ms)
    return total


def work_of(fact: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the work that is done while a table is locked, also from a record that has no ``work``."""
    held = fact["while_locked"]
    if "work" in held:
        return list(held["work"])
    rewritten = [{"table": table, "kind": "rewrite"} for table in held["rewrites"]]
    read = [{"table": table, "kind": "index"} for table in held["reads"] if table not in held["rewrites"]]
    return [*rewritten, *read]
