"""The tree of revisions as a Mermaid flowchart, with each stage at its revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Characters with a meaning in Mermaid, as its own codes.
_CODES = str.maketrans({"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"})


def flowchart(history: Sequence[Mapping[str, Any]], stages: Mapping[str, str | None]) -> str:
    """Return the flowchart, oldest revision at the top.

    Args:
        history: the answer's list, newest first.
        stages: for each stage its revisions, joined by commas as in the answer; None is an empty database.
    """
    oldest_first = list(reversed(history))
    nodes = {entry["revision"]: f"r{number}" for number, entry in enumerate(oldest_first)}
    lines = ["flowchart TD"]
    for entry in oldest_first:
        node = nodes[entry["revision"]]
        lines.append(f"    {node}[{_label(entry['revision'], entry['description'])}]")
        lines += [f"    {nodes[down]} --> {node}" for down in entry["down_revisions"] if down in nodes]
    for number, (stage, joined) in enumerate(stages.items()):
        at = joined.split(",") if joined else []
        strange = [revision for revision in at if revision not in nodes]
        note = ["empty"] if not at else [f"{revision}: not in this package" for revision in strange]
        lines.append(f"    s{number}([{_label(stage, *note)}]):::stage")
        lines += [f"    s{number} -.-> {nodes[revision]}" for revision in at if revision in nodes]
    lines.append("    classDef stage fill:#fd7,stroke:#a60,color:#000")
    return "\n".join(lines)


def _label(*parts: str) -> str:
    text = "<br/>".join(" ".join(part.split()).translate(_CODES) for part in parts)
    return f'"{text}"'
