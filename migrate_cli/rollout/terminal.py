"""The terminal output of `migrate rollout`: the progress of a running rollout, and a rollout's report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from lambda_migrate.fleet.folder import BEHIND, FAILED, LEFT, OUTCOMES
from lambda_migrate.invocation.wording import counted
from migrate_cli.display import KEEPALIVE_S, Display
from migrate_cli.errors import steps
from migrate_cli.presentation import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from migrate_cli.errors import Commands
    from migrate_cli.rollout.progress import RolloutProgress

_LINE_EVERY_S = 10
_FAILURES = 10
_REVISIONS = 10
_BEHIND = 10
_MINUTE, _HOUR = 60, 3600
_CENT = 0.01

_STYLES = {"succeeded": "bold green", "failed": "bold red", "stopped": "bold yellow", "running": "bold"}
_WORDS = {"succeeded": "Rolled out", "failed": "Failed", "stopped": "Stopped", "running": "Running"}


class RolloutDisplay(Display):
    """Shows the progress of a rollout, and the first targets that fail."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__(console, title)
        self._last_line: object = None
        self._failures = 0

    @property
    def has_room_for_failures(self) -> bool:
        """Return whether a further failed target would be printed. The report has all of them."""
        return self._failures < _FAILURES

    def print_failure(self, target: str, error_type: str, message: str) -> None:
        """Print a target that failed."""
        self._failures += 1
        self.print(f"failed: {target}: {error_type}: {message}")
        if not self.has_room_for_failures:
            self.print("more failures are in the report only")

    def show(self, progress: RolloutProgress) -> None:
        """Show the current progress: on the bar, or as a line if the last line is old enough."""
        state = "listing its targets" if progress.targets is None else progress_line(progress)
        position = "" if progress.targets is None else f"{progress.done} of {progress.targets}"
        if self.has_bar:
            self._move_bar(state, done=progress.done, total=progress.targets, position=position)
            return
        counts = (progress.targets, progress.wave, progress.done, progress.failed)
        if (counts != self._last_line and self.silent_s > _LINE_EVERY_S) or self.silent_s > KEEPALIVE_S:
            self.print(f"{position} done, {state}" if position else state)
            self._last_line = counts


def progress_line(progress: RolloutProgress) -> str:
    """Return the progress of a rollout without the number of finished targets."""
    parts = [f"{progress.failed} failed"] if progress.failed else []
    # A narrow terminal cuts off the end, so the least important part is last.
    if progress.to_go_s is not None:
        parts.append(f"about {duration(progress.to_go_s)} to go")
    if progress.approval is not None:
        parts.append("waits for an approval")
    elif progress.running is not None:
        parts.append(f"{progress.running} running")
    parts.append(f"{progress.left} left")
    if progress.waves > 1:
        parts.append(f"wave {max(progress.wave, 1)} of {progress.waves}")
    return ", ".join(parts)


def show_report(report: Mapping[str, Any], console: Console, *, commands: Commands, whole: bool = True) -> None:
    """Show a report. Without ``whole``, omit its last line, because an error has the rollout's end."""
    _show_waves(report, console)
    if report["revisions"]:
        _show_revisions(report["revisions"], console)
    if report["failures"]:
        _show_failures(report, console)
    _show_left_out(report, console)
    _show_found(report, console, commands)
    console.print()
    if whole:
        word = "Plan" if report["plan"] and report["status"] == "succeeded" else _WORDS[report["status"]]
        _print(console, (f"{word}: ", _STYLES[report["status"]]), f"{report['message']}, {_took(report)}.")
    if report.get("package"):
        heads = ", ".join(report["heads"]) or "base"
        _print(console, (f"Package: {report['package'][:12]}, head {heads}", "dim"))
    if "estimate" in report:
        _show_estimate(report["estimate"], console)
    if "report" in report:
        _print(console, (f"Report: {report['report']}", "dim"))
    if report["plan"] and report.get("behind") and not report.get("check"):
        _show_next_step(report, console, commands)


def _show_next_step(plan: Mapping[str, Any], console: Console, commands: Commands) -> None:
    """Show how to run a plan, or that rows must be fixed first."""
    if (plan.get("preflight") or {}).get("verdicts", {}).get("fails"):
        _print(console, steps(("After you have fixed the rows", commands.named("rollout --plan"))))
    else:
        _print(console, steps(("To run exactly this plan", commands.named(f"rollout --approved {plan['rollout']}"))))


def show_rollouts(result: Mapping[str, Any], console: Console) -> None:
    """Show the rollouts of a stage, the newest first."""
    if not result["rollouts"]:
        _print(console, f"Stage {result['stage']} has not had a rollout yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("Rollout", overflow="fold")
    for column in ("Started", "Kind", "Ended as"):
        table.add_column(column, no_wrap=True)
    for column in ("Targets", "Failed"):
        table.add_column(column, no_wrap=True, justify="right")
    for entry in result["rollouts"]:
        failed = entry["counts"].get(FAILED)
        table.add_row(
            *(
                Text(plain(text))
                for text in (entry["rollout"], entry["started"][:16].replace("T", " "), entry["kind"], entry["status"])
            ),
            f"{entry['targets']:,}",
            "" if failed is None else f"{failed:,}",
        )
    console.print(table)


def show_line(text: str, console: Console) -> None:
    """Show one sentence."""
    _print(console, text)


def _show_waves(report: Mapping[str, Any], console: Console) -> None:
    outcomes = [outcome for outcome in OUTCOMES if outcome in {FAILED, LEFT} or report["counts"][outcome]]
    table = _table("Wave", *(name.capitalize() for name in ("targets", *outcomes)))
    for wave in report["waves"]:
        name = f"{wave['wave']}, canaries" if wave["canary"] else str(wave["wave"])
        table.add_row(name, *(f"{wave[count]:,}" for count in ("targets", *outcomes)))
    console.print(table)


def _show_revisions(revisions: Mapping[str, int], console: Console) -> None:
    console.print()
    table = _table("Revision", "Targets")
    for revision, count in list(revisions.items())[:_REVISIONS]:
        table.add_row(Text(plain(revision)), f"{count:,}")
    console.print(table)
    _show_cut(console, len(revisions) - _REVISIONS, "revisions")


def _show_failures(report: Mapping[str, Any], console: Console) -> None:
    console.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    # Folded and never cut, because names may differ only at their ends.
    for column in ("Failed", "Error", "Message"):
        table.add_column(column, overflow="fold")
    for failure in report["failures"][:_FAILURES]:
        table.add_row(*(Text(plain(failure[name])) for name in ("name", "error_type", "message")))
    console.print(table)
    _show_cut(console, report["counts"][FAILED] - _FAILURES, "failures")


def _show_found(report: Mapping[str, Any], console: Console, commands: Commands) -> None:
    """Show the findings of a plan or a check."""
    if report.get("behind"):
        _show_behind(report, console, commands)
    if "preflight" in report:
        _show_preflight(report["preflight"], console)
    if "schema" in report:
        _show_schemas(report["schema"], console)


def _show_left_out(report: Mapping[str, Any], console: Console) -> None:
    lines = [f"{entry['name']}: {entry['reason']}" for entry in report.get("excluded") or ()]
    lines += [f"{name}: created while the approved plan ran" for name in report.get("new") or ()]
    if lines:
        console.print()
    for line in lines[:_FAILURES]:
        _print(console, ("Left out: ", "bold"), line)
    _show_cut(console, len(lines) - _FAILURES, "that were left out")


def _show_behind(report: Mapping[str, Any], console: Console, commands: Commands) -> None:
    names = report["behind"][:_BEHIND]
    console.print()
    _print(console, ("Behind: ", "bold"), ", ".join(names))
    more = report["counts"][BEHIND] - len(names)
    if more > 0:
        _show_cut(console, more, "that are behind")
        _print(console, (steps(("To see all", commands.named("fleet status --only behind"))), "dim"))


def _show_preflight(found: Mapping[str, Any], console: Console) -> None:
    """Show the number of targets that fail each check, the longest block, and both by server."""
    console.print()
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in found["verdicts"].items())
    _print(console, ("Preflight: ", "bold"), verdicts)
    if found["checks"]:
        table = _wrapped("Would fail", "Targets", "Rows", "For example")
        for each in found["checks"][:_FAILURES]:
            what = f"{each['check']} of {each['table']} ({', '.join(each['columns'])})"
            table.add_row(
                Text(plain(what)), f"{each['targets']:,}", f"{each['violations']:,}", Text(plain(each["example"]))
            )
        console.print(table)
    if longest := found.get("longest"):
        took = duration(longest["estimated_ms"] / 1000)
        where = f"{longest['table']} on {longest['name']} ({longest['server']})"
        _print(console, f"Longest block: {longest['blocks']} of {where} up to {took}")
    if len(found["servers"]) > 1:
        table = _wrapped("Server", "Fails", "Slow", "Longest block")
        for each in found["servers"][:_FAILURES]:
            numbers = (f"{each['fails']:,}", f"{each['slow']:,}", duration(each["longest_ms"] / 1000))
            table.add_row(Text(plain(each["server"])), *numbers)
        console.print(table)


def _show_schemas(groups: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Show the targets by the result of their schema's comparison."""
    console.print()
    table = _wrapped("Schema", "Targets", "For example", "Differences")
    for group in groups:
        more = f"{group['more']:,} more" if group["more"] else None
        lines = [*group["differences"], *filter(None, [more, group.get("reason")])]
        table.add_row(
            group["schema"], f"{group['targets']:,}", Text(plain(group["example"])), Text(plain("\n".join(lines)))
        )
    console.print(table)


def _wrapped(*columns: str) -> Table:
    """Return a table whose cells wrap in a narrow terminal."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _show_estimate(estimate: Mapping[str, Any], console: Console) -> None:
    if not estimate["behind"]:
        _print(console, "Nothing is pending anywhere.")
        return
    each = f"{estimate['migrating_ms'] / 1000:.1f} s"
    basis = (
        f"{each} for each target that is behind (--per-target)"
        if estimate["migrating_ms"] != estimate["looking_ms"]
        else f"{each} for reading one target, without the run time of its revisions (--per-target)"
    )
    _print(
        console,
        ("A rollout: ", "bold"),
        f"{estimate['behind']:,} of {counted(estimate['targets'], 'target')} to migrate,"
        f" about {duration(estimate['seconds'])} and {_usd(estimate['usd'])}, estimated from {basis}.",
    )


def _usd(amount: float) -> str:
    return f"{amount:.2f} USD" if amount >= _CENT else "less than 0.01 USD"


def duration(seconds: float) -> str:
    """Return a duration as text, rounded to whole seconds or minutes or a tenth of an hour."""
    if seconds < _MINUTE:
        return f"{max(round(seconds), 1)} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    return f"{seconds / _HOUR:.1f} h"


def _took(report: Mapping[str, Any]) -> str:
    seconds = report["duration_ms"] / 1000
    return f"in {seconds:.1f} s" if seconds < _MINUTE else f"in {duration(seconds)}"


def _show_cut(console: Console, more: int, what: str) -> None:
    if more > 0:
        _print(console, (f"and {more:,} more {what}", "dim"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    first, *numbers = columns
    # A long revision is folded, and no number is cut.
    table.add_column(first, overflow="fold")
    for column in numbers:
        table.add_column(column, no_wrap=True, justify="right")
    return table


def _print(console: Console, *parts: str | tuple[str, str]) -> None:
    cleaned = (plain(part) if isinstance(part, str) else (plain(part[0]), part[1]) for part in parts)
    console.print(Text.assemble(*cleaned), soft_wrap=True)
