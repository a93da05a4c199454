"""The output of a step in GitHub Actions: an annotation, and a part of the job's summary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lambda_migrate.invocation.wording import counted
from migrate_cli import preflight
from migrate_cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Maximum number of failures in a summary. The report has all of them.
_FAILURES = 50
# The escapes of GitHub's own toolkit.
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})
# Escapes for a cell of a table: its border, markup, HTML and links.
_CELL = str.maketrans({**{mark: f"\\{mark}" for mark in "\\`*_[]|~#@"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})


def is_here() -> bool:
    """Return whether this runs in GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotate(title: str, error: CommandError, stream: TextIO) -> None:
    """Add an annotation with the error to the run's page."""
    message = f"{error.message}\n{error.advice}" if error.advice else error.message
    print(f"::error title={f'{title}: {error.kind}'.translate(_PROPERTY)}::{message.translate(_DATA)}", file=stream)


def summarize(title: str, outcome: Mapping[str, Any] | CommandError) -> None:
    """Append a table to the job's summary, if the job has one.

    Raises:
        OSError: it cannot be written.
    """
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file or (not isinstance(outcome, CommandError) and "rollouts" in outcome):
        return
    with Path(file).open("a", encoding="utf-8") as summary:
        summary.write(_markdown(title, outcome))


def _markdown(title: str, outcome: Mapping[str, Any] | CommandError) -> str:
    if isinstance(outcome, CommandError):
        facts = _facts_of_error(outcome)
        steps: Any = outcome.run.applied
    elif "waves" in outcome:
        return _markdown_of_rollout(title, outcome)
    else:
        facts, steps = _facts_of_result(outcome), outcome.get("applied") or outcome.get("reverted")
    lines = [f"### {_cell(title)}", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(fact)} |" for name, fact in facts.items() if fact is not None]
    if steps:
        lines += ["", "| revision | description | duration |", "| --- | --- | ---: |"]
        lines += [
            f"| {_cell(step['revision'])}{_cell(_for_version_table(step))} | {_cell(step['description'])}"
            f" | {step['duration_ms']:,} ms |"
            for step in steps
        ]
    if not isinstance(outcome, CommandError):
        if found := preflight.entries(outcome):
            lines += _preflight(found)
        lines += [f"- {_cell(line)}" for line in preflight.holdups(outcome)]
    return "\n".join([*lines, "", ""])


def _preflight(found: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the preflight of each revision, and details of those with a problem."""
    yield from ("", "| verdict | revision | table | blocks | checks |", "| --- | --- | --- | --- | --- |")
    for entry in found:
        yield from (f"| {' | '.join(_cell(cell) for cell in row)} |" for row in preflight.rows(entry))
    yield ""
    for entry in found:
        yield from (f"- {_cell(entry['revision'])}: {_cell(line)}" for line in preflight.details(entry))


def _for_version_table(step: Mapping[str, Any]) -> str:
    """Return the version table of a step, if env.py has several."""
    return f" ({step['schema']}.{step['version_table']})" if "version_table" in step else ""


def _markdown_of_rollout(title: str, report: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count:,} {what}" for what, count in report["counts"].items())
    facts = {
        "result": f"{'❌' if report['status'] in {'failed', 'stopped'} else '✅'} {report['status']}",
        "message": report["message"],
        "targets": counts,
        "to migrate": _estimated(report["estimate"]) if "estimate" in report else None,
        "rollout": report["rollout"],
        "report": report.get("report"),
    }
    lines = [f"### {_cell(title)}", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(fact)} |" for name, fact in facts.items() if fact is not None]
    if report["failures"]:
        lines += ["", "| failed | error | message |", "| --- | --- | --- |"]
        lines += [
            f"| {_cell(failure['name'])} | {_cell(failure['error_type'])} | {_cell(failure['message'])} |"
            for failure in report["failures"][:_FAILURES]
        ]
    lines += _preflight_of_rollout(report.get("preflight"))
    lines += _schemas(report.get("schema") or [])
    return "\n".join([*lines, "", ""])


def _preflight_of_rollout(found: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the preflight of the pending revisions at all targets."""
    if not found:
        return
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in found["verdicts"].items())
    yield from ("", f"Preflight of the targets that are behind: {_cell(verdicts)}")
    if longest := found["longest"]:
        took = preflight.seconds(longest["estimated_ms"])
        where = f"{longest['table']} on {longest['name']} ({longest['server']})"
        yield from ("", _cell(f"Longest block: {longest['blocks']} of {where} up to {took}"))
    if found["checks"]:
        yield from ("", "| would fail | targets | rows at most | for example |", "| --- | ---: | ---: | --- |")
    for each in found["checks"][:_FAILURES]:
        what = f"{each['revision']}: {each['check']} of {each['table']} ({', '.join(each['columns'])})"
        yield f"| {_cell(what)} | {each['targets']:,} | {each['violations']:,} | {_cell(each['example'])} |"
    if len(found["servers"]) > 1:
        yield from ("", "| server | would fail | slow | longest block |", "| --- | ---: | ---: | ---: |")
        for each in found["servers"][:_FAILURES]:
            longest_block = preflight.seconds(each["longest_ms"])
            yield f"| {_cell(each['server'])} | {each['fails']:,} | {each['slow']:,} | {longest_block} |"


def _schemas(groups: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the targets, grouped by the result of the schema's comparison."""
    if groups:
        yield from ("", "| schema | targets | for example | differences |", "| --- | ---: | --- | --- |")
    for group in groups[:_FAILURES]:
        differences = ", ".join([*group["differences"], *filter(None, [group.get("reason")])])
        yield f"| {group['schema']} | {group['targets']:,} | {_cell(group['example'])} | {_cell(differences)} |"


def _estimated(estimate: Mapping[str, Any]) -> str:
    return f"{counted(estimate['behind'], 'target')}, about {estimate['seconds']:,} s and {estimate['usd']:.2f} USD"


def _facts_of_result(result: Mapping[str, Any]) -> dict[str, object]:
    facts: dict[str, object] = {"result": "✅ ok" if result.get("healthy", True) else "❌ not healthy"}
    facts["stage"] = result.get("stage")
    facts["database"] = result.get("database")
    if "revision" in result:
        facts["from"] = result["previous_revision"] or "base"
        facts["to"] = result["revision"] or "base"
        facts["pending"] = len(result["pending"]) if "pending" in result else "unknown"
    facts["duration"] = f"{result['duration_ms'] / 1000:.1f} s"
    facts["request"] = result.get("request_id")
    if cut := result.get("truncated"):
        facts["cut"] = cut if isinstance(cut, str) else ", ".join(cut)
    return facts


def _facts_of_error(error: CommandError) -> dict[str, object]:
    return {
        "result": f"❌ {error.kind}",
        "message": error.message,
        "revision": error.run.revision,
        "SQLSTATE": error.run.sqlstate,
        "file": error.run.place,
        "statement": error.run.statement,
        "detail": error.run.detail,
        "hint": error.run.hint,
        "not run": ", ".join(error.run.not_run) or None,
        "next": error.advice or None,
        "request": error.request_id,
        "runbook": error.runbook,
    }


def _cell(text: object) -> str:
    return " ".join(str(text).split()).translate(_CELL)
