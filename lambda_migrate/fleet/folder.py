"""A rollout's objects in S3: their keys, the outcome of each target, and whether the rollout is halted.

The outcome of a target is part of an object's key, so that one request reads a thousand outcomes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from lambda_migrate.fleet.bucket import ChangedMeanwhile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_migrate.fleet.bucket import Bucket

ROOT = "rollouts"
# Names the newest rollout, and is the lock that lets one rollout of a stage run at a time.
LATEST = f"{ROOT}/latest.json"

# The objects of one rollout.
ROLLOUT = "rollout.json"
HALT = "halt.json"
REPORT = "report.json"
PAGE = "report.html"

MIGRATED = "migrated"  # something was applied
CURRENT = "current"  # nothing was pending
BEHIND = "behind"  # something is pending, in a plan
FAILED = "failed"
LEFT = "left"  # not begun: the only one that no object records
# The order matters: if S3 has two outcomes for one target, the first in this order counts.
OUTCOMES = (MIGRATED, CURRENT, BEHIND, FAILED, LEFT)

# Why a rollout was halted.
STOPPED = "stopped"
FAILURES = "failures"

BASE = "base"
# S3's limit for a key is 1,024 bytes. The rest of the key needs far less than the 324 left.
_LONGEST_REVISION = 700


def wave_file(number: int) -> str:
    """Return the name of the object that lists the targets of a wave."""
    return f"wave-{number}.json"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one target, one of `OUTCOMES`, and the revision that its database is at."""

    wave: int
    number: int
    outcome: str
    duration_ms: int
    revision: str
    key: str


@dataclass(frozen=True)
class Folder:
    """The objects of one rollout. ``name`` is the name of its execution."""

    bucket: Bucket
    name: str

    def key(self, name: str) -> str:
        """Return the key of one of its objects."""
        return f"{ROOT}/{self.name}/{name}"

    def read(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of one of its objects, or None if it does not exist."""
        found = self.bucket.read(self.key(name))
        return found and found[0]

    def is_halted(self) -> bool:
        """Return whether no further target may begin."""
        return self.bucket.has(self.key(HALT))

    def halt(self, why: str, message: str) -> None:
        """Let no further target begin. If the rollout is halted already, the first reason stays."""
        try:
            self.bucket.write(self.key(HALT), json.dumps({"why": why, "message": message}), IfNoneMatch="*")
        except ChangedMeanwhile:
            return

    def put_outcome(
        self,
        item: Mapping[str, Any],
        outcome: str,
        *,
        duration_ms: int = 0,
        revision: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the outcome of a target. ``item`` is the target's entry in its wave."""
        at = quote(revision or BASE, safe="")[:_LONGEST_REVISION]
        name = f"outcomes/{int(item['wave'])}/{outcome}/{int(item['number'])}/{duration_ms}/{at}"
        self.bucket.write(self.key(name), json.dumps({**item, **(details or {})}))

    def outcomes(self, wave: int | None = None, outcome: str | None = None) -> Iterator[Outcome]:
        """Yield the outcomes of one wave or of all, and only those of one kind if ``outcome`` is given."""
        prefix = self.key("outcomes/")
        # Counting the failures of a wave after each one reads the failed outcomes only.
        within = "" if wave is None else f"{wave}/" if outcome is None else f"{wave}/{outcome}/"
        for key in self.bucket.keys(prefix + within):
            of_wave, what, number, duration_ms, at = key[len(prefix) :].split("/")
            if outcome in {None, what}:
                yield Outcome(int(of_wave), int(number), what, int(duration_ms), unquote(at), key)
