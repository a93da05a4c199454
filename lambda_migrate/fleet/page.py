"""Renders a rollout's report as one HTML file that needs no server and loads no other file.

Names of tenants and messages of errors are untrusted text. The page escapes all of it, and its Content-Security-Policy
allows only the script whose hash it contains. A test renders arbitrary text in every place. A template engine that
escapes by default (Jinja2 with MarkupSafe) would add 0.7 MB to the function's package, which is 0.1 MB below its
ceiling of 9 MB zipped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_migrate.fleet.folder import BEHIND, CURRENT, FAILED, LEFT, MIGRATED, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_FOLDER = Path(__file__).resolve().parent

_MEANINGS = {
    MIGRATED: "something was applied",
    CURRENT: "nothing was pending",
    BEHIND: "something is pending",
    FAILED: "see below",
    LEFT: "not started",
}
_WORDS = {
    "succeeded": ("✓", "Rolled out"),
    "failed": ("✗", "Failed"),
    "stopped": ("■", "Stopped"),
    "running": ("…", "Running"),
}
# The number of failures shown without the script, as in a mail's preview.
_STATIC_ROWS = 100
_REVISIONS = 15
# The number of targets that the page can search: 3 MB. Beyond it, those that are done are the first to be left out.
MOST_TARGETS = 100_000
_BEHIND_NAMED = 20
_OPTIONS = 200
# A longer name is shown by its beginning and its end, which identify it.
_LONG, _BEGINNING, _END = 80, 30, 45
# A prefix that all names share is left out of the tables. It ends where a part of the name ends.
_SHORTEST_PREFIX = 4
_PREFIX = re.compile(r".*[/._:\-]")
# The smallest share of a bar that is visible, and the smallest that is shown as a number, in percent.
_SEEN = 0.8
_LEAST = 0.05
# Characters that HTML cannot hold, and surrogates, which UTF-8 cannot.
_UNUSABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class _Names:
    """The names of targets as tables show them: without ``prefix``, which all of them share."""

    prefix: str

    @classmethod
    def of(cls, names: Sequence[str]) -> _Names:
        if len(set(names)) < 2:  # noqa: PLR2004 - one name has no prefix to share
            return cls("")
        first, last = min(names), max(names)
        length = next((index for index, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), 0)
        common = _PREFIX.match(first[:length])
        return cls(common[0] if common and len(common[0]) >= _SHORTEST_PREFIX else "")

    def short(self, name: str) -> str:
        """Return a name without the prefix."""
        return name.removeprefix(self.prefix) if self.prefix else name

    def shown(self, name: str) -> str:
        """Return the element of a name, with the whole name as its title."""
        return f'<bdi dir="auto" title="{_text(name)}">{escape(_shortened(self.short(_clean(name))))}</bdi>'


def render(report: Mapping[str, Any], targets: Iterable[Mapping[str, Any]] = ()) -> str:
    """Return the page for a report.json of `lambda_migrate.fleet.report` and the lines of its targets.jsonl."""
    kept = _kept(targets)
    known = [target["name"] for target in kept] or [
        entry["name"] for part in ("failures", "slowest") for entry in report[part]
    ]
    names = _Names.of([_clean(name) for name in known])
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_word(report)}: {_text(report['rollout'])} ({_text(report['stage'])})</title>",
        f"<style>{(_FOLDER / 'page.css').read_text(encoding='utf-8')}</style></head>",
        f'<body><main class="{_text(report["status"])}">',
        *_head(report),
        *_next_steps(report),
        *_preflight(report.get("preflight")),
        *_schema(report.get("schema") or []),
        *_waves(report["waves"]),
        *_behind(report, names),
        *_left_out(report),
        *_revisions(report),
        *_failures(report, names),
        *_slowest(report["slowest"], names),
        *_targets(report, kept, names),
        "</main>",
        f"<script>{script}</script>" if report["failures"] or kept else "",
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _word(report: Mapping[str, Any]) -> str:
    if report["plan"] and report["status"] == "succeeded":
        return "Plan"
    return _WORDS[report["status"]][1]


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    counts = report["counts"]
    yield f"<header><h1>{'Plan of a rollout' if report['plan'] else 'Rollout'} to stage {_bdi(report['stage'])}</h1>"
    yield f'<p class="outcome"><span aria-hidden="true">{_WORDS[report["status"]][0]}</span> {_word(report)}</p>'
    yield f'<p class="message">{_bdi(report["message"])}</p>'
    yield (
        f'<p class="quiet"><code>{_text(report["rollout"])}</code>, {_time(report["started"])} to'
        f" {_time(report['ended'])}, {_duration(report['duration_ms'])}"
    )
    if report.get("package"):
        heads = ", ".join(f"<code>{_text(head)}</code>" for head in report["heads"])
        yield f"<br>Package <code>{_text(report['package'][:12])}</code> with head {heads or 'none'}"
    yield "</p></header>"
    yield _bar(counts, "All targets", "bar whole")
    yield '<ul class="tiles">'
    yield f'<li><b>{counts["targets"]:,}</b> targets<br><span class="quiet">in all</span></li>'
    for what in _shown(counts):
        yield (
            f'<li><b>{counts[what]:,}</b> <span class="key {what}-fill" aria-hidden="true"></span>{what}<br>'
            f'<span class="quiet">{_MEANINGS[what]}</span></li>'
        )
    yield "</ul>"


def _next_steps(report: Mapping[str, Any]) -> Iterator[str]:
    steps = list(_steps(report))
    if steps:
        yield '<section aria-labelledby="next"><h2 id="next">What to do next</h2>'
        for what, command in steps:
            yield f"<p>{what}</p><pre>{_text(shlex.join(command))}</pre>"
        yield "</section>"


def _steps(report: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each possible next step with its command."""
    counts, name, stage = report["counts"], str(report["rollout"]), ["--stage", str(report["stage"])]
    if report["failures"]:
        target = report["failures"][0]["target"]
        where = [
            word for name, value in target.items() for word in (f"--{str(name).replace('_', '-')}", str(value)) if value
        ]
        yield "Show the state of a failed target, here the first one:", ["migrate", "status", *stage, *where]
    takes_back = report.get("downgrade_to") is not None
    if counts[FAILED] and not report["plan"] and not takes_back:
        yield "Retry the failed targets, after you have fixed the cause:", ["migrate", "rollout", "retry", name, *stage]
    if report["status"] == "running":
        yield "Show its progress:", ["migrate", "rollout", "status", name, *stage]
    elif takes_back and (counts[FAILED] or counts[LEFT]):
        back = ["--downgrade-to", str(report["downgrade_to"]), "--migrated-by", str(report["migrated_by"])]
        yield "Revert the remaining targets, after you have fixed the cause:", ["migrate", "rollout", *back, *stage]
    elif counts[LEFT]:
        yield "Continue with the remaining targets; those at head are skipped:", ["migrate", "rollout", *stage]
    elif report["plan"] and counts[BEHIND]:
        yield "Migrate them:", ["migrate", "rollout", "--approved", name, *stage]


def _waves(waves: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    shown = _shown({what: sum(wave.get(what, 0) for wave in waves) for what in OUTCOMES})
    yield '<section aria-labelledby="waves"><h2 id="waves">Waves</h2><div class="scroll" tabindex="0" role="group"'
    yield ' aria-labelledby="waves"><table><thead><tr><th scope="col">Wave</th><th scope="col">Progress</th>'
    for name in ("targets", *shown, "tolerated"):
        yield f'<th scope="col" class="number">{name}</th>'
    yield "</tr></thead><tbody>"
    for wave in waves:
        name = f"{wave['wave']} (canaries)" if wave.get("canary") else str(wave["wave"])
        numbers = [wave["targets"], *(wave.get(what, 0) for what in shown), wave.get("tolerated_failures", 0)]
        cells = "".join(f'<td class="number">{number:,}</td>' for number in numbers)
        yield f'<tr><th scope="row">{name}</th><td class="wide">{_bar(wave, f"Wave {name}")}</td>{cells}</tr>'
    yield "</tbody></table></div></section>"


def _preflight(found: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the section about the preflight of the pending revisions at the targets."""
    if not found:
        return
    yield '<section aria-labelledby="preflight"><h2 id="preflight">Preflight of the pending revisions</h2>'
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in found["verdicts"].items())
    yield f"<p>Of the targets that are behind: {verdicts}.</p>"
    if longest := found.get("longest"):
        yield (
            f"<p>The longest block: {_text(longest['blocks'])} of {_bdi(longest['table'], 'code')} on"
            f" {_bdi(longest['name'])} ({_bdi(longest['server'])}) for up to {_duration(longest['estimated_ms'])}, by"
            f" {_bdi(longest['revision'], 'code')}.</p>"
        )
    checks = [
        (
            _bdi(each["revision"], "code"),
            f"{_text(each['check'])} of {_bdi(each['table'], 'code')} ({_bdi(', '.join(each['columns']), 'code')})",
            _bdi(each["example"]),
            f"{each['targets']:,}",
            f"{each['violations']:,}",
        )
        for each in found["checks"]
    ]
    yield from _table(("Revision", "Check that fails", "For example", "targets", "rows at most"), checks, numbers=2)
    servers = [
        (_bdi(each["server"]), f"{each['fails']:,}", f"{each['slow']:,}", _duration(each["longest_ms"]))
        for each in found["servers"]
    ]
    yield from _table(("Server", "would fail", "slow", "longest block"), servers, numbers=3)
    yield "</section>"


def _schema(groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the section that groups the targets by their schema."""
    if not groups:
        return
    yield '<section aria-labelledby="schema"><h2 id="schema">Schemas</h2>'
    rows = [
        (
            _text(each["schema"]),
            "<br>".join(_bdi(line) for line in [*each["differences"], *filter(None, [each.get("reason")])])
            + (f"<br>{each['more']:,} more" * bool(each["more"])),
            _bdi(each["example"]),
            f"{each['targets']:,}",
        )
        for each in groups
    ]
    yield from _table(("Schema", "Differences", "For example", "targets"), rows, numbers=1)
    yield "</section>"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> Iterator[str]:
    """Yield a table of cells that are HTML. The last columns are ``numbers``."""
    if not rows:
        return
    kinds = [""] * (len(names) - numbers) + [' class="number"'] * numbers
    heads = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(names, kinds, strict=True))
    yield f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>'
    for row in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table></div>"


def _revisions(report: Mapping[str, Any]) -> Iterator[str]:
    spread: Mapping[str, int] = report["revisions"]
    if not spread:
        return
    known = sum(spread.values())
    total = max(report["counts"]["targets"], known)
    most = max(spread.values())
    ordered = sorted(spread.items(), key=lambda entry: -entry[1])
    rows = [(_bdi(revision, "code"), count) for revision, count in ordered[:_REVISIONS]]
    if rest := ordered[_REVISIONS:]:
        rows.append((f"{len(rest):,} other revisions", sum(count for _, count in rest)))
    yield '<section aria-labelledby="spread"><h2 id="spread">Revisions of the targets</h2>'
    rest_of_them = f" The others failed or were not started: {total - known:,}." if known < total else ""
    yield f'<p class="quiet">Revisions of {known:,} of all {total:,} targets.{rest_of_them}</p><ul class="revisions">'
    for name, count in rows:
        yield f"<li><span>{name}</span>"
        yield _length(count, most)
        share = 100 * count / total
        yield f'<span class="number">{count:,} ({"&lt; 0.1" if share < _LEAST else f"{share:.1f}"} %)</span></li>'
    yield "</ul></section>"


def _behind(report: Mapping[str, Any], names: _Names) -> Iterator[str]:
    behind: Sequence[str] = report.get("behind") or ()
    if behind:
        more = report["counts"][BEHIND] - len(behind[:_BEHIND_NAMED])
        yield '<section aria-labelledby="behind"><h2 id="behind">Behind</h2>'
        yield from _prefix(names)
        yield '<p class="names">' + ", ".join(names.shown(name) for name in behind[:_BEHIND_NAMED])
        yield f" and {more:,} more: search the targets below for the outcome</p>" if more > 0 else "</p>"
        yield "</section>"


def _left_out(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the targets that were left out on purpose, and those that were created too late."""
    excluded: Sequence[Mapping[str, Any]] = report.get("excluded") or ()
    new: Sequence[str] = report.get("new") or ()
    if excluded or new:
        yield '<section aria-labelledby="without"><h2 id="without">Not in this rollout</h2><ul class="names">'
        for entry in excluded:
            yield f"<li>{_bdi(entry['name'])}: {_bdi(entry['reason'])}</li>"
        for name in new:
            yield f"<li>{_bdi(name)}: created while the approved plan ran</li>"
        yield "</ul></section>"


def _failures(report: Mapping[str, Any], names: _Names) -> Iterator[str]:
    failures = [_columns(failure, names) for failure in report["failures"]]
    if not failures:
        return
    yield '<section aria-labelledby="failed"><h2 id="failed">Failures</h2>'
    yield from _prefix(names)
    if cut := report.get("failures_truncated"):
        yield f'<p class="quiet">{_text(cut)}; the others are in the outcomes of the rollout in S3.</p>'
    yield '<form id="filter" role="search" hidden><label class="search">Search'
    yield '<input name="text" type="search" autocomplete="off"></label>'
    yield f'<label>Error<select name="type">{_options(entry[1] for entry in failures)}</select></label>'
    yield f'<label>Server<select name="server">{_options(entry[3] for entry in failures)}</select></label>'
    yield '<button type="reset">Clear</button></form>'
    yield '<p id="found" class="quiet" role="status"></p><table class="cards"><thead><tr>'
    for name in ("Target", "Error", "Message", "Server", "Wave", "Took"):
        yield f'<th scope="col"{" class=number" * (name in {"Wave", "Took"})}>{name}</th>'
    yield '</tr></thead><tbody id="rows">'
    for failure, (_, kind, message, server, wave, took) in zip(
        report["failures"], failures[:_STATIC_ROWS], strict=False
    ):
        yield (
            f'<tr><th scope="row" class="text">{names.shown(failure["name"])}</th>'
            f'<td data-label="error"><code>{_text(kind)}</code></td>'
            f'<td class="text">{_bdi(message)}</td><td class="server" data-label="server">{_bdi(server)}</td>'
            f'<td class="number" data-label="wave">{_text(wave)}</td>'
            f'<td class="number" data-label="took">{_text(took)}</td></tr>'
        )
    yield '</tbody></table><p><button id="more" type="button" hidden></button></p>'
    content = {"prefix": names.prefix, "rows": failures}
    yield f'<script type="application/json" id="failures">{_embedded(content)}</script></section>'


def _columns(failure: Mapping[str, Any], names: _Names) -> tuple[str, ...]:
    texts = (_clean(failure[column]) for column in ("name", "error_type", "message", "server", "wave"))
    name, *others = texts
    took = failure.get("duration_ms")
    return names.short(name), *others, "" if took is None else _duration(took)


def _prefix(names: _Names) -> Iterator[str]:
    if names.prefix:
        yield f'<p class="quiet">Every name begins with <code>{_text(names.prefix)}</code>, which is left out here.</p>'


def _slowest(slowest: Sequence[Mapping[str, Any]], names: _Names) -> Iterator[str]:
    if not slowest:
        return
    most = max(entry["duration_ms"] for entry in slowest) or 1
    yield '<section aria-labelledby="slowest"><h2 id="slowest">The slowest</h2>'
    yield from _prefix(names)
    yield '<ul class="revisions">'
    for entry in slowest:
        yield f"<li><span>{names.shown(entry['name'])}</span>"
        yield _length(entry["duration_ms"], most)
        yield f'<span class="number">{_duration(entry["duration_ms"])}</span></li>'
    yield "</ul></section>"


def _kept(targets: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the targets that the page can search. Of more than `MOST_TARGETS`, those that are not done come first."""
    urgent: list[Mapping[str, Any]] = []
    done: list[Mapping[str, Any]] = []
    for target in targets:
        kind = done if target["outcome"] in {MIGRATED, CURRENT} else urgent
        if len(kind) < MOST_TARGETS:
            kind.append(target)
    return [*urgent, *done][:MOST_TARGETS]


def _targets(report: Mapping[str, Any], targets: Sequence[Mapping[str, Any]], names: _Names) -> Iterator[str]:
    """Yield the table of all targets. The script makes its rows, so without it there is the way to targets.jsonl."""
    if not targets:
        return
    indices: dict[str, dict[str, int]] = {"outcome": {}, "revision": {}, "server": {}}
    counted: dict[str, Counter[str]] = {column: Counter() for column in indices}

    def index(column: str, value: object) -> int:
        text = _clean(value or "")
        counted[column][text] += 1
        return indices[column].setdefault(text, len(indices[column]))

    rows = [
        (
            names.short(_clean(target["name"])),
            index("outcome", target["outcome"]),
            index("revision", target["revision"] or target.get("error_type")),
            target["duration_ms"],
            index("server", target["server"]),
            target["wave"],
        )
        for target in targets
    ]
    yield '<section aria-labelledby="all"><h2 id="all">Every target</h2>'
    total = report["counts"]["targets"]
    if len(targets) < total:
        yield (
            f'<p class="quiet">{len(targets):,} of {total:,}: those that are not done first.'
            " <code>targets.jsonl</code> has all.</p>"
        )
    yield from _prefix(names)
    yield '<form id="filter-targets" role="search" hidden><label class="search">Search'
    yield '<input name="text" type="search" autocomplete="off"></label>'
    for column, counts in counted.items():
        options = _options_of({value: count for value, count in counts.items() if value})
        yield f'<label>{column.capitalize()}<select name="{column}">{options}</select></label>'
    yield '<button type="reset">Clear</button></form>'
    yield '<p id="found-targets" class="quiet" role="status">The targets are in <code>targets.jsonl</code>.</p>'
    yield '<table class="cards"><thead><tr>'
    for name in ("Target", "Outcome", "Revision or error", "Took", "Server", "Wave"):
        yield f'<th scope="col"{" class=number" * (name in {"Wave", "Took"})}>{name}</th>'
    yield '</tr></thead><tbody id="rows-targets"></tbody></table>'
    yield '<p><button id="more-targets" type="button" hidden></button></p>'
    content = {
        "prefix": names.prefix,
        "outcomes": list(indices["outcome"]),
        "revisions": list(indices["revision"]),
        "servers": list(indices["server"]),
        "rows": rows,
    }
    yield f'<script type="application/json" id="targets">{_embedded(content)}</script></section>'


def _bar(counts: Mapping[str, Any], what: str, kind: str = "bar") -> str:
    """Return a bar of all outcomes with a label for screen readers. One failure among thousands is visible."""
    total = max(counts["targets"], 1)
    shares = {name: 100 * counts.get(name, 0) / total for name in OUTCOMES}
    shares = {name: max(share, _SEEN) if share else 0 for name, share in shares.items()}
    scale = 100 / max(sum(shares.values()), 1)
    numbers = ", ".join(f"{counts.get(name, 0):,} {name}" for name in OUTCOMES if counts.get(name)) or "nothing"
    drawn, at = "", 0.0
    for name, share in shares.items():
        if share:
            drawn += _rect(at, share * scale, name)
            at += share * scale
    label = escape(f"{what}: {numbers}")
    return (
        f'<svg class="{kind}" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{drawn}</svg>"
    )


def _length(value: float, most: float) -> str:
    """Return one bar of a chart. Screen readers skip it and read the number beside it."""
    width = min(max(100 * value / most, _SEEN), 100)
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{_rect(0, width, 'current')}</svg>"
    )


def _rect(at: float, width: float, kind: str) -> str:
    return f'<rect class="{kind}-fill" x="{at:.3f}" y="0" width="{width:.3f}" height="10"/>'


def _shown(counts: Mapping[str, Any]) -> list[str]:
    """Return the outcomes that get a column: "failed" and "left" always, the others if there are any."""
    return [what for what in OUTCOMES if what in {"failed", "left"} or counts.get(what)]


def _options(values: Iterable[str]) -> str:
    return _options_of(Counter(values))


def _options_of(counted: Mapping[str, int]) -> str:
    """Return the options of a select, the most frequent ones first. The search finds the others."""
    ordered = sorted(counted.items(), key=lambda entry: -entry[1])[:_OPTIONS]
    return '<option value="">all</option>' + "".join(
        f'<option value="{_text(value)}">{_text(_shortened(value))} ({count:,})</option>' for value, count in ordered
    )


def _embedded(value: object) -> str:
    """Return JSON for a script element: nothing in it can end that element, or begin a comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _shortened(text: str) -> str:
    return f"{text[:_BEGINNING]}…{text[-_END:]}" if len(text) > _LONG else text


def _clean(value: object) -> str:
    return _UNUSABLE.sub("\ufffd", str(value))


def _text(value: object) -> str:
    return escape(_clean(value))


def _bdi(value: object, tag: str = "bdi") -> str:
    """Return untrusted text in an element that isolates its direction of writing."""
    return f'<{tag} dir="auto">{_text(value)}</{tag}>'


def _time(timestamp: str) -> str:
    try:
        shown = datetime.fromisoformat(timestamp.replace("Z", "+00:00")).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        shown = timestamp
    return f'<time datetime="{_text(timestamp)}">{_text(shown)}</time>'


def _duration(milliseconds: float) -> str:
    """Return a duration for people, such as "2 min 5 s"."""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
