"""The report of a rollout: reads the outcomes in S3, and writes report.json and report.html.

A report may be written at any time and any number of times, also for a rollout whose execution was aborted.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from lambda_migrate.fleet import page, plan_results
from lambda_migrate.fleet.folder import BEHIND, DEPLOYED, FAILED, LEFT, OUTCOMES, PAGE, REPORT, TARGETS, SpoiledError
from lambda_migrate.fleet.outcome_reader import Observed, observe
from lambda_migrate.fleet.target import answer, failure_of, folder_of, rollout_fields, title
from lambda_migrate.invocation.errors import InvalidRequest
from lambda_migrate.invocation.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_migrate.fleet.folder import Folder, Outcome
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Result

_MOST_FAILURES = 1000
_MOST_BEHIND = 1000
_SLOWEST = 10
# Step Functions passes on 256 KB at most, and shows 32 KB of a failed execution's cause.
_FAILURES_ANSWERED = 10
_REVISIONS_ANSWERED = 50
_ANSWERED = {"waves": 50, "excluded": 10, "new": 10}


def report(invocation: Invocation) -> Result:
    """Write report.json, targets.jsonl and report.html, and return the report without its long lists.

    Raises:
        InvalidRequest: there is no such rollout, or it ended before its targets were listed.
    """
    folder, stage = folder_of(invocation), invocation.settings.stage
    problem = rollout_fields(invocation).get("problem")
    try:
        observed = observe(folder)
    except SpoiledError as error:
        observed, content = None, _spoiled(folder, error, stage, None)
    else:
        if observed is None:
            raise InvalidRequest(f"there is no rollout {folder.name!a} whose targets were listed")
        content = _of(observed, problem, None)
    folder.bucket.write(folder.key(REPORT), json.dumps(content))
    if observed is not None:
        folder.bucket.write(folder.key(TARGETS), _lines(observed), kind="application/jsonl")
    rendered = page.render(content, observed.targets() if observed is not None else ())
    folder.bucket.write(folder.key(PAGE), rendered, kind="text/html; charset=utf-8")
    where = f"s3://{folder.bucket.name}/{folder.key(REPORT)}"
    return answer(invocation, {"report": where, "rollout": shortened(content)})


def read(folder: Folder, *, stage: str, ended: datetime | None = None) -> dict[str, Any] | None:
    """Return the report of the rollout in a folder, or None if its targets were never listed.

    ``ended`` is None for now.
    """
    try:
        observed = observe(folder)
    except SpoiledError as error:
        return _spoiled(folder, error, stage, ended)
    return None if observed is None else _of(observed, None, ended)


def _spoiled(folder: Folder, error: SpoiledError, stage: str, ended: datetime | None) -> dict[str, Any]:
    """Return the report of a rollout whose rollout.json was changed by hand."""
    now = ended or datetime.now(timezone.utc)
    nothing = {"rollout": folder.name, "stage": stage, "plan": False, "targets": 0, "waves": []}
    problem = {"Error": "Spoiled", "Cause": str(error)}
    rollout = {**nothing, "started": now.isoformat()}
    return summarize(rollout, [], ended=now, halt=None, problem=problem, failures=[], names={})


def _of(observed: Observed, problem: Mapping[str, Any] | None, ended: datetime | None) -> dict[str, Any]:
    """Return the report. ``problem`` is the ``Error`` and ``Cause`` of a failure of the execution itself."""
    outcomes = list(observed.outcomes.values())
    report = summarize(
        observed.rollout,
        outcomes,
        ended=ended or datetime.now(timezone.utc),
        halt=observed.folder.halted(),
        problem=problem,
        failures=_failures(observed.folder, outcomes),
        names=observed.names([*_slowest(outcomes), *_behind(outcomes)]),
    )
    return report | (plan_results.sections(observed.folder) if observed.rollout["plan"] else {})


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
            {"name": names[outcome.number], "duration_ms": outcome.duration_ms}
            for outcome in _slowest(outcomes)
            if outcome.number in names
        ],
    }
    content |= {
        name: rollout[name] for name in ("check", "excluded", "new", "downgrade_to", "migrated_by") if rollout.get(name)
    }
    if rollout.get("package"):
        content |= {"package": rollout["package"], "heads": rollout.get("heads") or []}
    if behind := [names[outcome.number] for outcome in _behind(outcomes) if outcome.number in names]:
        content["behind"] = behind
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
    """Return the status and its message. Failures count before a stop. A stop after the last target does not count."""
    failed, left = (sum(wave[what] for wave in waves) for what in (FAILED, LEFT))
    targets = counted(rollout["targets"], "target")
    first = "; the first is {name}: {error_type}: {message}".format(**failures[0]) if failures else ""
    if problem:
        failure = failure_of(problem)
        return "failed", f"{failure['error_type']}: {failure['message']}"
    were = "was" if left == 1 else "were"
    over = [wave for wave in waves if wave[FAILED] > wave["tolerated_failures"] and not rollout["plan"]]
    if over:
        tolerated = over[0]["tolerated_failures"]
        rest = f"; {left:,} of {rollout['targets']:,} {were} not started" if left else ""
        return "failed", (
            f"{over[0][FAILED]} of {counted(over[0]['targets'], 'target')} in {title(over[0])} failed,"
            f" {tolerated} {'is' if tolerated == 1 else 'are'} tolerated{rest}{first}"
        )
    if left:
        if halt is None:
            why = f"the execution ended before {left:,} of {targets} {were} started or recorded"
        else:
            why = f"{halt['message']}; {left:,} of {targets} {were} not started{first}"
        return "failed" if halt and halt["why"] == DEPLOYED else "stopped", why
    if failed == rollout["targets"] > 0:
        return "failed", f"all of {targets} failed{first}"
    if failed:
        return "succeeded", f"{failed} of {targets} failed, as many as tolerated or fewer{first}"
    counts = ", ".join(f"{sum(wave[what] for wave in waves)} {what}" for what in OUTCOMES[:3])
    return "succeeded", f"{targets}: {counts}"


def _failures(folder: Folder, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    failed = sorted((o for o in outcomes if o.outcome == FAILED), key=lambda o: o.number)
    known = {"name": "", "target": {}, "server": "", "wave": 0, "error_type": "Unknown", "message": "", "runs": 0}
    read = ((outcome, folder.bucket.read(outcome.key)) for outcome in failed[:_MOST_FAILURES])
    return [
        {
            **{
                name: given if type(given := found[0].get(name)) is type(none) else none for name, none in known.items()
            },
            "duration_ms": outcome.duration_ms or None,
        }
        for outcome, found in read
        if found and isinstance(found[0], dict)
    ]


def _slowest(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda o: (-o.duration_ms, o.number))[:_SLOWEST]


def _behind(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted((o for o in outcomes if o.outcome == BEHIND), key=lambda o: o.number)[:_MOST_BEHIND]


def _lines(observed: Observed) -> bytes:
    """Return targets.jsonl: one line a target, with its outcome, in the order of the rollout."""
    text = bytearray()
    for target in observed.targets():
        text += json.dumps(target, separators=(",", ":")).encode() + b"\n"
    return bytes(text)


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def shortened(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without what Step Functions would not pass on: the whole one is in S3."""
    revisions = dict(list(content["revisions"].items())[:_REVISIONS_ANSWERED])
    short = {name: value for name, value in content.items() if name != "behind"}
    lists = {name: content[name][:_FAILURES_ANSWERED] for name in ("failures", "schema") if name in content}
    if "preflight" in content:
        found = content["preflight"]
        lists["preflight"] = {**found, **{name: found[name][:_FAILURES_ANSWERED] for name in ("checks", "servers")}}
    for name, most in _ANSWERED.items():
        if len(found := content.get(name, ())) > most:
            lists |= {name: found[:most], f"{name}_truncated": f"{most} of {len(found)} shown"}
    return {**short, **lists, "revisions": revisions}
