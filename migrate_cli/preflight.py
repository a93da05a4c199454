"""The preflight of a plan as text: a table by revision, and details below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from lambda_migrate.invocation.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_KILO = 1024
_MS = 1000
# Below this number, rows are printed in full; from it on, in thousands and millions.
_WRITTEN_OUT = 10_000
_MILLION = 1_000_000
_MOST = 1_000
_STYLES = {"fails": "bold red", "slow": "bold yellow", "unknown": "yellow", "ok": "green"}
HEADINGS = ("Verdict", "Revision", "Table", "Blocks", "Checks")


def entries(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the plan's revisions that have a preflight."""
    return [entry for entry in result.get("plan", ()) if entry.get("preflight")]


def table(found: Iterable[Mapping[str, Any]]) -> Table:
    """Return the table for a terminal of 80 columns."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for heading in HEADINGS:
        shown.add_column(heading, no_wrap=heading == "Verdict", overflow="fold")
    for entry in found:
        for number, row in enumerate(rows(entry)):
            style = _STYLES.get(row[0], "") if number == 0 else ""
            shown.add_row(Text(row[0], style=style), *(Text(cell) for cell in row[1:]))
    return shown


def rows(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield a row for each table of a revision: verdict, revision, table, what is blocked, and checks."""
    found = entry["preflight"]
    verdict = f"{found['verdict']}, acknowledged" if found.get("acknowledged") else found["verdict"]
    names = [each["table"] for each in found["tables"]]
    others = dict.fromkeys(each["table"] for each in found["checks"] if each["table"] not in names)
    tables = [*found["tables"], *({"table": name} for name in others)]
    if not tables:
        yield verdict, entry["revision"], "", "nothing", ""
    for number, each in enumerate(tables):
        first = (verdict, entry["revision"]) if number == 0 else ("", "")
        yield (*first, _table(each), _blocks(each), _checks(found["checks"], each["table"]))


def details(entry: Mapping[str, Any], *, whole: bool = False) -> Iterator[str]:
    """Yield details that the table has no room for: failed and open checks, and blocking sessions.

    With ``whole``, also the content of the table.
    """
    found = entry["preflight"]
    for each in found["tables"] if whole else ():
        blocks = f", blocks {each['blocks']}" if each["blocks"] != "nothing" else ""
        took = f" for about {each['estimated_ms'] / _MS:.1f} s" if blocks and each["estimated_ms"] else ""
        known = "not there yet" if each["bytes"] is None else f"{counted(each['rows'], 'row')}, {size(each['bytes'])}"
        yield f"{each['table']}: {known}{blocks}{took}"
    if found.get("estimated_ms"):
        low, high = found["estimated_ms"]
        yield f"takes about {seconds(low)} to {seconds(high)}"
    for check in found["checks"]:
        if whole or check["result"] != "passed" or "sampled" in check:
            yield _check(check)
        if check["result"] == "failed" and check["query"]:
            yield f"  {check['query']}"
    for name in found.get("unchecked", ()):
        yield f"changes rows of {name}: no check shows whether they allow it"
    for blocker in found["blockers"]:
        who = blocker["application_name"] or "a session"
        pid = f" (pid {blocker['pid']})" if blocker["pid"] is not None else ""
        kind = f"{blocker['kind']}: " if blocker.get("kind", "transaction") != "transaction" else ""
        yield f"{kind}{who}{pid} has {blocker['table']} since {blocker['since']}"
    for reason in dict.fromkeys((found.get("acknowledged") or {}).values()):
        yield f"acknowledged: {reason}"


def holdups(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the causes that delay any run on the server."""
    yield from (each["message"] for each in result.get("holdups", ()))


def _table(each: Mapping[str, Any]) -> str:
    if each.get("bytes") is None:
        return f"{each['table']}: not there yet" if "bytes" in each else each["table"]
    rows = f"{_count(each['rows'])} {'row' if each['rows'] == 1 else 'rows'}"
    return f"{each['table']}: {rows}, {size(each['bytes'])}"


def _blocks(each: Mapping[str, Any]) -> str:
    if each.get("blocks", "nothing") == "nothing":
        return "nothing"
    return f"{each['blocks']} up to {seconds(each['estimated_ms'])}" if each["estimated_ms"] else each["blocks"]


def _checks(checks: Iterable[Mapping[str, Any]], name: str) -> str:
    results = [check["result"] for check in checks if check["table"] == name]
    words = {"failed": "failed", "passed": "passed", "timed_out": "no answer", "depends_on_pending": "open"}
    return ", ".join(f"{results.count(result)} {word}" for result, word in words.items() if result in results)


def _check(check: Mapping[str, Any]) -> str:
    what = f"{check['check']} {', '.join(check['columns'])}"
    found = check["violations"] or 0
    rows = f"{found:,} or more rows" if found >= _MOST else counted(found, "row")
    count = f": {rows}" if check["result"] == "failed" else ""
    sample = f", in a sample of {check['sampled']:.2%}" if "sampled" in check else ""
    return f"{what}: {check['result'].replace('_', ' ')}{count}{sample}"


def seconds(number_ms: float) -> str:
    """Return an estimated time with few digits."""
    if number_ms < _MS:
        return f"{number_ms:.0f} ms"
    return f"{number_ms / _MS:,.1f} s" if number_ms < 10 * _MS else f"{number_ms / _MS:,.0f} s"


def _count(number: int) -> str:
    if number < _WRITTEN_OUT:
        return f"{number:,}"
    return f"{number / _MILLION:,.1f} M" if number >= _MILLION else f"{number / _MS:,.0f} k"


def size(number: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < _KILO or unit == "GB":
            break
        number /= _KILO
    return f"{number:,.0f} {unit}"
