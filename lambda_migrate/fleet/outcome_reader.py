"""Reads a rollout: its listing in S3, and one outcome for each target.

The report, the list of targets and the page use the same reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_migrate.fleet.folder import BASE, FAILED, LEFT, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lambda_migrate.fleet.folder import Folder, Outcome


@dataclass(frozen=True)
class Observed:
    """A rollout whose targets were listed. ``outcomes`` has those that are done, by their numbers."""

    folder: Folder
    rollout: Mapping[str, Any]
    outcomes: Mapping[int, Outcome]

    def targets(self) -> Iterator[dict[str, Any]]:
        """Yield every target with its outcome, in the order of the rollout: the lines of targets.jsonl."""
        for wave in self.rollout["waves"]:
            for item in self.folder.items(wave):
                yield self._line(item)

    def names(self, outcomes: Iterable[Outcome]) -> dict[int, str]:
        """Return the names of these targets by their numbers, reading only the waves that they are in."""
        wanted = {outcome.number: outcome.wave for outcome in outcomes}
        waves = set(wanted.values())
        return {
            item["number"]: item["name"]
            for wave in self.rollout["waves"]
            if wave["wave"] in waves
            for item in self.folder.items(wave)
            if item["number"] in wanted
        }

    def _line(self, item: Mapping[str, Any]) -> dict[str, Any]:
        outcome = self.outcomes.get(item["number"])
        line = {
            "name": item["name"],
            "target": item["target"],
            "server": item["server"],
            "wave": item["wave"],
            "outcome": outcome.outcome if outcome else LEFT,
            "revision": None,
            "duration_ms": outcome.duration_ms if outcome else None,
        }
        if outcome is None:
            return line
        if outcome.outcome != FAILED:
            return {**line, "revision": outcome.revision}
        # A failure has the error's type where others have their revision. Older objects have neither.
        error_type = None if outcome.revision == BASE else outcome.revision
        return {**line, "duration_ms": outcome.duration_ms or None, "error_type": error_type}


def observe(folder: Folder) -> Observed | None:
    """Read the listing and the outcomes of a rollout. Returns None if its targets were never listed.

    Raises:
        SpoiledError: rollout.json has another form.
    """
    rollout = folder.listing()
    if rollout is None:
        return None
    return Observed(folder, rollout, last_of_each(rollout, folder.outcomes()))


def last_of_each(rollout: Mapping[str, Any], outcomes: Iterable[Outcome]) -> dict[int, Outcome]:
    """Return one outcome for each target, by its number. Step Functions may invoke twice, and answers may be lost.

    The first in `OUTCOMES` counts, because a target with one recorded migration is migrated. Of two equal ones, the
    longer counts: it did the work, and the other one found it done. Outcomes of targets that were not listed do not
    count, because any invoker can write some.
    """
    found: dict[int, Outcome] = {}
    for outcome in outcomes:
        wave = wave_of(rollout, outcome.number)
        if wave is None or wave["wave"] != outcome.wave:
            continue
        known = found.get(outcome.number)
        if known is None or _place(outcome) < _place(known):
            found[outcome.number] = outcome
    return found


def _place(outcome: Outcome) -> tuple[int, int]:
    return OUTCOMES.index(outcome.outcome), -outcome.duration_ms


def wave_of(rollout: Mapping[str, Any], number: int) -> Mapping[str, Any] | None:
    """Return the wave that a target is in by its number, or None. Targets are numbered from 1 through all waves."""
    last = 0
    for wave in rollout["waves"]:
        last += wave["count"]
        if 0 < number <= last:
            found: Mapping[str, Any] = wave
            return found
    return None
