"""What a rollout has come to: `report` reads the outcomes in S3 and writes them down for people and programs.

It can be asked at any time and as often as one likes, also of a rollout that was stopped the hard way.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from lambda_migrate.fleet import page
from lambda_migrate.fleet.folder import FAILED, HALT, LEFT, OUTCOMES, PAGE, REPORT, ROLLOUT, STOPPED, wave_file
from lambda_migrate.fleet.target import answer, failure_of, folder_of, said_of, title
from lambda_migrate.invocation.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_migrate.fleet.folder import Folder, Outcome
    from lambda_migrate.invocation.invocation import Invocation, Progress
    from lambda_migrate.invocation.result import Result

_MOST_FAILURES = 1000
_SLOWEST = 10
# Step Functions hands on 256 KB at most, and shows 32 KB of why an execution failed.
_FAILURES_ANSWERED = 10
_REVISIONS_ANSWERED = 50


def report(invocation: Invocation, progress: Progress) -> Result:  # noqa: ARG001 - as every action
    """Write report.json and report.html, and answer with the report without its long lists.

    Raises:
        InvalidRequest: there is no such rollout, or it ended before its targets were listed.
    """
    folder, said = folder_of(invocation), said_of(invocation)
    told = read(folder, said.get("problem"))
    if told is None:
        raise InvalidRequest(f"there is no rollout {folder.name!a} whose targets were listed")
    folder.bucket.write(folder.key(REPORT), json.dumps(told))
    folder.bucket.write(folder.key(PAGE), page.render(told), kind="text/html; charset=utf-8")
    where = f"s3://{folder.bucket.name}/{folder.key('report.json')}"
    return answer(invocation, {"report": where, "rollout": _short(told)})


def read(folder: Folder, problem: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The report of what is in a rollout's folder by now; None when its targets were never listed.

    ``problem`` is the ``Error`` and ``Cause`` of what ended the execution itself.
    """
    rollout = folder.read(ROLLOUT)
    if rollout is None:
        return None
    outcomes = _last_of_each(folder)
    return summarize(
        rollout,
        outcomes,
        ended=datetime.now(timezone.utc),
        halt=folder.read(HALT),
        problem=problem,
        failures=_failures(folder, outcomes),
        names=_names(folder, rollout, _slowest(outcomes)),
    )


def summarize(  # noqa: PLR0913 - all that is known of it
    rollout: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    *,
    ended: datetime,
    halt: Mapping[str, Any] | None,
    problem: Mapping[str, Any] | None,
    failures: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
) -> dict[str, Any]:
    """The report, out of what is known of the rollout and of each target."""
    by_wave = Counter((outcome.wave, outcome.outcome) for outcome in outcomes)
    waves = []
    for wave in rollout["waves"]:
        counts = {what: by_wave[wave["wave"], what] for what in OUTCOMES}
        counts[LEFT] = wave["count"] - sum(counts.values())
        waves.append(
            {
                "wave": wave["wave"],
                "canary": wave["canary"],
                "targets": wave["count"],
                "tolerated_failures": wave["tolerated_failures"],
                **counts,
            }
        )
    counts = {what: sum(wave[what] for wave in waves) for what in OUTCOMES}
    status, message = _judged(rollout, waves, halt, problem, failures)
    started = datetime.fromisoformat(rollout["started"].replace("Z", "+00:00"))
    revisions = Counter(outcome.revision for outcome in outcomes if outcome.outcome != FAILED)
    told: dict[str, Any] = {
        "rollout": rollout["rollout"],
        "stage": rollout["stage"],
        "plan": rollout["plan"],
        "started": rollout["started"],
        "ended": ended.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration_ms": round((ended - started).total_seconds() * 1000),
        "status": status,
        "message": message,
        "counts": {"targets": rollout["targets"], **counts},
        "waves": waves,
        "revisions": dict(revisions.most_common()),
        "failures": list(failures),
        "slowest": [
            {"name": names[outcome.number], "duration_ms": outcome.duration_ms} for outcome in _slowest(outcomes)
        ],
    }
    if len(failures) < counts[FAILED]:
        told["failures_truncated"] = f"{len(failures)} of {counts['failed']} shown"
    return told


def _judged(
    rollout: Mapping[str, Any],
    waves: Sequence[Mapping[str, Any]],
    halt: Mapping[str, Any] | None,
    problem: Mapping[str, Any] | None,
    failures: Sequence[Mapping[str, Any]],
) -> tuple[str, str]:
    failed, left = (sum(wave[what] for wave in waves) for what in (FAILED, LEFT))
    if problem:
        said = failure_of(problem)
        return "failed", f"{said['error_type']}: {said['message']}"
    if halt and halt["why"] == STOPPED:
        return "stopped", f"{halt['message']}; {left} of {rollout['targets']} targets were not begun"
    first = "; the first is {name}: {error_type}: {message}".format(**failures[0]) if failures else ""
    for wave in waves:
        if wave[FAILED] > wave["tolerated_failures"]:
            return "failed", (
                f"{wave['failed']} of the {wave['targets']} targets of {title(wave)} failed,"
                f" {wave['tolerated_failures']} are tolerated; {left} of {rollout['targets']} were not begun{first}"
            )
    if left:
        return "stopped", f"the execution ended before {left} of {rollout['targets']} targets were begun or told of"
    if failed:
        return "succeeded", f"{failed} of {rollout['targets']} targets failed, as many as tolerated or fewer{first}"
    counts = ", ".join(f"{sum(wave[what] for wave in waves)} {what}" for what in OUTCOMES[:3])
    return "succeeded", f"{rollout['targets']} targets: {counts}"


def _last_of_each(folder: Folder) -> list[Outcome]:
    """One outcome for each target: Step Functions may invoke twice, and what was done then counts as done."""
    found: dict[int, Outcome] = {}
    for outcome in folder.outcomes():
        known = found.get(outcome.number)
        if known is None or OUTCOMES.index(outcome.outcome) < OUTCOMES.index(known.outcome):
            found[outcome.number] = outcome
    return list(found.values())


def _failures(folder: Folder, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    failed = sorted((o for o in outcomes if o.outcome == FAILED), key=lambda o: o.number)
    known = ("name", "target", "server", "wave", "error_type", "message", "runs")
    read = (folder.bucket.read(outcome.key) for outcome in failed[:_MOST_FAILURES])
    return [{name: found[0][name] for name in known} for found in read if found]


def _slowest(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda o: (-o.duration_ms, o.number))[:_SLOWEST]


def _names(folder: Folder, rollout: Mapping[str, Any], outcomes: Sequence[Outcome]) -> dict[int, str]:
    """What these targets are called; of the waves only those are read that they are in."""
    wanted = {outcome.number for outcome in outcomes}
    waves = {outcome.wave for outcome in outcomes}
    names: dict[int, str] = {}
    for wave in rollout["waves"]:
        if wave["wave"] in waves:
            names |= {
                item["number"]: item["name"]
                for item in folder.read(wave_file(wave["wave"]))
                if item["number"] in wanted
            }
    return names


def _short(told: Mapping[str, Any]) -> dict[str, Any]:
    revisions = dict(list(told["revisions"].items())[:_REVISIONS_ANSWERED])
    return {**told, "failures": told["failures"][:_FAILURES_ANSWERED], "revisions": revisions}
