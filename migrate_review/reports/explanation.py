"""Explains a rule: the hazard, the measurements, a bad example and a good one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.reports.page import opened
from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.rule import Rule


def explanation(name: str) -> str | None:
    """Return the text on a rule in plain lines, None if there is no such rule."""
    rule = RULES.get(name)
    return "\n".join(_lines(rule)) + "\n" if rule is not None else None


def similar(name: str) -> tuple[str, ...]:
    """Return the rules that share a word with an unknown name."""
    words = {word for word in re.split(r"[^a-z]+", name.lower()) if len(word) > 2}  # noqa: PLR2004 - "of" and "to" are in many names
    return tuple(rule for rule in RULES if words & set(rule.split("-")))


def _lines(rule: Rule) -> Iterator[str]:
    yield f"{rule.name}: {rule.severity.value}{', a rule of squawk, too' if rule.known_to_squawk else ''}"
    yield ""
    yield opened(rule.hazard, html=False)
    if rule.measured:
        yield ""
        yield f"Measured: {rule.measured}"
    for title, code in (("Bad", rule.bad), ("Good", rule.good), ("The safer way", opened(rule.fix, html=False))):
        if code.strip():
            yield ""
            yield f"{title}:"
            yield ""
            yield from (f"    {line}".rstrip() for line in code.strip("\n").splitlines())
    yield ""
    yield "To acknowledge the finding, add a comment with a reason to the revision:"
    yield ""
    yield f"    # -- reviewed: {rule.name} <why it is safe here>"
