"""Shows a run's result or error in a terminal.

Text from the function is shown unchanged: it is never markup, nor a terminal's command. Make a console for a pipe with
`console`, which never breaks lines.
"""

from __future__ import annotations

import os
import re
from typing import IO, TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from lambda_migrate.invocation.wording import counted
from migrate_cli import preflight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from migrate_cli.failed_run import FailedRun

# The most ids of revisions in one line.
_NOT_RUN = 8
# Wider than any line, because a program that reads a pipe expects each row in one line.
_UNBROKEN = 1_000_000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "dim")}  # noqa: RUF001 - a dash is meant


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Return the exit code although the reader has closed the pipe."""
        self.quiet = True
        discard(self.file)


def discard(stream: IO[str]) -> None:
    """Redirect the rest of a stream without a reader to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def console(stream: TextIO) -> Console:
    """Return a console: with colours and its own width in a terminal, plain and unbroken otherwise."""
    terminal = stream.isatty()
    return _Console(file=stream, highlight=False, force_terminal=terminal, width=None if terminal else _UNBROKEN)


def plain(text: object) -> str:
    """Return foreign text for a terminal, with control characters made visible."""
    return _CONTROL.sub("�", str(text))


def show(result: Mapping[str, Any], console: Console) -> None:
    """Show the answer of any action."""
    _SHOW[result["action"]](result, console)


def show_result(result: Mapping[str, Any], console: Console) -> None:
    """Show the revisions before and after, and each applied revision with its duration."""
    at = _at(result["revision"])
    if "applied" in result.get("truncated", ()):
        _show_steps(console, result, "Applied", "to", result["applied"])
        return
    if checkpoint := result.get("checkpoint"):
        place = f"{result['database']} is at {at}." if not result["applied"] else "the revisions after it follow."
        count = counted(checkpoint["revisions"], "revision")
        _print(console, ("Began with a checkpoint ", "bold green"), f"of {count}, at {checkpoint['revision']}: {place}")
    if checkpoint and not result["applied"]:
        return
    if result.get("ahead") and not result["applied"]:
        words = f"{result['database']} is at {at}, which this package does not have. Nothing was changed."
        _print(console, ("Newer than the package: ", "bold yellow"), words)
    elif not result["applied"]:
        _print(console, ("Nothing to apply: ", "bold green"), f"{result['database']} is at {at}.")
    else:
        _show_steps(console, result, "Applied", "to", result["applied"])


def show_error(error: Mapping[str, Any], console: Console) -> None:
    """Show the error's name and its message."""
    # The terminal wraps the line, so that a command in it can be copied as one line.
    _print(console, (f"{error.get('errorType', 'Error')}: ", "bold red"), error.get("errorMessage", ""), broken=False)


def show_applied(run: FailedRun, console: Console) -> None:
    """Show the revisions that were committed before a failure."""
    if not run.applied:
        return
    _show_table_of_steps(console, run.applied)
    _print(console, (f"Applied {counted(len(run.applied), 'revision')}", "bold green"), " before the failure.")
    console.print()


def show_failure(run: FailedRun, request_id: str | None, runbook: str | None, console: Console) -> None:
    """Show the failed revision, and the revisions that were not run."""
    not_run = list(run.not_run[:_NOT_RUN])
    if len(run.not_run) > _NOT_RUN:
        not_run.append(f"and {len(run.not_run) - _NOT_RUN} more")
    facts = {
        "Revision": " ".join(filter(None, [run.revision, f"({run.description})" if run.description else None])),
        "File": run.place,
        "Statement": run.statement,
        "SQLSTATE": run.sqlstate,
        "Detail": run.detail,
        "Hint": run.hint,
        "Not run": ", ".join(not_run),
        "Request": request_id,
        "Runbook": runbook,
    }
    for name, fact in facts.items():
        if fact:
            _print(console, (f"{name + ':':<11}", "dim"), fact, broken=False)


def show_advice(advice: str, console: Console) -> None:
    """Show the next step."""
    if advice:
        _print(console, advice, broken=False)


def _show_downgrade(result: Mapping[str, Any], console: Console) -> None:
    if not result["reverted"]:
        _print(console, ("Nothing to revert: ", "bold green"), f"{result['database']} is at {_at(result['revision'])}.")
    else:
        _show_steps(console, result, "Reverted", "of", result["reverted"])


def _show_steps(
    console: Console, result: Mapping[str, Any], done: str, of: str, steps: list[Mapping[str, Any]]
) -> None:
    if steps:
        _show_table_of_steps(console, steps)
    count = counted(len(steps), "revision")
    # A long run's result may be too long for its outcome, and its log unreadable.
    if "applied" in result.get("truncated", ()):
        count = f"at least {count}" if steps else "revisions that the log lists"
    _print(
        console,
        (f"{done} {count}", "bold green"),
        f" {of} {result['database']} ({result['stage']}): from {_at(result['previous_revision'])}"
        f" to {_at(result['revision'])} in {result['duration_ms'] / 1000:.1f} s.",
    )
    if cut := result.get("truncated"):
        names = cut if isinstance(cut, str) else ", ".join(cut)
        _print(console, (f"Cut, because the answer was too long: {names}.", "yellow"))


def _show_table_of_steps(console: Console, steps: Iterable[Mapping[str, Any]]) -> None:
    table = _table("Revision", *_version_table_column(steps), "Description")
    table.add_column("Duration", justify="right", no_wrap=True)
    for step in steps:
        table.add_row(*_revision_cells(step), f"{step['duration_ms']:,} ms")
    console.print(table)
    console.print()


def _show_stamp(result: Mapping[str, Any], console: Console) -> None:
    _print(
        console,
        ("Stamped: ", "bold green"),
        f"{result['database']} ({result['stage']}) is now stamped with {_at(result['revision'])}; before, it was"
        f" {result['previous_revision'] or 'base (no revision)'}. Nothing was run.",
    )
    if "verified" in result:
        what = {"fingerprint": "the schema recorded after that revision", "models": "the models"}[result["verified"]]
        _print(console, (f"Verified: the database matches {what}.", ""))
    _show_pending(console, result)


def _show_status(result: Mapping[str, Any], console: Console) -> None:
    database = result["database"] + (f", schema {result['schema']}" if result.get("schema") else "")
    lock = result.get("lock")
    held = f"held by {lock['holder']} (pid {lock['pid']}) since {lock['since']}" if lock else "free"
    invalid = ", ".join(map(str, result.get("invalid_indexes") or ())) or "none"
    facts = {
        "Stage": result["stage"],
        "Database": database,
        "Revision": _at(result["revision"]),
        "Migration lock": held,
        "Invalid indexes": invalid,
    }
    for name, fact in facts.items():
        _print(console, (f"{name + ':':<17}", "dim"), fact)
    if result.get("ahead"):
        _print(console, ("Newer than the package", "bold yellow"), ": the package does not have this revision.")
    elif result["up_to_date"]:
        _print(console, ("Up to date.", "bold green"))
    _show_version_tables(console, result)
    _show_pending(console, result)


def _show_version_tables(console: Console, result: Mapping[str, Any]) -> None:
    """Show the revision of each version table, if env.py has several."""
    if "version_tables" not in result:
        return
    console.print()
    table = _table("Version table", "Revision", "Pending")
    for each in result["version_tables"]:
        table.add_row(_text(_version_table(each)), _text(_at(each["revision"])), str(len(each["pending"])))
    console.print(table)


def _show_pending(console: Console, result: Mapping[str, Any]) -> None:
    if not result["pending"]:
        return
    console.print()
    _print(console, (f"{counted(len(result['pending']), 'revision')} pending:", "bold yellow"))
    table = _table("Revision", *_version_table_column(result["pending"]), "Description")
    for revision in result["pending"]:
        table.add_row(*_revision_cells(revision))
    console.print(table)


def _version_table_column(revisions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the column for the version table of each revision, if env.py has several."""
    return ["Version table"] if any(map(_version_table, revisions)) else []


def _revision_cells(revision: Mapping[str, Any]) -> list[Text]:
    where = [_text(name)] if (name := _version_table(revision)) else []
    return [_text(revision["revision"]), *where, _text(revision["description"])]


def _version_table(entry: Mapping[str, Any]) -> str | None:
    return f"{entry['schema']}.{entry['version_table']}" if "version_table" in entry else None


def _show_plan(result: Mapping[str, Any], console: Console) -> None:
    """Print the plan. Outside a terminal, it is a script for psql, with comments."""
    show_preflight(result, console)
    for entry in result["plan"]:
        where = f" for {name}" if (name := _version_table(entry)) else ""
        _print(console, (_remark(f"{entry['revision']} ({entry['description']}){where}"), "bold"))
        for found in entry.get("findings") or ():
            known = f", acknowledged: {found['reason']}" if found.get("reason") else ""
            _print(console, (_remark(f"{found['severity']} {found['rule']}: {found['message']}{known}"), "yellow"))
        sql = entry["sql"]
        if sql is None:
            _print(console, (_remark(str(entry.get("error", "cannot be rendered"))), "yellow"))
        elif console.is_terminal:
            from rich.syntax import Syntax  # noqa: PLC0415 - it loads slowly, and few commands show SQL

            console.print(Syntax(plain(sql), "postgresql", background_color="default", word_wrap=True))
        else:
            # Unchanged: a tab or a carriage return may be part of a value.
            console.print(Segments([Segment(sql), Segment.line()]), soft_wrap=True)
        console.print()
    count = counted(len(result["plan"]), "revision")
    _print(
        console, _remark(f"{count} to apply to {result['database']} ({result['stage']}), at {_at(result['revision'])}")
    )
    _show_truncation(console, result, mark="-- ")


def show_preflight(result: Mapping[str, Any], console: Console) -> None:
    """Show the preflight of each recorded revision, in a terminal of 80 columns and elsewhere."""
    found = preflight.entries(result)
    if found and console.is_terminal:
        console.print(preflight.table(found))
        console.print()
    for line in _preflight_lines(result, found, whole=not console.is_terminal):
        if console.is_terminal:
            text = plain(line.lstrip())
            console.print(Padding(Text(text), (0, 0, 0, len(line) - len(line.lstrip()))))
        else:
            _print(console, _remark(line), broken=False)
    if found:
        console.print()


def _preflight_lines(result: Mapping[str, Any], found: Iterable[Mapping[str, Any]], *, whole: bool) -> Iterator[str]:
    """Yield the details of each revision below its name. With ``whole``, also the content of the table."""
    for entry in found:
        details = list(preflight.details(entry, whole=whole))
        if whole or details:
            yield f"{entry['preflight']['verdict']:<8} {entry['revision']} ({entry['description']})"
        yield from (f"         {line}" for line in details)
    yield from preflight.holdups(result)


def _remark(text: str) -> str:
    """Return a comment of one line in SQL, for any text."""
    return f"-- {' '.join(text.split())}"


def _show_history(result: Mapping[str, Any], console: Console) -> None:
    table = _table("Revision", "After", "", "Description")
    for entry in result["history"]:
        marks = ["head"] * bool(entry["head"]) + list(entry["branch_labels"])
        table.add_row(
            _text(entry["revision"]),
            _text(", ".join(entry["down_revisions"]) or "base"),
            _text(", ".join(marks)),
            _text(entry["description"]),
        )
    console.print(table)
    console.print()
    _print(console, f"{counted(result['count'], 'revision')} in the package of stage {result['stage']}.")
    _show_truncation(console, result)


def _show_truncation(console: Console, result: Mapping[str, Any], mark: str = "") -> None:
    if result.get("truncated"):
        _print(console, (f"{mark}Cut: the answer was longer than Lambda's limit.", "yellow"))


def _show_doctor(result: Mapping[str, Any], console: Console) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(overflow="fold")
    for step in result["steps"]:
        mark, style = _MARKS[step["ok"]]
        took = f"{step['duration_ms']:,} ms" if step["ok"] is not None else ""
        table.add_row(Text(mark, style), *map(_text, (step["step"], took, step["message"])))
    console.print(table)
    console.print()
    failed = [step["step"] for step in result["steps"] if step["ok"] is False]
    if result["healthy"]:
        _print(console, ("Healthy", "bold green"), f": stage {result['stage']} can migrate.")
    else:
        _print(console, ("Not healthy", "bold red"), f": {', '.join(failed) or 'no step passed'}.")


def _show_check(result: Mapping[str, Any], console: Console) -> None:
    database, at = f"{result['database']} ({result['stage']})", _at(result["revision"])
    same = (
        f"{database} has the schema of"
        if result.get("schema") == "equal"
        else f"the models match {database}, which is at"
    )
    _print(console, ("No drift: ", "bold green"), f"{same} {at}.")
    if result.get("reason"):
        _print(console, f"The schema was not compared with the reviewer's record: {result['reason']}.")


_SHOW: Mapping[str, Callable[[Mapping[str, Any], Console], None]] = {
    "upgrade": show_result,
    "plan": _show_plan,
    "status": _show_status,
    "history": _show_history,
    "doctor": _show_doctor,
    "check": _show_check,
    "downgrade": _show_downgrade,
    "stamp": _show_stamp,
}


def _print(console: Console, *parts: str | tuple[str, str], broken: bool = True) -> None:
    cleaned: Iterable[str | tuple[str, str]] = (
        plain(part) if isinstance(part, str) else (plain(part[0]), part[1]) for part in parts
    )
    console.print(Text.assemble(*cleaned), soft_wrap=not broken)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column != "Description")
    return table


def _text(text: object) -> Text:
    return Text(plain(text))


def _at(revision: str | None) -> str:
    return revision or "base (an empty database)"
