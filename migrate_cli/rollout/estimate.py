"""How long a rollout would take and what it would cost, from what a plan of it measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infra.stages import Stage
    from lambda_migrate.fleet.folder import Outcome

# List prices in USD of us-east-1, the first tier and without a free one, from AWS's price pages of 2025. Other regions
# and later days are near them. docs/cli.md says the same.
GB_SECOND = {"arm64": 0.0000133334, "x86_64": 0.0000166667}
INVOCATION = 0.20 / 1_000_000
TRANSITION = 0.025 / 1_000
S3_PUT_OR_LIST = 0.005 / 1_000

# Of the state machine for one target that meets no obstacle: it migrates, chooses, is done.
_TRANSITIONS = 3
# Before a target it is looked whether the rollout is halted, and after it the outcome is written.
_S3_REQUESTS = 2


@dataclass(frozen=True)
class Estimate:
    """Of the targets that a rollout would visit. ``seconds`` is the time from its beginning to its end."""

    targets: int
    behind: int
    looking_ms: int
    migrating_ms: int
    seconds: int
    usd: float

    def as_json(self) -> dict[str, Any]:
        """As a part of the document that ``--json`` prints."""
        return asdict(self)


def estimate(
    rollout: Mapping[str, Any], outcomes: Iterable[Outcome], stage: Stage | None, per_target_s: float | None
) -> Estimate:
    """Reckon with each target's measured time, and for one that is behind with ``per_target_s`` where that is said.

    A plan connects, logs in and looks; what the revisions themselves take it cannot know.
    """
    concurrency = {wave["wave"]: wave["concurrency"] for wave in rollout["waves"]}
    looked: list[int] = []
    seconds = busy = 0.0
    behind = 0
    for outcome in outcomes:
        took = outcome.duration_ms / 1000
        looked.append(outcome.duration_ms)
        if outcome.outcome == "behind":
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
