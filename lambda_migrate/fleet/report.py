"""The report of a rollout: reads the outcomes in S3, and writes report.json and report.html.

A report may be written at any time and any number of times, also for a rollout whose execution was aborted.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from lambda_migrate.fleet import page
from lambda_migrate.fleet.folder import (
    DEPLOYED,
    FAILED,
    LEFT,
    OUTCOMES,
    PAGE,
    REPORT,
    TARGETS,
    SpoiledError,
)
from lambda_migrate.fleet.target import answer, failure_of, folder_of, rollout_fields, title, wave_of
from lambda_migrate.invocation.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_migrate.fleet.folder import Folder, Outcome
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Result

_MOST_FAILURES = 1000
_SLOWEST = 10
# Step Functions passes on 256 KB at most, and shows 32 KB of a failed execution's cause.
_FAILURES_ANSWERED = 10
_REVISIONS_ANSWERED = 50


def report(invocation: Invocation) -> Result:
    """Write report.json and report.html, and return the report without its long lists.

    Raises:
        InvalidRequest: there is no such rollout, or it ended before its targets were listed.
    """
    folder = folder_of(invocation)
    content = read(folder, rollout_fields(invocation).get("problem"), stage=invocation.settings.stage)
    if content is None:
        raise InvalidRequest(f"there is no rollout {folder.name!a} whose targets were listed")
    folder.bucket.write(folder.key(REPORT), json.dumps(content))
    _write_targets(folder)
    folder.bucket.write(folder.key(PAGE), page.render(content), kind="text/html; charset=utf-8")
    where = f"s3://{folder.bucket.name}/{folder.key(REPORT)}"
    return answer(invocation, {"report": where, "rollout": _short(content)})


def read(
    folder: Folder,
    problem: Mapping[str, Any] | None = None,
    *,
    stage: str,
    ended: datetime | None = None,
) -> dict[str, Any] | None:
    """Return the report of the rollout in a folder, or None if its targets were never listed.

    ``problem`` is the ``Error`` and ``Cause`` of a failure of the execution itself, ``ended`` is None for now.
    """
    now = ended or datetime.now(timezone.utc)
    try:
        rollout = folder.listing()
    except SpoiledError as error:
        nothing = {"rollout": folder.name, "stage": stage, "plan": False, "targets": 0, "waves": []}
        spoiled = {"Error": "Spoiled", "Cause": str(error)}
        rollout = {**nothing, "started": now.isoformat()}
        return summarize(rollout, [], ended=now, halt=None, problem=spoiled, failures=[], names={})
    if rollout is None:
        return None
    outcomes = _last_of_each(folder, rollout)
    return summarize(
        rollout,
        outcomes,
        ended=now,
        halt=folder.halted(),
        problem=problem,
        failures=_failures(folder, outcomes),
        names=_names(folder, rollout, _slowest(outcomes)),
    )


def summarize(  # noqa: PLR0913 - one argument an object in S3
    rollout: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    *,
    ended: datetime,
    halt: Mapping[str, Any] | None,
    problem: Mapping[str, Any] | None,
    failures: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
) -> dict[str, Any]:
    """Return the report of a rollout."""
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
    status, message = _status(rollout, waves, halt, problem, failures)
    started = _time(rollout["started"]) or ended
    revisions = Counter(outcome.revision for outcome in outcomes if outcome.outcome != FAILED)
    content: dict[str, Any] = {
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
        content["failures_truncated"] = f"{len(failures)} of {counts['failed']} shown"
    return content


def _status(
    rollout: Mapping[str, Any],
    waves: Sequence[Mapping[str, Any]],
    halt: Mapping[str, Any] | None,
    problem: Mapping[str, Any] | None,
    failures: Sequence[Mapping[str, Any]],
) -> tuple[str, str]:
    """Return the status and its message. Failures count before a stop, and a stop after the last target is none."""
    failed, left = (sum(wave[what] for wave in waves) for what in (FAILED, LEFT))
    first = "; the first is {name}: {error_type}: {message}".format(**failures[0]) if failures else ""
    if problem:
        failure = failure_of(problem)
        return "failed", f"{failure['error_type']}: {failure['message']}"
    over = [wave for wave in waves if wave[FAILED] > wave["tolerated_failures"] and not rollout["plan"]]
    if over:
        return "failed", (
            f"{over[0][FAILED]} of the {over[0]['targets']} targets of {title(over[0])} failed,"
            f" {over[0]['tolerated_failures']} are tolerated; {left} of {rollout['targets']} were not begun{first}"
        )
    if left:
        if halt is None:
            why = f"the execution ended before {left} of {rollout['targets']} targets were begun or recorded"
        else:
            why = f"{halt['message']}; {left} of {rollout['targets']} targets were not begun{first}"
        return "failed" if halt and halt["why"] == DEPLOYED else "stopped", why
    if failed == rollout["targets"] > 0:
        return "failed", f"all of the {failed} targets failed{first}"
    if failed:
        return "succeeded", f"{failed} of {rollout['targets']} targets failed, as many as tolerated or fewer{first}"
    counts = ", ".join(f"{sum(wave[what] for wave in waves)} {what}" for what in OUTCOMES[:3])
    return "succeeded", f"{rollout['targets']} targets: {counts}"


def _last_of_each(folder: Folder, rollout: Mapping[str, Any]) -> list[Outcome]:
    """Return one outcome for each target. Step Functions may invoke twice: the first in `OUTCOMES` counts.

    An outcome of a target that was not listed does not count: whoever may invoke the function can write some.
    """
    found: dict[int, Outcome] = {}
    for outcome in folder.outcomes():
        wave = wave_of(rollout, outcome.number)
        if wave is None or wave["wave"] != outcome.wave:
            continue
        known = found.get(outcome.number)
        if known is None or OUTCOMES.index(outcome.outcome) < OUTCOMES.index(known.outcome):
            found[outcome.number] = outcome
    return list(found.values())


def _failures(folder: Folder, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    failed = sorted((o for o in outcomes if o.outcome == FAILED), key=lambda o: o.number)
    known = {"name": "", "target": {}, "server": "", "wave": 0, "error_type": "Unknown", "message": "", "runs": 0}
    read = (folder.bucket.read(outcome.key) for outcome in failed[:_MOST_FAILURES])
    return [
        {name: found[0].get(name, missing) for name, missing in known.items()}
        for found in read
        if found and isinstance(found[0], dict)
    ]


def _slowest(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda o: (-o.duration_ms, o.number))[:_SLOWEST]


def _names(folder: Folder, rollout: Mapping[str, Any], outcomes: Sequence[Outcome]) -> dict[int, str]:
    """Return the names of these targets by their numbers, reading only the waves that they are in."""
    wanted = {outcome.number for outcome in outcomes}
    waves = {outcome.wave for outcome in outcomes}
    names: dict[int, str] = {}
    for wave in rollout["waves"]:
        if wave["wave"] in waves:
            names |= {item["number"]: item["name"] for item in folder.items(wave) if item["number"] in wanted}
    return names


def _write_targets(folder: Folder) -> None:
    """Write targets.jsonl: one line a target, with its outcome, in the order of the rollout."""
    try:
        rollout = folder.listing()
    except SpoiledError:
        return
    if rollout is None:
        return
    done = {outcome.number: outcome for outcome in _last_of_each(folder, rollout)}
    text = bytearray()
    for wave in rollout["waves"]:
        for item in folder.items(wave):
            outcome = done.get(item["number"])
            line = {
                "name": item["name"],
                "target": item["target"],
                "server": item["server"],
                "wave": item["wave"],
                "outcome": outcome.outcome if outcome else LEFT,
                "revision": outcome.revision if outcome and outcome.outcome != FAILED else None,
                "duration_ms": outcome.duration_ms if outcome else None,
            }
            text += json.dumps(line, separators=(",", ":")).encode() + b"\n"
    folder.bucket.write(folder.key(TARGETS), bytes(text), kind="application/jsonl")


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _short(content: Mapping[str, Any]) -> dict[str, Any]:
    revisions = dict(list(content["revisions"].items())[:_REVISIONS_ANSWERED])
    return {**content, "failures": content["failures"][:_FAILURES_ANSWERED], "revisions": revisions}
