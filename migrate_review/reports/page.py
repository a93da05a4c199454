"""Generates the rules and the comparison with squawk in docs/review.md, and the tables of docs/review-corpus.md.

``python -m migrate_review.reports.page`` writes all of them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from migrate_review.measure.session import reviewing
from migrate_review.revisions.tree import read_tree
from migrate_review.rules import squawk
from migrate_review.rules.acknowledgements import sort_out
from migrate_review.rules.case import Case, attempted, scripts
from migrate_review.rules.judge import judge
from migrate_review.rules.rule import Theme
from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.measure.session import Session
    from migrate_review.revisions.tree import RevisionSource
    from migrate_review.rules.findings import Finding
    from migrate_review.rules.rule import Rule

    # A revision of the corpus, our findings on it, and the rules that squawk alone finds broken.
    Measured = tuple[RevisionSource, tuple[Finding, ...], tuple[str, ...]]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "review.md"
CORPUS_PAGE = ROOT / "docs" / "review-corpus.md"
CORPUS = ROOT / "tests" / "review" / "corpus"
# Both require timeouts in every file. The function sets them for all revisions.
EVERYWHERE = ("require-lock-timeout", "require-statement-timeout")

_GAP = re.compile(r"\{(\w+)(?:\.\w+)?(?:![rs])?\}")
# The argument for a schema is left out where names are placeholders.
_SCHEMA = re.compile(r"\{\w+_schema\}")


def seen_by_both(session: Session, revision: RevisionSource) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Return our findings on a revision, and the rules that squawk alone finds broken in its SQL."""
    seen = session.observe(revision.id)
    remarks = squawk.remarks(scripts({revision.id: seen}))
    up, down = remarks[revision.id, "upgrade"], remarks[revision.id, "downgrade"]
    alone = squawk.remarks({revision.id: attempted(seen)}, excluded=EVERYWHERE)[revision.id]
    ours = sort_out(revision, judge(Case(seen, up, revision, down))).standing
    return ours, tuple(sorted({remark.rule for remark in alone}))


def row(revision: RevisionSource, ours: tuple[Finding, ...], alone: tuple[str, ...]) -> str:
    """Return a revision's row in the table."""
    findings = sorted({f"{found.rule} ({found.severity.value})" for found in ours})
    cells = (", ".join(findings) or "nothing", ", ".join(alone) or "nothing")
    return f"| {revision.id} | {' | '.join(cells)} |"


def rules() -> str:
    """Return the rules by theme, each with its hazard and its fix."""
    return "\n".join(line for theme in Theme for line in _theme(theme))


def _theme(theme: Theme) -> Iterator[str]:
    yield f"### {theme.value}"
    yield ""
    for rule in RULES.values():
        if rule.theme is theme:
            yield from _rule(rule)


def _rule(rule: Rule) -> Iterator[str]:
    origin = ", squawk's rule" if rule.known_to_squawk else ""
    yield f"<details><summary><code>{rule.name}</code> ({rule.severity.value}{origin}): {opened(rule.hazard)}</summary>"
    yield ""
    yield f"```python\n{opened(rule.fix, html=False)}\n```"
    yield ""
    yield "</details>"
    yield ""


def opened(text: str, *, html: bool = True) -> str:
    """Return a rule's text with its placeholders as words."""
    text = _SCHEMA.sub("", text)
    shown = _GAP.sub(lambda gap: f"<i>{gap[1]}</i>" if html else gap[1].upper(), text.replace("{{batch}}", "{batch }"))
    return shown.replace("{batch }", "{batch}")


def comparison(rows: Mapping[str, list[Measured]]) -> str:
    """Return a table with the number of revisions that have a finding of the reviewer, and of squawk."""
    lines = ["| | migrate review | squawk alone |", "| --- | ---: | ---: |"]
    for kind, cases in rows.items():
        found = [sum(bool(case[place]) for case in cases) for place in (1, 2)]
        lines.append(f"| {kind} revisions with a finding, of {len(cases)} | {found[0]} | {found[1]} |")
    return "\n".join(lines)


def findings(rows: Mapping[str, list[Measured]]) -> str:
    """Return a table of the bad revisions and one of the good ones, with the findings on each."""
    lines: list[str] = []
    for kind, cases in rows.items():
        lines += [f"## {kind.capitalize()} revisions", ""]
        lines += ["| revision | migrate review | squawk alone |", "| --- | --- | --- |"]
        lines += [*(row(*case) for case in cases), ""]
    return "\n".join(lines)


def replaced(page: str, part: str, text: str) -> str:
    """Return the page with the text between a part's marks replaced."""
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.partition(end)[2]}"


def main() -> int:
    """Measure the corpus, and write the generated parts of both pages."""
    tree = read_tree(CORPUS)
    measured: dict[str, list[Measured]] = {"bad": [], "good": []}
    with reviewing(CORPUS) as session:
        for revision in sorted(tree.revisions, key=lambda one: one.id):
            kind = revision.path.parent.name
            if kind in measured:
                measured[kind].append((revision, *seen_by_both(session, revision)))
    page = replaced(PAGE.read_text(encoding="utf-8"), "rules", rules())
    PAGE.write_text(replaced(page, "comparison", comparison(measured)), encoding="utf-8")
    tables = replaced(CORPUS_PAGE.read_text(encoding="utf-8"), "corpus", findings(measured))
    CORPUS_PAGE.write_text(tables, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
