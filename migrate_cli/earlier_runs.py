"""Compares the estimates of a plan with the times that earlier runs of the same function logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.wording import counted
from migrate_cli import run_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_cli.stages import Function

# The log is read only if the plan has an estimate of at least this time.
_LONG_MS = 1000
# The ratio of a shorter estimate is noise.
_SHORTEST_MS = 100
_DAYS = 30
# CloudWatch searches a long log page by page.
_PATIENCE_S = 5


def note(function: Function, result: Mapping[str, Any]) -> str:
    """Return the ratio of real times to estimates in earlier runs, or "" if the plan has no long estimate.

    A revision that has already run at other targets gets a line of its own, because it did the same work there.
    """
    estimates = {
        entry["revision"]: entry["preflight"]["estimated_ms"][1]
        for entry in result.get("plan", ())
        if (entry.get("preflight") or {}).get("estimated_ms")
    }
    if max(estimates.values(), default=0) < _LONG_MS:
        return ""
    try:
        ratios = list(_ratios(function))
    except run_log.UnreadableError as error:
        return f"The times of earlier runs could not be read: {error}."
    if not ratios:
        return ""
    lines = [f"In the last {_DAYS} days, revisions took {_range(ratios, 'their')}."]
    for revision in estimates:
        same = [each for each in ratios if each[0] == revision]
        if same:
            lines.append(f"At other targets, revision {revision} took {_range(same, 'its')}.")
    return "\n".join(lines)


def _ratios(function: Function) -> Iterator[tuple[str, float]]:
    """Yield the revision of each line that has an estimate, and its time divided by the estimate."""
    for line in run_log.search(function, "revision.applied", days=_DAYS, patience_s=_PATIENCE_S):
        estimated, took = line.get("estimated_ms"), line.get("duration_ms")
        if isinstance(estimated, int) and isinstance(took, int) and estimated >= _SHORTEST_MS:
            yield str(line.get("revision")), took / estimated


def _range(ratios: list[tuple[str, float]], whose: str) -> str:
    times = [ratio for _, ratio in ratios]
    spread = f"{min(times):.1f} to {max(times):.1f}" if len(times) > 1 else f"{times[0]:.1f}"
    return f"{spread} times the upper end of {whose} estimates ({counted(len(times), 'run')})"
