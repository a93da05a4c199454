"""An estimate of a rollout's time and cost, from the times that a plan has measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lambda_migrate.fleet.folder import BEHIND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infra.stages import Stage
    from lambda_migrate.fleet.folder import Outcome

# AWS's list prices in USD for us-east-1 in 2025, first tier, without the free tier. Other regions are similar.
# docs/cli.md has the same numbers.
GB_SECOND = {"arm64": 0.0000133334, "x86_64": 0.0000166667}
INVOCATION = 0.20 / 1_000_000
TRANSITION = 0.025 / 1_000
S3_PUT_OR_LIST = 0.005 / 1_000

# State transitions for one target without retries: Migrate, the choice after it, Done.
_TRANSITIONS = 3
# Two for each target: check whether the rollout is halted, and write the outcome.
_S3_REQUESTS = 2


@dataclass(frozen=True)
class Estimate:
    """An estimate for all targets of a rollout. ``seconds`` is the time from its start to its end."""

    targets: int
    behind: int
    looking_ms: int
    migrating_ms: int
    seconds: int
    usd: float

    def as_json(self) -> dict[str, Any]:
        """Return the estimate's part of the ``--json`` document."""
        return asdict(self)


def estimate(
    rollout: Mapping[str, Any], outcomes: Iterable[Outcome], stage: Stage | None, per_target_s: float | None
) -> Estimate:
    """Return an estimate from each target's time in a plan, or ``per_target_s`` for each target that is behind.

    A plan measures connecting, logging in and reading the version table. It excludes the revisions' run time.
    """
    concurrency = {wave["wave"]: wave["concurrency"] for wave in rollout["waves"]}
    looked: list[int] = []
    seconds = busy = 0.0
    behind = 0
    for outcome in outcomes:
        took = outcome.duration_ms / 1000
        looked.append(outcome.duration_ms)
        if outcome.outcome == BEHIND:
            behind += 1
            took = per_target_s if per_target_s is not None else took
        busy += took
        seconds += took / concurrency[outcome.wave]
    targets = len(looked)
    looking_ms = round(sum(looked) / targets) if looked else 0
    memory_gb = (stage.memory_mb if stage else 512) / 1024
    gb_second = GB_SECOND[stage.architecture if stage else "arm64"]
    usd = busy * memory_gb * gb_second + targets * (
        INVOCATION + _TRANSITIONS * TRANSITION + _S3_REQUESTS * S3_PUT_OR_LIST
    )
    return Estimate(
        targets=targets,
        behind=behind,
        looking_ms=looking_ms,
        migrating_ms=looking_ms if per_target_s is None else round(per_target_s * 1000),
        seconds=round(seconds),
        usd=round(usd, 4),
    )
