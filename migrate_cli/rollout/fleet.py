"""``migrate fleet``: the state of every tenant of a stage, from the outcomes of its rollouts and plans."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from lambda_migrate.fleet.folder import BEHIND, CURRENT, FAILED, LEFT, MIGRATED, OUTCOMES, SpoiledError
from lambda_migrate.fleet.outcome_reader import observe
from lambda_migrate.invocation.result import joined
from lambda_migrate.invocation.wording import counted
from migrate_cli.actions import Call
from migrate_cli.errors import CommandError, ExitCode, UsageError, steps
from migrate_cli.options import Json, at_stage, examples
from migrate_cli.output import Output
from migrate_cli.presentation import plain
from migrate_cli.rollout.machine import Machine, find
from migrate_cli.rollout.terminal import show_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console


_EXAMPLES = examples("migrate fleet status --stage prod --only behind")
app = typer.Typer(
    name="fleet", help="Show the state of all tenants of a stage.", epilog=_EXAMPLES, rich_markup_mode=None
)

UNKNOWN = "unknown"
# In the order of urgency.
STATES = (FAILED, BEHIND, UNKNOWN, CURRENT)
# Maximum number of rollouts and plans to read for tenants that the newest ones did not visit.
_ROLLOUTS_READ = 20


class State(str, Enum):
    """The values of `--only`."""

    FAILED = FAILED
    BEHIND = BEHIND
    UNKNOWN = UNKNOWN
    CURRENT = CURRENT


@app.callback()
def fleet() -> None:
    """Show the state of all tenants of a stage."""


@app.command(epilog=_EXAMPLES)
@at_stage
def status(
    call: Call,
    only: Annotated[list[State] | None, typer.Option(help="Only tenants in this state. Repeatable.")] = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="TEXT", help="Only tenants whose name, server or revision contains this text."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows; --json has all.")] = 100,
    as_json: Json = False,
) -> int:
    """Show every tenant's revision, and whether it is behind. Reads the results of rollouts and plans."""
    output = Output(f"migrate fleet status ({call.stage})", as_json=as_json)
    try:
        result = _status(find(call))
        chosen = [tenant for tenant in result["targets"] if _is_wanted(tenant, only, text)]
        return output.succeed({**result, "targets": chosen}, lambda shown, console: show_status(shown, limit, console))
    except CommandError as error:
        return output.fail(error)
    except KeyboardInterrupt:
        return output.fail(CommandError("Interrupted", "stopped; nothing is running", ExitCode.INTERRUPTED))


def _is_wanted(tenant: Mapping[str, Any], only: Sequence[State] | None, text: str | None) -> bool:
    if only and tenant["state"] not in {state.value for state in only}:
        return False
    words = (str(tenant[name] or "").lower() for name in ("name", "server", "revision"))
    return text is None or any(text.lower() in word for word in words)


def _status(machine: Machine) -> dict[str, Any]:
    listed = machine.rollouts()[:_ROLLOUTS_READ]
    if not listed:
        raise UsageError(
            f"stage {machine.stage} has had neither a rollout nor a plan yet",
            advice=steps(("To read every tenant's revision", machine.commands.named("rollout --plan"))),
        )
    with machine.calling("s3:GetObject", "s3:ListBucket"):
        readings = (_Reading.of(machine, each.name) for each in listed)
        tenants, newest = _latest_of_each(reading for reading in readings if reading is not None)
    if newest is None:
        raise CommandError("NotListed", "the targets of no rollout could be read", ExitCode.FAILED)
    counts = Counter(tenant["state"] for tenant in tenants)
    return {
        "action": "fleet status",
        "stage": machine.stage,
        "rollout": newest.rollout["rollout"],
        "heads": newest.heads,
        "counts": {"targets": len(tenants), **{state: counts[state] for state in STATES}},
        "targets": sorted(tenants, key=lambda tenant: (STATES.index(tenant["state"]), tenant["name"])),
    }


@dataclass(frozen=True)
class _Reading:
    """A rollout or plan, and the outcomes of its targets."""

    rollout: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, machine: Machine, name: str) -> _Reading | None:
        """Return a rollout with the lines of its targets.jsonl or, before its report is written, with its outcomes.

        Return None if its targets cannot be read.
        """
        folder = machine.folder(name)
        try:
            if lines := _written(machine.targets(name)):
                listing = folder.listing()
                return None if listing is None else cls(listing, lines)
            observed = observe(folder)
        except SpoiledError:
            return None
        return None if observed is None else cls(observed.rollout, list(observed.targets()))

    @property
    def heads(self) -> list[str]:
        """Return the heads of the package that listed it."""
        found = self.rollout.get("heads")
        return [str(head) for head in found] if isinstance(found, list) else []

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """Return its excluded or late targets, as lines of targets that did not start."""
        excluded = self.rollout.get("excluded") or []
        names = [entry["name"] for entry in excluded if isinstance(entry, dict)] + (self.rollout.get("new") or [])
        nowhere: dict[str, Any] = {"target": {}, "server": "", "outcome": LEFT, "revision": None}
        return [{"name": str(name), **nowhere} for name in names]

    @property
    def is_whole(self) -> bool:
        """Return whether it listed every tenant."""
        return self.rollout.get("chosen") is None


def _written(content: bytes | None) -> list[dict[str, Any]]:
    """Return the lines of targets.jsonl, or none if it is missing or was changed by hand."""
    try:
        lines = [json.loads(line) for line in (content or b"").splitlines()]
    except ValueError:
        return []
    return lines if all(_is_line(line) for line in lines) else []


def _is_line(line: object) -> bool:
    return (
        isinstance(line, dict)
        and {"name", "target", "server"} <= line.keys()
        and isinstance(line["name"], str)
        and line.get("outcome") in OUTCOMES
        and isinstance(line.get("revision"), (str, type(None)))
    )


def _latest_of_each(readings: Iterable[_Reading]) -> tuple[list[dict[str, Any]], _Reading | None]:
    """Return the last outcome of each tenant, from the newest rollout to older ones, and the newest rollout.

    The tenants are those of the newest rollout, and those that later plans visited. Older rollouts are read only for
    tenants without an outcome in newer ones.
    """
    newest: _Reading | None = None
    tenants: dict[str, dict[str, Any]] = {}
    is_complete = False
    for reading in readings:
        newest = newest or reading
        for line in (*reading.lines, *reading.left_out):
            known = tenants.get(line["name"])
            if known is None and is_complete:
                continue  # no longer a tenant
            if known is None or known["state"] == UNKNOWN:
                tenants[line["name"]] = _tenant(line, reading, newest)
        is_complete = is_complete or reading.is_whole
        if is_complete and all(tenant["state"] != UNKNOWN for tenant in tenants.values()):
            break
    return list(tenants.values()), newest


def _tenant(line: Mapping[str, Any], reading: _Reading, newest: _Reading) -> dict[str, Any]:
    done = line["outcome"] != LEFT
    return {
        "name": line["name"],
        "target": line["target"],
        "server": line["server"],
        "state": _state(line, reading, newest),
        "revision": line["revision"],
        "error_type": line.get("error_type"),
        "rollout": reading.rollout["rollout"] if done else None,
        "at": reading.rollout["started"] if done else None,
    }


def _state(line: Mapping[str, Any], reading: _Reading, newest: _Reading) -> str:
    outcome = line["outcome"]
    if outcome in {LEFT, FAILED}:
        return UNKNOWN if outcome == LEFT else FAILED
    if outcome in {MIGRATED, CURRENT} and reading.heads == newest.heads and not reading.rollout.get("downgrade_to"):
        return CURRENT
    return CURRENT if line["revision"] == joined(tuple(newest.heads)) else BEHIND


def show_status(result: Mapping[str, Any], limit: int, console: Console) -> None:
    """Show the tenants, the most urgent first."""
    shown = result["targets"][:limit]
    table = Table(box=None, pad_edge=False, header_style="dim")
    # Names and revisions are folded and never cut, so all of them fit into 80 columns.
    table.add_column("Target", overflow="fold", ratio=3)
    table.add_column("State", no_wrap=True)
    table.add_column("Revision or error", overflow="fold", ratio=2)
    table.add_column("As of", no_wrap=True)
    for tenant in shown:
        table.add_row(
            Text(plain(tenant["name"])),
            tenant["state"],
            Text(plain(tenant["revision"] or tenant["error_type"] or "")),
            str(tenant["at"] or "")[:16].replace("T", " "),
        )
    if shown:
        console.print(table)
    for line in _below(result, len(shown)):
        show_line(line, console)


def _below(result: Mapping[str, Any], shown: int) -> Iterator[str]:
    if more := len(result["targets"]) - shown:
        yield f"and {more:,} more: --limit, --filter or --only"
    counts = ", ".join(f"{count:,} {name}" for name, count in result["counts"].items() if name != "targets" and count)
    heads = ", ".join(result["heads"]) or "base"
    targets = counted(result["counts"]["targets"], "target")
    yield f"{targets}: {counts}. Head: {heads}, according to {result['rollout']}."
