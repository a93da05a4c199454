"""Renders a rollout's report as one HTML file that needs no server and loads no other file.

Names of tenants and messages of errors are untrusted text. The page escapes all of it, and its Content-Security-Policy
allows only the script whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections import Counter
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
    LEFT: "not begun",
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
# The smallest share of a bar that is visible, and the smallest that is shown as a number, in percent.
_SEEN = 0.8
_LEAST = 0.05
# Characters that HTML cannot hold, and surrogates, which UTF-8 cannot.
_UNUSABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def render(report: Mapping[str, Any]) -> str:
    """Return the page for a report.json of `lambda_migrate.fleet.report`."""
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
        *_waves(report["waves"]),
        *_revisions(report),
        *_failures(report),
        *_slowest(report["slowest"]),
        "</main>",
        f"<script>{script}</script>" if report["failures"] else "",
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
        f" {_time(report['ended'])}, {_duration(report['duration_ms'])}</p></header>"
    )
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
        yield "Look at a target that failed, here the first one:", ["migrate", "status", *stage, *where]
    if counts[FAILED] and not report["plan"]:
        yield "Once its cause is gone, migrate those that failed:", ["migrate", "rollout", "retry", name, *stage]
    if report["status"] == "running":
        yield "See how far it is now:", ["migrate", "rollout", "status", name, *stage]
    elif counts[LEFT]:
        yield "Go on with those that are left; what is at head is not touched:", ["migrate", "rollout", *stage]
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


def _revisions(report: Mapping[str, Any]) -> Iterator[str]:
    spread: Mapping[str, int] = report["revisions"]
    if not spread:
        return
    total = sum(spread.values())
    most = max(spread.values())
    ordered = sorted(spread.items(), key=lambda entry: -entry[1])
    rows = [(_bdi(revision, "code"), count) for revision, count in ordered[:_REVISIONS]]
    if rest := ordered[_REVISIONS:]:
        rows.append((f"{len(rest):,} other revisions", sum(count for _, count in rest)))
    yield '<section aria-labelledby="spread"><h2 id="spread">Where the fleet is</h2>'
    failed = " What failed is not counted." if report["counts"]["failed"] else ""
    yield f'<p class="quiet">Revisions of {total:,} targets.{failed}</p><ul class="revisions">'
    for name, count in rows:
        yield f"<li><span>{name}</span>"
        yield _length(count, most)
        share = 100 * count / total
        yield f'<span class="number">{count:,} ({"&lt; 0.1" if share < _LEAST else f"{share:.1f}"} %)</span></li>'
    yield "</ul></section>"


def _failures(report: Mapping[str, Any]) -> Iterator[str]:
    failures = [_columns(failure) for failure in report["failures"]]
    if not failures:
        return
    yield '<section aria-labelledby="failed"><h2 id="failed">Failures</h2>'
    if cut := report.get("failures_truncated"):
        yield f'<p class="quiet">{_text(cut)}; the others are in the outcomes of the rollout in S3.</p>'
    yield '<form id="filter" role="search" hidden><label class="search">Search'
    yield '<input name="text" type="search" autocomplete="off"></label>'
    yield f'<label>Error<select name="type">{_options(entry[1] for entry in failures)}</select></label>'
    yield f'<label>Server<select name="server">{_options(entry[3] for entry in failures)}</select></label>'
    yield '<button type="reset">Clear</button></form>'
    yield '<p id="found" class="quiet" role="status"></p><table class="cards"><thead><tr>'
    for name in ("Target", "Error", "Message", "Server", "Wave"):
        yield f'<th scope="col"{" class=number" * (name == "Wave")}>{name}</th>'
    yield '</tr></thead><tbody id="rows">'
    for name, kind, message, server, wave in failures[:_STATIC_ROWS]:
        yield (
            f'<tr><th scope="row" class="text">{_bdi(name)}</th><td data-label="error"><code>{_text(kind)}</code></td>'
            f'<td class="text">{_bdi(message)}</td><td class="server" data-label="server">{_bdi(server)}</td>'
            f'<td class="number" data-label="wave">{_text(wave)}</td></tr>'
        )
    yield '</tbody></table><p><button id="more" type="button" hidden></button></p>'
    yield f'<script type="application/json" id="failures">{_embedded(failures)}</script></section>'


def _columns(failure: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    name, kind, message, server, wave = (
        _clean(failure[column]) for column in ("name", "error_type", "message", "server", "wave")
    )
    return name, kind, message, server, wave


def _slowest(slowest: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not slowest:
        return
    most = max(entry["duration_ms"] for entry in slowest) or 1
    yield '<section aria-labelledby="slowest"><h2 id="slowest">The slowest</h2><ul class="revisions">'
    for entry in slowest:
        yield f"<li><span>{_bdi(entry['name'])}</span>"
        yield _length(entry["duration_ms"], most)
        yield f'<span class="number">{_duration(entry["duration_ms"])}</span></li>'
    yield "</ul></section>"


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
    counted = Counter(values).most_common()
    return '<option value="">all</option>' + "".join(
        f'<option value="{_text(value)}">{_text(value)} ({count:,})</option>' for value, count in counted
    )


def _embedded(value: object) -> str:
    """Return JSON for a script element: nothing in it can end that element, or begin a comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _clean(value: object) -> str:
    return _UNUSABLE.sub("\ufffd", str(value))


def _text(value: object) -> str:
    return escape(_clean(value))


def _bdi(value: object, tag: str = "bdi") -> str:
    """Return untrusted text in an element that keeps its direction of writing apart."""
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
