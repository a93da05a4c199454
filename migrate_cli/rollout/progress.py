"""The progress of a running rollout, read from S3 and Step Functions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_migrate.fleet.folder import FAILED, MIGRATED, ROLLOUT, wave_file

if TYPE_CHECKING:
    from migrate_cli.rollout.machine import Machine


@dataclass
class RolloutProgress:
    """The progress of a rollout, from the keys of its outcomes in S3. Each key is one finished target."""

    targets: int | None = None
    waves: int = 0
    wave: int = 0
    done: int = 0
    failed: int = 0
    running: int | None = None
    began: float = field(default_factory=time.monotonic)
    moved: float = 0
    new_failures: list[str] = field(default_factory=list)
    # The token of the approval for which the next wave waits.
    approval: str | None = None
    _looked: float = 0
    _ended: dict[int, dict[int, str]] = field(default_factory=dict)
    _counted_failures: set[str] = field(default_factory=set)

    def look(self, machine: Machine, name: str) -> None:
        """Read the outcomes in S3 again. Waves run one after the other, so only the running wave is listed."""
        now = time.monotonic()
        if self.approval is not None:
            # The estimate of the remaining time does not count a wait.
            self.began += now - self._looked
        self._looked = now
        folder = machine.folder(name)
        with machine.calling("s3:ListBucket", "s3:GetObject"):
            rollout = folder.read(ROLLOUT)
            if rollout is None:
                return
            self.targets, self.waves = rollout["targets"], len(rollout["waves"])
            for wave in rollout["waves"]:
                number = wave["wave"]
                if len(self._ended.get(number, ())) < wave["count"]:
                    outcomes = sorted(folder.outcomes(number), key=lambda outcome: outcome.outcome == MIGRATED)
                    self._ended[number] = {outcome.number: outcome.outcome for outcome in outcomes}
                    failed = {outcome.key for outcome in outcomes if outcome.outcome == FAILED}
                    self.new_failures += sorted(failed - self._counted_failures)
                    self._counted_failures |= failed
                if self._ended[number]:
                    self.wave = number
                else:
                    break
        ended = [outcome for wave in self._ended.values() for outcome in wave.values()]
        if len(ended) != self.done:
            self.moved = now
        self.done, self.failed = len(ended), ended.count(FAILED)
        self.running = machine.running(name)
        waiting = machine.approval_request(name)
        self.approval = waiting[0] if waiting is not None and not self._has_begun(waiting[1]) else None

    def _has_begun(self, key: str) -> bool:
        """Return whether the wave with the targets in this object has begun: at least one target runs or has ended."""
        return bool(self.running) or any(
            ended and key.endswith(f"/{wave_file(number)}") for number, ended in self._ended.items()
        )

    @property
    def to_go_s(self) -> float | None:
        """Return the seconds for the remaining targets at the speed so far, or None if it is unknown.

        A wait for an approval has no known end.
        """
        if self.approval is not None:
            return None
        remaining = (self.targets or 0) - self.done
        return (self.moved - self.began) / self.done * remaining if self.done and remaining else None

    @property
    def left(self) -> int:
        """Return the number of targets that are neither done nor running."""
        return max((self.targets or 0) - self.done - (self.running or 0), 0)
